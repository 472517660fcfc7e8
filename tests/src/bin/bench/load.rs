//! Callers: many over few connections, as the clients of a control plane are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubefed_certs::{ClientTls, client_config};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const CONNECTIONS: usize = 4;
/// The windows of Kubernetes' own clients.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

type Sender = SendRequest<Full<Bytes>>;

/// What is asked for, again and again.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(header::HeaderName, &'static str)>,
    pub(crate) body: Bytes,
}

impl Ask {
    pub(crate) fn get(path: &str) -> Self {
        Ask { method: Method::GET, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(crate) fn send(
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Self {
        let headers = vec![(header::CONTENT_TYPE, content_type)];
        Ask { method, path: path.into(), headers, body }
    }

    pub(crate) fn with(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// The connections of one user.
pub(crate) struct Load {
    authority: String,
    senders: Vec<Sender>,
}

impl Load {
    pub(crate) async fn connect(address: &str, tls: &ClientTls) -> anyhow::Result<Load> {
        let mut config = client_config(tls)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let mut senders = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(TokioIo::new(stream))
                .await?;
            tokio::spawn(connection);
            senders.push(sender);
        }
        Ok(Load { authority: address.into(), senders })
    }

    /// Does `ask(0)` to `ask(count - 1)`, by so many callers at a time. Returns the bytes of all answers together.
    pub(crate) async fn run(
        &self,
        callers: usize,
        count: usize,
        ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
    ) -> anyhow::Result<u64> {
        let (next, received, ask) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(ask));
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let mut sender = self.senders[caller % CONNECTIONS].clone();
            let (next, received, ask) =
                (Arc::clone(&next), Arc::clone(&received), Arc::clone(&ask));
            let authority = self.authority.clone();
            tasks.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return anyhow::Ok(());
                    }
                    let mut body = send(&mut sender, &authority, &ask(index)).await?;
                    while let Some(frame) = body.frame().await {
                        let length = frame?.data_ref().map_or(0, Bytes::len);
                        received.fetch_add(length as u64, Ordering::Relaxed);
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(received.load(Ordering::Relaxed))
    }

    /// Opens `count` watches.
    pub(crate) async fn watch(&self, count: usize, path: &str) -> anyhow::Result<Watchers> {
        let events = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for watcher in 0..count {
            let mut sender = self.senders[watcher % CONNECTIONS].clone();
            let mut body = send(&mut sender, &self.authority, &Ask::get(path)).await?;
            let events = Arc::clone(&events);
            tasks.spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    let data = frame.data_ref().map_or(&[][..], |data| data);
                    let lines = data.iter().filter(|&&byte| byte == b'\n').count();
                    events.fetch_add(lines as u64, Ordering::Relaxed);
                }
            });
        }
        Ok(Watchers { events, tasks })
    }
}

async fn send(sender: &mut Sender, authority: &str, ask: &Ask) -> anyhow::Result<Incoming> {
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(format!("https://{authority}{}", ask.path))
        .header(header::ACCEPT, "application/json");
    for (name, value) in &ask.headers {
        request.headers_mut().context("a request")?.insert(name, value.parse()?);
    }
    let request = request.body(Full::new(ask.body.clone()))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    if !matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        bail!("{} {}: {status}: {}", ask.method, ask.path, String::from_utf8_lossy(&body));
    }
    Ok(response.into_body())
}

/// Open watches; they end when this is dropped.
pub(crate) struct Watchers {
    events: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Watchers {
    /// Waits until all of them together have seen so many events since they began.
    pub(crate) async fn seen(&self, events: usize) -> anyhow::Result<()> {
        let wanted = (events * self.tasks.len()) as u64;
        let done = async {
            while self.events.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let missing = || format!("{:?} of {wanted} events were seen", self.events);
        tokio::time::timeout(Duration::from_secs(30), done).await.with_context(missing)
    }
}

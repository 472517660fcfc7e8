//! A front of a member, such as a load balancer: it passes everything on, or fails whatever it is asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubefed_certs::{Clients, POLL, ServerFiles, ServerTls};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Cluster;

type Body = BoxBody<Bytes, hyper::Error>;

/// A front, with the certificate of the member behind it.
pub struct Front {
    address: SocketAddr,
    state: Arc<State>,
    _ends: DropGuard,
}

#[derive(Default)]
struct State {
    fails: AtomicBool,
    refused: AtomicUsize,
}

impl Front {
    /// A front that passes everything on.
    pub async fn start(member: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let token = CancellationToken::new();
        let ends = token.clone().drop_guard();
        let file = |name: &str| member.dir.path().join(name);
        let files =
            ServerFiles { cert: file("tls.crt"), key: file("tls.key"), clients: Clients::Unasked };
        let tls = ServerTls::follow(files, POLL, token.clone()).await.expect("certificates");
        let there = member.stream(None, "h2").await;
        let (sender, connection) =
            client::handshake(TokioExecutor::new(), TokioIo::new(there)).await.expect("h2");
        tokio::spawn(token.clone().run_until_cancelled_owned(async move {
            let _ended = connection.await;
        }));
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(token.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, sender, state) = (tls.config(), sender.clone(), Arc::clone(&shared));
                let service = service_fn(move |request| {
                    let (sender, state) = (sender.clone(), Arc::clone(&state));
                    async move { Ok::<_, Infallible>(answer(request, sender, &state).await) }
                });
                tokio::spawn(token.clone().run_until_cancelled_owned(async move {
                    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
                    let _ended = server::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }));
            }
        }));
        Front { address, state, _ends: ends }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on every request fails but that for the health, or none.
    pub fn fail(&self, fails: bool) {
        self.state.fails.store(fails, Ordering::SeqCst);
    }

    /// How many requests have failed.
    pub fn refused(&self) -> usize {
        self.state.refused.load(Ordering::SeqCst)
    }
}

async fn answer(
    mut request: Request<Incoming>,
    mut sender: client::SendRequest<Incoming>,
    state: &State,
) -> Response<Body> {
    let text = |code: u16, text: &'static str| {
        let body = Full::new(Bytes::from_static(text.as_bytes()));
        let body = body.map_err(|never| match never {}).boxed();
        Response::builder().status(code).body(body).expect("an answer")
    };
    if state.fails.load(Ordering::SeqCst) && request.uri().path() != "/healthz" {
        state.refused.fetch_add(1, Ordering::SeqCst);
        return text(503, "nobody is at home");
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = format!("https://localhost{path}").parse::<Uri>().expect("a URI");
    match sender.send_request(request).await {
        Ok(response) => response.map(|body| body.boxed()),
        Err(_) => text(502, "the member is gone"),
    }
}

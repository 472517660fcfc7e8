//! Connections: accepting them, TLS, the limits of HTTP, and ending them well.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use kubefed_certs::{Identity, ServerTls, not_after};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::front_proxy::{Trust, Vouched};

/// A client that has not shaken hands by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// As Kubernetes: 32 s for a request's headers, which are at most 1 MiB.
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
const MAX_HEADERS: u32 = 1024 * 1024;
/// A host's aggregator sends everything over one connection; Kubernetes allows 1000 streams for that.
const MAX_STREAMS: u32 = 1000;
const FRAME: u32 = 64 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Connections at a time; more wait in the backlog of the socket.
const MAX_CONNECTIONS: usize = 10_000;
/// How long it is believed who vouches for a certificate, in seconds.
const VOUCHED: i64 = 60;
/// How long requests may go on after the server began to end.
const DRAIN: Duration = Duration::from_secs(8);
/// How long a connection by HTTP/1.1 then waits for a request that may be on its way: unlike HTTP/2 it cannot say which
/// requests it still takes.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What is known of the connection of a request.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    pub peer: SocketAddr,
    /// The client's certificate, if it showed one.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// Cancelled when the connection is to take no more requests.
    closing: CancellationToken,
}

impl ConnectionInfo {
    /// Takes no more requests over this connection, and ends it when those that it has are answered.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }
}

/// A certificate whose key the client has.
#[derive(Debug)]
pub struct PeerCertificate {
    /// Whom it speaks for, if it is believed.
    pub identity: Option<Identity>,
    /// When it ends, in seconds since 1970: a connection may outlive it.
    pub ends: i64,
    /// Whether its chain was verified when the connection began.
    pub is_verified: bool,
    /// It and those that its client says it comes from.
    pub chain: Vec<CertificateDer<'static>>,
    /// Who vouches for it, as it was last asked.
    asked: Mutex<Option<(Arc<Trust>, i64, Vouched)>>,
}

impl PeerCertificate {
    fn new(chain: Vec<CertificateDer<'static>>, is_verified: bool) -> Option<Self> {
        let first = chain.first()?;
        let (identity, ends) = (Identity::of(first), not_after(first)?);
        Some(PeerCertificate { identity, ends, is_verified, chain, asked: Mutex::default() })
    }

    /// Who vouches for it at `now`. Signatures cost a tenth of a millisecond: they are looked at again when trust
    /// changes, and after a minute.
    pub(crate) fn vouched(&self, trust: &Arc<Trust>, now: i64) -> Vouched {
        let mut asked = self.asked.lock();
        if let Some((known, at, vouched)) = &*asked
            && Arc::ptr_eq(known, trust)
            && (0..VOUCHED).contains(&(now - at))
        {
            return *vouched;
        }
        let vouched = trust.vouched(self, now);
        *asked = Some((Arc::clone(trust), now, vouched));
        vouched
    }
}

/// Serves until `token` is cancelled, then until the requests are done, also those of connections that wait to be
/// accepted.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    app: Router,
    token: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let verifies = tls.verifies();
    let begin = |stream, peer, permit| {
        let (acceptor, app, closing) =
            (TlsAcceptor::from(tls.config()), app.clone(), token.child_token());
        connections.spawn(async move {
            let _permit: OwnedSemaphorePermit = permit;
            if let Err(error) = connection(stream, peer, acceptor, verifies, app, closing).await {
                tracing::debug!(%peer, %error, "a connection ended");
            }
        });
    };
    loop {
        let permit = tokio::select! {
            () = token.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit.expect("it is never closed"),
        };
        let accepted = tokio::select! {
            () = token.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, or a client that left: neither ends the server.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        begin(stream, peer, permit);
    }
    for (stream, peer) in waiting(listener) {
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { break };
        begin(stream, peer, permit);
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}

/// Closes a listener, and returns the connections that it has not accepted yet: their clients know nothing of it, may
/// have sent a request already, and would be reset.
fn waiting(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    // Not by tokio, which may not have heard of the last ones.
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let accept = || {
        let (stream, peer) = listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok::<_, std::io::Error>((TcpStream::from_std(stream)?, peer))
    };
    std::iter::from_fn(|| accept().ok()).take(MAX_CONNECTIONS).collect()
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    verifies: bool,
    app: Router,
    closing: CancellationToken,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default().to_vec();
    let certificate = PeerCertificate::new(chain, verifies).map(Arc::new);
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let info = ConnectionInfo { peer, certificate, closing: closing.clone() };
    let app = app.layer(axum::Extension(info));
    let service = TowerToHyperService::new(app);
    let io = TokioIo::new(stream);
    if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_frame_size(FRAME)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(15));
        until_closed(builder.serve_connection(io, service), &closing, Duration::ZERO).await
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADERS as usize);
        until_closed(builder.serve_connection(io, service), &closing, LAST_REQUEST).await
    }
}

/// Serves a connection until some time after `closing`, when it takes no more requests. By HTTP/2 the client is told
/// (GOAWAY), and what it sent before it knew is answered.
async fn until_closed<C>(
    connection: C,
    closing: &CancellationToken,
    after: Duration,
) -> Result<(), BoxError>
where
    C: GracefulConnection,
    C::Error: Into<BoxError>,
{
    let mut connection = pin!(connection);
    let end = async {
        closing.cancelled().await;
        tokio::time::sleep(after).await;
    };
    tokio::select! {
        outcome = connection.as_mut() => return outcome.map_err(Into::into),
        () = end => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(Into::into)
}

#[cfg(test)]
mod tests;

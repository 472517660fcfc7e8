//! Connections: accepting them, TLS, the limits of HTTP, and ending them well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use kubefed_certs::{Identity, ServerTls, not_after};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

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
/// How long requests may go on after the server began to end.
const DRAIN: Duration = Duration::from_secs(8);

/// What is known of the connection of a request.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    pub peer: SocketAddr,
    /// Whom the client's certificate speaks for, if it showed one; its chain was verified.
    pub certificate: Option<Identity>,
    /// When that certificate ends, in seconds since 1970: a connection may outlive it.
    pub certificate_ends: Option<i64>,
}

/// Serves until `token` is cancelled, then until the requests are done.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    app: Router,
    token: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            () = token.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
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
        let (acceptor, app, watcher) =
            (TlsAcceptor::from(tls.config()), app.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = connection(stream, peer, acceptor, app, watcher).await {
                tracing::debug!(%peer, %error, "a connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    app: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.and_then(|der| Identity::of(der));
    let certificate_ends = shown.and_then(|der| not_after(der));
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let app = app.layer(axum::Extension(ConnectionInfo { peer, certificate, certificate_ends }));
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
        watcher.watch(builder.serve_connection(io, service)).await?;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADERS as usize);
        watcher.watch(builder.serve_connection(io, service)).await?;
    }
    Ok(())
}

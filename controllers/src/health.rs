//! Plain HTTP for probes and for Prometheus.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A probe that sends nothing is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time. Probes are few; whoever opens more waits.
const CONNECTIONS: usize = 64;
/// The pause after a connection could not be taken, for want of file descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is answered at an address.
#[derive(Clone)]
pub enum Answers {
    /// `OK` at `/healthz` and its like.
    Health,
    /// The metrics at `/metrics`.
    Metrics(Arc<Metrics>),
}

/// Answers at the address that `flag` gave until `token` is cancelled; returns where.
///
/// # Errors
/// If the address is taken.
pub async fn serve(
    address: &str,
    flag: &str,
    answers: Answers,
    token: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let address =
        if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
    let listener = TcpListener::bind(&address)
        .await
        .with_context(|| format!("cannot listen on {address} ({flag})"))?;
    let bound = listener.local_addr()?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let next = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                () = token.cancelled() => return,
                next = next => next,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let answers = answers.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = answers.at(request.uri().path());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a probe ended early");
                }
                drop(permit);
            });
        }
    });
    Ok(bound)
}

impl Answers {
    fn at(&self, path: &str) -> Response<Full<Bytes>> {
        let (status, kind, text) = match (self, path) {
            (Answers::Health, "/healthz" | "/livez" | "/readyz") => {
                (StatusCode::OK, "text/plain", Bytes::from_static(b"OK"))
            }
            (Answers::Metrics(metrics), "/metrics") => {
                (StatusCode::OK, OPEN_METRICS, metrics.render().into())
            }
            _ => (StatusCode::NOT_FOUND, "text/plain", Bytes::from_static(b"404 page not found\n")),
        };
        let mut response = Response::new(Full::new(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

//! `/healthz` and `/metrics` over plain HTTP, for probes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A probe that sends nothing is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers `ok` until `token` is cancelled; returns the address.
///
/// # Errors
/// If the address is taken.
pub(crate) async fn serve(
    address: &str,
    flag: &str,
    token: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let address =
        if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
    let listener = TcpListener::bind(&address)
        .await
        .with_context(|| format!("cannot listen on {address} ({flag})"))?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async move {
                    Ok::<_, Infallible>(answer(request.uri().path()))
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a probe ended early");
                }
            });
        }
    });
    Ok(bound)
}

fn answer(path: &str) -> Response<Full<Bytes>> {
    let (code, text) = match path {
        "/healthz" | "/livez" | "/readyz" => (200, "OK"),
        _ => (404, "404 page not found\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

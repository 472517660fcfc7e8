//! `/livez`, `/readyz`, `/healthz`: named checks, each also by its own path.

use std::time::Duration;

use http::{Response, StatusCode};

use crate::body::Body;
use crate::render;
use crate::server::Server;

/// A store that does not answer within this time is not ready.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers a probe, or `None` if the path is none.
pub(crate) async fn answer(server: &Server, path: &str, verbose: bool) -> Option<Response<Body>> {
    let (probe, wanted) = match path.trim_matches('/').split_once('/') {
        Some((probe, check)) => (probe, Some(check)),
        None => (path.trim_matches('/'), None),
    };
    if !matches!(probe, "livez" | "readyz" | "healthz") {
        return None;
    }
    let mut checks: Vec<(&str, Result<(), String>)> = vec![("ping", Ok(()))];
    if probe != "livez" {
        checks.push(("store", store(server).await));
        let ending = server.token.is_cancelled();
        checks.push(("shutdown", if ending { Err("the server is ending".into()) } else { Ok(()) }));
    }
    if let Some(wanted) = wanted {
        checks.retain(|(name, _)| *name == wanted);
        if checks.is_empty() {
            return Some(text(StatusCode::NOT_FOUND, "404 page not found\n".into()));
        }
    }
    let failed = checks.iter().any(|(_, outcome)| outcome.is_err());
    let code = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    if !failed && !verbose {
        return Some(text(code, "ok".into()));
    }
    let mut lines: String = checks
        .into_iter()
        .map(|(name, outcome)| match outcome {
            Ok(()) => format!("[+]{name} ok\n"),
            Err(why) => {
                // Probes need no rights; the reason may tell of the store.
                tracing::warn!(probe, check = name, why, "a check fails");
                format!("[-]{name} failed: reason withheld\n")
            }
        })
        .collect();
    lines += &format!("{probe} check {}\n", if failed { "failed" } else { "passed" });
    Some(text(code, lines))
}

async fn store(server: &Server) -> Result<(), String> {
    match tokio::time::timeout(STORE_TIMEOUT, server.store.status()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it does not answer".into()),
    }
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    render::bytes_response(text.into(), "text/plain; charset=utf-8", code)
}

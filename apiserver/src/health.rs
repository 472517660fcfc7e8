//! `/livez`, `/readyz`, `/healthz`: named checks, each also by its own path (`/readyz/store`); `?verbose` tells of each
//! and `?exclude=NAME` leaves one out, as in Kubernetes.

use std::time::Duration;

use http::{Response, StatusCode};

use crate::body::Body;
use crate::query::Query;
use crate::render;
use crate::server::Server;

/// A store that does not answer within this time is not ready.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that is started anew does not mend its store, so that being alive depends on nothing else.
const ALIVE: &[&str] = &["ping"];
const READY: &[&str] = &["ping", "store", "informer-sync", "poststarthook/rbac", "shutdown"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Good,
    Excluded,
    Failed,
}

/// Answers a probe, or `None` if the path is none.
pub(crate) async fn answer(
    server: &Server,
    path: &str,
    query: Option<&str>,
) -> Option<Response<Body>> {
    let (probe, only) = match path.trim_matches('/').split_once('/') {
        Some((probe, check)) => (probe, Some(check)),
        None => (path.trim_matches('/'), None),
    };
    let names = match probe {
        "livez" => ALIVE,
        "readyz" | "healthz" => READY,
        _ => return None,
    };
    let query = Query::parse(query);
    let mut outcomes = Vec::new();
    for &name in names.iter().filter(|name| only.is_none_or(|only| **name == only)) {
        let outcome = if only.is_none() && query.all("exclude").any(|excluded| excluded == name) {
            Outcome::Excluded
        } else {
            match check(server, name).await {
                Ok(()) => Outcome::Good,
                Err(why) => {
                    // Probes need no rights; the reason may tell of the store.
                    tracing::warn!(probe, check = name, why, "a check fails");
                    Outcome::Failed
                }
            }
        };
        outcomes.push((name, outcome));
    }
    let (code, text) = match (only, outcomes.first()) {
        (None, _) => report(probe, &outcomes, &query),
        (Some(_), None) => (StatusCode::NOT_FOUND, "404 page not found\n".into()),
        (Some(_), Some((_, Outcome::Failed))) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal server error: reason withheld\n".into())
        }
        (Some(_), Some(_)) => (StatusCode::OK, "ok".into()),
    };
    Some(render::bytes_response(text.into(), "text/plain; charset=utf-8", code))
}

async fn check(server: &Server, name: &str) -> Result<(), String> {
    match name {
        "store" => store(server).await,
        "informer-sync" => caches(server),
        "poststarthook/rbac" if server.host.is_none() && !server.rbac.is_ready() => {
            Err("roles and bindings are not read yet".into())
        }
        "shutdown" if server.ending.is_cancelled() => Err("the server is ending".into()),
        _ => Ok(()),
    }
}

async fn store(server: &Server) -> Result<(), String> {
    match tokio::time::timeout(STORE_TIMEOUT, server.store.status()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it does not answer".into()),
    }
}

/// Good for ever once every kind's cache was filled, and those kinds known that the host defines: a kind that is served
/// later makes no server unready.
fn caches(server: &Server) -> Result<(), String> {
    if server.synced.get().is_some() {
        return Ok(());
    }
    if server.host.as_ref().is_some_and(|host| host.definitions().seen().is_none()) {
        return Err("not read yet: the host's CustomResourceDefinitions".into());
    }
    if server.host.as_ref().is_some_and(|host| !host.admission().is_ready()) {
        return Err("not read yet: what the host has to say in writes".into());
    }
    let catalog = server.registry.catalog();
    let empty = catalog.iter().filter(|resource| !resource.cacher.is_filled());
    let empty: Vec<String> = empty.map(|resource| resource.group_resource().to_string()).collect();
    if !empty.is_empty() {
        return Err(format!("not read yet: {}", empty.join(", ")));
    }
    let _was_set = server.synced.set(());
    Ok(())
}

/// What a probe as a whole says; each check where one fails, or on demand.
fn report(probe: &str, outcomes: &[(&str, Outcome)], query: &Query) -> (StatusCode, String) {
    let failed = outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Failed);
    if !failed && query.get("verbose").is_none() {
        return (StatusCode::OK, "ok".into());
    }
    let mut text = String::new();
    for (name, outcome) in outcomes {
        text += &match outcome {
            Outcome::Good => format!("[+]{name} ok\n"),
            Outcome::Excluded => format!("[+]{name} excluded: ok\n"),
            Outcome::Failed => format!("[-]{name} failed: reason withheld\n"),
        };
    }
    let known = |name: &&str| outcomes.iter().any(|(known, _)| known == name);
    let unknown = query.all("exclude").filter(|name| !name.is_empty() && !known(name));
    let unknown: Vec<String> = unknown.map(|name| format!("{name:?}")).collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        text += &format!("warn: some health checks cannot be excluded: no matches for {unknown}\n");
    }
    if failed {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{probe} check failed\n"))
    } else {
        (StatusCode::OK, format!("{text}{probe} check passed\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_tells_of_each_check_when_one_fails_or_on_demand() {
        use Outcome::{Excluded, Failed, Good};
        for (outcomes, query, code, wanted) in [
            (vec![("ping", Good)], "", 200, "ok"),
            (vec![("ping", Good)], "verbose", 200, "[+]ping ok\nreadyz check passed\n"),
            (
                vec![("ping", Good), ("store", Failed)],
                "",
                500,
                "[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n",
            ),
            (vec![("ping", Good), ("store", Excluded)], "exclude=store", 200, "ok"),
            (
                vec![("ping", Good), ("store", Excluded)],
                "verbose=true&exclude=store&exclude=stor",
                200,
                "[+]ping ok\n[+]store excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"stor\"\nreadyz check passed\n",
            ),
        ] {
            let found = report("readyz", &outcomes, &Query::parse(Some(query)));
            assert_eq!((found.0.as_u16(), found.1.as_str()), (code, wanted), "{query}");
        }
    }
}

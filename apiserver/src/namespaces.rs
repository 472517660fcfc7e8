//! Ends namespaces: deletes what is in one that is being deleted, then lets it go.
//!
//! Runs in every copy of a standalone server; each step can be done twice without harm.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{At, EventType, ListQuery, WatchFrom, WatchQuery};
use kubefed_storage::object::Object;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kinds;
use crate::query::DeleteOptions;
use crate::registry::{Part, Resource, Route, Tracking, Write};
use crate::server::Server;

/// How long to wait before the content of a namespace that finalizers still hold is looked at again. Grows from the
/// first to the last.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// Follows the namespaces until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let in_work = Arc::new(Mutex::new(HashSet::new()));
    let Some(namespaces) = server.registry.resource("", "namespaces") else { return };
    while !server.token.is_cancelled() {
        let query = WatchQuery {
            prefix: String::new(),
            from: WatchFrom::State(At::Latest),
            filter: Some(Arc::new(|object: &Object| object.index.deletion_timestamp.is_some())),
            bookmarks: false,
            initial_events_end: false,
            deadline: Instant::now() + Duration::from_secs(3600),
        };
        let Ok(mut watcher) = namespaces.cacher.watch(query).await else {
            tokio::time::sleep(FIRST_LOOK).await;
            continue;
        };
        loop {
            let event = tokio::select! {
                () = server.token.cancelled() => return,
                event = watcher.next() => event,
            };
            let Some(event) = event else { break };
            let Some(object) = event.object.filter(|_| event.kind != EventType::Deleted) else {
                continue;
            };
            let name = object.index.name.to_string();
            if in_work.lock().insert(name.clone()) {
                let (server, in_work) = (Arc::clone(&server), Arc::clone(&in_work));
                server.tracker.clone().spawn(async move {
                    end(&server, &name).await;
                    in_work.lock().remove(&name);
                });
            }
        }
    }
}

async fn end(server: &Server, name: &str) {
    let mut pause = FIRST_LOOK;
    loop {
        match step(server, name).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(status) if status.is_not_found() => return,
            Err(status) => {
                tracing::warn!(namespace = name, %status, "a namespace cannot be ended yet")
            }
        }
        tokio::select! {
            () = server.token.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_LOOK),
        }
    }
}

/// Deletes what is there; true when nothing was left and the namespace was let go.
async fn step(server: &Server, name: &str) -> Result<bool, Status> {
    let namespaces = server
        .registry
        .resource("", "namespaces")
        .ok_or_else(|| Status::internal("namespaces are not served"))?;
    let namespace = namespaces.get("", name, At::Latest).await?;
    if namespace.index.deletion_timestamp.is_none() {
        return Ok(true);
    }
    let mut remaining = Vec::new();
    let mut held = 0;
    for resource in
        server.registry.catalog().iter().filter(|resource| resource.definition.namespaced)
    {
        let left = empty(server, resource, name).await?;
        if !left.is_empty() {
            held += left.iter().filter(|object| object.index.has_finalizers).count();
            remaining.push(format!(
                "{} has {} resource instances",
                resource.group_resource(),
                left.len()
            ));
        }
    }
    let write =
        |part| -> (Route, Part) { (Route { resource: Arc::clone(&namespaces), version: 0 }, part) };
    if remaining.is_empty() {
        let (route, part) = write(Part::Main);
        internal(server, &route, part)
            .update("", name, Tracking::Registry, |live| {
                let mut new = live.clone();
                if let Some(finalizers) = new["spec"]["finalizers"].as_array_mut() {
                    finalizers.retain(|finalizer| finalizer != kinds::NAMESPACE_FINALIZER);
                }
                Ok(new)
            })
            .await?;
        return Ok(kinds::is_empty_of_finalizers(&namespace.value().map_err(Status::internal)?));
    }
    let (route, part) = write(Part::Status);
    let message = format!("Some resources are remaining: {}", remaining.join(", "));
    let now = kubefed_apimachinery::time::rfc3339((server.clock)());
    internal(server, &route, part)
        .update("", name, Tracking::Registry, |live| {
            let mut new = live.clone();
            new["status"]["phase"] = json!("Terminating");
            set_condition(
                &mut new["status"],
                "NamespaceContentRemaining",
                "SomeResourcesRemain",
                &message,
                &now,
            );
            if held > 0 {
                let text = format!(
                    "Some content in the namespace has finalizers remaining: {held} instances"
                );
                set_condition(
                    &mut new["status"],
                    "NamespaceFinalizersRemaining",
                    "SomeFinalizersRemain",
                    &text,
                    &now,
                );
            }
            Ok(new)
        })
        .await?;
    Ok(false)
}

/// Deletes every object of one kind in the namespace; what finalizers hold is returned.
async fn empty(
    server: &Server,
    resource: &Resource,
    namespace: &str,
) -> Result<Vec<Arc<Object>>, Status> {
    let query = || ListQuery { prefix: format!("{namespace}/"), start: None, at: At::Latest };
    let content =
        resource.cacher.list(query()).await.map_err(|error| resource.read_error(error))?;
    let mut any = false;
    for object in content.iter() {
        any = true;
        if object.index.deletion_timestamp.is_some() {
            continue;
        }
        let options = DeleteOptions::default();
        match resource.delete(namespace, &object.index.name, &options, (server.clock)()).await {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    if !any {
        return Ok(Vec::new());
    }
    let left = resource.cacher.list(query()).await.map_err(|error| resource.read_error(error))?;
    Ok(left.iter().cloned().collect())
}

fn set_condition(status: &mut Value, kind: &str, reason: &str, message: &str, now: &str) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    let condition = json!({
        "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(known) if known["message"] == message => {}
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// A write of the server itself.
pub(crate) fn internal<'a>(server: &Server, route: &'a Route, part: Part) -> Write<'a> {
    Write {
        route,
        part,
        manager: "kubefed-apiserver",
        now: (server.clock)(),
        dry_run: false,
        random: server.random,
        warn: &|_| {},
    }
}

//! Ends namespaces: deletes what is in one that is being deleted, then lets it go.
//!
//! Runs in every copy of a standalone server; each step can be done twice without harm.

use std::sync::Arc;

use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::At;
use serde_json::{Value, json};

use crate::endings::{Endings, empty};
use crate::kinds;
use crate::loopback::Loopback;
use crate::registry::{Part, Route, Tracking};
use crate::server::{MANAGER, Server};

/// Follows the namespaces until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let endings = Endings::default();
    Loopback::new(&server, MANAGER)
        .follow("", "namespaces", |namespace, gone| {
            if !gone && namespace.index.deletion_timestamp.is_some() {
                let step =
                    |server: Arc<Server>, name: String| async move { step(&server, &name).await };
                endings.begin(&server, &namespace.index.name, step);
            }
            std::future::ready(())
        })
        .await;
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
        let left = empty(server, resource, &format!("{name}/")).await?;
        if !left.is_empty() {
            held += left.iter().filter(|object| object.index.has_finalizers).count();
            remaining.push(format!(
                "{} has {} resource instances",
                resource.group_resource(),
                left.len()
            ));
        }
    }
    let write = |part| -> (Route, Part) { (Route::stored(Arc::clone(&namespaces)), part) };
    if remaining.is_empty() {
        let (route, part) = write(Part::Main);
        server
            .write(MANAGER, &route, part)
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
    server
        .write(MANAGER, &route, part)
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

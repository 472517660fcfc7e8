//! Serves the kinds that CustomResourceDefinitions define. After `k8s.io/apiextensions-apiserver`.
//!
//! All that is to be said and served follows from the definitions as a whole ([`names::decide`]); this file brings it
//! about: first the registry, then the statuses, so that a definition that is called established is served.

use std::sync::Arc;

use kubefed_apimachinery::gvk::GroupResource;
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{meta, time};
use kubefed_storage::cacher::At;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::endings::{Endings, empty};
use crate::loopback::Loopback;
use crate::registry::{Kind, Part, Route, Served, Tracking};
use crate::server::{MANAGER, Server};

mod definition;
mod names;
mod structural;
mod validation;

pub(crate) use definition::of as definition_of;
use names::Decision;
pub(crate) use names::{Names, beside};
pub(crate) use validation::STRATEGY;

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const PLURAL: &str = "customresourcedefinitions";

/// Holds a definition until its objects are gone.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The kinds that are served for the definitions of a server.
pub(crate) struct CustomResources {
    loopback: Loopback,
    served: Mutex<Served>,
    endings: Endings,
}

impl CustomResources {
    pub(crate) fn new(server: &Arc<Server>) -> Self {
        CustomResources {
            loopback: Loopback::new(server, MANAGER),
            served: Mutex::default(),
            endings: Endings::default(),
        }
    }

    /// Follows the definitions until the server stops.
    pub(crate) async fn run(self) {
        self.loopback
            .follow_all(GROUP, PLURAL, async || {
                if let Err(status) = self.reconcile().await {
                    tracing::warn!(%status, "the CustomResourceDefinitions cannot be read");
                }
            })
            .await;
    }

    /// Serves what the definitions say now, and tells in their statuses how that went.
    ///
    /// # Errors
    /// If the definitions can't be read.
    pub(crate) async fn reconcile(&self) -> Result<(), Status> {
        let mut served = self.served.lock().await;
        let server = self.loopback.server();
        let crds = self.loopback.list(GROUP, PLURAL, "").await?;
        let own: Vec<(String, Names)> = (server.registry.catalog().iter())
            .filter(|resource| !served.has(&resource.group_resource()))
            .map(|resource| (resource.definition.group.clone(), Names::of(&resource.definition)))
            .collect();
        let decisions = names::decide(&crds, &own);
        let kinds = crds
            .iter()
            .zip(&decisions)
            .filter(|(_, decision)| decision.established)
            .map(|(crd, decision)| Kind {
                resource: resource_of(crd),
                made_of: json!([
                    meta::uid(crd),
                    meta::generation(crd),
                    decision.names,
                    is_terminating(crd)
                ]),
                make: Box::new(|| definition::of(crd, &decision.names)),
            })
            .collect();
        let failures = served.serve(&server.registry, kinds);
        for (crd, decision) in crds.iter().zip(decisions) {
            let resource = resource_of(crd);
            self.tell(crd, decision, failures.get(&resource)).await;
            if is_terminating(crd) {
                let served = served.has(&resource);
                self.endings.begin(server, meta::name(crd), move |server, name| {
                    let resource = served.then(|| resource.clone());
                    async move { end(&server, &name, resource.as_ref()).await }
                });
            }
        }
        Ok(())
    }

    async fn tell(&self, crd: &Value, decision: Decision, failure: Option<&String>) {
        let now = time::rfc3339((self.loopback.server().clock)());
        let status = decision.status(crd, failure.map(String::as_str), &now);
        if status == crd["status"] {
            return;
        }
        let told = self
            .loopback
            .update(GROUP, PLURAL, crd, Part::Status, |live| {
                // The stored versions are the business of whoever changes the definition.
                for field in ["acceptedNames", "conditions"] {
                    live["status"][field] = status[field].clone();
                }
            })
            .await;
        if let Err(status) = told
            && !status.is_not_found()
        {
            tracing::warn!(name = meta::name(crd), %status, "a status was not written");
        }
    }
}

pub(crate) fn resource_of(crd: &Value) -> GroupResource {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    GroupResource {
        group: text(&crd["spec"]["group"]),
        resource: text(&crd["spec"]["names"]["plural"]),
    }
}

pub(crate) fn is_terminating(crd: &Value) -> bool {
    meta::deletion_timestamp(crd).is_some()
}

/// Deletes the objects of a definition that is being deleted; true when there were none left and it was let go.
/// What is not served for it has no objects: they would be another kind's.
async fn end(
    server: &Server,
    name: &str,
    resource: Option<&GroupResource>,
) -> Result<bool, Status> {
    let crds = server.registry.resource(GROUP, PLURAL).ok_or_else(Status::unknown_resource)?;
    if crds.get("", name, At::Latest).await?.index.deletion_timestamp.is_none() {
        return Ok(true);
    }
    let resource = resource.and_then(|r| server.registry.resource(&r.group, &r.resource));
    if let Some(resource) = resource
        && !empty(server, &resource, "").await?.is_empty()
    {
        return Ok(false);
    }
    server
        .write(MANAGER, &Route::stored(crds), Part::Main)
        .update("", name, Tracking::Registry, |live| {
            let mut new = live.clone();
            let rest: Vec<&str> = meta::finalizers(live).filter(|f| *f != FINALIZER).collect();
            new["metadata"]["finalizers"] = json!(rest);
            Ok(new)
        })
        .await?;
    Ok(true)
}

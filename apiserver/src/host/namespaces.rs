//! The host's namespaces: whether one is there, and open to new objects.

use std::collections::HashMap;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kubefed_apimachinery::status::Status;
use parking_lot::RwLock;

/// How a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Missing,
    Active,
    Terminating,
}

/// The namespaces as they were last seen. A host may have 10,000 of them: metadata alone is followed.
pub(super) struct Namespaces {
    host: Api<PartialObjectMeta<Namespace>>,
    seen: RwLock<HashMap<String, Phase>>,
}

impl Namespaces {
    pub(super) fn new(host: kube::Client) -> Self {
        Namespaces { host: Api::all(host), seen: RwLock::default() }
    }

    /// What was seen; the host is asked for what was not seen: the watch may be behind.
    pub(super) async fn phase(&self, name: &str) -> Result<Phase, Status> {
        if let Some(phase) = self.seen.read().get(name) {
            return Ok(*phase);
        }
        match self.host.get_opt(name).await {
            Ok(Some(namespace)) => Ok(phase_of(&namespace)),
            Ok(None) => Ok(Phase::Missing),
            Err(error) => {
                tracing::error!(%error, "the host cannot be asked for a namespace");
                Err(Status::internal(
                    "the host cluster cannot be asked for the namespace; try again",
                ))
            }
        }
    }

    pub(super) async fn follow(&self) {
        let mut events =
            watcher(self.host.clone(), watcher::Config::default()).default_backoff().boxed();
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(namespace)) => {
                    listed.insert(name(&namespace), phase_of(&namespace));
                }
                Ok(watcher::Event::InitDone) => *self.seen.write() = std::mem::take(&mut listed),
                Ok(watcher::Event::Apply(namespace)) => {
                    self.seen.write().insert(name(&namespace), phase_of(&namespace));
                }
                Ok(watcher::Event::Delete(namespace)) => {
                    self.seen.write().remove(&name(&namespace));
                }
                Err(error) => {
                    tracing::debug!(%error, "the host's namespaces are not followed at the moment");
                }
            }
        }
    }
}

fn name(namespace: &PartialObjectMeta<Namespace>) -> String {
    namespace.metadata.name.clone().unwrap_or_default()
}

fn phase_of(namespace: &PartialObjectMeta<Namespace>) -> Phase {
    match namespace.metadata.deletion_timestamp {
        None => Phase::Active,
        Some(_) => Phase::Terminating,
    }
}

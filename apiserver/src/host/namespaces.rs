//! The host's namespaces: whether one is there, open to new objects, and with which labels.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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

/// Labels of a namespace.
pub(crate) type Labels = Arc<BTreeMap<String, String>>;

#[derive(Clone)]
struct Seen {
    phase: Phase,
    labels: Labels,
}

/// The namespaces as they were last seen. A host may have 10,000 of them: metadata alone is followed.
pub(crate) struct Namespaces {
    host: Api<PartialObjectMeta<Namespace>>,
    seen: RwLock<HashMap<String, Seen>>,
}

impl Namespaces {
    pub(super) fn new(host: kube::Client) -> Self {
        Namespaces { host: Api::all(host), seen: RwLock::default() }
    }

    pub(super) async fn phase(&self, name: &str) -> Result<Phase, Status> {
        Ok(self.find(name).await?.map_or(Phase::Missing, |seen| seen.phase))
    }

    /// The labels of a namespace, if it is there.
    pub(crate) async fn labels(&self, name: &str) -> Result<Option<Labels>, Status> {
        Ok(self.find(name).await?.map(|seen| seen.labels))
    }

    /// What was seen; the host is asked for what was not seen: the watch may be behind.
    async fn find(&self, name: &str) -> Result<Option<Seen>, Status> {
        if let Some(seen) = self.seen.read().get(name) {
            return Ok(Some(seen.clone()));
        }
        match self.host.get_opt(name).await {
            Ok(namespace) => Ok(namespace.map(seen)),
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
                    listed.insert(name(&namespace), seen(namespace));
                }
                Ok(watcher::Event::InitDone) => *self.seen.write() = std::mem::take(&mut listed),
                Ok(watcher::Event::Apply(namespace)) => {
                    self.seen.write().insert(name(&namespace), seen(namespace));
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

fn seen(namespace: PartialObjectMeta<Namespace>) -> Seen {
    let phase = match namespace.metadata.deletion_timestamp {
        None => Phase::Active,
        Some(_) => Phase::Terminating,
    };
    Seen { phase, labels: Arc::new(namespace.metadata.labels.unwrap_or_default()) }
}

//! What the controllers share.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kubefed_api::placement;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::client::Client;
use crate::events::Recorder;

/// The members by name.
pub(crate) type Members = HashMap<String, Arc<Member>>;

/// One member that is joined.
pub(crate) struct Member {
    pub(crate) name: String,
    /// The client, while the cluster is ready.
    pub(crate) ready: watch::Sender<Option<Client>>,
    pub(crate) token: CancellationToken,
}

/// Handed to every controller for the time that this process leads.
pub(crate) struct Control {
    pub(crate) host: Client,
    /// The namespace of the control plane.
    pub(crate) namespace: String,
    /// The KubeFedConfig.
    pub(crate) config: watch::Receiver<Arc<Value>>,
    pub(crate) clusters: Cache<Value>,
    /// The members as they are joined now.
    pub(crate) members: watch::Sender<Arc<Members>>,
    /// FederatedNamespaces: where the objects of a namespace may be.
    pub(crate) namespaces: Cache<Value>,
    /// Told the name of a namespace whose placement changed, and none when any may have.
    pub(crate) placements: tokio::sync::broadcast::Sender<Option<String>>,
    pub(crate) events: Recorder,
    /// Whether FederatedNamespaces are there to be asked.
    pub(crate) namespaces_federated: RwLock<bool>,
    pub(crate) token: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl Control {
    /// The clusters as placement sees them.
    pub(crate) fn placement_clusters(&self) -> Vec<placement::Cluster> {
        let clusters = self.clusters.values();
        clusters
            .iter()
            .map(|cluster| placement::Cluster {
                name: cluster["metadata"]["name"].as_str().unwrap_or("").into(),
                labels: cluster["metadata"]["labels"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned()))
                    .collect(),
            })
            .collect()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The path of a collection of ours.
    pub(crate) fn path(&self, group_version: &str, namespace: &str, plural: &str) -> String {
        path(group_version, namespace, plural)
    }
}

/// The path of a collection.
pub(crate) fn path(group_version: &str, namespace: &str, plural: &str) -> String {
    let root = if group_version.contains('/') { "apis" } else { "api" };
    if namespace.is_empty() {
        format!("/{root}/{group_version}/{plural}")
    } else {
        format!("/{root}/{group_version}/namespaces/{namespace}/{plural}")
    }
}

//! What the controllers share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use kubefed_api::{MANAGED_LABEL, placement};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Key};
use crate::client::Client;
use crate::cluster::Token;
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::sync::Federated;

/// The members by name.
pub(crate) type Members = HashMap<String, Arc<Member>>;

/// Whether a member can be worked with.
#[derive(Clone, Default)]
pub(crate) enum Readiness {
    /// It was not asked yet.
    #[default]
    Unknown,
    Away,
    Ready(Client),
}

/// One member that is joined.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) ready: watch::Sender<Readiness>,
    /// Told to probe at once.
    pub(crate) probe: Notify,
    /// Records from before may be about another cluster of its name. It is known before the member is ready.
    pub(crate) believed_since: Mutex<Timestamp>,
    pub(crate) token: CancellationToken,
}

/// Handed to every controller for the time that this process leads.
pub(crate) struct Control {
    /// Has Leases, Events, Secrets and Namespaces.
    pub(crate) host: Client,
    /// Has all else: the federation's kinds.
    pub(crate) federation: Client,
    /// The namespace of the control plane.
    pub(crate) namespace: String,
    /// Whether the controllers had rights in all namespaces when this process began to lead.
    pub(crate) reaches_all: bool,
    /// Whether the federation reaches only the namespace of the control plane: as the KubeFedConfig and the rights were
    /// when this process began to lead. What is in the members was placed by that.
    pub(crate) is_namespaced: bool,
    /// The KubeFedConfig, or the defaults while there is none.
    pub(crate) config: watch::Receiver<Arc<Value>>,
    pub(crate) clusters: Cache<Value>,
    /// Told whenever something of a cluster came, changed or went.
    pub(crate) clusters_seen: watch::Sender<()>,
    /// Of each secret beside them its token.
    pub(crate) tokens: Cache<Token>,
    /// The members as they are joined now.
    pub(crate) members: watch::Sender<Arc<Members>>,
    /// The clusters as placement sees them; none before they are known.
    pub(crate) placeable: watch::Sender<Option<Arc<Vec<placement::Cluster>>>>,
    /// FederatedNamespaces: where the objects of a namespace may be.
    pub(crate) namespaces: Cache<Value>,
    /// Whether FederatedNamespaces are there to be asked.
    pub(crate) namespaces_federated: AtomicBool,
    /// Told the name of a namespace whose placement changed, and none when any may have.
    pub(crate) placements: broadcast::Sender<Option<String>>,
    /// What is synced, by federated kind.
    pub(crate) syncs: watch::Sender<Arc<HashMap<String, Arc<Federated>>>>,
    pub(crate) events: Recorder,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) token: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl Control {
    /// The clusters as placement sees them.
    pub(crate) fn placeable(&self) -> Arc<Vec<placement::Cluster>> {
        self.placeable.borrow().clone().unwrap_or_default()
    }

    /// The namespace in which the objects of a kind are followed; empty: in all. There may be no right to more.
    pub(crate) fn within(&self) -> &str {
        if self.is_namespaced { &self.namespace } else { "" }
    }

    /// The key of what has this name beside the control plane.
    pub(crate) fn key_of(&self, name: &str) -> Key {
        Key { namespace: self.namespace.clone(), name: name.to_owned() }
    }

    pub(crate) fn is_joined(&self, cluster: &str) -> bool {
        self.clusters.get(&self.key_of(cluster)).is_some()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Whether two maps have the very same values under the same names.
pub(crate) fn are_same<T>(
    some: &HashMap<String, Arc<T>>,
    others: &HashMap<String, Arc<T>>,
) -> bool {
    let same = |(name, one): (&String, &Arc<T>)| {
        others.get(name).is_some_and(|other| Arc::ptr_eq(one, other))
    };
    some.len() == others.len() && some.iter().all(same)
}

/// The query of a list or a watch for what is marked as ours in a member.
pub(crate) fn ours() -> String {
    format!("&labelSelector={}%3Dtrue", MANAGED_LABEL.replace('/', "%2F"))
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

//! What others are told of the objects of a kind that is synced.

use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::cache::{Cache, Key};

/// Changes that others were not told of yet; who misses more looks at everything.
const CHANGES: usize = 256;

/// A federated kind that is synced, and its objects.
pub(crate) struct Federated {
    pub(crate) config: FederatedTypeConfig,
    pub(crate) objects: Cache<Value>,
    /// Told the key of whatever came, changed or went.
    pub(crate) changes: broadcast::Sender<Key>,
}

impl Federated {
    pub(crate) fn new(config: FederatedTypeConfig) -> Self {
        Federated { config, objects: Cache::default(), changes: broadcast::Sender::new(CHANGES) }
    }

    pub(super) fn changed(&self, key: &Key) {
        if self.changes.receiver_count() > 0 {
            let _nobody_listens_any_longer = self.changes.send(key.clone());
        }
    }
}

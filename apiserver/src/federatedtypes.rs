//! Serves a federated kind for each FederatedTypeConfig, from the moment the config is there.

use std::sync::Arc;

use kubefed_api::federated;
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_apimachinery::gvk::GroupResource;
use kubefed_apimachinery::meta;
use serde_json::json;
use tokio::sync::Mutex;

use crate::builtin;
use crate::loopback::Loopback;
use crate::registry::{Kind, Served};
use crate::server::{MANAGER, Server};

const GROUP: &str = "core.kubefed.io";
const PLURAL: &str = "federatedtypeconfigs";

/// The kinds of the FederatedTypeConfigs in the control plane's namespace.
pub(crate) struct FederatedTypes {
    loopback: Loopback,
    namespace: String,
    served: Mutex<Served>,
}

impl FederatedTypes {
    pub(crate) fn new(server: &Arc<Server>, namespace: String) -> Self {
        FederatedTypes {
            loopback: Loopback::new(server, MANAGER),
            namespace,
            served: Mutex::default(),
        }
    }

    /// Follows the configs until the server stops.
    pub(crate) async fn run(self) {
        self.loopback.follow_all(GROUP, PLURAL, || self.reconcile()).await;
    }

    /// Serves just the kinds that the configs name now. A config that makes no kind leaves the others alone.
    pub(crate) async fn reconcile(&self) {
        let mut served = self.served.lock().await;
        let Ok(configs) = self.loopback.list(GROUP, PLURAL, &self.namespace).await else { return };
        let mut kinds = Vec::new();
        for config in &configs {
            match FederatedTypeConfig::from_value(config) {
                Ok(known) => kinds.push(Kind {
                    resource: GroupResource {
                        group: known.federated.group.clone(),
                        resource: known.federated.plural_name.clone(),
                    },
                    made_of: json!([meta::name(config), config["spec"]]),
                    make: Box::new(move || {
                        let target = &known.target;
                        // A target that is none of Kubernetes' own takes any template.
                        let schema =
                            builtin::target_schema(&target.group, &target.version, &target.kind);
                        federated::definition(&known, schema)
                    }),
                }),
                Err(error) => tracing::warn!(
                    config = meta::name(config),
                    error,
                    "a FederatedTypeConfig makes no kind"
                ),
            }
        }
        let registry = &self.loopback.server().registry;
        for (kind, error) in served.serve(registry, kinds) {
            tracing::warn!(%kind, error, "a FederatedTypeConfig makes no kind");
        }
    }
}

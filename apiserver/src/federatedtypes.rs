//! Serves a federated kind for each FederatedTypeConfig, from the moment the config is there.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kubefed_api::federated;
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_apimachinery::gvk::GroupResource;
use kubefed_storage::cacher::{At, ListQuery, WatchFrom, WatchQuery};
use tokio::time::Instant;

use crate::builtin;
use crate::registry::Resource;
use crate::server::Server;

const RETRY: Duration = Duration::from_millis(100);

/// Follows the FederatedTypeConfigs of the control plane's namespace until the server stops.
pub(crate) async fn run(server: Arc<Server>, namespace: String) {
    let Some(configs) = server.registry.resource("core.kubefed.io", "federatedtypeconfigs") else {
        return;
    };
    let mut served = HashSet::new();
    while !server.token.is_cancelled() {
        let query = WatchQuery {
            prefix: format!("{namespace}/"),
            from: WatchFrom::State(At::Latest),
            filter: None,
            bookmarks: false,
            initial_events_end: false,
            deadline: Instant::now() + Duration::from_secs(3600),
        };
        let Ok(mut watcher) = configs.cacher.watch(query).await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        loop {
            let event = tokio::select! {
                () = server.token.cancelled() => return,
                event = watcher.next() => event,
            };
            if event.is_none() {
                break;
            }
            // What is ready is one change: a start with a hundred configs makes one catalog, not a hundred.
            while watcher.try_next().is_some() {}
            reconcile(&server, &configs, &namespace, &mut served).await;
        }
    }
}

/// Serves just the kinds that the configs name now. A config that makes no kind leaves the others alone.
pub(crate) async fn reconcile(
    server: &Server,
    configs: &Resource,
    namespace: &str,
    served: &mut HashSet<GroupResource>,
) {
    let query = ListQuery { prefix: format!("{namespace}/"), start: None, at: At::Any };
    let Ok(list) = configs.cacher.list(query).await else { return };
    let mut definitions = Vec::new();
    for object in list.iter() {
        let config = object
            .value()
            .map_err(|error| error.to_string())
            .and_then(|value| FederatedTypeConfig::from_value(&value));
        let definition = config.and_then(|config| {
            let target = &config.target;
            // A target that is none of Kubernetes' own takes any template.
            let schema = builtin::target_schema(&target.group, &target.version, &target.kind);
            federated::definition(&config, schema)
        });
        match definition {
            Ok(definition) => definitions.push(definition),
            Err(error) => {
                tracing::warn!(config = %object.index.name, error, "a FederatedTypeConfig makes no kind")
            }
        }
    }
    let wanted: HashSet<GroupResource> = definitions
        .iter()
        .map(|definition| GroupResource {
            group: definition.group.clone(),
            resource: definition.plural.clone(),
        })
        .collect();
    for gone in served.difference(&wanted) {
        tracing::info!(resource = %gone, "no longer served: its FederatedTypeConfig is gone; the objects stay stored");
        server.registry.remove(&gone.group, &gone.resource);
    }
    server.registry.install(definitions);
    *served = wanted;
}

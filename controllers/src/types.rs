//! FederatedTypeConfigs: a sync for each whose propagation is on.

use std::collections::HashMap;
use std::sync::Arc;

use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Key, Source};
use crate::control::Control;
use crate::queue::Queue;
use crate::sync;

const GROUP_VERSION: &str = "core.kubefed.io/v1beta1";

/// Follows the configs; starts and stops syncs.
pub(crate) async fn run(control: Arc<Control>) {
    let cache: Cache<Value> = Cache::default();
    let queue: Queue<Key> = Queue::default();
    let path = control.path(GROUP_VERSION, &control.namespace, "federatedtypeconfigs");
    let source = Source { path: path.clone(), ..Source::default() };
    let follow = cache.follow(
        &control.host,
        &source,
        |config| config,
        |key| queue.add(key.clone()),
        &control.token,
    );
    let work = async {
        let mut running: HashMap<Key, (FederatedTypeConfig, CancellationToken)> = HashMap::new();
        loop {
            let key = queue.next().await;
            let config = cache.get(&key);
            reconcile(&control, &mut running, &key, config.as_deref());
            let told = match config.as_deref() {
                Some(config) => tell(&control, &path, config, running.contains_key(&key)).await,
                None => Ok(()),
            };
            match told {
                Ok(()) => queue.done(&key),
                Err(error) => {
                    tracing::warn!(config = key.name, %error, "the status of a FederatedTypeConfig was not written");
                    queue.failed(&key);
                }
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = work => {}
    }
}

fn reconcile(
    control: &Arc<Control>,
    running: &mut HashMap<Key, (FederatedTypeConfig, CancellationToken)>,
    key: &Key,
    config: Option<&Value>,
) {
    let wanted = config.and_then(|config| match FederatedTypeConfig::from_value(config) {
        Ok(wanted) => Some(wanted),
        Err(error) => {
            tracing::warn!(config = key.name, error, "passed over");
            None
        }
    });
    let wanted = wanted.filter(|wanted| {
        let deleted =
            config.is_some_and(|config| config["metadata"]["deletionTimestamp"].is_string());
        let reaches = wanted.target.is_namespaced()
            || !kubefed_api::kubefedconfig::is_namespaced(&control.config.borrow());
        wanted.propagation && !deleted && reaches
    });
    match (running.get(key), wanted) {
        (Some((known, _)), Some(wanted)) if *known == wanted => {}
        (known, wanted) => {
            if let Some((_, token)) = known {
                token.cancel();
                running.remove(key);
            }
            if let Some(wanted) = wanted {
                let token = control.token.child_token();
                control.tracker.spawn(sync::run(
                    Arc::clone(control),
                    wanted.clone(),
                    token.clone(),
                ));
                running.insert(key.clone(), (wanted, token));
            }
        }
    }
}

async fn tell(
    control: &Control,
    path: &str,
    config: &Value,
    running: bool,
) -> Result<(), crate::client::Error> {
    let status = json!({
        "observedGeneration": config["metadata"]["generation"],
        "propagationController": if running { "Running" } else { "NotRunning" },
        "statusController": "NotRunning",
    });
    if config["status"] == status {
        return Ok(());
    }
    let name = config["metadata"]["name"].as_str().unwrap_or("");
    match control.host.merge(&format!("{path}/{name}/status"), &json!({"status": status})).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

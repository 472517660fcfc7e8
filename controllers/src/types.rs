//! FederatedTypeConfigs: a sync for each whose propagation is on.
//!
//! Where namespaces are decides where all that is in them may be: the FederatedNamespaces are followed as soon as there
//! is a config for them, and no namespaced kind is synced without it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kubefed_api::federatedtypeconfig::{ApiResource, FederatedTypeConfig, NAMESPACES};
use kubefed_apimachinery::meta;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Key, Source, without_managed_fields};
use crate::client::Error;
use crate::control::{Control, path};
use crate::queue::Queue;
use crate::sync;

const GROUP_VERSION: &str = "core.kubefed.io/v1beta1";
const COMPONENT: &str = "federatedtypeconfig-controller";

/// What runs, by the config that asked for it.
#[derive(Default)]
struct Running {
    syncs: HashMap<Key, (FederatedTypeConfig, CancellationToken)>,
    namespaces: Option<(ApiResource, CancellationToken)>,
}

/// Follows the configs; starts and stops syncs.
pub(crate) async fn run(control: Arc<Control>) {
    let cache: Cache<Value> = Cache::default();
    let queue: Queue<Key> = Queue::default();
    let source = Source {
        path: path(GROUP_VERSION, &control.namespace, "federatedtypeconfigs"),
        ..Source::default()
    };
    let follow = cache.follow(
        &control.host,
        &source,
        without_managed_fields,
        |key| queue.add(key.clone()),
        &control.token,
    );
    let of_namespaces = Key { namespace: control.namespace.clone(), name: NAMESPACES.into() };
    let work = async {
        let mut running = Running::default();
        cache.wait_filled().await;
        loop {
            let key = queue.next().await;
            let namespaces = cache.get(&of_namespaces);
            if follow_namespaces(&control, &mut running, namespaces.as_deref()) {
                // Whether the others can run hangs on this one.
                cache.keys().into_iter().for_each(|key| queue.add(key));
            }
            let config = cache.get(&key);
            reconcile(&control, &mut running, &key, config.as_deref());
            let told = match config.as_deref() {
                Some(config) => {
                    let runs = running.syncs.contains_key(&key);
                    tell(&control, &source.path, config, runs).await
                }
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

/// A config as it is to be followed: not one that is going, nor one that can't be read.
fn wanted(config: &Value) -> Option<FederatedTypeConfig> {
    if meta::deletion_timestamp(config).is_some() {
        return None;
    }
    match FederatedTypeConfig::from_value(config) {
        Ok(wanted) => Some(wanted),
        Err(error) => {
            tracing::warn!(config = meta::name(config), error, "passed over");
            None
        }
    }
}

/// Follows the FederatedNamespaces while there is a config for them; whether that changed.
fn follow_namespaces(
    control: &Arc<Control>,
    running: &mut Running,
    config: Option<&Value>,
) -> bool {
    let wanted = config.and_then(wanted).map(|config| config.federated);
    if running.namespaces.as_ref().map(|(kind, _)| kind) == wanted.as_ref() {
        return false;
    }
    if let Some((_, token)) = running.namespaces.take() {
        token.cancel();
    }
    control.namespaces_federated.store(wanted.is_some(), Ordering::Release);
    if let Some(kind) = wanted {
        let token = control.token.child_token();
        let (control_of_task, token_of_task) = (Arc::clone(control), token.clone());
        let source =
            Source { path: path(&kind.api_version(), "", &kind.plural_name), ..Source::default() };
        control.tracker.spawn(async move {
            let control = control_of_task;
            let placements: Mutex<HashMap<Key, Value>> = Mutex::default();
            let changed = |key: &Key| {
                let placement = control.namespaces.get(key).map(|namespace| {
                    json!([
                        namespace["spec"]["placement"],
                        meta::deletion_timestamp(&namespace).is_some()
                    ])
                });
                // A status that was written there moves nothing.
                let mut placements = placements.lock();
                let before = match &placement {
                    Some(placement) => placements.insert(key.clone(), placement.clone()),
                    None => placements.remove(key),
                };
                if before != placement {
                    let _nobody_listens_yet = control.placements.send(Some(key.namespace.clone()));
                }
            };
            control
                .namespaces
                .follow(&control.host, &source, without_managed_fields, changed, &token_of_task)
                .await;
        });
        running.namespaces = Some((kind, token));
    }
    true
}

fn reconcile(control: &Arc<Control>, running: &mut Running, key: &Key, config: Option<&Value>) {
    let is_namespaced = control.is_namespaced;
    let wanted = config.and_then(wanted).filter(|wanted| {
        let reaches = wanted.target.is_namespaced() || !is_namespaced;
        wanted.propagation && reaches
    });
    let wanted = wanted.filter(|wanted| {
        let placed =
            is_namespaced || !wanted.target.is_namespaced() || running.namespaces.is_some();
        if !placed && let Some(config) = config {
            let text = format!(
                "Unable to start sync controller for {:?} due to missing FederatedTypeConfig for namespaces",
                wanted.federated.kind
            );
            control.events.warn(config, COMPONENT, "MissingNamespaces", &text);
        }
        placed
    });
    match (running.syncs.get(key), wanted) {
        (Some((known, _)), Some(wanted)) if *known == wanted => {}
        (known, wanted) => {
            if let Some((_, token)) = known {
                token.cancel();
                running.syncs.remove(key);
            }
            if let Some(wanted) = wanted {
                let token = control.token.child_token();
                control.tracker.spawn(sync::run(
                    Arc::clone(control),
                    wanted.clone(),
                    token.clone(),
                ));
                running.syncs.insert(key.clone(), (wanted, token));
            }
        }
    }
}

async fn tell(control: &Control, path: &str, config: &Value, runs: bool) -> Result<(), Error> {
    let status = json!({
        "observedGeneration": config["metadata"]["generation"],
        "propagationController": if runs { "Running" } else { "NotRunning" },
        "statusController": "NotRunning",
    });
    if config["status"] == status {
        return Ok(());
    }
    let name = meta::name(config);
    match control.host.merge(&format!("{path}/{name}/status"), &json!({"status": status})).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

//! FederatedTypeConfigs: a sync for each whose propagation is on.
//!
//! Where namespaces are decides where all that is in them may be: the FederatedNamespaces are followed as soon as there
//! is a config for them, and no namespaced kind is synced without it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kubefed_api::federatedtypeconfig::{ApiResource, FINALIZER, FederatedTypeConfig, NAMESPACES};
use kubefed_api::kubefedconfig;
use kubefed_apimachinery::meta;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Key, Source, without_managed_fields};
use crate::client::Error;
use crate::control::{Control, are_same, path};
use crate::queue::Queue;
use crate::sync::{self, Federated, Settings};

const GROUP_VERSION: &str = "core.kubefed.io/v1beta1";
const COMPONENT: &str = "federatedtypeconfig-controller";

/// What runs, by the config that asked for it.
#[derive(Default)]
struct Running {
    syncs: HashMap<Key, RunningSync>,
    namespaces: Option<(ApiResource, CancellationToken)>,
}

struct RunningSync {
    federated: Arc<Federated>,
    settings: Settings,
    token: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Tells what is synced, if that changed.
    fn publish(&self, control: &Control) {
        let by_kind = |sync: &RunningSync| {
            (sync.federated.config.federated.kind.clone(), Arc::clone(&sync.federated))
        };
        let syncs: HashMap<String, Arc<Federated>> = self.syncs.values().map(by_kind).collect();
        control.syncs.send_if_modified(|known| {
            let same = are_same(known, &syncs);
            if !same {
                *known = Arc::new(syncs);
            }
            !same
        });
    }

    /// Ends a sync; when this returns it writes no more.
    async fn stop(&mut self, key: &Key) {
        if let Some(sync) = self.syncs.remove(key) {
            sync.token.cancel();
            if sync.task.await.is_err() {
                tracing::error!(config = key.name, "its sync has panicked");
            }
        }
    }
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
        &control.federation,
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
            let reconciled = reconcile(&control, &mut running, &key, config.as_deref()).await;
            running.publish(&control);
            match reconciled {
                Ok(()) => queue.done(&key),
                // A newer config is on its way to us.
                Err(error) if error.is_conflict() => queue.done(&key),
                Err(error) => {
                    tracing::warn!(config = key.name, %error, "a FederatedTypeConfig was not written");
                    queue.failed(&key);
                }
            }
        }
    };
    // Another KubeFedConfig may concern every sync.
    let reconfigure = async {
        let mut configs = control.config.clone();
        while configs.changed().await.is_ok() {
            cache.keys().into_iter().for_each(|key| queue.add(key));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = follow => {}
        () = reconfigure => {}
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
        let source = Source {
            path: path(&kind.api_version(), control.within(), &kind.plural_name),
            ..Source::default()
        };
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
                .follow(
                    &control.federation,
                    &source,
                    without_managed_fields,
                    changed,
                    &token_of_task,
                )
                .await;
        });
        running.namespaces = Some((kind, token));
    }
    true
}

/// Starts or ends the sync of a config, and tells so. The config is held by a finalizer while there may be a sync.
async fn reconcile(
    control: &Arc<Control>,
    running: &mut Running,
    key: &Key,
    config: Option<&Value>,
) -> Result<(), Error> {
    let Some(config) = config else {
        running.stop(key).await;
        return Ok(());
    };
    let held = meta::finalizers(config).any(|finalizer| finalizer == FINALIZER);
    if meta::deletion_timestamp(config).is_some() {
        running.stop(key).await;
        let others = meta::finalizers(config).filter(|finalizer| *finalizer != FINALIZER);
        return if held { set_finalizers(control, config, others.collect()).await } else { Ok(()) };
    }
    let parsed =
        wanted(config).filter(|wanted| wanted.target.is_namespaced() || !control.is_namespaced);
    if parsed.is_some() && !held {
        // Its event brings us back; a sync that runs goes on.
        let all = meta::finalizers(config).chain([FINALIZER]).collect();
        return set_finalizers(control, config, all).await;
    }
    let (pushes, settings) = {
        let config = control.config.borrow();
        (kubefedconfig::gate(&config, "PushReconciler"), Settings::of(&config))
    };
    let parsed = parsed.filter(|wanted| {
        pushes && wanted.propagation && is_placeable(control, running, config, wanted)
    });
    let runs_as = |wanted: &FederatedTypeConfig| {
        let sync = running.syncs.get(key);
        sync.is_some_and(|sync| sync.federated.config == *wanted && sync.settings == settings)
    };
    match parsed {
        None => running.stop(key).await,
        Some(wanted) if runs_as(&wanted) => {}
        Some(wanted) => {
            running.stop(key).await;
            let token = control.token.child_token();
            let federated = Arc::new(Federated::new(wanted));
            let (control_of_task, objects) = (Arc::clone(control), Arc::clone(&federated));
            let sync = sync::run(control_of_task, objects, settings, token.clone());
            let task = control.tracker.spawn(sync);
            let sync = RunningSync { federated, settings, token, task };
            running.syncs.insert(key.clone(), sync);
        }
    }
    tell(control, config, running.syncs.get(key)).await
}

/// Whether it can be told where objects of a kind may be.
fn is_placeable(
    control: &Control,
    running: &Running,
    config: &Value,
    wanted: &FederatedTypeConfig,
) -> bool {
    if control.is_namespaced || !wanted.target.is_namespaced() || running.namespaces.is_some() {
        return true;
    }
    let text = format!(
        "Unable to start sync controller for {:?} due to missing FederatedTypeConfig for namespaces",
        wanted.federated.kind
    );
    control.events.warn(config, COMPONENT, "MissingNamespaces", &text);
    false
}

fn config_path(control: &Control, config: &Value) -> String {
    let collection = path(GROUP_VERSION, &control.namespace, "federatedtypeconfigs");
    format!("{collection}/{}", meta::name(config))
}

async fn set_finalizers(
    control: &Control,
    config: &Value,
    finalizers: Vec<&str>,
) -> Result<(), Error> {
    let patch = json!({"metadata": {
        "finalizers": finalizers, "resourceVersion": meta::resource_version(config),
    }});
    match control.federation.merge(&config_path(control, config), &patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

async fn tell(control: &Control, config: &Value, sync: Option<&RunningSync>) -> Result<(), Error> {
    let state = |runs: bool| if runs { "Running" } else { "NotRunning" };
    let apart = sync.is_some_and(|sync| sync::is_apart(&sync.federated.config, sync.settings));
    let status = json!({
        "observedGeneration": config["metadata"]["generation"],
        "propagationController": state(sync.is_some()),
        "statusController": state(apart),
    });
    if config["status"] == status {
        return Ok(());
    }
    let path = format!("{}/status", config_path(control, config));
    match control.federation.merge(&path, &json!({"status": status})).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

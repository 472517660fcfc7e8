//! One leader at a time runs the controllers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kubefed_api::kubefedconfig::{self, LeaderElection};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::client::Client;
use crate::control::Control;
use crate::events::Recorder;
use crate::lease::{InFederation, Lease};
use crate::metrics::Metrics;
use crate::{cluster, types};

const RETRY: Duration = Duration::from_millis(500);
/// Placements that changed and were not looked at yet; more count as "any may have changed".
const PLACEMENTS: usize = 1024;

/// Runs until `token` is cancelled. Returns false if the lease was lost: the process must end then, so that nothing of
/// it goes on writing.
pub async fn run(
    host: Client,
    namespace: String,
    metrics: Arc<Metrics>,
    token: CancellationToken,
) -> bool {
    let config = tokio::select! {
        () = token.cancelled() => return true,
        config = load_config(&host, &namespace) => config,
    };
    tracing::info!("Using valid KubeFedConfig \"{namespace}/{}\"", kubefedconfig::NAME);
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let identity = format!("{}_{}", hostname.trim(), uuid::Uuid::new_v4());
    let keeper = InFederation::new(host.clone(), &namespace);
    let mut lease = Lease::new(keeper, identity, LeaderElection::of(&config));
    tokio::select! {
        () = token.cancelled() => return true,
        () = lease.acquire() => {}
    }
    tracing::info!("promoted as leader");
    metrics.leads(true);

    // Everything that writes obeys this token: it is cancelled when the lease is lost.
    let leading = token.child_token();
    let tracker = TaskTracker::new();
    let (config, configs) = watch::channel(Arc::new(config));
    let (events, write_events) = Recorder::new(host.clone(), leading.clone());
    let control = Arc::new(Control {
        host: host.clone(),
        namespace: namespace.clone(),
        config: configs,
        clusters: Cache::default(),
        members: watch::Sender::default(),
        placeable: watch::Sender::default(),
        namespaces: Cache::default(),
        namespaces_federated: AtomicBool::new(false),
        placements: broadcast::Sender::new(PLACEMENTS),
        events,
        metrics: Arc::clone(&metrics),
        token: leading.clone(),
        tracker: tracker.clone(),
    });
    tracker.spawn(write_events);
    tracing::info!("Starting cluster controller");
    tracker.spawn(cluster::run(Arc::clone(&control)));
    if kubefedconfig::gate(&control.config.borrow(), "PushReconciler") {
        tracker.spawn(types::run(Arc::clone(&control)));
    }
    tracker.spawn(follow_config(host, namespace, config, leading.clone()));
    lease.hold(&leading).await;
    let lost = !token.is_cancelled();
    leading.cancel();
    tracker.close();
    tracker.wait().await;
    metrics.leads(false);
    lease.release().await;
    !lost
}

fn config_path(namespace: &str) -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{namespace}/kubefedconfigs")
}

/// The KubeFedConfig; one with defaults is created where there is none.
async fn load_config(host: &Client, namespace: &str) -> Value {
    let path = config_path(namespace);
    loop {
        let found = match host.get(&format!("{path}/{}", kubefedconfig::NAME)).await {
            Err(error) if error.is_not_found() => {
                let config = json!({
                    "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig",
                    "metadata": {"name": kubefedconfig::NAME, "namespace": namespace}, "spec": {"scope": "Cluster"},
                });
                host.create(&path, &config).await
            }
            found => found,
        };
        match found {
            Ok(config) => return config,
            Err(error) => tracing::warn!(%error, "the KubeFedConfig cannot be read yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Takes up changes of the config while the controllers run.
async fn follow_config(
    host: Client,
    namespace: String,
    config: watch::Sender<Arc<Value>>,
    token: CancellationToken,
) {
    let cache: Cache<Value> = Cache::default();
    let source = crate::cache::Source { path: config_path(&namespace), ..Default::default() };
    let changed = |key: &crate::cache::Key| {
        if key.name == kubefedconfig::NAME
            && let Some(found) = cache.get(key)
        {
            config.send_if_modified(|known| {
                let changed = known["spec"] != found["spec"];
                if changed {
                    tracing::info!("took up a new KubeFedConfig");
                    *known = found;
                }
                changed
            });
        }
    };
    cache.follow(&host, &source, |found| found, changed, &token).await;
}

//! One leader at a time runs the controllers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kubefed_api::kubefedconfig::{self, LeaderElection};
use kubefed_apimachinery::meta;
use serde_json::Value;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Key, Source};
use crate::client::Client;
use crate::control::Control;
use crate::events::Recorder;
use crate::lease::{InFederation, Lease};
use crate::metrics::Metrics;
use crate::{cluster, types};

const COMPONENT: &str = "kubefed-controller-manager";
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
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let identity = format!("{}_{}", hostname.trim(), uuid::Uuid::new_v4());
    let keeper = InFederation::new(host.clone(), &namespace);
    let mut lease = Lease::new(keeper, identity, LeaderElection::of(&config));
    tokio::select! {
        () = token.cancelled() => return true,
        () = lease.acquire() => {}
    }
    tracing::info!("promoted as leader");
    // Read once more: a candidate may have waited for days. But not for long: the lease is not renewed meanwhile.
    let newest = tokio::time::timeout(RETRY, load_config(&host, &namespace)).await;
    let config = newest.unwrap_or(config);
    if meta::uid(&config).is_empty() {
        tracing::info!(
            "Using the defaults: there is no KubeFedConfig \"{namespace}/{}\"",
            kubefedconfig::NAME
        );
    } else {
        tracing::info!("Using valid KubeFedConfig \"{namespace}/{}\"", kubefedconfig::NAME);
    }
    metrics.leads(true);

    // Everything that writes obeys this token: it is cancelled when the lease is lost.
    let leading = token.child_token();
    let tracker = TaskTracker::new();
    let is_namespaced = kubefedconfig::is_namespaced(&config);
    let (config, configs) = watch::channel(Arc::new(config));
    let (events, write_events) = Recorder::new(host.clone(), leading.clone());
    let control = Arc::new(Control {
        host,
        namespace,
        is_namespaced,
        config: configs,
        clusters: Cache::default(),
        tokens: Cache::default(),
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
    tracker.spawn(follow_config(Arc::clone(&control), config));
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

/// The KubeFedConfig; the defaults where there is none.
async fn load_config(host: &Client, namespace: &str) -> Value {
    let path = format!("{}/{}", config_path(namespace), kubefedconfig::NAME);
    loop {
        match host.get(&path).await {
            Ok(config) => return config,
            Err(error) if error.is_not_found() => return kubefedconfig::default_config(namespace),
            Err(error) => tracing::warn!(%error, "the KubeFedConfig cannot be read yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Takes up changes of the config while the controllers run: all but the scope.
async fn follow_config(control: Arc<Control>, config: watch::Sender<Arc<Value>>) {
    let cache: Cache<Value> = Cache::default();
    let source = Source { path: config_path(&control.namespace), ..Source::default() };
    let changed = |key: &Key| {
        if key.name != kubefedconfig::NAME {
            return;
        }
        let found = cache
            .get(key)
            .unwrap_or_else(|| Arc::new(kubefedconfig::default_config(&control.namespace)));
        if kubefedconfig::is_namespaced(&found) != control.is_namespaced {
            let text = format!(
                "The scope {} holds from the next start of the controller manager on; until then it is the one that it started with",
                found["spec"]["scope"]
            );
            tracing::warn!("{text}");
            if !meta::uid(&found).is_empty() {
                control.events.warn(&found, COMPONENT, "RestartNeeded", &text);
            }
        }
        config.send_if_modified(|known| {
            let changed = known["spec"] != found["spec"];
            if changed {
                tracing::info!("took up a new KubeFedConfig");
                *known = found;
            }
            changed
        });
    };
    cache.follow(&control.host, &source, |found| found, changed, &control.token).await;
}

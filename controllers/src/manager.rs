//! One leader at a time runs the controllers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::bail;
use kubefed_api::kubefedconfig::LeaderElection;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::client::Client;
use crate::control::Control;
use crate::events::Recorder;
use crate::lease::{InHost, Lease};
use crate::metrics::Metrics;
use crate::{cluster, config, scheduling, scope, types};

/// How long a new leader waits for the newest config.
const RELOAD: Duration = Duration::from_millis(500);
/// Placements that changed and were not looked at yet; more count as "any may have changed".
const PLACEMENTS: usize = 1024;

/// Whom the controllers ask. A host that leads to the federation, and a federation that stands alone, is both.
#[derive(Clone)]
pub struct Endpoints {
    /// For Leases, Events, Secrets and Namespaces.
    pub host: Client,
    /// For the federation's own kinds, and the federated ones, of whatever group.
    pub federation: Client,
}

impl From<Client> for Endpoints {
    fn from(both: Client) -> Self {
        Endpoints { host: both.clone(), federation: both }
    }
}

/// Runs until `token` is cancelled. The KubeFedConfig is that of `file`, or of the federation.
///
/// # Errors
/// If the file holds no config, and if the lease was lost: the process must end then, so that nothing of it goes on
/// writing.
pub async fn run(
    Endpoints { host, federation }: Endpoints,
    namespace: String,
    file: Option<PathBuf>,
    metrics: Arc<Metrics>,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let ask = async || {
        let config = config::load(&federation, &namespace, file.as_deref()).await?;
        anyhow::Ok((config, scope::reaches_all(&federation).await))
    };
    let (config, reaches_all) = tokio::select! {
        () = token.cancelled() => return Ok(()),
        asked = ask() => asked?,
    };
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let identity = format!("{}_{}", hostname.trim(), uuid::Uuid::new_v4());
    // Renewals must not stand in line behind other requests.
    let keeper = InHost::new(host.unlimited(), &namespace);
    let mut lease = Lease::new(keeper, identity, LeaderElection::of(&config));
    lease.tell_scope(scope::is_limited(&config, reaches_all));
    tokio::select! {
        () = token.cancelled() => return Ok(()),
        () = lease.acquire() => {}
    }
    tracing::info!("promoted as leader");
    // Read once more: a candidate may have waited for days. But not for long: the lease is not renewed meanwhile.
    let newest = tokio::time::timeout(RELOAD, ask()).await;
    let (config, reaches_all) = newest.ok().and_then(Result::ok).unwrap_or((config, reaches_all));
    let is_namespaced = scope::is_limited(&config, reaches_all);
    lease.tell_scope(is_namespaced);
    config::tell(&config, &namespace, file.as_deref());
    metrics.leads(true);

    // Everything that writes obeys this token: it is cancelled when the lease is lost.
    let leading = token.child_token();
    let tracker = TaskTracker::new();
    let (config, configs) = watch::channel(Arc::new(config));
    let (events, write_events) = Recorder::new(host.clone(), leading.clone());
    let control = Arc::new(Control {
        host,
        federation,
        namespace,
        reaches_all,
        is_namespaced,
        config: configs,
        clusters: Cache::default(),
        clusters_seen: watch::Sender::default(),
        tokens: Cache::default(),
        members: watch::Sender::default(),
        placeable: watch::Sender::default(),
        namespaces: Cache::default(),
        namespaces_federated: AtomicBool::new(false),
        placements: broadcast::Sender::new(PLACEMENTS),
        syncs: watch::Sender::default(),
        events,
        metrics: Arc::clone(&metrics),
        token: leading.clone(),
        tracker: tracker.clone(),
    });
    tracker.spawn(write_events);
    config::tell_scope(&control, &control.config.borrow());
    tracing::info!("Starting cluster controller");
    tracker.spawn(cluster::run(Arc::clone(&control)));
    tracker.spawn(types::run(Arc::clone(&control)));
    tracker.spawn(scheduling::run(Arc::clone(&control)));
    tracker.spawn(config::follow(Arc::clone(&control), file, config));
    lease.hold(&leading).await;
    let lost = !token.is_cancelled();
    leading.cancel();
    tracker.close();
    tracker.wait().await;
    metrics.leads(false);
    lease.release().await;
    if lost {
        bail!("lost lease");
    }
    Ok(())
}

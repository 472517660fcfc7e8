//! What can be counted, under the names that KubeFed's dashboards ask for.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

type Labels = Vec<(&'static str, String)>;

/// The states of a cluster, one of which is 1.
const STATES: [&str; 3] = ["ready", "notready", "offline"];

/// The metrics of one controller manager.
pub struct Metrics {
    registry: Mutex<Registry>,
    leads: Gauge,
    clusters: Family<Labels, Gauge>,
    joined: Gauge,
    probes: Histogram,
    dispatches: Family<Labels, Histogram, fn() -> Histogram>,
    reconciles: Family<Labels, Counter>,
    reconcile_times: Family<Labels, Histogram, fn() -> Histogram>,
    paused: Family<Labels, Gauge>,
    pauses: Family<Labels, Counter>,
}

/// From a millisecond to half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Metrics {
            registry: Mutex::default(),
            leads: Gauge::default(),
            clusters: Family::default(),
            joined: Gauge::default(),
            probes: seconds(),
            dispatches: Family::new_with_constructor(seconds),
            reconciles: Family::default(),
            reconcile_times: Family::new_with_constructor(seconds),
            paused: Family::default(),
            pauses: Family::default(),
        };
        {
            let mut registry = metrics.registry.lock();
            registry.register(
                "leader_election_master_status",
                "Whether this process leads",
                metrics.leads.clone(),
            );
            registry.register(
                "kubefedcluster_total",
                "Clusters by state",
                metrics.clusters.clone(),
            );
            registry.register("joined_cluster_total", "Joined clusters", metrics.joined.clone());
            registry.register(
                "cluster_health_status_duration_seconds",
                "How long it takes to ask a cluster how it is",
                metrics.probes.clone(),
            );
            registry.register(
                "dispatch_operation_duration_seconds",
                "How long a write to a cluster takes",
                metrics.dispatches.clone(),
            );
            registry.register(
                "controller_runtime_reconcile",
                "Reconciliations by controller and result",
                metrics.reconciles.clone(),
            );
            registry.register(
                "kubefed_lane_paused",
                "Whether a cluster is asked nothing for a kind now, as it failed again and again",
                metrics.paused.clone(),
            );
            registry.register(
                "kubefed_lane_pauses",
                "Pauses in asking a cluster for a kind, as it failed again and again",
                metrics.pauses.clone(),
            );
            registry.register(
                "controller_runtime_reconcile_time_seconds",
                "How long a reconciliation takes",
                metrics.reconcile_times.clone(),
            );
        }
        metrics
    }
}

fn lane(cluster: &str, kind: &str) -> Labels {
    vec![("cluster", cluster.to_owned()), ("kind", kind.to_owned())]
}

impl Metrics {
    /// The text of all.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // A string takes whatever is written to it.
        let _written = encode(&mut text, &self.registry.lock());
        text
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    pub(crate) fn cluster(&self, name: &str, state: &str) {
        for known in STATES {
            let labels = vec![("state", known.to_owned()), ("cluster", name.to_owned())];
            self.clusters.get_or_create(&labels).set(i64::from(known == state));
        }
    }

    pub(crate) fn forget_cluster(&self, name: &str) {
        for known in STATES {
            self.clusters.remove(&vec![("state", known.to_owned()), ("cluster", name.to_owned())]);
        }
    }

    pub(crate) fn lane_paused(&self, cluster: &str, kind: &str) {
        self.paused.get_or_create(&lane(cluster, kind)).set(1);
        self.pauses.get_or_create(&lane(cluster, kind)).inc();
    }

    pub(crate) fn lane_goes_on(&self, cluster: &str, kind: &str) {
        self.paused.get_or_create(&lane(cluster, kind)).set(0);
    }

    pub(crate) fn forget_lane(&self, cluster: &str, kind: &str) {
        self.paused.remove(&lane(cluster, kind));
        self.pauses.remove(&lane(cluster, kind));
    }

    pub(crate) fn joined(&self, clusters: usize) {
        self.joined.set(i64::try_from(clusters).unwrap_or(i64::MAX));
    }

    pub(crate) fn probed(&self, took: Duration) {
        self.probes.observe(took.as_secs_f64());
    }

    /// `action`: create, update or delete.
    pub(crate) fn dispatched(&self, action: &'static str, took: Duration) {
        let labels = vec![("action", action.to_owned())];
        self.dispatches.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn reconciled(&self, controller: &str, well: bool, took: Duration) {
        let result = if well { "success" } else { "error" };
        let controller = controller.to_owned();
        let labels = vec![("controller", controller.clone()), ("result", result.to_owned())];
        self.reconciles.get_or_create(&labels).inc();
        let labels = vec![("controller", controller)];
        self.reconcile_times.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_kubefed() {
        let metrics = Metrics::default();
        metrics.cluster("c1", "ready");
        metrics.cluster("c2", "offline");
        metrics.forget_cluster("c2");
        metrics.dispatched("create", Duration::from_millis(3));
        metrics.reconciled("federateddeployment", true, Duration::from_millis(1));
        let text = metrics.render();
        for line in [
            "kubefedcluster_total{state=\"ready\",cluster=\"c1\"} 1",
            "kubefedcluster_total{state=\"offline\",cluster=\"c1\"} 0",
            "dispatch_operation_duration_seconds_count{action=\"create\"} 1",
            "controller_runtime_reconcile_total{controller=\"federateddeployment\",result=\"success\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("c2"));
    }
}

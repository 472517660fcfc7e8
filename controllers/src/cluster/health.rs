//! One probe of a cluster, what several say together, and the conditions that follow. Pure but for the probe itself.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kubefed_api::kubefedconfig::HealthCheck;
use kubefed_apimachinery::time;
use serde_json::{Value, json};

use crate::client::{Client, METADATA_LIST};

/// What a probe found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    /// Why there is no client.
    pub(super) malformed: Option<String>,
    /// Why the cluster was not reached.
    pub(super) unreachable: Option<String>,
    pub(super) healthy: bool,
    pub(super) version: String,
    pub(super) region: String,
    pub(super) zones: Vec<String>,
}

impl Probe {
    pub(super) fn malformed(why: String) -> Self {
        Probe { malformed: Some(why), ..Probe::default() }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.healthy
    }

    /// The name of this in metrics.
    pub(super) fn state(&self) -> &'static str {
        if self.healthy {
            "ready"
        } else if self.unreachable.is_some() {
            "offline"
        } else {
            "notready"
        }
    }
}

/// Asks a cluster how it is and, with `describe`, what it is; each question takes at most `timeout`.
pub(super) async fn probe(client: &Client, timeout: Duration, describe: bool) -> Probe {
    let answer = match client.text("/healthz", timeout).await {
        Ok(answer) => answer,
        Err(error) => return Probe { unreachable: Some(error.to_string()), ..Probe::default() },
    };
    let mut probe = Probe { healthy: answer.eq_ignore_ascii_case("ok"), ..Probe::default() };
    if !describe {
        return probe;
    }
    if let Ok(version) = client.text("/version", timeout).await
        && let Ok(version) = serde_json::from_str::<Value>(&version)
    {
        version["gitVersion"]
            .as_str()
            .unwrap_or("")
            .chars()
            .take(100)
            .collect::<String>()
            .clone_into(&mut probe.version);
    }
    // Nodes may be hidden from us, or there may be many: a page says where the cluster is.
    if let Ok(nodes) = client.get_as("/api/v1/nodes?limit=500", METADATA_LIST, timeout).await {
        (probe.region, probe.zones) = places(&nodes);
    }
    probe
}

fn places(nodes: &Value) -> (String, Vec<String>) {
    let label = |node: &Value, names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| node["metadata"]["labels"].get(*name)?.as_str().map(str::to_owned))
    };
    let nodes = nodes["items"].as_array().map_or(&[][..], Vec::as_slice);
    let region = nodes.iter().find_map(|node| {
        label(node, ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"])
    });
    let zones: BTreeSet<String> = nodes
        .iter()
        .filter_map(|node| {
            label(node, ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"])
        })
        .collect();
    (region.unwrap_or_default(), zones.into_iter().collect())
}

/// Believes a change only when it was found so many times in a row.
#[derive(Default)]
pub(super) struct Thresholds {
    settled: Option<Probe>,
    differing: u32,
}

impl Thresholds {
    /// What is believed after one more probe. The first is believed at once.
    pub(super) fn take(&mut self, probe: Probe, check: &HealthCheck) -> Probe {
        let Some(settled) = &self.settled else {
            self.settled = Some(probe.clone());
            return probe;
        };
        if settled.is_ready() == probe.is_ready() {
            self.differing = 0;
            self.settled = Some(probe.clone());
            return probe;
        }
        self.differing += 1;
        let threshold =
            if probe.is_ready() { check.success_threshold } else { check.failure_threshold };
        if self.differing < threshold {
            return settled.clone();
        }
        self.differing = 0;
        self.settled = Some(probe.clone());
        probe
    }
}

/// The status that says so, or `None` when `old` says it and is fresh enough.
pub(super) fn status(
    old: &Value,
    probe: &Probe,
    now: Timestamp,
    refresh: Duration,
) -> Option<Value> {
    let stamp = time::rfc3339(now);
    let condition = |kind: &str, status: bool, reason: &str, message: &str| json!({"type": kind, "status": if status { "True" } else { "False" }, "reason": reason, "message": message});
    let mut conditions = match probe {
        Probe { malformed: Some(why), .. } => vec![condition(
            "ConfigMalformed",
            true,
            "ClusterConfigMalformed",
            &format!("cluster's configuration may be malformed: {why}"),
        )],
        Probe { unreachable: Some(why), .. } => {
            vec![condition(
                "Offline",
                true,
                "ClusterNotReachable",
                &format!("cluster is not reachable: {why}"),
            )]
        }
        Probe { healthy: true, .. } => {
            vec![condition("Ready", true, "ClusterReady", "/healthz responded with ok")]
        }
        _ => vec![
            condition("Ready", false, "ClusterNotReady", "/healthz responded without ok"),
            condition("Offline", false, "ClusterReachable", "cluster is reachable"),
        ],
    };
    let known = |kind: &Value| {
        old["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == *kind)
    };
    let mut fresh =
        old["conditions"].as_array().is_some_and(|known| known.len() == conditions.len());
    for condition in &mut conditions {
        let before = known(&condition["type"]);
        let same = before
            .is_some_and(|b| ["status", "reason", "message"].iter().all(|f| b[f] == condition[f]));
        let probed = before.and_then(|b| b["lastProbeTime"].as_str()).and_then(time::parse);
        let young =
            probed.is_some_and(|at| now.as_second() - at.as_second() < refresh.as_secs() as i64);
        fresh &= same && young;
        let since = before
            .filter(|b| b["status"] == condition["status"])
            .map(|b| b["lastTransitionTime"].clone());
        condition["lastTransitionTime"] =
            since.filter(Value::is_string).unwrap_or_else(|| json!(stamp));
        condition["lastProbeTime"] = json!(stamp);
    }
    let mut status = json!({"conditions": conditions});
    // What a cluster that is away told last is still the best that is known.
    for (field, value) in [
        ("kubernetesVersion", json!(probe.version)),
        ("region", json!(probe.region)),
        ("zones", json!(probe.zones)),
    ] {
        let empty = value == json!("") || value == json!([]);
        if !empty && old[field] != value {
            status[field] = value;
            fresh = false;
        }
    }
    (!fresh).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: HealthCheck = HealthCheck {
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(3),
        failure_threshold: 3,
        success_threshold: 1,
    };

    fn probe(healthy: bool) -> Probe {
        Probe { healthy, ..Probe::default() }
    }

    #[test]
    fn a_cluster_is_given_up_after_failures_in_a_row_only() {
        let mut thresholds = Thresholds::default();
        let found = [true, false, false, true, false, false, false, true];
        let believed: Vec<bool> =
            found.map(|healthy| thresholds.take(probe(healthy), &CHECK).is_ready()).to_vec();
        assert_eq!(believed, [true, true, true, true, true, true, false, true]);
    }

    #[test]
    fn a_status_is_written_when_something_changed_or_is_old() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let refresh = Duration::from_secs(300);
        let first = status(&json!({}), &probe(true), at(0), refresh).unwrap();
        assert_eq!(status(&first, &probe(true), at(10), refresh), None);
        assert!(status(&first, &probe(true), at(301), refresh).is_some());
        let failed = status(&first, &probe(false), at(20), refresh).unwrap();
        assert_eq!(failed["conditions"][0]["status"], "False");
        assert_ne!(
            failed["conditions"][0]["lastTransitionTime"],
            first["conditions"][0]["lastTransitionTime"]
        );
    }

    #[test]
    fn region_and_zones_come_from_the_nodes() {
        let node = |zone: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone}}});
        let nodes = json!({"items": [node("b"), node("a"), node("b"), {}]});
        assert_eq!(places(&nodes), ("r".into(), vec!["a".into(), "b".into()]));
    }
}

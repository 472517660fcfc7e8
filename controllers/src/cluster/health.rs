//! One probe of a cluster, what several say together, and the conditions that follow. Pure but for the probe itself.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kubefed_api::kubefedconfig::HealthCheck;
use kubefed_apimachinery::{meta, time};
use serde_json::{Value, json};

use crate::client::{Client, METADATA, METADATA_LIST};

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
    /// That of its namespace kube-system, which no two clusters share; empty if it can't be told.
    pub(super) uid: String,
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
    if let Ok(namespace) = client.get_as("/api/v1/namespaces/kube-system", METADATA, timeout).await
    {
        meta::uid(&namespace).chars().take(100).collect::<String>().clone_into(&mut probe.uid);
    }
    // Nodes may be hidden from us, or there may be many: a page says where the cluster is.
    if let Ok(nodes) = client.get_as("/api/v1/nodes?limit=500", METADATA_LIST, timeout).await {
        (probe.region, probe.zones) = places(&nodes);
    }
    probe
}

/// From when on records of the cluster's name are about this one. `cluster`: as it was found when its task began; `uid`:
/// which one answers, if that can be told; `moved`: whether another was reached under the name until now.
pub(super) fn believed_since(cluster: &Value, uid: &str, moved: bool) -> Timestamp {
    let (all, none) = (Timestamp::MIN, Timestamp::MAX);
    let status = &cluster["status"];
    let known = status["clusterUID"].as_str().unwrap_or("");
    let was_probed = status["conditions"].as_array().is_some_and(|told| !told.is_empty());
    match (known, uid) {
        (known, uid) if !known.is_empty() && !uid.is_empty() => {
            if known == uid {
                all
            } else {
                none
            }
        }
        _ if moved => none,
        // It hides who it is, and has been joined before.
        (_, "") if was_probed => all,
        // Records that came with it, or were made for it, are no older than it.
        _ => time::parse(cluster["metadata"]["creationTimestamp"].as_str().unwrap_or(""))
            .unwrap_or(none),
    }
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
        ("clusterUID", json!(probe.uid)),
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
    fn each_outcome_of_a_probe_has_the_conditions_of_kubefed() {
        let malformed = Probe::malformed("spec.proxyURL: why".into());
        let away = Probe { unreachable: Some("why".into()), ..Probe::default() };
        let cases = [
            (
                malformed,
                "notready",
                json!([[
                    "ConfigMalformed",
                    "True",
                    "ClusterConfigMalformed",
                    "cluster's configuration may be malformed: spec.proxyURL: why"
                ]]),
            ),
            (
                away,
                "offline",
                json!([[
                    "Offline",
                    "True",
                    "ClusterNotReachable",
                    "cluster is not reachable: why"
                ]]),
            ),
            (
                probe(false),
                "notready",
                json!([
                    ["Ready", "False", "ClusterNotReady", "/healthz responded without ok"],
                    ["Offline", "False", "ClusterReachable", "cluster is reachable"],
                ]),
            ),
            (
                probe(true),
                "ready",
                json!([["Ready", "True", "ClusterReady", "/healthz responded with ok"]]),
            ),
        ];
        let mut known = json!({});
        for (second, (probe, state, wanted)) in (0..).zip(cases) {
            assert_eq!(probe.state(), state);
            let now = Timestamp::from_second(second).unwrap();
            // Whatever was said before gives way as a whole.
            known = status(&known, &probe, now, Duration::from_secs(300)).unwrap();
            let conditions = known["conditions"].as_array().unwrap();
            let fields = ["type", "status", "reason", "message"];
            let told: Vec<Value> =
                conditions.iter().map(|c| json!(fields.map(|field| &c[field]))).collect();
            assert_eq!(json!(told), wanted);
            for condition in conditions {
                assert_eq!(condition["lastProbeTime"], time::rfc3339(now));
                assert_eq!(condition["lastTransitionTime"], time::rfc3339(now));
            }
        }
    }

    #[test]
    fn the_time_of_a_transition_stays_while_the_condition_does() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let away = |why: &str| Probe { unreachable: Some(why.into()), ..Probe::default() };
        let refresh = Duration::from_secs(300);
        let first = status(&json!({}), &away("one"), at(0), refresh).unwrap();
        let second = status(&first, &away("two"), at(10), refresh).unwrap();
        let condition = &second["conditions"][0];
        assert_eq!(condition["message"], "cluster is not reachable: two");
        assert_eq!(condition["lastTransitionTime"], time::rfc3339(at(0)));
        assert_eq!(condition["lastProbeTime"], time::rfc3339(at(10)));
    }

    #[test]
    fn a_cluster_comes_back_after_successes_in_a_row_and_the_first_probe_counts_at_once() {
        let check = HealthCheck { success_threshold: 2, ..CHECK };
        let mut thresholds = Thresholds::default();
        let found = [false, true, false, true, true];
        let believed = found.map(|healthy| thresholds.take(probe(healthy), &check).is_ready());
        assert_eq!(believed, [false, false, false, false, true]);
        assert!(Thresholds::default().take(probe(true), &check).is_ready());
    }

    #[test]
    fn what_a_cluster_that_is_away_told_last_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let refresh = Duration::from_secs(300);
        let told = Probe { version: "v1.36.0".into(), uid: "u".into(), ..probe(true) };
        let first = status(&json!({}), &told, at(0), refresh).unwrap();
        assert_eq!(
            (&first["kubernetesVersion"], &first["clusterUID"]),
            (&json!("v1.36.0"), &json!("u"))
        );
        let away = Probe { unreachable: Some("why".into()), ..Probe::default() };
        // The status is merged: what is not in it stays.
        let second = status(&first, &away, at(10), refresh).unwrap();
        assert!(second.get("kubernetesVersion").is_none() && second.get("clusterUID").is_none());
    }

    #[test]
    fn records_are_about_the_cluster_that_was_last_joined() {
        let (all, none) = (Timestamp::MIN, Timestamp::MAX);
        let joined = Timestamp::from_second(1_000_000).unwrap();
        let probed = json!({"conditions": [{"type": "Ready"}]});
        let known = json!({"conditions": [{"type": "Ready"}], "clusterUID": "u"});
        for (name, status, uid, moved, since) in [
            ("the same", known.clone(), "u", false, all),
            ("the same at another address", known.clone(), "u", true, all),
            ("another", known.clone(), "v", false, none),
            ("it hides who it is", known.clone(), "", false, all),
            ("it hides who it is, at another address", known, "", true, none),
            ("probed by whoever did not ask who it is", probed.clone(), "u", false, joined),
            ("it has always hidden who it is", probed, "", false, all),
            ("just joined", json!({}), "u", false, joined),
            ("just joined, and hides who it is", json!({}), "", false, joined),
            ("joined in the place of another", json!({}), "u", true, none),
        ] {
            let metadata = json!({"creationTimestamp": time::rfc3339(joined)});
            let cluster = json!({"metadata": metadata, "status": status});
            assert_eq!(believed_since(&cluster, uid, moved), since, "{name}");
        }
    }

    #[test]
    fn region_and_zones_come_from_the_nodes() {
        let node = |zone: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone}}});
        let nodes = json!({"items": [node("b"), node("a"), node("b"), {}]});
        assert_eq!(places(&nodes), ("r".into(), vec!["a".into(), "b".into()]));
    }
}

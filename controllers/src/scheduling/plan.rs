//! What is to become of a federated object that has a preference, decided without touching anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kubefed_api::placement;
use kubefed_api::scheduling::planner::{Candidate, Plan, Preference};
use kubefed_apimachinery::{meta, time};
use serde_json::{Value, json};

/// A pod that no node can take is believed to stay so after this long: until then the cluster may be making room.
const UNSCHEDULABLE: Duration = Duration::from_secs(60);
const REPLICAS: &str = "/spec/replicas";

/// What a user should know of a preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Notice {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Notice { reason, message: message.into() }
    }
}

/// Those of the clusters that the object's own selector matches and its namespace is in. `namespace`: its
/// FederatedNamespace, and none where the namespace does not decide.
///
/// # Errors
/// If that are none, or cannot be told: then the object stays where it is.
pub(super) fn intersection(
    object: &Value,
    namespace: Option<&Value>,
    clusters: &[Arc<Value>],
) -> Result<BTreeSet<String>, Notice> {
    let all: Vec<placement::Cluster> = clusters.iter().map(|c| placement::Cluster::of(c)).collect();
    // The list of names is what was written by us.
    let selector = &object["spec"]["placement"]["clusterSelector"];
    let own = json!({"spec": {"placement": {"clusterSelector": selector}}});
    let wrong = |why| Notice::new("InvalidSelector", why);
    let mut selected = placement::selected(&own, &all).map_err(wrong)?;
    if let Some(namespace) = namespace {
        let of_namespace = placement::selected(namespace, &all)
            .map_err(|why| wrong(format!("FederatedNamespace {}: {why}", meta::name(namespace))))?;
        selected.retain(|name| of_namespace.contains(name));
    }
    if selected.is_empty() {
        let text = "no ready cluster is matched by spec.placement.clusterSelector of the federated object and has its namespace: replicas stay where they are";
        return Err(Notice::new("NoClusters", text));
    }
    Ok(selected)
}

/// What is kept of a workload in a member.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Workload {
    pub(super) replicas: i64,
    pub(super) ready: i64,
    pub(super) selector: Value,
}

impl Workload {
    pub(super) fn of(mut object: Value) -> Self {
        let number = |value: &Value| value.as_i64().unwrap_or(0).max(0);
        Workload {
            replicas: number(&object["spec"]["replicas"]),
            ready: number(&object["status"]["readyReplicas"]),
            selector: object["spec"]["selector"].take(),
        }
    }

    /// What is known of its cluster. `pods`: its pods, which only count while not all replicas are ready.
    ///
    /// More than are wanted are not counted, as KubeFed does: they are the surplus of an update, or about to go.
    pub(super) fn candidate(&self, pods: &Pods) -> Candidate {
        let running = if self.is_settled() { self.ready } else { pods.running };
        let capacity = (pods.unschedulable > 0).then(|| self.replicas - pods.unschedulable);
        Candidate { current: running.min(self.replicas), capacity }
    }

    /// Whether its pods tell no more than its status.
    pub(super) fn is_settled(&self) -> bool {
        self.replicas == self.ready
    }
}

/// What the pods of a workload are up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pods {
    running: i64,
    unschedulable: i64,
    /// When one of them will count as unschedulable, unless it is not any longer.
    pub(super) again: Option<Duration>,
}

impl Pods {
    pub(super) fn take(&mut self, pod: &Value, now: Timestamp) {
        if meta::deletion_timestamp(pod).is_some() {
            return;
        }
        let conditions = pod["status"]["conditions"].as_array();
        let find = |kind: &str, status: &str| {
            let mut all = conditions.into_iter().flatten();
            all.find(|condition| condition["type"] == kind && condition["status"] == status)
        };
        if pod["status"]["phase"] == "Running" {
            self.running += i64::from(find("Ready", "True").is_some());
            return;
        }
        let Some(refused) = find("PodScheduled", "False") else { return };
        if refused["reason"] != "Unschedulable" {
            return;
        }
        // A time that can't be read, or is yet to come, is a moment ago: this comes again.
        let since = refused["lastTransitionTime"].as_str().and_then(time::parse).unwrap_or(now);
        let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        match UNSCHEDULABLE.checked_sub(age) {
            Some(rest) if !rest.is_zero() => {
                self.again = Some(self.again.map_or(rest, |again| again.min(rest)));
            }
            _ => self.unschedulable += 1,
        }
    }
}

/// What the plan leaves to be desired.
pub(super) fn shortfall(preference: &Preference, plan: &Plan) -> Option<Notice> {
    let waiting: i64 = plan.overflow.values().sum();
    let more = plan.left - waiting.min(plan.left);
    (more > 0).then(|| {
        let (placed, total) = (preference.total - more, preference.total);
        let text = format!(
            "{placed} of {total} replicas are placed: maxReplicas, weights and what the clusters can run leave no room for {more}"
        );
        Notice::new("NotAllPlaced", text)
    })
}

/// The change that places an object in just these clusters, each with its replicas; none if it is so. Overrides of other
/// fields stay.
pub(super) fn rewrite(object: &Value, wanted: &BTreeMap<String, i64>) -> Option<Value> {
    let placement = object["spec"]["placement"]["clusters"].as_array();
    let placed: Option<BTreeSet<&str>> = placement
        .map(|clusters| clusters.iter().filter_map(|entry| entry["name"].as_str()).collect());
    let mut spec = json!({});
    if placed.is_none_or(|placed| !placed.into_iter().eq(wanted.keys().map(String::as_str))) {
        let names: Vec<Value> = wanted.keys().map(|name| json!({"name": name})).collect();
        spec["placement"]["clusters"] = json!(names);
    }
    let before = object["spec"]["overrides"].as_array().cloned().unwrap_or_default();
    let overrides = overrides(&before, wanted);
    if overrides != before {
        spec["overrides"] = Value::Array(overrides);
    }
    (spec != json!({})).then(
        || json!({"metadata": {"resourceVersion": meta::resource_version(object)}, "spec": spec}),
    )
}

/// The overrides with the wanted replicas, and no others.
fn overrides(before: &[Value], wanted: &BTreeMap<String, i64>) -> Vec<Value> {
    let mut missing = wanted.clone();
    let mut overrides = Vec::new();
    for entry in before {
        let mut count = entry["clusterName"].as_str().and_then(|name| missing.remove(name));
        let mut entry = entry.clone();
        let changes = entry["clusterOverrides"].as_array().cloned().unwrap_or_default();
        let had = changes.len();
        let mut changes: Vec<Value> = changes
            .into_iter()
            .filter_map(|change| {
                if change["path"] != REPLICAS {
                    return Some(change);
                }
                // One that says so already stays as it was written.
                let count = count.take()?;
                let sets = matches!(change["op"].as_str(), None | Some("" | "add" | "replace"));
                Some(if sets && change["value"] == count { change } else { replicas(count) })
            })
            .collect();
        changes.extend(count.map(replicas));
        if !changes.is_empty() || had == 0 {
            if entry["clusterOverrides"].is_array() || !changes.is_empty() {
                entry["clusterOverrides"] = Value::Array(changes);
            }
            overrides.push(entry);
        }
    }
    let rest = missing
        .into_iter()
        .map(|(name, count)| json!({"clusterName": name, "clusterOverrides": [replicas(count)]}));
    overrides.extend(rest);
    overrides
}

fn replicas(count: i64) -> Value {
    json!({"path": REPLICAS, "value": count})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(counts: &[(&str, i64)]) -> BTreeMap<String, i64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn named(names: &[&str]) -> Value {
        names.iter().map(|name| json!({"name": name})).collect()
    }

    fn of(cluster: &str, changes: Value) -> Value {
        json!({"clusterName": cluster, "clusterOverrides": changes})
    }

    #[test]
    fn an_object_is_written_only_where_it_differs() {
        let image = json!({"path": "/spec/image", "value": "x"});
        let replicas = |count: i64| json!({"path": "/spec/replicas", "value": count});
        let (a1, b2) = (of("a", json!([replicas(1)])), of("b", json!([replicas(2)])));
        let none = || json!(null);
        for (name, clusters, overrides, clusters_after, overrides_after) in [
            ("as it is to be", named(&["b", "a"]), json!([b2, a1]), none(), none()),
            ("new", none(), none(), named(&["a", "b"]), json!([a1, b2])),
            ("elsewhere", named(&["a", "c"]), json!([a1, b2]), named(&["a", "b"]), none()),
            (
                "another count",
                named(&["a", "b"]),
                json!([of("a", json!([replicas(9)])), b2]),
                none(),
                json!([a1, b2]),
            ),
            (
                "who is no longer here",
                named(&["a", "b"]),
                json!([of("c", json!([replicas(9)])), a1, b2]),
                none(),
                json!([a1, b2]),
            ),
            (
                "overrides of users",
                named(&["a", "b"]),
                json!([
                    of("c", json!([image, replicas(9)])),
                    of("a", json!([replicas(7), image])),
                    of("b", json!([image]))
                ]),
                none(),
                json!([
                    of("c", json!([image])),
                    of("a", json!([replicas(1), image])),
                    of("b", json!([image, replicas(2)]))
                ]),
            ),
            (
                "replicas that are taken away",
                named(&["a", "b"]),
                json!([of("a", json!([{"op": "remove", "path": "/spec/replicas"}])), b2]),
                none(),
                json!([a1, b2]),
            ),
            (
                "an operation that comes to the same",
                named(&["a", "b"]),
                json!([of("a", json!([{"op": "add", "path": "/spec/replicas", "value": 1}])), b2]),
                none(),
                none(),
            ),
            (
                "a user's empty entry",
                named(&["a", "b"]),
                json!([{"clusterName": "c"}, a1, b2]),
                none(),
                none(),
            ),
        ] {
            let mut object = json!({"metadata": {"resourceVersion": "7"}, "spec": {"overrides": overrides, "placement": {}}});
            object["spec"]["placement"]["clusters"] = clusters;
            let patch = rewrite(&object, &wanted(&[("a", 1), ("b", 2)]));
            let found = patch.clone().unwrap_or_default();
            assert_eq!(found["spec"]["placement"]["clusters"], clusters_after, "{name}");
            assert_eq!(found["spec"]["overrides"], overrides_after, "{name}");
            if let Some(patch) = patch {
                assert_eq!(patch["metadata"]["resourceVersion"], "7", "{name}");
                kubefed_apimachinery::patch::merge::apply(&mut object, &patch);
                assert_eq!(rewrite(&object, &wanted(&[("a", 1), ("b", 2)])), None, "{name}");
            }
        }
    }

    #[test]
    fn an_intersection_is_what_selector_and_namespace_have_in_common() {
        let cluster = |name: &str, tier: &str| {
            Arc::new(json!({"metadata": {"name": name, "labels": {"tier": tier}}}))
        };
        let clusters = [cluster("a", "gold"), cluster("b", "gold"), cluster("c", "tin")];
        let object = |selector: Value| json!({"spec": {"placement": {"clusters": named(&["c"]), "clusterSelector": selector}}});
        let gold = || json!({"matchLabels": {"tier": "gold"}});
        let in_namespace =
            |names: &[&str]| json!({"spec": {"placement": {"clusters": named(names)}}});
        for (selector, namespace, found) in [
            (gold(), None, Ok(vec!["a", "b"])),
            (json!({}), None, Ok(vec!["a", "b", "c"])),
            (gold(), Some(in_namespace(&["b", "c"])), Ok(vec!["b"])),
            (gold(), Some(in_namespace(&["c"])), Err("NoClusters")),
            (json!(null), None, Err("NoClusters")),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Is"}]}),
                None,
                Err("InvalidSelector"),
            ),
        ] {
            let selected = intersection(&object(selector.clone()), namespace.as_ref(), &clusters);
            let selected = selected.map(|names| names.into_iter().collect::<Vec<_>>());
            let selected = selected.map_err(|notice| notice.reason);
            let found = found.map(|names| names.into_iter().map(String::from).collect());
            assert_eq!(selected, found, "{selector} {namespace:?}");
        }
    }

    #[test]
    fn what_a_cluster_can_run_follows_from_the_pods_that_wait() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let running = |ready: &str| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        let pending = |reason: &str, since: &str| {
            json!({"status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": reason, "lastTransitionTime": since},
            ]}})
        };
        let waiting = || pending("Unschedulable", "2026-01-01T00:08:00Z");
        let young = pending("Unschedulable", "2026-01-01T00:09:45Z");
        let mut going = running("True");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let all = |ready| Workload { replicas: 5, ready, selector: Value::Null };
        for (name, workload, pods, current, capacity, again) in [
            ("all ready", all(5), vec![], 5, None, None),
            ("surplus of an update", all(7), vec![running("True"); 7], 5, None, None),
            (
                "some ready",
                all(2),
                vec![running("True"), running("True"), running("False")],
                2,
                None,
                None,
            ),
            ("some going", all(1), vec![running("True"), going], 1, None, None),
            (
                "no room for two",
                all(3),
                vec![running("True"), waiting(), waiting()],
                1,
                Some(3),
                None,
            ),
            ("no room for a moment", all(4), vec![young, running("True")], 1, None, Some(45)),
            (
                "held up otherwise",
                all(4),
                vec![pending("SchedulingGated", "2026-01-01T00:00:00Z")],
                0,
                None,
                None,
            ),
            (
                "a time that is none",
                all(4),
                vec![pending("Unschedulable", "soon")],
                0,
                None,
                Some(60),
            ),
        ] {
            let mut found = Pods::default();
            pods.iter().for_each(|pod| found.take(pod, now));
            assert_eq!(workload.candidate(&found), Candidate { current, capacity }, "{name}");
            assert_eq!(found.again, again.map(Duration::from_secs), "{name}");
        }
    }

    #[test]
    fn replicas_without_a_place_are_told_and_those_that_wait_are_not() {
        let preference = Preference::of(&json!({"spec": {"totalReplicas": 9}}));
        let plan = |left, overflow| Plan { left, overflow: wanted(overflow), ..Plan::default() };
        assert_eq!(shortfall(&preference, &plan(0, &[])), None);
        assert_eq!(shortfall(&preference, &plan(2, &[("a", 2)])), None);
        let notice = shortfall(&preference, &plan(3, &[("a", 2)])).unwrap();
        assert!(notice.message.starts_with("8 of 9 replicas are placed"), "{}", notice.message);
    }
}

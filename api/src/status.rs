//! The status of a federated object.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What keeps the object in one cluster from being as wanted. The names are KubeFed's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Empty: nothing.
    pub state: &'static str,
    pub message: String,
    pub remote: Option<Value>,
}

/// Everything that a status says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    pub generation: i64,
    /// Why the object as a whole is not propagated; empty: it is.
    pub reason: &'static str,
    pub message: String,
    pub clusters: BTreeMap<String, ClusterStatus>,
}

pub const OK: &str = "";
pub const CHECK_CLUSTERS: &str = "CheckClusters";
pub const COMPUTE_PLACEMENT_FAILED: &str = "ComputePlacementFailed";
pub const NAMESPACE_NOT_FEDERATED: &str = "NamespaceNotFederated";
pub const UNKNOWN_CLUSTERS: &str = "UnknownClusters";

pub const WAITING_FOR_REMOVAL: &str = "WaitingForRemoval";
pub const CLUSTER_NOT_READY: &str = "ClusterNotReady";
pub const CACHED_RETRIEVAL_FAILED: &str = "CachedRetrievalFailed";
pub const APPLY_OVERRIDES_FAILED: &str = "ApplyOverridesFailed";
pub const CREATION_FAILED: &str = "CreationFailed";
pub const UPDATE_FAILED: &str = "UpdateFailed";
pub const DELETION_FAILED: &str = "DeletionFailed";
pub const LABEL_REMOVAL_FAILED: &str = "LabelRemovalFailed";
pub const ALREADY_EXISTS: &str = "AlreadyExists";
pub const MANAGED_LABEL_FALSE: &str = "ManagedLabelFalse";
pub const PENDING: &str = "Pending";

/// The `status` that says so, or `None` if `old` says it already.
pub fn build(old: &Value, propagation: &Propagation, now: &str) -> Option<Value> {
    let failing = propagation.clusters.values().any(|cluster| cluster.state != OK);
    let reason = match propagation.reason {
        OK if failing => CHECK_CLUSTERS,
        reason => reason,
    };
    let status = if reason == OK { "True" } else { "False" };
    let clusters: Vec<Value> = propagation
        .clusters
        .iter()
        .map(|(name, cluster)| {
            let mut entry = json!({"name": name});
            for (field, text) in [("status", cluster.state), ("message", cluster.message.as_str())]
            {
                if !text.is_empty() {
                    entry[field] = json!(text);
                }
            }
            if let Some(remote) = &cluster.remote {
                entry["remoteStatus"] = remote.clone();
            }
            entry
        })
        .collect();
    let known = old["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Propagation");
    let text = |field: &str| known.and_then(|condition| condition[field].as_str()).unwrap_or("");
    let same_condition = text("status") == status
        && text("reason") == reason
        && text("message") == propagation.message;
    let same_clusters =
        old["clusters"].as_array().map_or(&[][..], Vec::as_slice) == clusters.as_slice();
    if same_condition && same_clusters && old["observedGeneration"] == propagation.generation {
        return None;
    }
    let transition = if text("status") == status && text("reason") == reason {
        text("lastTransitionTime")
    } else {
        now
    };
    let mut condition = json!({
        "type": "Propagation",
        "status": status,
        "lastUpdateTime": now,
        "lastTransitionTime": if transition.is_empty() { now } else { transition },
    });
    for (field, text) in [("reason", reason), ("message", propagation.message.as_str())] {
        if !text.is_empty() {
            condition[field] = json!(text);
        }
    }
    // An empty list is written too: where this is merged into the old status, a missing one would leave the old one.
    Some(json!({
        "observedGeneration": propagation.generation,
        "conditions": [condition],
        "clusters": clusters,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propagation(state: &'static str) -> Propagation {
        let clusters =
            BTreeMap::from([("a".to_owned(), ClusterStatus { state, ..ClusterStatus::default() })]);
        Propagation { generation: 2, clusters, ..Propagation::default() }
    }

    #[test]
    fn clusters_that_are_left_are_no_longer_told_of() {
        let first = build(&json!({}), &propagation(OK), "t1").unwrap();
        let nowhere = Propagation { generation: 3, ..Propagation::default() };
        let second = build(&first, &nowhere, "t2").unwrap();
        // The controllers merge it into the old status: what is not in it would stay there.
        assert_eq!(second["clusters"], json!([]));
        assert_eq!(build(&second, &nowhere, "t3"), None);
    }

    #[test]
    fn a_condition_tells_when_it_began_and_why() {
        let mut propagation = propagation(OK);
        let first = build(&json!({}), &propagation, "t1").unwrap();
        assert_eq!(
            first["conditions"],
            json!([{"type": "Propagation", "status": "True", "lastUpdateTime": "t1", "lastTransitionTime": "t1"}])
        );
        propagation.reason = NAMESPACE_NOT_FEDERATED;
        propagation.message = "why".into();
        let second = build(&first, &propagation, "t2").unwrap();
        assert_eq!(
            second["conditions"],
            json!([{
                "type": "Propagation", "status": "False", "reason": "NamespaceNotFederated", "message": "why",
                "lastUpdateTime": "t2", "lastTransitionTime": "t2",
            }])
        );
        // Other words for the same are an update, not a transition.
        propagation.message = "why else".into();
        let third = build(&second, &propagation, "t3").unwrap();
        assert_eq!(third["conditions"][0]["lastUpdateTime"], "t3");
        assert_eq!(third["conditions"][0]["lastTransitionTime"], "t2");
        // Other clusters are an update too.
        propagation.clusters.insert(
            "0".into(),
            ClusterStatus { remote: Some(json!({"x": 1})), ..ClusterStatus::default() },
        );
        let fourth = build(&third, &propagation, "t4").unwrap();
        assert_eq!(
            fourth["clusters"],
            json!([{"name": "0", "remoteStatus": {"x": 1}}, {"name": "a"}])
        );
        assert_eq!(fourth["conditions"][0]["lastTransitionTime"], "t2");
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let first = build(&json!({}), &propagation(OK), "t1").unwrap();
        assert_eq!(first["conditions"][0]["status"], "True");
        assert_eq!(first["clusters"], json!([{"name": "a"}]));
        assert_eq!(build(&first, &propagation(OK), "t2"), None);
        let failed = build(&first, &propagation(UPDATE_FAILED), "t3").unwrap();
        assert_eq!(failed["conditions"][0]["reason"], CHECK_CLUSTERS);
        assert_eq!(failed["conditions"][0]["lastTransitionTime"], "t3");
        let next = Propagation { generation: 3, ..propagation(UPDATE_FAILED) };
        assert_eq!(
            build(&failed, &next, "t4").unwrap()["conditions"][0]["lastTransitionTime"],
            "t3"
        );
    }
}

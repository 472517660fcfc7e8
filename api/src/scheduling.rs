//! ReplicaSchedulingPreference and ReplicaSchedulingStrategy: how replicas are spread.

use kubefed_apimachinery::definition::{Definition, Strategy};
use kubefed_apimachinery::field;
use kubefed_apimachinery::table::Column;
use serde_json::{Value, json};

use crate::{Kind, SCHEDULING_GROUP};

pub mod planner;
pub mod strategy;

/// The federated kinds that a preference can be for.
pub const TARGETS: &[&str] = &["FederatedDeployment", "FederatedReplicaSet"];

/// Both kinds.
pub fn definitions() -> Vec<Definition> {
    vec![preference(), strategy()]
}

fn preference() -> Definition {
    Kind {
        kind: "ReplicaSchedulingPreference",
        plural: "replicaschedulingpreferences",
        short_names: &["rsp"],
        namespaced: true,
        status: false,
        versions: &[(SCHEDULING_GROUP, "v1alpha1")],
        columns: vec![
            Column::new("Target", "string", ".spec.targetKind", 0),
            Column::new("Replicas", "integer", ".spec.totalReplicas", 0),
            Column::age(),
        ],
        schema: json!({
            "description": "ReplicaSchedulingPreference spreads the replicas of the federated object of the same name over its members.",
            "type": "object",
            "required": ["spec"],
            "properties": {
                "spec": {
                    "description": "What is wanted.",
                    "type": "object",
                    "required": ["targetKind", "totalReplicas"],
                    "properties": {
                        "targetKind": {"type": "string", "description": "FederatedDeployment or FederatedReplicaSet."},
                        "totalReplicas": {"type": "integer", "format": "int32", "minimum": 0, "description": "The replicas of all members together."},
                        "rebalance": {"type": "boolean", "description": "Whether running replicas may be moved."},
                        "intersectWithClusterSelector": {"type": "boolean", "description": "Whether only members that the object's cluster selector matches count."},
                        "strategyName": {"type": "string", "description": "A ReplicaSchedulingStrategy that divides in place of the weights."},
                        "clusters": {"type": "object", "description": "By member; * stands for those without an entry.", "additionalProperties": {
                            "type": "object",
                            "properties": {
                                "minReplicas": {"type": "integer", "format": "int64", "minimum": 0, "description": "At least so many."},
                                "maxReplicas": {"type": "integer", "format": "int64", "minimum": 0, "description": "At most so many."},
                                "weight": {"type": "integer", "format": "int64", "minimum": 0, "description": "The share of what is left."},
                            },
                        }},
                    },
                },
                "status": {"type": "object", "description": "Always empty.", "x-kubernetes-preserve-unknown-fields": true},
            },
        }),
        strategy: Strategy { validate: validate_preference, ..Strategy::NONE },
    }
    .define()
}

fn validate_preference(preference: &Value) -> Vec<field::Error> {
    let spec = &preference["spec"];
    let root = field::Path::root("spec");
    let mut errors = Vec::new();
    if !TARGETS.iter().any(|kind| spec["targetKind"] == *kind) {
        errors.push(field::Error::not_supported(
            &root.child("targetKind"),
            spec["targetKind"].clone(),
            TARGETS,
        ));
    }
    for (name, cluster) in spec["clusters"].as_object().into_iter().flatten() {
        let (min, max) =
            (cluster["minReplicas"].as_i64().unwrap_or(0), cluster["maxReplicas"].as_i64());
        if let Some(max) = max.filter(|max| *max < min) {
            let path = root.child("clusters").key(name).child("maxReplicas");
            errors.push(field::Error::invalid(
                &path,
                json!(max),
                "must not be less than minReplicas",
            ));
        }
    }
    errors
}

fn strategy() -> Definition {
    Kind {
        kind: "ReplicaSchedulingStrategy",
        plural: "replicaschedulingstrategies",
        short_names: &["rss"],
        namespaced: false,
        status: false,
        versions: &[(SCHEDULING_GROUP, "v1alpha1")],
        columns: vec![Column::new("Spread-By", "string", ".spec.spreadPolicy.spreadByField", 0), Column::age()],
        schema: json!({
            "description": "ReplicaSchedulingStrategy says over which fields of clusters replicas are spread evenly.",
            "type": "object",
            "required": ["spec"],
            "properties": {"spec": {
                "description": "What is wanted.",
                "type": "object",
                "required": ["spreadPolicy"],
                "properties": {"spreadPolicy": {
                    "description": "How replicas are spread.",
                    "type": "object",
                    "required": ["spreadByField"],
                    "properties": {
                        "spreadByField": {"type": "string", "minLength": 1, "description": "The field of clusters whose values get equally many replicas: region, zone, cluster, or a label."},
                        "weightedFields": {"type": "array", "description": "Fields that decide inside that, by weight.", "items": {
                            "type": "object",
                            "required": ["name", "weight"],
                            "properties": {
                                "name": {"type": "string", "minLength": 1, "description": "The field."},
                                "weight": {"type": "integer", "format": "int64", "minimum": 0, "description": "How much it counts."},
                            },
                        }},
                    },
                }},
            }},
        }),
        strategy: Strategy::NONE,
    }
    .define()
}

#[cfg(test)]
mod tests;

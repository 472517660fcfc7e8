//! PropagatedVersion and its like: what the controllers remember of each member.

use kubefed_apimachinery::definition::{Definition, Strategy};
use kubefed_apimachinery::table::Column;
use serde_json::{Value, json};

use crate::{CORE_GROUP, Kind};

/// PropagatedVersion, or for cluster-scoped kinds ClusterPropagatedVersion.
pub fn definition(cluster: bool) -> Definition {
    Kind {
        kind: if cluster { "ClusterPropagatedVersion" } else { "PropagatedVersion" },
        plural: if cluster { "clusterpropagatedversions" } else { "propagatedversions" },
        short_names: &[],
        namespaced: !cluster,
        status: true,
        versions: &[(CORE_GROUP, "v1alpha1")],
        columns: vec![Column::age()],
        schema: json!({
            "description": "Which version of a federated object's template and overrides each member has. Written by the controllers.",
            "type": "object",
            "properties": {"status": {
                "description": "What was propagated.",
                "type": "object",
                "required": ["templateVersion", "overridesVersion"],
                "properties": {
                    "templateVersion": {"type": "string", "description": "The hash of the template."},
                    "overridesVersion": {"type": "string", "description": "The hash of the overrides."},
                    "clusterVersions": {"type": "array", "description": "The version of the object in each member.", "items": {
                        "type": "object",
                        "required": ["clusterName", "version"],
                        "properties": {
                            "clusterName": {"type": "string", "description": "The member."},
                            "version": {"type": "string", "description": "gen: and a generation, or rv: and a resource version."},
                        },
                    }},
                },
            }},
        }),
        strategy: Strategy::NONE,
    }
    .define()
}

/// FederatedServiceStatus: the status of a service in each member.
pub fn federated_service_status() -> Definition {
    Kind {
        kind: "FederatedServiceStatus",
        plural: "federatedservicestatuses",
        short_names: &[],
        namespaced: true,
        status: false,
        versions: &[(CORE_GROUP, "v1alpha1")],
        columns: vec![Column::age()],
        schema: json!({
            "description": "The status of a federated service in each member.",
            "type": "object",
            "properties": {"clusterStatus": {"type": "array", "description": "By member.", "items": {
                "type": "object",
                "required": ["clusterName", "status"],
                "properties": {
                    "clusterName": {"type": "string", "description": "The member."},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": "The status of the service there."},
                },
            }}},
        }),
        strategy: Strategy::NONE,
    }
    .define()
}

/// The name of the record of an object: the target's kind in lower case, and the object's name.
pub fn name(target_kind: &str, name: &str) -> String {
    format!("{}-{name}", target_kind.to_lowercase())
}

/// The record of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    pub template: String,
    pub overrides: String,
    /// By member, sorted.
    pub clusters: std::collections::BTreeMap<String, String>,
}

impl Versions {
    pub fn of(record: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let status = &record["status"];
        let clusters = status["clusterVersions"].as_array().into_iter().flatten();
        Versions {
            template: text(&status["templateVersion"]),
            overrides: text(&status["overridesVersion"]),
            clusters: clusters
                .map(|entry| (text(&entry["clusterName"]), text(&entry["version"])))
                .collect(),
        }
    }

    /// The `status` of the record.
    pub fn to_status(&self) -> Value {
        let clusters: Vec<Value> = self
            .clusters
            .iter()
            .map(|(name, version)| json!({"clusterName": name, "version": version}))
            .collect();
        json!({"templateVersion": self.template, "overridesVersion": self.overrides, "clusterVersions": clusters})
    }
}

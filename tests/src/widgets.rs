//! A kind that tests define: widgets, and what tests do with definitions.

use kubefed_controllers::client::{Client, Error};
use serde_json::{Value, json};

use crate::{Cluster, eventually};

/// Where definitions are, and the widgets of a namespace in either version.
pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const V1: &str = "/apis/example.com/v1/namespaces/default/widgets";
pub const V1BETA1: &str = "/apis/example.com/v1beta1/namespaces/default/widgets";

/// `widgets.example.com` in the versions `v1`, which is stored, and `v1beta1`.
pub fn widgets() -> Value {
    let schema = json!({
        "type": "object",
        "description": "Widget is a thing to turn.",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "description": "What is wanted of the widget.",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "description": "How large it is."},
                    "color": {"type": "string", "default": "grey", "pattern": "^[a-z]+$"},
                    "replicas": {"type": "integer", "default": 1},
                    "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "parts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"], "properties": {
                            "name": {"type": "string"}, "weight": {"type": "integer"},
                        }},
                    },
                },
            },
            "status": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "phase": {"type": "string"}, "selector": {"type": "string"},
            }},
        },
    });
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {
                "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector",
            }},
            "additionalPrinterColumns": [
                {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
            ],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [version("v1", true), version("v1beta1", false)],
        },
    })
}

/// A Widget, in a version.
pub fn widget(version: &str, name: &str) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 3}})
}

/// Waits until a condition of a definition has this status.
pub async fn condition(admin: &Client, crd: &str, kind: &str, status: &str) -> Value {
    eventually(&format!("{kind} of {crd} is {status}"), async || {
        let crd = admin.get(&format!("{CRDS}/{crd}")).await.ok()?;
        let conditions = crd["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|found| found["type"] == kind && found["status"] == status)
    })
    .await
}

/// Defines a kind in a member, and waits until it is served.
pub async fn define(member: &Cluster, crd: &Value) {
    let admin = member.admin();
    admin.create(CRDS, crd).await.expect("a definition");
    let name = crd["metadata"]["name"].as_str().expect("a name");
    condition(&admin, name, "Established", "True").await;
}

/// The code and the words of a refusal.
pub fn refusal(outcome: Result<Value, Error>) -> (u16, String) {
    match outcome {
        Err(Error::Status(status)) => (status.code, status.message),
        other => panic!("not refused: {other:?}"),
    }
}

/// Waits until nothing is at a path.
pub async fn is_gone(admin: &Client, path: &str) {
    eventually(&format!("{path} is gone"), async || {
        admin.get(path).await.err().filter(Error::is_not_found)
    })
    .await;
}

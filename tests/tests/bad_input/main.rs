//! Input that is wrong: it is refused in Kubernetes' words, which name the field, and changes nothing.

use kubefed_tests::raw::{ADMIN, Answer, Raw};
use kubefed_tests::{Cluster, NAMESPACE, a_federation, eventually};
use serde_json::{Value, json};

mod bodies;
mod fields;
mod parameters;
mod patches;
mod writes;

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
const SECRETS: &str = "/api/v1/namespaces/a/secrets";
const DEPLOYMENTS: &str = "/apis/types.kubefed.io/v1beta1/namespaces/a/federateddeployments";
const CLUSTERS: &str =
    "/apis/core.kubefed.io/v1beta1/namespaces/kube-federation-system/kubefedclusters";

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

fn deployment(name: &str) -> Value {
    let labels = json!({"app": "web"});
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedDeployment", "metadata": {"name": name},
        "spec": {
            "template": {"spec": {
                "replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]}},
            }},
            "placement": {"clusters": [{"name": "one"}]},
            "overrides": [{"clusterName": "one", "clusterOverrides": [{"path": "/spec/replicas", "value": 2}]}],
        },
    })
}

fn cluster(name: &str) -> Value {
    json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedCluster", "metadata": {"name": name},
        "spec": {"apiEndpoint": "https://one.example.com", "secretRef": {"name": "one"}},
    })
}

/// `object` with `value` at a JSON pointer whose last step may be new.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("a place")[field] = value;
    object
}

fn without(mut object: Value, field: &str) -> Value {
    object.as_object_mut().expect("an object").remove(field);
    object
}

/// A federation that serves FederatedDeployments, with one and a ConfigMap called `here` in the namespace `a`.
async fn a_federation_with_objects() -> (Cluster, Raw) {
    let federation = a_federation().await;
    let mut admin = federation.raw(ADMIN).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    admin.create("/api/v1/namespaces", &namespace).await;
    let mut configs = kubefed_api::federatedtypeconfig::defaults().into_iter();
    let config = configs.find(|config| config["metadata"]["name"] == "deployments.apps");
    let path = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs");
    admin.create(&path, &config.expect("a config for deployments")).await;
    eventually("federated deployments are served", async || {
        let mut admin = federation.raw(ADMIN).await;
        (admin.get(DEPLOYMENTS).await.code == 200).then_some(())
    })
    .await;
    admin.create(MAPS, &map("here")).await;
    admin.create(DEPLOYMENTS, &deployment("here")).await;
    (federation, admin)
}

/// Everything that could have changed.
async fn state(federation: &Cluster) -> Vec<Value> {
    let mut admin = federation.raw(ADMIN).await;
    let mut state = Vec::new();
    for path in [MAPS, SECRETS, DEPLOYMENTS, CLUSTERS] {
        let answer = admin.get(path).await;
        assert_eq!(answer.code, 200, "{path}");
        state.push(answer.json()["items"].clone());
    }
    state
}

/// A `Status` of this code and reason, whose message holds `text`.
fn assert_refused(answer: &Answer, what: &str, (code, reason): (u16, &str), text: &str) -> Value {
    let status = answer.json();
    assert_eq!(answer.code, code, "{what}: {status}");
    assert_eq!(
        (&status["kind"], &status["status"], &status["code"], &status["reason"]),
        (&json!("Status"), &json!("Failure"), &json!(code), &json!(reason)),
        "{what}: {status}"
    );
    let message = status["message"].as_str().expect("a message");
    assert!(message.contains(text), "{what}: {message}\nlacks {text}");
    status
}

/// The fields and reasons of the causes.
fn causes<'a>(status: &'a Value) -> Vec<(&'a str, &'a str)> {
    let causes = status["details"]["causes"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &'a Value| value.as_str().unwrap_or("");
    causes.iter().map(|cause| (text(&cause["field"]), text(&cause["reason"]))).collect()
}

const BAD_REQUEST: (u16, &str) = (400, "BadRequest");
const CONFLICT: (u16, &str) = (409, "Conflict");
const TOO_LARGE: (u16, &str) = (413, "RequestEntityTooLarge");
const UNSUPPORTED: (u16, &str) = (415, "UnsupportedMediaType");
const INVALID: (u16, &str) = (422, "Invalid");

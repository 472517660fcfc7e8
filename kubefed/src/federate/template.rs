//! From an object of one cluster to a federated object. Pure.

use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_apimachinery::meta;
use serde_json::{Map, Value, json};

/// Labels that tie a Job and its pods to each other; each cluster makes its own.
const OF_JOB: &[&str] = &[
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
];

/// Whether an annotation is a note of the tools that wrote the object.
pub(super) fn is_of_tool(annotation: &str) -> bool {
    annotation == "kubectl.kubernetes.io/last-applied-configuration"
        || annotation == "deployment.kubernetes.io/revision"
}

/// The federated object that puts a copy of an object into every cluster.
pub(super) fn federated(config: &FederatedTypeConfig, object: &Value) -> Value {
    let federated = &config.federated;
    let name = meta::name(object);
    let namespace = match config.is_namespaces() {
        true => name,
        false => meta::namespace(object),
    };
    let mut metadata = json!({"name": name});
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": federated.api_version(),
        "kind": federated.kind,
        "metadata": metadata,
        "spec": {
            "template": template(config, object),
            "placement": {"clusterSelector": {"matchLabels": {}}},
        },
    })
}

/// An object without what its cluster has put into it.
fn template(config: &FederatedTypeConfig, object: &Value) -> Value {
    let mut template: Map<String, Value> = object.as_object().cloned().unwrap_or_default();
    for field in ["apiVersion", "kind", "status", "metadata"] {
        template.remove(field);
    }
    let labels = &object["metadata"]["labels"];
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        template.insert("metadata".into(), json!({"labels": labels}));
    }
    let mut template = Value::Object(template);
    let target = &config.target;
    match (target.group.as_str(), target.kind.as_str()) {
        ("", "Namespace") => {
            remove(&mut template, "/spec", "finalizers");
            // Each cluster labels its namespaces so by itself.
            remove(&mut template, "/metadata/labels", "kubernetes.io/metadata.name");
        }
        ("", "ServiceAccount") => remove(&mut template, "", "secrets"),
        ("", "Service") => service(&mut template),
        ("", "PersistentVolumeClaim") => remove(&mut template, "/spec", "volumeName"),
        ("batch", "Job") if object["spec"]["manualSelector"] != true => {
            remove(&mut template, "/spec", "selector");
            for label in OF_JOB {
                remove(&mut template, "/metadata/labels", label);
                remove(&mut template, "/spec/template/metadata/labels", label);
            }
        }
        _ => {}
    }
    if template.pointer("/spec/template/metadata/creationTimestamp") == Some(&Value::Null) {
        remove(&mut template, "/spec/template/metadata", "creationTimestamp");
    }
    template
}

/// A Service without the addresses and ports of its cluster.
fn service(template: &mut Value) {
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    // That it has no address is a wish and no address.
    if spec.get("clusterIP").is_some_and(|address| address != "None") {
        spec.remove("clusterIP");
    }
    spec.remove("clusterIPs");
    spec.remove("healthCheckNodePort");
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
}

/// Removes a field, and the object that it was in if nothing else was.
fn remove(template: &mut Value, parent: &str, field: &str) {
    let Some(object) = template.pointer_mut(parent).and_then(Value::as_object_mut) else { return };
    if object.remove(field).is_some()
        && object.is_empty()
        && let Some((grandparent, name)) = parent.rsplit_once('/')
    {
        remove(template, grandparent, name);
    }
}

#[cfg(test)]
mod tests {
    use kubefed_api::federatedtypeconfig::{ApiResource, of_target, plural_name};

    use super::*;

    fn made(api_version: &str, kind: &str, scope: &str, object: Value) -> Value {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let target = ApiResource {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural_name: plural_name(kind),
            scope: scope.into(),
        };
        let config = of_target(&target, "types.kubefed.io", "v1beta1");
        let mut object = object;
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        federated(&FederatedTypeConfig::from_value(&config).unwrap(), &object)
    }

    #[test]
    fn of_the_metadata_only_labels_come_along() {
        let object = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"a": "b"},
                "uid": "1", "resourceVersion": "2", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [], "ownerReferences": [], "finalizers": ["x"],
            },
            "spec": {"replicas": 2, "template": {"metadata": {"creationTimestamp": null, "labels": {"app": "web"}}}},
            "status": {"replicas": 2},
        });
        let wanted = json!({
            "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedDeployment",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}}}},
                },
                "placement": {"clusterSelector": {"matchLabels": {}}},
            },
        });
        assert_eq!(made("apps/v1", "Deployment", "Namespaced", object), wanted);
    }

    #[test]
    fn what_a_cluster_has_put_in_stays_there() {
        for (api_version, kind, object, wanted) in [
            (
                "v1",
                "Namespace",
                json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}}, "spec": {"finalizers": ["kubernetes"]}}),
                json!({}),
            ),
            (
                "v1",
                "ServiceAccount",
                json!({"metadata": {"name": "a"}, "secrets": [{"name": "t"}], "imagePullSecrets": [{"name": "p"}]}),
                json!({"imagePullSecrets": [{"name": "p"}]}),
            ),
            (
                "v1",
                "Service",
                json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30000}]}}),
                json!({"spec": {"ports": [{"port": 80}]}}),
            ),
            (
                "v1",
                "Service",
                json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}}),
                json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}),
            ),
            (
                "v1",
                "PersistentVolumeClaim",
                json!({"metadata": {"name": "a"}, "spec": {"volumeName": "pv-1", "storageClassName": "fast"}}),
                json!({"spec": {"storageClassName": "fast"}}),
            ),
            (
                "batch/v1",
                "Job",
                json!({
                    "metadata": {"name": "a", "labels": {"controller-uid": "1", "app": "a"}},
                    "spec": {
                        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "1"}},
                        "template": {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "1", "job-name": "a"}}, "spec": {}},
                    },
                }),
                json!({"metadata": {"labels": {"app": "a"}}, "spec": {"template": {"spec": {}}}}),
            ),
            (
                "batch/v1",
                "Job",
                json!({"metadata": {"name": "a"}, "spec": {"manualSelector": true, "selector": {"matchLabels": {"x": "y"}}}}),
                json!({"spec": {"manualSelector": true, "selector": {"matchLabels": {"x": "y"}}}}),
            ),
            // Another kind of the same name is left as it is.
            (
                "serving.example.com/v1",
                "Service",
                json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "x"}}),
                json!({"spec": {"clusterIP": "x"}}),
            ),
        ] {
            let made = made(api_version, kind, "Namespaced", object);
            assert_eq!(made["spec"]["template"], wanted, "{kind}");
        }
    }

    #[test]
    fn a_federated_namespace_is_in_the_namespace() {
        let made = made("v1", "Namespace", "Cluster", json!({"metadata": {"name": "shop"}}));
        assert_eq!(made["metadata"], json!({"name": "shop", "namespace": "shop"}));
    }
}

//! From a federated object to the object that a cluster is to have.

use serde_json::{Value, json};

use crate::federatedtypeconfig::FederatedTypeConfig;
use crate::{MANAGED_LABEL, overrides};

/// What the template must not say, since each cluster says it itself.
pub const NOT_PROPAGATED: &[(&str, &str)] =
    &[("annotations", "AnnotationsNotSupported"), ("finalizers", "FinalizersNotSupported")];

/// The object as `cluster` is to have it: template, identity, overrides, the managed label.
///
/// # Errors
/// Which override does not fit.
pub fn desired(
    object: &Value,
    config: &FederatedTypeConfig,
    cluster: &str,
) -> Result<Value, String> {
    let mut desired = base(object, config);
    overrides::apply(&mut desired, &overrides::for_cluster(object, cluster))?;
    if !desired["metadata"]["labels"].is_object() {
        desired["metadata"]["labels"] = json!({});
    }
    desired["metadata"]["labels"][MANAGED_LABEL] = json!("true");
    Ok(desired)
}

/// The template with the identity of the object, before overrides.
fn base(object: &Value, config: &FederatedTypeConfig) -> Value {
    let template = &object["spec"]["template"];
    let mut base = if template.is_object() { template.clone() } else { json!({}) };
    if !base["metadata"].is_object() {
        base["metadata"] = json!({});
    }
    let metadata = &mut base["metadata"];
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|field, _| field == "labels");
    }
    metadata["name"] = object["metadata"]["name"].clone();
    if config.target.is_namespaced() {
        metadata["namespace"] = object["metadata"]["namespace"].clone();
    }
    base["kind"] = json!(config.target.kind);
    if base["apiVersion"].as_str().is_none_or(str::is_empty) {
        base["apiVersion"] = json!(config.target.api_version());
    }
    if let Some(base) = base.as_object_mut() {
        base.remove("status");
    }
    base
}

/// Whether the cluster keeps its own `spec.replicas`.
pub fn retains_replicas(object: &Value) -> bool {
    object["spec"]["retainReplicas"] == true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_gets_the_template_with_its_overrides() {
        let config = FederatedTypeConfig {
            target: crate::federatedtypeconfig::ApiResource {
                group: "apps".into(),
                version: "v1".into(),
                kind: "Deployment".into(),
                plural_name: "deployments".into(),
                scope: "Namespaced".into(),
            },
            ..FederatedTypeConfig::default()
        };
        let object = json!({
            "metadata": {"name": "web", "namespace": "ns", "labels": {"not": "this"}},
            "spec": {
                "template": {"metadata": {"labels": {"app": "web"}, "annotations": {"x": "y"}}, "spec": {"replicas": 3}},
                "overrides": [{"clusterName": "a", "clusterOverrides": [{"path": "/spec/replicas", "value": 2}]}],
            },
        });
        let wanted = |replicas: i64| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "ns", "labels": {"app": "web", MANAGED_LABEL: "true"}},
                "spec": {"replicas": replicas},
            })
        };
        assert_eq!(desired(&object, &config, "a").unwrap(), wanted(2));
        assert_eq!(desired(&object, &config, "b").unwrap(), wanted(3));
    }
}

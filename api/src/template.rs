//! From a federated object to the object that a cluster is to have.

use serde_json::{Value, json};

use crate::federatedtypeconfig::FederatedTypeConfig;
use crate::{MANAGED_LABEL, overrides};

/// What the template must not say, since each cluster says it itself.
pub const NOT_PROPAGATED: &[(&str, &str)] =
    &[("annotations", "AnnotationsNotSupported"), ("finalizers", "FinalizersNotSupported")];

/// The object as `cluster` is to have it: template, overrides, and whatever these say, the identity of the federated
/// object and the managed label.
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
    // Last, for an override of a parent such as /metadata is allowed: it must not lead to another object.
    identify(&mut desired, object, config)
        .ok_or("the overrides leave no object: metadata and metadata.labels must be objects")?;
    Ok(desired)
}

/// What overrides change: the template, of its metadata only the labels.
fn base(object: &Value, config: &FederatedTypeConfig) -> Value {
    let template = &object["spec"]["template"];
    let mut base = template.as_object().cloned().unwrap_or_default();
    base.remove("status");
    let labels = template["metadata"]["labels"].as_object().cloned();
    base.insert("metadata".into(), labels.map_or_else(|| json!({}), |l| json!({"labels": l})));
    let mut base = Value::Object(base);
    if base["apiVersion"].as_str().is_none_or(str::is_empty) {
        base["apiVersion"] = json!(config.target.api_version());
    }
    base
}

/// Sets what makes it this object, and ours. None if there is no place for that.
fn identify(desired: &mut Value, object: &Value, config: &FederatedTypeConfig) -> Option<()> {
    let desired = desired.as_object_mut()?;
    desired.insert("kind".into(), json!(config.target.kind));
    let metadata = desired.get_mut("metadata")?.as_object_mut()?;
    metadata.insert("name".into(), object["metadata"]["name"].clone());
    if config.target.is_namespaced() {
        metadata.insert("namespace".into(), object["metadata"]["namespace"].clone());
    } else {
        metadata.remove("namespace");
    }
    metadata.remove("generateName");
    let labels = metadata.entry("labels").or_insert_with(|| json!({})).as_object_mut()?;
    labels.insert(MANAGED_LABEL.into(), json!("true"));
    Some(())
}

/// Whether the cluster keeps its own `spec.replicas`.
pub fn retains_replicas(object: &Value) -> bool {
    object["spec"]["retainReplicas"] == true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::federatedtypeconfig::ApiResource;

    fn config(namespaced: bool) -> FederatedTypeConfig {
        let scope = if namespaced { "Namespaced" } else { "Cluster" };
        FederatedTypeConfig {
            target: ApiResource {
                group: "apps".into(),
                version: "v1".into(),
                kind: "Deployment".into(),
                plural_name: "deployments".into(),
                scope: scope.into(),
            },
            ..FederatedTypeConfig::default()
        }
    }

    fn overridden(changes: Value) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "ns", "labels": {"not": "this"}},
            "spec": {
                "template": {"metadata": {"labels": {"app": "web"}, "annotations": {"x": "y"}}, "spec": {"replicas": 3}, "status": {"old": 1}},
                "overrides": [{"clusterName": "a", "clusterOverrides": changes}],
            },
        })
    }

    #[test]
    fn a_cluster_gets_the_template_with_its_overrides() {
        let object = overridden(json!([{"path": "/spec/replicas", "value": 2}]));
        let wanted = |replicas: i64| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "ns", "labels": {"app": "web", MANAGED_LABEL: "true"}},
                "spec": {"replicas": replicas},
            })
        };
        assert_eq!(desired(&object, &config(true), "a").unwrap(), wanted(2));
        assert_eq!(desired(&object, &config(true), "b").unwrap(), wanted(3));
        let cluster_wide = desired(&object, &config(false), "b").unwrap();
        assert_eq!(cluster_wide["metadata"].get("namespace"), None);
    }

    #[test]
    fn no_override_makes_it_another_object() {
        let labels = json!({MANAGED_LABEL: "true"});
        for (changes, wanted) in [
            (
                json!([{"path": "/metadata", "value": {"name": "x", "namespace": "y", "generateName": "z"}}]),
                Some(labels.clone()),
            ),
            (
                json!([{"path": "/metadata/labels", "value": {MANAGED_LABEL: "false"}}]),
                Some(labels.clone()),
            ),
            (json!([{"op": "remove", "path": "/metadata/labels"}]), Some(labels)),
            (json!([{"path": "/metadata/labels", "value": "x"}]), None),
            (json!([{"path": "/metadata", "value": "x"}]), None),
            (json!([{"op": "remove", "path": "/metadata"}]), None),
            (json!([{"path": "", "value": "x"}]), None),
        ] {
            let made = desired(&overridden(changes.clone()), &config(true), "a").ok();
            let metadata = made.as_ref().map(|made| made["metadata"].clone());
            let wanted =
                wanted.map(|labels| json!({"name": "web", "namespace": "ns", "labels": labels}));
            assert_eq!(metadata, wanted, "{changes}");
            assert!(made.is_none_or(|made| made["kind"] == "Deployment"), "{changes}");
        }
    }

    #[test]
    fn annotations_come_by_overrides_alone() {
        let object = overridden(
            json!([{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}]),
        );
        assert_eq!(
            desired(&object, &config(true), "a").unwrap()["metadata"]["annotations"],
            json!({"a": "b"})
        );
        assert_eq!(
            desired(&object, &config(true), "b").unwrap()["metadata"].get("annotations"),
            None
        );
    }

    #[test]
    fn a_template_may_name_another_version_of_its_kind() {
        let mut object = overridden(json!([]));
        object["spec"]["template"]["apiVersion"] = json!("apps/v1beta2");
        object["spec"]["template"]["kind"] = json!("Other");
        let made = desired(&object, &config(true), "a").unwrap();
        assert_eq!(
            (made["apiVersion"].as_str(), made["kind"].as_str()),
            (Some("apps/v1beta2"), Some("Deployment"))
        );
        let bare = json!({"metadata": {"name": "web"}, "spec": {"template": "nonsense"}});
        assert_eq!(desired(&bare, &config(false), "a").unwrap()["apiVersion"], "apps/v1");
    }

    proptest! {
        #[test]
        fn whatever_the_overrides_say_it_is_this_object_or_none(
            changes in prop::collection::vec((
                prop::sample::select(vec!["add", "remove", "replace", "", "move", "copy", "test", "?"]),
                prop::sample::select(vec![
                    "", "/", "/metadata", "/metadata/", "/metadata/labels", "/metadata/labels/kubefed.io~1managed", "/metadata/name",
                    "/kind", "/spec", "/spec/replicas", "/spec/-", "/spec/list/0", "/spec/list/-1", "/spec/list/-9", "/apiVersion", "x", "/~", "/~2",
                ]),
                prop::sample::select(vec![json!(null), json!("x"), json!(7), json!([]), json!([1, [2]]), json!({}), json!({"list": [1, 2]}), json!({"name": "x"})]),
            ), 0..5),
        ) {
            let changes: Vec<Value> = changes.into_iter()
                .map(|(op, path, value)| json!({"op": op, "path": path, "value": value}))
                .collect();
            if let Ok(made) = desired(&overridden(json!(changes)), &config(true), "a") {
                prop_assert_eq!(&made["kind"], "Deployment");
                prop_assert_eq!(&made["metadata"]["name"], "web");
                prop_assert_eq!(&made["metadata"]["namespace"], "ns");
                prop_assert_eq!(&made["metadata"]["labels"][MANAGED_LABEL], "true");
            }
        }
    }
}

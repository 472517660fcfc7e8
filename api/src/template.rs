//! From a federated object to the object that a cluster is to have.

use serde_json::{Value, json};

use crate::federatedtypeconfig::FederatedTypeConfig;
use crate::{MANAGED_LABEL, overrides};

/// What the template must not say, since each cluster says it itself, and the reason of the event that tells so.
const NOT_PROPAGATED: &[(&str, &str)] =
    &[("annotations", "AnnotationsNotSupported"), ("finalizers", "FinalizersNotSupported")];
/// What a cluster gives a Service once, and never another time.
const GIVEN_ONCE: &[&str] = &["clusterIP", "clusterIPs", "healthCheckNodePort"];

/// What the template says in vain: the reason of the event that tells it, and what it is.
pub fn not_propagated(object: &Value) -> impl Iterator<Item = (&'static str, String)> {
    let metadata = &object["spec"]["template"]["metadata"];
    let said = |field: &str| match &metadata[field] {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    NOT_PROPAGATED.iter().filter(move |(field, _)| said(field)).map(|(field, reason)| {
        let text = format!(
            "spec.template.metadata.{field} is not propagated; an override of /metadata/{field} is"
        );
        (*reason, text)
    })
}

/// The object as `cluster` is to have it: template, what the cluster keeps of the object that is `there`, overrides, and
/// whatever these say, the identity of the federated object and the managed label.
///
/// # Errors
/// Which override does not fit.
pub fn desired(
    object: &Value,
    config: &FederatedTypeConfig,
    cluster: &str,
    there: Option<&Value>,
) -> Result<Value, String> {
    let mut desired = base(object, config);
    if let Some(there) = there {
        retain(&mut desired, object, config, there);
    }
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

/// Whether a cluster keeps something of its object although the template says otherwise.
pub fn retains(object: &Value, config: &FederatedTypeConfig) -> bool {
    match config.target.kind.as_str() {
        "Service" => {
            let spec = &object["spec"]["template"]["spec"];
            GIVEN_ONCE.iter().any(|field| spec.get(field).is_some())
        }
        _ => object["spec"]["retainReplicas"] == true,
    }
}

/// What the template leaves out is the cluster's anyway, since objects are applied. This is for what it does say: to leave
/// such a field out would give it up, and the cluster would fall to its default.
fn retain(desired: &mut Value, object: &Value, config: &FederatedTypeConfig, there: &Value) {
    let Some(spec) = desired.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let there = &there["spec"];
    match config.target.kind.as_str() {
        "Service" => {
            for field in GIVEN_ONCE {
                let given = match &there[field] {
                    Value::String(text) => !text.is_empty(),
                    Value::Array(items) => !items.is_empty(),
                    number => number.as_i64().is_some_and(|number| number > 0),
                };
                if given && spec.contains_key(*field) {
                    spec.insert((*field).into(), there[field].clone());
                }
            }
        }
        _ if object["spec"]["retainReplicas"] == true && there["replicas"].is_i64() => {
            spec.insert("replicas".into(), there["replicas"].clone());
        }
        _ => {}
    }
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
        assert_eq!(desired(&object, &config(true), "a", None).unwrap(), wanted(2));
        assert_eq!(desired(&object, &config(true), "b", None).unwrap(), wanted(3));
        let cluster_wide = desired(&object, &config(false), "b", None).unwrap();
        assert_eq!(cluster_wide["metadata"].get("namespace"), None);
    }

    #[test]
    fn a_cluster_keeps_its_replicas_unless_an_override_says_how_many() {
        let there = json!({"spec": {"replicas": 7, "paused": true}});
        let mut object = overridden(json!([{"path": "/spec/replicas", "value": 2}]));
        let replicas = |object: &Value, cluster: &str| {
            desired(object, &config(true), cluster, Some(&there)).unwrap()["spec"].clone()
        };
        assert_eq!(replicas(&object, "b"), json!({"replicas": 3}));
        object["spec"]["retainReplicas"] = json!(true);
        assert!(retains(&object, &config(true)));
        assert_eq!(replicas(&object, "b"), json!({"replicas": 7}));
        assert_eq!(replicas(&object, "a"), json!({"replicas": 2}));
    }

    #[test]
    fn a_service_keeps_what_its_cluster_gives_once() {
        let mut config = config(true);
        config.target.kind = "Service".into();
        let service = |spec: &Value| json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"template": {"spec": spec}}});
        let port = json!([{"port": 80, "nodePort": 30080}]);
        let given = json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"], "healthCheckNodePort": 31000, "ports": [{"port": 80, "nodePort": 31080}]});
        for (template, there, wanted) in [
            // What is left out is the cluster's anyway.
            (json!({"ports": port}), given.clone(), json!({"ports": port})),
            (
                json!({"clusterIP": "10.0.0.1", "ports": port}),
                given.clone(),
                json!({"clusterIP": "10.0.0.9", "ports": port}),
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "healthCheckNodePort": 32000}),
                given,
                json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"], "healthCheckNodePort": 31000}),
            ),
            (
                json!({"clusterIP": "None"}),
                json!({"clusterIP": "", "healthCheckNodePort": 0}),
                json!({"clusterIP": "None"}),
            ),
        ] {
            let object = service(&template);
            let made = desired(&object, &config, "a", Some(&json!({"spec": there}))).unwrap();
            assert_eq!(made["spec"], wanted, "{template}");
            assert_eq!(retains(&object, &config), template["clusterIP"].is_string(), "{template}");
        }
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
            let made = desired(&overridden(changes.clone()), &config(true), "a", None).ok();
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
            desired(&object, &config(true), "a", None).unwrap()["metadata"]["annotations"],
            json!({"a": "b"})
        );
        assert_eq!(
            desired(&object, &config(true), "b", None).unwrap()["metadata"].get("annotations"),
            None
        );
    }

    #[test]
    fn a_template_may_name_another_version_of_its_kind() {
        let mut object = overridden(json!([]));
        object["spec"]["template"]["apiVersion"] = json!("apps/v1beta2");
        object["spec"]["template"]["kind"] = json!("Other");
        let made = desired(&object, &config(true), "a", None).unwrap();
        assert_eq!(
            (made["apiVersion"].as_str(), made["kind"].as_str()),
            (Some("apps/v1beta2"), Some("Deployment"))
        );
        let bare = json!({"metadata": {"name": "web"}, "spec": {"template": "nonsense"}});
        assert_eq!(desired(&bare, &config(false), "a", None).unwrap()["apiVersion"], "apps/v1");
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
            if let Ok(made) = desired(&overridden(json!(changes)), &config(true), "a", None) {
                prop_assert_eq!(&made["kind"], "Deployment");
                prop_assert_eq!(&made["metadata"]["name"], "web");
                prop_assert_eq!(&made["metadata"]["namespace"], "ns");
                prop_assert_eq!(&made["metadata"]["labels"][MANAGED_LABEL], "true");
            }
        }
    }
}

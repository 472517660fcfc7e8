//! Targets of which only the definition of their federated kind says anything.

use serde_json::{Value, json};

use super::guide;
use crate::federated;
use crate::federatedtypeconfig::FederatedTypeConfig;

#[test]
fn a_target_that_nobody_knows_is_as_the_definition_of_its_federated_kind_says() {
    let mut config = FederatedTypeConfig::from_value(&guide("4.1")).unwrap();
    config.federated.version = "v1beta1".into();
    let crd = |fields: Value| {
        json!({"spec": {
            "names": {"shortNames": ["fwd"]},
            "versions": [{"name": "v1beta1", "storage": true, "schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": fields}}}}}],
        }})
    };
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let closed =
        json!({"type": "object", "properties": {"size": {"type": "integer", "default": 1}}});
    let retains = json!({"type": "boolean"});
    let object = json!({"spec": {
        "template": {"size": "x", "spec": {"replicas": 1.5, "any": {"thing": 1}}}, "retainReplicas": true,
    }});
    for (fields, scales, unknown, wrong) in [
        (json!({"template": open}), false, vec!["spec.retainReplicas"], vec![]),
        (json!({}), false, vec!["spec.retainReplicas"], vec![]),
        (
            json!({"template": open, "retainReplicas": retains}),
            true,
            vec![],
            vec!["spec.template.spec.replicas"],
        ),
        (
            json!({"template": closed}),
            false,
            vec!["spec.retainReplicas", "spec.template.spec"],
            vec!["spec.template.size"],
        ),
    ] {
        let target = federated::target_in(&crd(fields.clone()), "v1beta1");
        let kind = federated::definition(&config, target).unwrap();
        assert_eq!(kind.short_names, ["fwd"]);
        assert_eq!(kind.subresources.scale.is_some(), scales, "{fields}");
        let schema = &kind.versions[0].schema;
        let mut object = object.clone();
        let mut pruned = schema.prune(&mut object);
        pruned.sort();
        assert_eq!(pruned, unknown, "{fields}");
        let paths: Vec<String> =
            schema.validate(&object).into_iter().map(|error| error.path).collect();
        assert_eq!(paths, wrong, "{fields}");
    }
    // A definition may not have the version of the config: then what it stores counts.
    assert!(federated::target_in(&crd(json!({})), "v9").is_some());
    assert!(federated::target_in(&json!({}), "v9").is_none());
}

use std::collections::HashSet;

use kubefed_apimachinery::decode;
use serde_json::json;

use super::*;
use crate::federatedtypeconfig::FederatedTypeConfig;

/// What the schema and the strategy of the object's kind say of it: unknown fields and errors.
fn check(object: &mut Value) -> (Vec<String>, Vec<String>) {
    let mut kinds = kinds();
    for config in federatedtypeconfig::defaults() {
        kinds.push(
            federated::definition(&FederatedTypeConfig::from_value(&config).unwrap(), None)
                .unwrap(),
        );
    }
    let wanted = object["apiVersion"].as_str().unwrap().to_owned();
    let (kind, version) = kinds
        .iter()
        .filter(|kind| object["kind"] == kind.kind.as_str())
        .find_map(|kind| {
            Some((kind, kind.versions.iter().find(|v| v.group_version.to_string() == wanted)?))
        })
        .unwrap_or_else(|| panic!("{wanted} {} is not served", object["kind"]));
    let unknown = version.schema.prune(object);
    version.schema.default(object);
    (kind.strategy.defaults)(object);
    let mut errors = version.schema.validate(object);
    errors.extend((kind.strategy.validate)(object));
    (unknown, errors.iter().map(ToString::to_string).collect())
}

#[test]
fn the_manifests_of_the_guide_are_accepted_unchanged() {
    for manifest in [
        include_str!("../testdata/guide/2.2-kubefedconfig.yaml"),
        include_str!("../testdata/guide/4.1-federatedtypeconfig.yaml"),
        include_str!("../testdata/guide/4.2-federateddeployment.yaml"),
        include_str!("../testdata/guide/5.1-domain.yaml"),
        include_str!("../testdata/guide/5.2-federatedservice.yaml"),
        include_str!("../testdata/guide/6.1-replicaschedulingpreference.yaml"),
        include_str!("../testdata/guide/6.2-replicaschedulingstrategy.yaml"),
    ] {
        let mut object = decode::yaml(manifest.as_bytes()).unwrap().value;
        assert_eq!(check(&mut object), (vec![], vec![]), "{manifest}");
        let mut again = object.clone();
        check(&mut again);
        assert_eq!(again, object);
    }
}

#[test]
fn the_guides_cluster_wants_its_blank_filled_in() {
    let manifest = include_str!("../testdata/guide/3.1-kubefedcluster.yaml");
    let mut object = decode::yaml(manifest.as_bytes()).unwrap().value;
    let (unknown, errors) = check(&mut object);
    assert!(unknown.is_empty());
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("spec.caBundle: "), "{}", errors[0]);
}

#[test]
fn the_default_configs_are_valid_and_make_kinds() {
    let mut kinds = HashSet::new();
    for mut config in federatedtypeconfig::defaults() {
        config["metadata"]["namespace"] = json!(SYSTEM_NAMESPACE);
        assert_eq!(check(&mut config), (vec![], vec![]));
        kinds.insert(FederatedTypeConfig::from_value(&config).unwrap().federated.kind);
    }
    assert_eq!(kinds.len(), 10);
}

#[test]
fn a_config_elsewhere_is_told_to_have_no_effect() {
    let config = json!({"kind": "FederatedTypeConfig", "metadata": {"namespace": "other"}});
    assert_eq!(outside_of_system_namespace(&config).len(), 1);
}

#[test]
fn every_field_has_a_description() {
    fn walk(value: &Value, path: &str, missing: &mut Vec<String>) {
        for (name, property) in value["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().is_none_or(str::is_empty) {
                missing.push(path.clone());
            }
            walk(property, &path, missing);
            walk(&property["items"], &path, missing);
            walk(&property["additionalProperties"], &path, missing);
        }
    }
    for kind in kinds() {
        let version = &kind.versions[0];
        let mut missing = Vec::new();
        walk(version.schema.schemas().raw(&version.schema_name).unwrap(), &kind.kind, &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }
}

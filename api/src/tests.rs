use std::collections::HashSet;
use std::sync::LazyLock;

use kubefed_apimachinery::decode;
use kubefed_apimachinery::patch::json::{Operation, apply_operations};
use serde_json::json;

use super::*;
use crate::federatedtypeconfig::FederatedTypeConfig;

mod hostile;
mod targets;
mod validation;

/// Every kind of the federation, and those that a new control plane federates.
static SERVED: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let configs = federatedtypeconfig::defaults();
    let federated = configs.iter().map(|config| {
        federated::definition(&FederatedTypeConfig::from_value(config).unwrap(), None).unwrap()
    });
    kinds().into_iter().chain(federated).collect()
});

/// The manifests of the guide that are about our kinds, under the numbers of their sections.
static GUIDE: &[(&str, &str)] = &[
    ("2.2", include_str!("../testdata/guide/2.2-kubefedconfig.yaml")),
    ("3.1", include_str!("../testdata/guide/3.1-kubefedcluster.yaml")),
    ("4.1", include_str!("../testdata/guide/4.1-federatedtypeconfig.yaml")),
    ("4.2", include_str!("../testdata/guide/4.2-federateddeployment.yaml")),
    ("5.1", include_str!("../testdata/guide/5.1-domain.yaml")),
    ("5.2", include_str!("../testdata/guide/5.2-federatedservice.yaml")),
    ("6.1", include_str!("../testdata/guide/6.1-replicaschedulingpreference.yaml")),
    ("6.2", include_str!("../testdata/guide/6.2-replicaschedulingstrategy.yaml")),
];

fn guide(section: &str) -> Value {
    let (_, manifest) = GUIDE.iter().find(|(name, _)| *name == section).unwrap();
    decode::yaml(manifest.as_bytes()).unwrap().value
}

fn definition_of(object: &Value) -> Option<(&'static Definition, &'static Version)> {
    let wanted = object["apiVersion"].as_str()?;
    SERVED.iter().filter(|kind| object["kind"] == kind.kind.as_str()).find_map(|kind| {
        Some((kind, kind.versions.iter().find(|v| v.group_version.to_string() == wanted)?))
    })
}

/// What a write of the object meets, in the server's order: unknown fields and errors.
fn check(object: &mut Value) -> (Vec<String>, Vec<String>) {
    let (kind, version) = definition_of(object).expect("the kind is served");
    let unknown = version.schema.prune(object);
    version.schema.default(object);
    (kind.strategy.defaults)(object);
    let mut errors = version.schema.validate(object);
    if errors.is_empty() {
        errors = (kind.strategy.validate)(object);
    }
    (unknown, errors.iter().map(ToString::to_string).collect())
}

/// `base` with other values at some places; null takes a place out.
fn changed(base: &Value, changes: &[(&str, Value)]) -> Value {
    let mut object = base.clone();
    for (path, value) in changes {
        let op = if value.is_null() { "remove" } else { "add" };
        let change = Operation {
            op: op.into(),
            path: (*path).into(),
            from: String::new(),
            value: value.clone(),
        };
        apply_operations(&mut object, &[change])
            .unwrap_or_else(|error| panic!("{path}: {error:?}"));
    }
    object
}

#[test]
fn the_manifests_of_the_guide_are_accepted_unchanged() {
    for (section, manifest) in GUIDE.iter().filter(|(section, _)| *section != "3.1") {
        let given = guide(section);
        let mut stored = given.clone();
        assert_eq!(check(&mut stored), (vec![], vec![]), "{manifest}");
        // What was written stays as it was written, so that a second apply changes nothing.
        let mut merged = stored.clone();
        kubefed_apimachinery::patch::merge::apply(&mut merged, &given);
        assert_eq!(merged, stored, "{manifest}");
        let mut again = stored.clone();
        check(&mut again);
        assert_eq!(again, stored, "{manifest}");
        let (kind, _) = definition_of(&stored).unwrap();
        assert_eq!((kind.strategy.validate_update)(&again, &stored), vec![]);
    }
}

#[test]
fn the_guides_cluster_wants_its_blank_filled_in() {
    let mut object = guide("3.1");
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
fn what_a_config_leaves_out_follows_from_its_name_and_its_kinds() {
    let read = |name: &str, spec: Value| {
        FederatedTypeConfig::from_value(&json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    };
    let config = read(
        "policies.example.com",
        json!({
            "targetType": {"version": "v1", "kind": "Policy", "scope": "Cluster"},
            "federatedType": {"group": "types.kubefed.io", "version": "v1beta1", "kind": "FederatedPolicy"},
            "propagation": "Enabled", "statusCollection": "Enabled", "statusType": {"kind": "PolicyStatus"},
        }),
    );
    let name = |resource: &federatedtypeconfig::ApiResource| {
        (resource.api_version(), resource.plural_name.clone())
    };
    let wanted = |version: &str, plural: &str| (version.to_owned(), plural.to_owned());
    assert_eq!(name(&config.target), wanted("example.com/v1", "policies"));
    assert_eq!(name(&config.federated), wanted("types.kubefed.io/v1beta1", "federatedpolicies"));
    let status = config.status.as_ref().unwrap();
    assert_eq!(name(status), wanted("types.kubefed.io/v1beta1", "policystatuses"));
    assert!(!config.federated_is_namespaced());
    assert_eq!(config.status_apart(), None);

    let services = |collection: &str| {
        let given = json!({"targetType": {}, "federatedType": {}, "statusType": {"kind": "X"}, "statusCollection": collection});
        read("services", given).status_apart().is_some()
    };
    assert!(services("Enabled") && !services("Disabled"));
    let namespaces =
        read("namespaces", json!({"targetType": {"scope": "Cluster"}, "federatedType": {}}));
    assert!(namespaces.is_namespaces() && namespaces.federated_is_namespaced());
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

#[test]
fn the_kinds_have_kubefeds_names() {
    let facts: Vec<String> = kinds()
        .iter()
        .map(|kind| {
            let versions: Vec<String> =
                kind.versions.iter().map(|v| v.group_version.to_string()).collect();
            format!(
                "{} {} {}{}{}",
                versions.join(","),
                kind.plural,
                if kind.namespaced { "namespaced" } else { "cluster" },
                if kind.subresources.status { " status" } else { "" },
                kind.short_names.iter().map(|name| format!(" {name}")).collect::<String>(),
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            "core.kubefed.io/v1beta1 kubefedconfigs namespaced",
            "core.kubefed.io/v1beta1 kubefedclusters namespaced status kfc",
            "core.kubefed.io/v1beta1,types.kubefed.io/v1beta1 federatedtypeconfigs namespaced status ftc",
            "core.kubefed.io/v1alpha1 propagatedversions namespaced status",
            "core.kubefed.io/v1alpha1 clusterpropagatedversions cluster status",
            "core.kubefed.io/v1alpha1 federatedservicestatuses namespaced",
            "scheduling.kubefed.io/v1alpha1 replicaschedulingpreferences namespaced rsp",
            "scheduling.kubefed.io/v1alpha1 replicaschedulingstrategies cluster rss",
            "multiclusterdns.kubefed.io/v1alpha1 domains namespaced",
            "multiclusterdns.kubefed.io/v1alpha1 servicednsrecords namespaced status",
            "multiclusterdns.kubefed.io/v1alpha1 ingressdnsrecords namespaced status",
            "multiclusterdns.kubefed.io/v1alpha1 dnsendpoints namespaced status",
        ]
    );
}

#[test]
fn plurals_are_those_that_kubefed_makes() {
    for (kind, plural) in [
        ("Deployment", "deployments"),
        ("Ingress", "ingresses"),
        ("NetworkPolicy", "networkpolicies"),
        ("Proxy", "proxies"),
        ("Mesh", "meshes"),
        ("Match", "matches"),
        ("Box", "boxes"),
        ("Quiz", "quizes"),
        ("Zero", "zeroes"),
        ("Gateway", "gatewaies"),
    ] {
        assert_eq!(federatedtypeconfig::plural_name(kind), plural);
    }
}

#[test]
fn clusters_have_kubefeds_columns_before_ours() {
    let cluster = kubefedcluster::definition();
    let columns = cluster.versions[0].columns.iter().map(|column| column.name.to_lowercase());
    let columns: Vec<String> = columns.collect();
    assert_eq!(columns[..3], ["age", "ready", "kubernetes-version"]);
}

#[test]
fn records_and_statuses_apart_want_what_kubefeds_had() {
    let of = |kind: &str, fields: Value| {
        let mut object = json!({"apiVersion": "core.kubefed.io/v1alpha1", "kind": kind});
        for (name, value) in fields.as_object().into_iter().flatten() {
            object[name] = value.clone();
        }
        check(&mut object)
    };
    let status = json!({"status": {
        "templateVersion": "1", "overridesVersion": "2", "clusterVersions": [{"clusterName": "a", "version": "gen:1"}],
    }});
    for kind in ["PropagatedVersion", "ClusterPropagatedVersion"] {
        assert_eq!(of(kind, status.clone()), (vec![], vec![]));
        assert_eq!(of(kind, json!({})), (vec![], vec![]));
        let (_, errors) = of(kind, json!({"status": {"clusterVersions": [{}]}}));
        assert_eq!(errors.len(), 4, "{errors:?}");
    }
    let status = json!({"clusterStatus": [{"clusterName": "a", "status": {"loadBalancer": {}}}]});
    assert_eq!(of("FederatedServiceStatus", status), (vec![], vec![]));
    let (_, errors) = of("FederatedServiceStatus", json!({"clusterStatus": [{}]}));
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn a_status_type_is_in_a_group_like_a_federated_one() {
    let typed = |group: Value| {
        let kind = json!({"version": "v1", "kind": "S", "pluralName": "s", "scope": "Namespaced", "group": group});
        check(&mut changed(&guide("4.1"), &[("/spec/statusType", kind)])).1
    };
    assert_eq!(typed(json!("status.example.com")), Vec::<String>::new());
    assert_eq!(typed(json!("")), ["spec.statusType.group: Required value"]);
    assert_eq!(typed(json!("status")).len(), 1);
}

#[test]
fn only_what_has_replicas_retains_them() {
    let config = FederatedTypeConfig::from_value(&guide("4.1")).unwrap();
    let kind = federated::definition(&config, None).unwrap();
    let mut object = json!({"spec": {"retainReplicas": true}});
    assert_eq!(kind.versions[0].schema.prune(&mut object), ["spec.retainReplicas"]);
}

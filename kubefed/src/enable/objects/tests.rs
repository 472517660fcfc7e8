use std::path::Path;

use kubefed_api::federatedtypeconfig::ApiResource;

use super::*;
use crate::plane;

fn target(group: &str, kind: &str, plural: &str, scope: &str) -> ApiResource {
    ApiResource {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        plural_name: plural.into(),
        scope: scope.into(),
    }
}

fn config(target: &ApiResource, group: &str) -> (Value, FederatedTypeConfig) {
    let config = federatedtypeconfig::of_target(target, group, "v1beta1");
    let parsed = FederatedTypeConfig::from_value(&config).unwrap();
    (config, parsed)
}

fn deployments() -> ApiResource {
    target("apps", "Deployment", "deployments", "Namespaced")
}

fn widgets() -> FederatedTypeConfig {
    let widgets = target("example.com", "Widget", "widgets", "Namespaced");
    config(&widgets, "fed.example.com").1
}

fn extension() -> Front {
    Front::Extension(json!({
        "group": "types.kubefed.io", "version": "v1beta1", "caBundle": "Q0E=",
        "groupPriorityMinimum": 1000, "versionPriority": 20,
        "service": {"name": "kubefed-apiserver", "namespace": "ns", "port": 443},
    }))
}

#[test]
fn config_and_definition_are_those_that_kubefed_makes() {
    let namespaces = target("", "Namespace", "namespaces", "Cluster");
    let roles = target("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", "Cluster");
    for (file, target, short_names, shape) in [
        (
            "deployments.yaml",
            deployments(),
            vec!["deploy"],
            Shape { template: true, replicas: true },
        ),
        ("namespaces.yaml", namespaces, vec!["ns"], Shape { template: true, replicas: false }),
        ("clusterroles.yaml", roles, vec![], Shape { template: false, replicas: false }),
    ] {
        let short_names: Vec<String> = short_names.into_iter().map(str::to_owned).collect();
        let (config, parsed) = config(&target, TYPES_GROUP);
        let made = vec![config, definition(&parsed, &short_names, shape)];
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/enable").join(file);
        let wanted = plane::documents(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(made, wanted, "{file}");
    }
}

#[test]
fn what_is_federated_already_is_not_federated_in_another_way() {
    let (_, deployments) = config(&deployments(), TYPES_GROUP);
    let old = target("extensions", "Deployment", "deployments", "Namespaced");
    let stranger = target("example.com", "Deployment", "deployments", "Namespaced");
    for (wanted, why) in [
        (config(&old, TYPES_GROUP).1, Some("federates the same objects")),
        (config(&old, "fed.example.com").1, Some("federates the same objects")),
        (config(&stranger, TYPES_GROUP).1, Some("--federated-group")),
        (config(&stranger, "fed.example.com").1, None),
        (deployments.clone(), None),
        (
            config(&deployments.target, "fed.example.com").1,
            Some(
                "Federation is already enabled for \"deployments.apps\" with federated type \"federateddeployments.types.kubefed.io/v1beta1\"",
            ),
        ),
    ] {
        let found = obstacle(&wanted, std::slice::from_ref(&deployments));
        let fits = match (&found, why) {
            (Some(found), Some(why)) => found.contains(why),
            (found, why) => found.is_none() && why.is_none(),
        };
        assert!(fits, "{} as {}: {found:?}", wanted.name, wanted.federated.qualified_name());
    }
}

#[test]
fn the_controllers_get_the_rights_that_they_lack() {
    let names = |front: &Front, config: &FederatedTypeConfig| {
        let title = |object: &Value| format!("{} {}", resource_name(object), meta::name(object));
        rights(front, "ns", config).iter().map(title).collect::<Vec<String>>()
    };
    let (_, shipped) = config(&deployments(), TYPES_GROUP);
    let policies = target("networking.k8s.io", "NetworkPolicy", "networkpolicies", "Namespaced");
    let (_, policies) = config(&policies, TYPES_GROUP);
    let role = "clusterrole.rbac.authorization.k8s.io kubefed-controller-manager:";
    let binding = "clusterrolebinding.rbac.authorization.k8s.io kubefed-controller-manager:";
    assert_eq!(names(&Front::Definitions, &widgets()), [""; 0]);
    assert_eq!(names(&Front::Alone, &policies), [""; 0]);
    assert_eq!(
        names(&Front::Alone, &widgets()),
        [
            format!("{role}federatedwidgets.fed.example.com"),
            format!("{binding}federatedwidgets.fed.example.com")
        ]
    );
    assert_eq!(names(&extension(), &shipped), [""; 0]);
    assert_eq!(
        names(&extension(), &policies),
        [format!("{role}federatednetworkpolicies.types.kubefed.io")]
    );
    let of_policies = &rights(&extension(), "ns", &policies)[0];
    assert_eq!(of_policies["metadata"]["labels"][FOR_CONTROLLERS], "true");
    assert_eq!(
        of_policies["rules"][0],
        json!({"apiGroups": ["types.kubefed.io"], "resources": ["federatednetworkpolicies"], "verbs": ["list", "watch", "patch"]})
    );
}

#[test]
fn a_group_that_the_host_does_not_know_is_led_to_us_while_a_kind_is_in_it() {
    let (_, shipped) = config(&deployments(), TYPES_GROUP);
    assert_eq!(way(&extension(), &shipped), None);
    assert_eq!(way(&Front::Alone, &widgets()), None);
    let way = way(&extension(), &widgets()).unwrap();
    assert_eq!(meta::name(&way), "v1beta1.fed.example.com");
    assert_eq!(way["spec"]["group"], "fed.example.com");
    assert_eq!(way["spec"]["caBundle"], "Q0E=");
    assert_eq!(way["spec"]["service"]["namespace"], "ns");

    let names = |left: &[FederatedTypeConfig]| {
        let needless = needless(&extension(), "ns", &widgets(), left);
        needless.iter().map(|object| meta::name(object).to_owned()).collect::<Vec<String>>()
    };
    let of_kind = "kubefed-controller-manager:federatedwidgets.fed.example.com";
    let of_group = "kubefed-apiserver:v1beta1.fed.example.com";
    assert_eq!(names(&[shipped]), [of_kind, of_group, of_group, "v1beta1.fed.example.com"]);
    let gadgets = target("example.com", "Gadget", "gadgets", "Namespaced");
    assert_eq!(names(&[config(&gadgets, "fed.example.com").1]), [of_kind]);
}

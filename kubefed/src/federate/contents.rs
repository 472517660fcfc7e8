//! What of a namespace is to be federated. Pure.

use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_apimachinery::meta;
use serde_json::Value;

use crate::discovery::Resource;

/// Kinds whose objects are made by controllers.
const OF_CONTROLLERS: &[&str] =
    &["endpoints", "events", "events.events.k8s.io", "propagatedversions.core.kubefed.io"];

/// The kinds to look for in a namespace, but for those that are skipped by a name or a group.
pub(super) fn kinds(
    resources: &[Resource],
    configs: &[FederatedTypeConfig],
    skipped: &[String],
) -> Vec<Resource> {
    let own = kubefed_api::group_versions();
    let wanted = |resource: &&Resource| {
        let api = &resource.api;
        let is_federated = configs.iter().any(|config| {
            config.federated.group == api.group && config.federated.plural_name == api.plural_name
        });
        let names = OF_CONTROLLERS.iter().copied().chain(skipped.iter().map(String::as_str));
        let is_skipped = names
            .into_iter()
            .any(|name| resource.is_called(name) || (!name.is_empty() && name == api.group));
        resource.preferred
            && api.is_namespaced()
            && api.group != "extensions"
            && resource.can("list")
            && resource.can("create")
            && !is_federated
            && !is_skipped
            && !own.iter().any(|own| own.group == api.group)
    };
    let mut kinds: Vec<Resource> = resources.iter().filter(wanted).cloned().collect();
    kinds.sort_by_key(|kind| kind.api.qualified_name());
    kinds
}

/// Whether each cluster makes such an object by itself: what belongs to an object that is federated itself, and what
/// every namespace of a cluster has.
pub(super) fn is_of_cluster(kind: &Resource, object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let name = meta::name(object);
    owners.into_iter().flatten().any(|owner| owner["controller"] == true)
        || match kind.api.qualified_name().as_str() {
            "configmaps" => name == "kube-root-ca.crt",
            "serviceaccounts" => name == "default",
            "secrets" => object["type"] == "kubernetes.io/service-account-token",
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use kubefed_api::federatedtypeconfig::{self, ApiResource};
    use serde_json::json;

    use super::*;

    fn resource(group: &str, kind: &str, plural: &str, verbs: &[&str]) -> Resource {
        Resource {
            api: ApiResource {
                group: group.into(),
                version: "v1".into(),
                kind: kind.into(),
                plural_name: plural.into(),
                scope: "Namespaced".into(),
            },
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            verbs: verbs.iter().map(|&verb| verb.into()).collect(),
            preferred: true,
        }
    }

    #[test]
    fn only_what_users_write_is_looked_for() {
        const ALL: &[&str] = &["list", "create"];
        let mut nodes = resource("", "Node", "nodes", ALL);
        nodes.api.scope = "Cluster".into();
        let mut old = resource("apps", "Deployment", "deployments", ALL);
        old.preferred = false;
        let resources = [
            resource("", "ConfigMap", "configmaps", ALL),
            resource("", "Secret", "secrets", ALL),
            resource("", "Endpoints", "endpoints", ALL),
            resource("", "Event", "events", ALL),
            resource("events.k8s.io", "Event", "events", ALL),
            resource("apps", "Deployment", "deployments", ALL),
            old,
            nodes,
            resource("extensions", "Ingress", "ingresses", ALL),
            resource("metrics.k8s.io", "PodMetrics", "pods", &["get", "list"]),
            resource("types.kubefed.io", "FederatedDeployment", "federateddeployments", ALL),
            resource("scheduling.kubefed.io", "ReplicaSchedulingPreference", "rsps", ALL),
            resource("fed.example.com", "FederatedWidget", "federatedwidgets", ALL),
        ];
        let widgets = resource("example.com", "Widget", "widgets", ALL).api;
        let config = federatedtypeconfig::of_target(&widgets, "fed.example.com", "v1");
        let configs = [FederatedTypeConfig::from_value(&config).unwrap()];
        let found = |skipped: &[&str]| {
            let skipped: Vec<String> = skipped.iter().map(|&name| name.into()).collect();
            let kinds = kinds(&resources, &configs, &skipped);
            kinds.iter().map(|kind| kind.api.qualified_name()).collect::<Vec<String>>()
        };
        assert_eq!(found(&[]), ["configmaps", "deployments.apps", "secrets"]);
        assert_eq!(found(&["apps", "configmap", ""]), ["secrets"]);
    }

    #[test]
    fn what_each_cluster_makes_is_left() {
        let maps = resource("", "ConfigMap", "configmaps", &[]);
        let accounts = resource("", "ServiceAccount", "serviceaccounts", &[]);
        let secrets = resource("", "Secret", "secrets", &[]);
        for (kind, object, wanted) in [
            (&maps, json!({"metadata": {"name": "kube-root-ca.crt"}}), true),
            (&maps, json!({"metadata": {"name": "mine"}}), false),
            (&accounts, json!({"metadata": {"name": "default"}}), true),
            (&accounts, json!({"metadata": {"name": "kube-root-ca.crt"}}), false),
            (&secrets, json!({"type": "kubernetes.io/service-account-token"}), true),
            (&secrets, json!({"type": "Opaque"}), false),
            (
                &maps,
                json!({"metadata": {"name": "a", "ownerReferences": [{"controller": true}]}}),
                true,
            ),
            (&maps, json!({"metadata": {"name": "a", "ownerReferences": [{"name": "b"}]}}), false),
        ] {
            assert_eq!(is_of_cluster(kind, &object), wanted, "{object}");
        }
    }
}

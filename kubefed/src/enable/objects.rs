//! The objects that a federated kind needs beside its FederatedTypeConfig. Pure.

use kubefed_api::TYPES_GROUP;
use kubefed_api::federatedtypeconfig::{self, FederatedTypeConfig};
use kubefed_apimachinery::meta;
use serde_json::{Map, Value, json};

use super::schema::Shape;
use crate::init::manifests;
use crate::plane::Front;

const RBAC: &str = "rbac.authorization.k8s.io";
/// What a role must have to be part of what the controllers may do in a host.
const FOR_CONTROLLERS: &str = "kubefed.io/aggregate-to-controller-manager";

/// Kinds that Kubernetes has served in several groups: one object, whichever it is asked for in.
const EQUIVALENT: &[(&str, &[&str])] = &[
    ("daemonsets", &["apps", "extensions"]),
    ("deployments", &["apps", "extensions"]),
    ("events", &["", "events.k8s.io"]),
    ("ingresses", &["extensions", "networking.k8s.io"]),
    ("networkpolicies", &["extensions", "networking.k8s.io"]),
    ("podsecuritypolicies", &["extensions", "policy"]),
    ("replicasets", &["apps", "extensions"]),
];

/// Why a kind cannot be federated beside those that are.
pub(super) fn obstacle(
    wanted: &FederatedTypeConfig,
    configs: &[FederatedTypeConfig],
) -> Option<String> {
    let federated = &wanted.federated;
    let told = |config: &FederatedTypeConfig| {
        format!("{}/{}", config.federated.qualified_name(), config.federated.version)
    };
    for config in configs {
        let same = config.federated.group == federated.group
            && config.federated.plural_name == federated.plural_name;
        if config.name == wanted.name {
            if !same || config.federated.version != federated.version {
                return Some(format!(
                    "Federation is already enabled for {:?} with federated type {:?}. Changing the federated type to {:?} is not supported.",
                    wanted.name,
                    told(config),
                    told(wanted)
                ));
            }
            continue;
        }
        let equivalent = EQUIVALENT.iter().any(|(plural, groups)| {
            let one_of_them = |config: &FederatedTypeConfig| {
                config.target.plural_name == *plural
                    && groups.contains(&config.target.group.as_str())
            };
            one_of_them(config) && one_of_them(wanted)
        });
        if equivalent {
            return Some(format!(
                "Failed to enable federation of {:?}: the FederatedTypeConfig {:?} federates the same objects already.",
                wanted.name, config.name
            ));
        }
        if same {
            return Some(format!(
                "Failed to enable federation of {:?}: the FederatedTypeConfig {:?} has a federated type named {:?} already. If these are distinct kinds, another --federated-group allows both.",
                wanted.name,
                config.name,
                federated.qualified_name()
            ));
        }
    }
    None
}

/// Where something about a kind is kept.
fn of_kind(config: &FederatedTypeConfig) -> String {
    format!("kubefed-controller-manager:{}", config.federated.qualified_name())
}

/// Whose name says which group and version the host leads to us.
fn of_group(config: &FederatedTypeConfig) -> String {
    format!("{}.{}", config.federated.version, config.federated.group)
}

/// Whether the control plane has a group of its own accord.
fn is_own_group(config: &FederatedTypeConfig) -> bool {
    let own = kubefed_api::group_versions();
    own.iter()
        .any(|own| own.group == config.federated.group && own.version == config.federated.version)
}

fn role(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole",
        "metadata": {"name": name, "labels": manifests::labels()},
        "rules": rules,
    })
}

fn binding(name: &str, subject: Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": manifests::labels()},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [subject],
    })
}

/// What our controllers and our server must be allowed to do for a kind, beyond what they may do from the beginning.
pub(crate) fn rights(front: &Front, namespace: &str, config: &FederatedTypeConfig) -> Vec<Value> {
    let (group, plural) = (&config.federated.group, &config.federated.plural_name);
    let name = of_kind(config);
    let mut role_of_kind = role(
        &name,
        json!([
            {"apiGroups": [group], "resources": [plural], "verbs": ["list", "watch", "patch"]},
            {"apiGroups": [group], "resources": [format!("{plural}/status")], "verbs": ["patch"]},
        ]),
    );
    match front {
        Front::Definitions => Vec::new(),
        // There they may do anything in the groups of the federation.
        Front::Alone if group == TYPES_GROUP => Vec::new(),
        Front::Alone => {
            let user = json!({"apiGroup": RBAC, "kind": "User", "name": "system:kubefed-controller-manager"});
            vec![role_of_kind, binding(&name, user)]
        }
        Front::Extension(_) => {
            role_of_kind["metadata"]["labels"][FOR_CONTROLLERS] = json!("true");
            let shipped = federatedtypeconfig::defaults().iter().any(|shipped| {
                let federated = &shipped["spec"]["federatedType"];
                federated["group"] == group.as_str() && federated["pluralName"] == plural.as_str()
            });
            let mut rights = Vec::new();
            if !shipped {
                rights.push(role_of_kind);
            }
            if !is_own_group(config) {
                // So that it can tell the host at once when it serves another kind there.
                let service = of_group(config);
                let name = format!("kubefed-apiserver:{service}");
                let rules = json!([{
                    "apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"],
                    "resourceNames": [service], "verbs": ["patch"],
                }]);
                let account = json!({"kind": "ServiceAccount", "name": "kubefed-apiserver", "namespace": namespace});
                rights.extend([role(&name, rules), binding(&name, account)]);
            }
            rights
        }
    }
}

/// What leads the host to a group of ours that it does not know.
pub(crate) fn way(front: &Front, config: &FederatedTypeConfig) -> Option<Value> {
    let Front::Extension(spec) = front else { return None };
    if is_own_group(config) {
        return None;
    }
    let mut spec = spec.clone();
    spec["group"] = json!(config.federated.group);
    spec["version"] = json!(config.federated.version);
    Some(json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": of_group(config), "labels": manifests::labels()},
        "spec": spec,
    }))
}

/// What of all that goes with a kind, if these configs are left.
pub(crate) fn needless(
    front: &Front,
    namespace: &str,
    config: &FederatedTypeConfig,
    left: &[FederatedTypeConfig],
) -> Vec<Value> {
    let mut needless = rights(front, namespace, config);
    needless.extend(way(front, config));
    let has = |other: &FederatedTypeConfig| {
        other.federated.group == config.federated.group
            && other.federated.version == config.federated.version
    };
    if left.iter().any(has) {
        let of_kind = of_kind(config);
        needless.retain(|object| meta::name(object) == of_kind);
    }
    needless
}

/// Resource and group, as kubectl names an object.
pub(crate) fn resource_name(object: &Value) -> String {
    let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/'));
    let kind = object["kind"].as_str().unwrap_or("").to_lowercase();
    group.map_or_else(|| kind.clone(), |(group, _)| format!("{kind}.{group}"))
}

/// The definition of a federated kind, as KubeFed makes it.
pub(super) fn definition(
    config: &FederatedTypeConfig,
    target_short_names: &[String],
    shape: Shape,
) -> Value {
    let federated = &config.federated;
    let mut names = json!({"plural": federated.plural_name, "kind": federated.kind});
    if !target_short_names.is_empty() {
        let short_names: Vec<String> =
            target_short_names.iter().map(|name| format!("f{name}")).collect();
        names["shortNames"] = json!(short_names);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": federated.qualified_name()},
        "spec": {
            "group": federated.group,
            "names": names,
            "scope": federated.scope,
            "versions": [{
                "name": federated.version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema(shape)},
                "subresources": {"status": {}},
            }],
        },
    })
}

fn schema(shape: Shape) -> Value {
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let list = |items: Value| json!({"type": "array", "items": items});
    let object = |required: &[&str], properties: Value| {
        let mut object = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            object["required"] = json!(required);
        }
        object
    };
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let requirement = object(
        &["key", "operator"],
        json!({"key": text, "operator": text, "values": list(text.clone())}),
    );
    let selector = object(
        &[],
        json!({
            "matchExpressions": list(requirement),
            "matchLabels": {"type": "object", "additionalProperties": text},
        }),
    );
    let change = object(
        &["path"],
        json!({
            "op": {"type": "string", "pattern": "^(add|remove|replace)?$"},
            "path": text,
            "value": {"x-kubernetes-preserve-unknown-fields": true},
        }),
    );
    let overrides = object(&[], json!({"clusterName": text, "clusterOverrides": list(change)}));
    let clusters = list(object(&["name"], json!({"name": text})));
    let mut spec = Map::from_iter([
        (
            "placement".to_owned(),
            object(&[], json!({"clusters": clusters, "clusterSelector": selector})),
        ),
        ("overrides".to_owned(), list(overrides)),
    ]);
    if shape.template {
        spec.insert("template".into(), anything.clone());
    }
    if shape.replicas {
        spec.insert("retainReplicas".into(), json!({"type": "boolean"}));
    }
    let condition = object(
        &["type", "status"],
        json!({"type": text, "status": text, "reason": text, "lastUpdateTime": time, "lastTransitionTime": time}),
    );
    let cluster =
        object(&["name"], json!({"name": text, "status": text, "remoteStatus": anything}));
    let status = json!({
        "conditions": list(condition),
        "clusters": list(cluster),
        "observedGeneration": {"type": "integer", "format": "int64"},
    });
    object(
        &["spec"],
        json!({
            "apiVersion": text,
            "kind": text,
            "metadata": {"type": "object"},
            "spec": object(&[], Value::Object(spec)),
            "status": object(&[], status),
        }),
    )
}

#[cfg(test)]
mod tests;

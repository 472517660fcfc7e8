//! How Kubernetes merges its lists: which are maps and by which keys, which are sets, which structs are atomic.
//!
//! Facts from the `+listType`, `+listMapKey`, `+patchMergeKey` and `+structType` markers of `k8s.io/api` (1.33 to 1.37);
//! `k8s-openapi` leaves them out of its schemas. A list that is not named here is atomic.

use serde_json::{Value, json};

struct ListMap {
    kind: &'static str,
    field: &'static str,
    /// The first is the merge key of strategic merge patch.
    keys: &'static [&'static str],
}

const fn map(kind: &'static str, field: &'static str, keys: &'static [&'static str]) -> ListMap {
    ListMap { kind, field, keys }
}

static MAPS: &[ListMap] = &[
    map("ObjectMeta", "ownerReferences", &["uid"]),
    map("PodSpec", "containers", &["name"]),
    map("PodSpec", "initContainers", &["name"]),
    map("PodSpec", "ephemeralContainers", &["name"]),
    map("PodSpec", "volumes", &["name"]),
    map("PodSpec", "imagePullSecrets", &["name"]),
    map("PodSpec", "hostAliases", &["ip"]),
    map("PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    map("PodSpec", "schedulingGates", &["name"]),
    map("PodSpec", "resourceClaims", &["name"]),
    map("PodStatus", "conditions", &["type"]),
    map("PodStatus", "podIPs", &["ip"]),
    map("Container", "env", &["name"]),
    map("Container", "ports", &["containerPort", "protocol"]),
    map("Container", "volumeMounts", &["mountPath"]),
    map("Container", "volumeDevices", &["devicePath"]),
    map("EphemeralContainer", "env", &["name"]),
    map("EphemeralContainer", "ports", &["containerPort", "protocol"]),
    map("EphemeralContainer", "volumeMounts", &["mountPath"]),
    map("EphemeralContainer", "volumeDevices", &["devicePath"]),
    map("ResourceRequirements", "claims", &["name"]),
    map("ServiceSpec", "ports", &["port", "protocol"]),
    map("ServiceStatus", "conditions", &["type"]),
    map("ServiceAccount", "secrets", &["name"]),
    map("NamespaceStatus", "conditions", &["type"]),
    map("NodeStatus", "conditions", &["type"]),
    map("NodeStatus", "addresses", &["type"]),
    map("PersistentVolumeClaimStatus", "conditions", &["type"]),
    map("ReplicationControllerStatus", "conditions", &["type"]),
    map("DaemonSetStatus", "conditions", &["type"]),
    map("DeploymentStatus", "conditions", &["type"]),
    map("ReplicaSetStatus", "conditions", &["type"]),
    map("StatefulSetStatus", "conditions", &["type"]),
    map("HorizontalPodAutoscalerStatus", "conditions", &["type"]),
    map("PodDisruptionBudgetStatus", "conditions", &["type"]),
    map("CustomResourceDefinitionStatus", "conditions", &["type"]),
];

static SETS: &[(&str, &str)] =
    &[("ObjectMeta", "finalizers"), ("NodeSpec", "podCIDRs"), ("Endpoint", "addresses")];

/// Structs that one manager owns as a whole.
pub(super) static ATOMIC_STRUCTS: &[&str] = &[
    "LabelSelector",
    "LocalObjectReference",
    "ObjectReference",
    "TypedLocalObjectReference",
    "SecretReference",
    "SecretKeySelector",
    "ConfigMapKeySelector",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "NodeSelector",
    "NodeSelectorTerm",
    "TopologySelectorTerm",
    "OwnerReference",
    "IngressServiceBackend",
    "ServiceBackendPort",
    "CrossVersionObjectReference",
    "RoleRef",
    "Subject",
    "Scale",
];

/// Maps that one manager owns as a whole.
static ATOMIC_MAPS: &[(&str, &str)] = &[
    ("ServiceSpec", "selector"),
    ("PodSpec", "nodeSelector"),
    ("ReplicationControllerSpec", "selector"),
];

/// Adds to the document of the kind `kind` (its short name) what this page knows of its fields.
pub(super) fn annotate(kind: &str, document: &mut Value) {
    let Some(properties) = document.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, field) in properties {
        if let Some(map) = MAPS.iter().find(|m| m.kind == kind && m.field == name) {
            field["x-kubernetes-list-type"] = json!("map");
            field["x-kubernetes-list-map-keys"] = json!(map.keys);
            field["x-kubernetes-patch-merge-key"] = json!(map.keys[0]);
            let retains = kind == "PodSpec" && matches!(map.field, "volumes" | "resourceClaims");
            field["x-kubernetes-patch-strategy"] =
                json!(if retains { "merge,retainKeys" } else { "merge" });
        } else if SETS.contains(&(kind, name)) {
            field["x-kubernetes-list-type"] = json!("set");
            field["x-kubernetes-patch-strategy"] = json!("merge");
        } else if ATOMIC_MAPS.contains(&(kind, name)) {
            field["x-kubernetes-map-type"] = json!("atomic");
        } else if kind == "DeploymentSpec" && name == "strategy" {
            field["x-kubernetes-patch-strategy"] = json!("retainKeys");
        } else if name == "protocol" && matches!(kind, "ContainerPort" | "ServicePort") {
            // A key of its list: without a default an element that leaves it out could not be found again.
            field["default"] = json!("TCP");
        }
    }
}

#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    MAPS.iter()
        .map(|m| (m.kind, m.field))
        .chain(SETS.iter().copied())
        .chain(ATOMIC_MAPS.iter().copied())
}

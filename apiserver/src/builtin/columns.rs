//! The printer columns of the built-in kinds: what `kubectl get` shows, as far as a JSON path can say it.

use kubefed_apimachinery::table::Column;

/// The columns of a kind after `NAME`; the age comes last.
pub(super) fn of(group: &str, kind: &str) -> Vec<Column> {
    let columns: &[(&str, &str, &str, i32)] = match (group, kind) {
        ("", "Namespace") => &[("Status", "string", ".status.phase", 0)],
        ("", "Pod") => &[
            ("Status", "string", ".status.phase", 0),
            ("IP", "string", ".status.podIP", 1),
            ("Node", "string", ".spec.nodeName", 1),
        ],
        ("", "Secret") => &[("Type", "string", ".type", 0)],
        ("", "Service") => &[
            ("Type", "string", ".spec.type", 0),
            ("Cluster-IP", "string", ".spec.clusterIP", 0),
            ("Port", "string", ".spec.ports[*].port", 0),
        ],
        ("", "Node") => &[("Version", "string", ".status.nodeInfo.kubeletVersion", 0)],
        ("", "Event") => &[
            ("Last Seen", "date", ".lastTimestamp", 0),
            ("Type", "string", ".type", 0),
            ("Reason", "string", ".reason", 0),
            ("Kind", "string", ".involvedObject.kind", 0),
            ("Object", "string", ".involvedObject.name", 0),
            ("Message", "string", ".message", 0),
        ],
        ("apps", "Deployment") => &[
            ("Desired", "integer", ".spec.replicas", 0),
            ("Ready", "integer", ".status.readyReplicas", 0),
            ("Up-to-date", "integer", ".status.updatedReplicas", 0),
            ("Available", "integer", ".status.availableReplicas", 0),
            ("Containers", "string", ".spec.template.spec.containers[*].name", 1),
            ("Images", "string", ".spec.template.spec.containers[*].image", 1),
        ],
        ("apps", "ReplicaSet") | ("", "ReplicationController") => &[
            ("Desired", "integer", ".spec.replicas", 0),
            ("Current", "integer", ".status.replicas", 0),
            ("Ready", "integer", ".status.readyReplicas", 0),
        ],
        ("apps", "StatefulSet") => &[
            ("Desired", "integer", ".spec.replicas", 0),
            ("Ready", "integer", ".status.readyReplicas", 0),
        ],
        ("apps", "DaemonSet") => &[
            ("Desired", "integer", ".status.desiredNumberScheduled", 0),
            ("Ready", "integer", ".status.numberReady", 0),
        ],
        ("batch", "Job") => &[
            ("Completions", "integer", ".spec.completions", 0),
            ("Succeeded", "integer", ".status.succeeded", 0),
        ],
        ("batch", "CronJob") => &[
            ("Schedule", "string", ".spec.schedule", 0),
            ("Suspend", "boolean", ".spec.suspend", 0),
        ],
        ("coordination.k8s.io", "Lease") => &[("Holder", "string", ".spec.holderIdentity", 0)],
        ("networking.k8s.io", "Ingress") => &[
            ("Class", "string", ".spec.ingressClassName", 0),
            ("Hosts", "string", ".spec.rules[*].host", 0),
        ],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            &[("Role-Kind", "string", ".roleRef.kind", 0), ("Role", "string", ".roleRef.name", 0)]
        }
        ("apiextensions.k8s.io", _) => {
            &[("Group", "string", ".spec.group", 0), ("Scope", "string", ".spec.scope", 0)]
        }
        _ => &[],
    };
    columns
        .iter()
        .copied()
        .chain([("Age", "date", ".metadata.creationTimestamp", 0)])
        .map(|(name, type_, path, priority)| Column::new(name, type_, path, priority))
        .collect()
}

//! What Kubernetes does to its own kinds beyond what their schemas say: a [`Strategy`] where one is needed.

use kubefed_apimachinery::definition::{Definition, Strategy};

use crate::{builtin, customresources};

mod configmap;
mod namespace;
mod rbac;
mod secret;
mod workload;

pub use namespace::{FINALIZER as NAMESPACE_FINALIZER, is_empty_of_finalizers};

/// The kinds that a control plane needs of its own: namespaces, credentials, configuration, events, leases, roles.
pub fn control_plane() -> Vec<Definition> {
    definitions(|group, kind| {
        matches!(
            (group, kind),
            ("", "Namespace" | "Secret" | "ConfigMap" | "ServiceAccount" | "Event")
                | ("coordination.k8s.io", "Lease")
                | ("rbac.authorization.k8s.io", _)
        )
    })
}

/// Every built-in kind: what a local member serves.
pub fn cluster() -> Vec<Definition> {
    definitions(|_, _| true)
}

fn definitions(wanted: impl Fn(&str, &str) -> bool) -> Vec<Definition> {
    let mut definitions = builtin::definitions(wanted);
    for definition in &mut definitions {
        definition.strategy = strategy(&definition.group, &definition.kind);
    }
    definitions
}

fn strategy(group: &str, kind: &str) -> Strategy {
    match (group, kind) {
        ("", "Namespace") => namespace::STRATEGY,
        ("", "Secret") => secret::STRATEGY,
        ("", "ConfigMap") => configmap::STRATEGY,
        ("apps", "Deployment") => workload::DEPLOYMENT,
        ("apps", "ReplicaSet") => workload::REPLICATED,
        ("apps", "StatefulSet") => workload::STATEFUL_SET,
        ("apps", "DaemonSet") => workload::DAEMON_SET,
        ("batch", "CronJob") => workload::CRON_JOB,
        ("batch", "Job") => workload::JOB,
        (customresources::GROUP, "CustomResourceDefinition") => customresources::STRATEGY,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::BINDING,
        _ => Strategy::default(),
    }
}

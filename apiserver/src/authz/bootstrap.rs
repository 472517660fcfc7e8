//! The roles that every server has: Kubernetes' own, as far as its kinds are served, and the federation's.

use serde_json::{Value, json};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const EVERYTHING: &[&str] = &["*"];

/// The groups of the federation's kinds. The roles for users name the federated kinds that KubeFed ships, one by one, as
/// far as they hold no secret and no rights; others need roles of their own.
const FEDERATION: &[&str] =
    &["types.kubefed.io", "core.kubefed.io", "scheduling.kubefed.io", "multiclusterdns.kubefed.io"];
/// Those of them that are all for the users of a namespace.
const USERS: &[&str] = &["scheduling.kubefed.io", "multiclusterdns.kubefed.io"];
/// What works in namespaces and holds no secret.
const WORKLOADS: &[&str] =
    &["", "apps", "batch", "autoscaling", "networking.k8s.io", "policy", "discovery.k8s.io"];
const PLAIN: &[&str] = &[
    "bindings",
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "serviceaccounts",
    "services",
    "deployments",
    "daemonsets",
    "replicasets",
    "statefulsets",
    "jobs",
    "cronjobs",
    "horizontalpodautoscalers",
    "ingresses",
    "networkpolicies",
    "poddisruptionbudgets",
    "endpointslices",
];

/// Roles and bindings, to be created where they are missing.
pub fn objects() -> Vec<Value> {
    let status_of_all: Vec<String> = PLAIN
        .iter()
        .flat_map(|p| [(*p).to_owned(), format!("{p}/status"), format!("{p}/scale")])
        .collect();
    let plain: Vec<&str> = status_of_all.iter().map(String::as_str).collect();
    let federated = federated_kinds();
    let federated: Vec<&str> = federated.iter().map(String::as_str).collect();
    let federated_read = [federated.as_slice(), &["federatedtypeconfigs"]].concat();
    vec![
        role("cluster-admin", &[resources(&["*"], &["*"], EVERYTHING), urls(&["*"], EVERYTHING)]),
        binding("cluster-admin", "system:masters"),
        role(
            "system:discovery",
            &[urls(
                &[
                    "/api",
                    "/api/*",
                    "/apis",
                    "/apis/*",
                    "/healthz",
                    "/livez",
                    "/openapi",
                    "/openapi/*",
                    "/readyz",
                    "/version",
                    "/version/",
                    "/",
                ],
                &["get"],
            )],
        ),
        binding("system:discovery", "system:authenticated"),
        role(
            "system:public-info-viewer",
            &[urls(&["/healthz", "/livez", "/readyz", "/version", "/version/"], &["get"])],
        ),
        binding("system:public-info-viewer", "system:authenticated"),
        binding("system:public-info-viewer", "system:unauthenticated"),
        role(
            "system:basic-user",
            &[
                resources(
                    &["authorization.k8s.io"],
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &["create"],
                ),
                resources(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
            ],
        ),
        binding("system:basic-user", "system:authenticated"),
        aggregate("view"),
        aggregate("edit"),
        aggregate("admin"),
        part(
            "system:aggregate-to-view",
            &["view", "edit", "admin"],
            &[resources(WORKLOADS, &plain, READ), resources(&[""], &["namespaces"], READ)],
        ),
        part(
            "system:aggregate-to-edit",
            &["edit", "admin"],
            &[
                resources(WORKLOADS, &plain, WRITE),
                resources(&[""], &["secrets"], &[READ, WRITE].concat()),
            ],
        ),
        part(
            "system:aggregate-to-admin",
            &["admin"],
            &[resources(
                &["rbac.authorization.k8s.io"],
                &["roles", "rolebindings"],
                &[READ, WRITE].concat(),
            )],
        ),
        part(
            "kubefed:aggregate-to-view",
            &["view", "edit", "admin"],
            &[
                resources(&["core.kubefed.io"], &["*"], READ),
                resources(USERS, &["*"], READ),
                resources(&["types.kubefed.io"], &federated_read, READ),
            ],
        ),
        part(
            "kubefed:aggregate-to-edit",
            &["edit", "admin"],
            &[
                resources(USERS, &["*"], WRITE),
                resources(&["types.kubefed.io"], &federated, WRITE),
                resources(&["types.kubefed.io"], &["federatedsecrets"], &[READ, WRITE].concat()),
            ],
        ),
        role(
            "system:kubefed-controller-manager",
            &[
                resources(FEDERATION, &["*"], &[READ, WRITE].concat()),
                resources(&[""], &["namespaces", "secrets"], READ),
                resources(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
                resources(&["coordination.k8s.io"], &["leases"], &[READ, WRITE].concat()),
            ],
        ),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:kubefed-controller-manager"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubefed-controller-manager"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kubefed-controller-manager"}],
        }),
    ]
}

/// The federated kinds that work like the plain ones: no secrets, no roles.
fn federated_kinds() -> Vec<String> {
    kubefed_api::federatedtypeconfig::defaults()
        .iter()
        .filter(|config| config["spec"]["targetType"]["group"] != "rbac.authorization.k8s.io")
        .filter_map(|config| config["spec"]["federatedType"]["pluralName"].as_str())
        .filter(|plural| *plural != "federatedsecrets")
        .flat_map(|plural| {
            [plural.to_owned(), format!("{plural}/status"), format!("{plural}/scale")]
        })
        .collect()
}

fn resources(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn urls(urls: &[&str], verbs: &[&str]) -> Value {
    json!({"nonResourceURLs": urls, "verbs": verbs})
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "rules": rules,
    })
}

fn label(of: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{of}")
}

/// A role that is the sum of the labelled ones.
fn aggregate(name: &str) -> Value {
    let mut role = role(name, &[]);
    role["aggregationRule"] =
        json!({"clusterRoleSelectors": [{"matchLabels": {label(name): "true"}}]});
    role
}

/// A part of other roles.
fn part(name: &str, of: &[&str], rules: &[Value]) -> Value {
    let mut role = role(name, rules);
    for of in of {
        role["metadata"]["labels"][label(of)] = json!("true");
    }
    role
}

fn binding(role: &str, group: &str) -> Value {
    let name = if group == "system:unauthenticated" {
        format!("{role}-unauthenticated")
    } else {
        role.to_owned()
    };
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    })
}

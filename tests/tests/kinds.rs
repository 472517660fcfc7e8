//! The federation's kinds as its server holds them: what KubeFed left to webhooks, and objects as KubeFed's users have
//! them.

use kubefed_controllers::client::{Client, Error};
use kubefed_tests::{Cluster, NAMESPACE, a_federation, eventually};
use serde_json::{Value, json};

const TYPES: &str = "/apis/types.kubefed.io/v1beta1";

fn core(plural: &str) -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/{plural}")
}

fn of_core(kind: &str, name: &str, spec: Value) -> Value {
    let api = "core.kubefed.io/v1beta1";
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// What a write is refused with for what stands in the object.
fn refusal(written: Result<Value, Error>) -> String {
    match written {
        Err(Error::Status(status)) if status.code == 422 => status.message.to_string(),
        other => panic!("it was not refused as invalid: {other:?}"),
    }
}

/// The kinds of KubeFed's chart, served.
async fn with_kinds() -> (Cluster, Client) {
    let federation = a_federation().await;
    let admin = federation.admin();
    for config in kubefed_api::federatedtypeconfig::defaults() {
        admin.create(&core("federatedtypeconfigs"), &config).await.expect("created");
        let plural = config["spec"]["federatedType"]["pluralName"].as_str().expect("a plural");
        let path = format!("{TYPES}/{plural}");
        eventually(&format!("{plural} are served"), async || admin.get(&path).await.ok()).await;
    }
    (federation, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_webhooks_of_kubefed_refused_is_refused_at_every_write() {
    let federation = a_federation().await;
    let admin = federation.admin();

    let clusters = core("kubefedclusters");
    let good = json!({"apiEndpoint": "https://c.example.com", "secretRef": {"name": "s"}});
    let mut cluster = of_core("KubeFedCluster", "c", good);
    let mut wrong = cluster.clone();
    wrong["spec"]["apiEndpoint"] = json!("ftp://c");
    assert!(refusal(admin.create(&clusters, &wrong).await).contains("spec.apiEndpoint"));
    cluster = admin.create(&clusters, &cluster).await.expect("created");
    let path = format!("{clusters}/c");
    cluster["spec"]["secretRef"]["name"] = json!("A B");
    assert!(refusal(admin.replace(&path, &cluster).await).contains("spec.secretRef.name"));
    let patch = json!({"spec": {"disabledTLSValidations": ["*", "SubjectName"]}});
    assert!(refusal(admin.merge(&path, &patch).await).contains("spec.disabledTLSValidations"));
    let condition = json!({"type": "Fine", "status": "True"});
    let patch = json!({"status": {"conditions": [condition]}});
    let refused = refusal(admin.merge(&format!("{path}/status"), &patch).await);
    for field in ["status.conditions[0].type", "status.conditions[0].lastProbeTime"] {
        assert!(refused.contains(field), "{refused}");
    }

    let types = core("federatedtypeconfigs");
    let config = kubefed_api::federatedtypeconfig::defaults().remove(2);
    let mut wrong = config.clone();
    wrong["metadata"]["name"] = json!("deployments");
    assert!(refusal(admin.create(&types, &wrong).await).contains("metadata.name"));
    let made = admin.create(&types, &config).await.expect("created");
    let path = format!("{types}/deployments.apps");
    let patch = json!({"spec": {"propagation": null}});
    assert!(refusal(admin.merge(&path, &patch).await).contains("spec.propagation"));
    let patch = json!({"status": {"observedGeneration": -1, "propagationController": "Running"}});
    let refused = refusal(admin.merge(&format!("{path}/status"), &patch).await);
    assert!(refused.contains("status.observedGeneration"), "{refused}");
    // One object in the groups of KubeFed and of the first guides.
    let other = format!("{TYPES}/namespaces/{NAMESPACE}/federatedtypeconfigs/deployments.apps");
    let other = admin.get(&other).await.expect("it is there too");
    assert_eq!(other["apiVersion"], "types.kubefed.io/v1beta1");
    assert_eq!(other["metadata"]["uid"], made["metadata"]["uid"]);

    let configs = core("kubefedconfigs");
    let scope = of_core("KubeFedConfig", "kubefed", json!({}));
    assert!(refusal(admin.create(&configs, &scope).await).contains("spec.scope"));
    let scope = of_core("KubeFedConfig", "kubefed", json!({"scope": "Cluster"}));
    let made = admin.create(&configs, &scope).await.expect("created");
    assert_eq!(made["spec"]["clusterHealthCheck"]["period"], "10s", "{made}");
    let path = format!("{configs}/kubefed");
    for (patch, field) in [
        (json!({"scope": "Namespaced"}), "spec.scope"),
        (json!({"clusterHealthCheck": {"timeout": "0s"}}), "spec.clusterHealthCheck.timeout"),
        (
            json!({"featureGates": [{"name": "FederatedIngress", "configuration": "Enabled"}]}),
            "spec.featureGates[0].name",
        ),
    ] {
        let refused = refusal(admin.merge(&path, &json!({"spec": patch})).await);
        assert!(refused.contains(field), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_as_kubefeds_users_have_them_are_taken_as_they_are() {
    let (_federation, admin) = with_kinds().await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test-namespace"}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    let pod = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "web", "image": "nginx", "command": ["sh", "-c", "sleep 1"]}]},
    });
    let mut served = pod.clone();
    served["spec"].as_object_mut().expect("an object").remove("restartPolicy");
    let workload = json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": served}});
    let rules = json!([{"host": "web.example.com", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
    ]}}]);
    let change = |path: &str, value: Value| json!([{"path": path, "value": value}]);
    for (kind, plural, template, overrides) in [
        (
            "ConfigMap",
            "configmaps",
            json!({"data": {"A": "a text"}}),
            change("/data", json!({"foo": "bar"})),
        ),
        ("Deployment", "deployments", workload.clone(), change("/spec/replicas", json!(5))),
        ("ReplicaSet", "replicasets", workload, change("/spec/replicas", json!(5))),
        (
            "Job",
            "jobs",
            json!({"spec": {"parallelism": 1, "manualSelector": true, "selector": {"matchLabels": {"app": "web"}}, "template": pod}}),
            change("/spec/parallelism", json!(2)),
        ),
        (
            "Secret",
            "secrets",
            json!({"type": "Opaque", "data": {"A": "YQ=="}}),
            change("/data", json!({"A": null})),
        ),
        (
            "Service",
            "services",
            json!({"spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}}),
            json!([]),
        ),
        (
            "ServiceAccount",
            "serviceaccounts",
            json!({"automountServiceAccountToken": true}),
            json!([]),
        ),
        ("Ingress", "ingresses", json!({"spec": {"rules": rules}}), json!([])),
        ("Namespace", "namespaces", json!({}), json!([])),
        (
            "ClusterRole",
            "clusterroles",
            json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
            json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]),
        ),
    ] {
        let spec = json!({
            "template": template, "placement": {"clusters": [{"name": "cluster2"}, {"name": "cluster1"}]},
            "overrides": [{"clusterName": "cluster2", "clusterOverrides": overrides}],
        });
        let object = json!({
            "apiVersion": "types.kubefed.io/v1beta1", "kind": format!("Federated{kind}"),
            "metadata": {"name": "test-namespace"}, "spec": spec,
        });
        let within = if kind == "ClusterRole" { "" } else { "/namespaces/test-namespace" };
        let path = format!("{TYPES}{within}/federated{plural}?fieldValidation=Strict");
        let made = admin.create(&path, &object).await;
        let made = made.unwrap_or_else(|error| panic!("Federated{kind}: {error}"));
        assert_eq!(made["spec"], spec, "Federated{kind}");
    }
    let preference = json!({
        "apiVersion": "scheduling.kubefed.io/v1alpha1", "kind": "ReplicaSchedulingPreference",
        "metadata": {"name": "test-namespace"},
        "spec": {
            "targetKind": "FederatedDeployment", "totalReplicas": 10, "rebalance": true, "intersectWithClusterSelector": false,
            "clusters": {"cluster1": {"weight": 2}, "*": {"minReplicas": 1, "maxReplicas": 9, "weight": 3}},
        },
        "status": {},
    });
    let path = "/apis/scheduling.kubefed.io/v1alpha1/namespaces/test-namespace/replicaschedulingpreferences";
    let made = admin.create(&format!("{path}?fieldValidation=Strict"), &preference).await;
    assert_eq!(made.expect("created")["spec"], preference["spec"]);
}

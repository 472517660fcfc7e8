//! `kubefed` against a real host that serves KubeFed's API as KubeFed does, by definitions.

use kubefed_tests::NAMESPACE;
use kubefed_tests::cli::Kubefed;
use kubefed_tests::control_plane::a_control_plane;
use kubefed_tests::widgets::{CRDS, condition};
use serde_json::{Value, json};

const DEFINITION: &str = "federateddeployments.types.kubefed.io";

/// The definition of FederatedTypeConfig, as far as it matters here.
fn type_configs() -> Value {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "federatedtypeconfigs.core.kubefed.io"},
        "spec": {
            "group": "core.kubefed.io", "scope": "Namespaced",
            "names": {"plural": "federatedtypeconfigs", "kind": "FederatedTypeConfig"},
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_our_server_gets_a_definition_for_each_federated_kind() {
    let Some(host) = a_control_plane().await else { return };
    let admin = host.admin();
    let kubefed = Kubefed::new(&[host.kubeconfig("host-cluster", "admin", &["system:masters"])]);
    let refused = kubefed.fails(1, "enable deployments").await;
    assert!(refused.contains("--kubefed-namespace"), "{refused}");
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    admin.create(CRDS, &type_configs()).await.expect("a definition");
    condition(&admin, "federatedtypeconfigs.core.kubefed.io", "Established", "True").await;

    assert_eq!(kubefed.ok("enable deployments --dry-run").await, "");
    let shown = kubefed.ok("enable deployments -o yaml").await;
    assert!(shown.contains("retainReplicas"), "the host's schema tells that they scale: {shown}");
    assert!(admin.get(&format!("{CRDS}/{DEFINITION}")).await.is_err(), "nothing was done");
    for done in ["created", "updated"] {
        assert_eq!(
            kubefed.ok("enable deploy").await,
            format!(
                "customresourcedefinition.apiextensions.k8s.io/{DEFINITION} {done}\nfederatedtypeconfig.core.kubefed.io/deployments.apps {done} in namespace {NAMESPACE}\n"
            )
        );
        condition(&admin, DEFINITION, "Established", "True").await;
    }

    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "c"}]}},
        },
    });
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    admin.create(deployments, &deployment).await.expect("created");
    assert_eq!(kubefed.ok("federate deploy web -n default --dry-run").await, "");
    assert_eq!(kubefed.ok("federate deploy web -n default").await, "");
    let path = "/apis/types.kubefed.io/v1beta1/namespaces/default/federateddeployments/web";
    let made = admin.get(path).await.expect("the federated object");
    let now = admin.get(&format!("{deployments}/web")).await.expect("the object");
    assert_eq!(made["spec"]["template"]["metadata"], json!({"labels": {"app": "web"}}));
    assert_eq!(made["spec"]["template"]["spec"]["replicas"], now["spec"]["replicas"]);
    assert_eq!(made["spec"]["placement"], json!({"clusterSelector": {"matchLabels": {}}}));

    let refused = kubefed.fails(1, "disable deployments.apps --delete-crd").await;
    assert!(refused.contains("or without the '--delete-crd' option"), "{refused}");
    admin.delete(path, &json!({})).await.expect("deleted");
    // No controller tells it here.
    let configs =
        format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs");
    let status = json!({"status": {"propagationController": "NotRunning"}});
    let status_path = format!("{configs}/deployments.apps/status");
    admin.merge(&status_path, &status).await.expect("a status");
    let said = kubefed.ok("disable deployments.apps --delete-crd").await;
    let wanted = format!(
        "customresourcedefinition {DEFINITION:?} deleted\nfederatedtypeconfig \"{NAMESPACE}/deployments.apps\" deleted\n"
    );
    assert!(said.ends_with(&wanted), "{said}");
    assert_eq!(admin.get(&configs).await.expect("a list")["items"], json!([]));
}

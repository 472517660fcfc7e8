//! A federation whose scope is the namespace of its control plane.

use std::process::Command;

use kubefed_tests::{
    Cluster, Federation, NAMESPACE, a_federation_of, a_member, binary, eventually,
    federated_namespace,
};
use serde_json::{Value, json};

/// Joins a member as a user does, with the rights that the scope asks for.
async fn join(federation: &Federation, name: &str, member: &Cluster) {
    let here = federation.api.kubeconfig("federation", "admin", &["system:masters"]);
    let there = member.kubeconfig(name, "member-admin", &["system:masters"]);
    let mut command = Command::new(binary("kubefed"));
    command.args(["join", name, "--host-cluster-context=federation"]);
    command.env("KUBECONFIG", format!("{}:{}", here.display(), there.display()));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
    let output = output.expect("kubefed starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A federated ConfigMap for every cluster; its path.
async fn federate(federation: &Federation, namespace: &str) -> String {
    let object = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
        "metadata": {"name": "a"},
        "spec": {"template": {"data": {"key": "value"}}, "placement": {"clusterSelector": {}}},
    });
    let path = format!("/apis/types.kubefed.io/v1beta1/namespaces/{namespace}/federatedconfigmaps");
    federation.admin().create(&path, &object).await.expect("created");
    format!("{path}/a")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespaced_federation_does_with_rights_in_its_namespace_and_leaves_the_others() {
    let mut federation = a_federation_of(&[]).await;
    federation.stop_manager().await;
    let admin = federation.admin();
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig",
        "metadata": {"name": "kubefed"}, "spec": {"scope": "Namespaced"},
    });
    let configs = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedconfigs");
    admin.create(&configs, &config).await.expect("created");
    federation.start_manager();
    let member = a_member().await;
    join(&federation, "one", &member).await;
    federation.wait_ready("one").await;

    let path = federate(&federation, NAMESPACE).await;
    let there = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/a");
    let in_member = member.admin();
    let has = async |uid: &Value| {
        eventually("the member has another one", async || {
            let found = in_member.get(&there).await.ok()?;
            (found["metadata"]["uid"] != *uid).then(|| found["metadata"]["uid"].clone())
        })
        .await
    };
    let first = has(&Value::Null).await;
    // Only who follows the member sees that.
    in_member.delete(&there, &json!({})).await.expect("deleted");
    has(&first).await;

    // What is in no namespace is not propagated, nor namespaces; but where that one is to be still counts.
    for name in ["namespaces", "clusterroles.rbac.authorization.k8s.io"] {
        let path = format!(
            "/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs/{name}"
        );
        let config = eventually(&format!("{name} does not run"), async || {
            let config = admin.get(&path).await.ok()?;
            (config["status"]["propagationController"] == "NotRunning").then_some(config)
        })
        .await;
        assert_eq!(config["metadata"]["finalizers"], Value::Null, "{name}");
    }
    let namespaces =
        format!("/apis/types.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatednamespaces");
    let mut namespace = federated_namespace(NAMESPACE);
    namespace["spec"]["placement"] = json!({"clusters": []});
    admin.create(&namespaces, &namespace).await.expect("created");
    eventually("it is no longer placed here", async || {
        in_member.get(&there).await.err().filter(|error| error.is_not_found())
    })
    .await;
    admin.delete(&format!("{namespaces}/{NAMESPACE}"), &json!({})).await.expect("deleted");
    has(&first).await;

    let elsewhere = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    admin.create("/api/v1/namespaces", &elsewhere).await.expect("created");
    let outside = federate(&federation, "other").await;
    eventually("it is told why it is not propagated", async || {
        let object = admin.get(&outside).await.ok()?;
        let condition = object["status"]["conditions"][0].clone();
        let told = condition["message"].as_str()?.contains("scope of the federation is Namespaced");
        (told && condition["status"] == "False").then_some(())
    })
    .await;
    for path in [path, outside] {
        admin.delete(&path, &json!({})).await.expect("deleted");
        eventually("it goes", async || admin.get(&path).await.err().filter(|e| e.is_not_found()))
            .await;
    }
    let left = in_member.get(&there).await.err().filter(|error| error.is_not_found());
    assert!(left.is_some(), "what was propagated went with it");
}

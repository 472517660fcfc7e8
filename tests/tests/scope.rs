//! A federation whose scope is the namespace of its control plane, or is said to be.

use std::process::Command;

use kubefed_tests::{
    Cluster, Federation, NAMESPACE, a_federation_of, a_member, a_namespace_everywhere, binary,
    eventually, federated_namespace, guide,
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

/// Gives a user every right in the namespace of the control plane, and none elsewhere.
async fn give_rights_here(federation: &Federation, user: &str) {
    let (admin, rbac) = (federation.admin(), "rbac.authorization.k8s.io");
    let role = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": user},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    });
    let binding = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": user},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
    });
    for (plural, object) in [("roles", role), ("rolebindings", binding)] {
        let path = format!("/apis/{rbac}/v1/namespaces/{NAMESPACE}/{plural}");
        admin.create(&path, &object).await.expect("created");
    }
}

/// Waits until the leader says which scope holds.
async fn scope_is_told(federation: &Federation, scope: &str) {
    let admin = federation.admin();
    let path = format!(
        "/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kubefed-controller-manager"
    );
    eventually(&format!("the scope is told to be {scope}"), async || {
        let lease = admin.get(&path).await.ok()?;
        (lease["metadata"]["annotations"]["kubefed.io/scope"] == scope).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_the_rights_do_not_limit_leaves_nothing_out_after_a_restart() {
    let mut federation = a_federation_of(&[]).await;
    let admin = federation.admin();
    scope_is_told(&federation, "Cluster").await;
    federation.api.kubectl().ok("apply -f -", &guide("2.2")).await;
    let early = a_member().await;
    join(&federation, "early", &early).await;
    federation.stop_manager().await;
    federation.start_manager();
    let late = a_member().await;
    join(&federation, "late", &late).await;

    a_namespace_everywhere(&admin, "test-namespace").await;
    federate(&federation, "test-namespace").await;
    for (name, member) in [("early", early), ("late", late)] {
        let there = member.admin();
        eventually(&format!("{name} has it"), async || {
            there.get("/api/v1/namespaces/test-namespace/configmaps/a").await.ok()
        })
        .await;
    }
    eventually("the user is told that all namespaces are served", async || {
        let events = admin.get(&format!("/api/v1/namespaces/{NAMESPACE}/events")).await.ok()?;
        let told = |event: &Value| {
            event["reason"] == "ScopeNotLimited" && event["involvedObject"]["name"] == "kubefed"
        };
        events["items"].as_array()?.iter().any(told).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespaced_federation_does_with_rights_in_its_namespace_and_leaves_the_others() {
    let mut federation = a_federation_of(&[]).await;
    federation.stop_manager().await;
    let admin = federation.admin();
    federation.api.kubectl().ok("apply -f -", &guide("2.2")).await;
    give_rights_here(&federation, "limited").await;
    federation.start_manager_as("limited", None);
    scope_is_told(&federation, "Namespaced").await;
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
    admin.delete(&path, &json!({})).await.expect("deleted");
    eventually("it goes", async || admin.get(&path).await.err().filter(|e| e.is_not_found())).await;
    // Who was slow to leave it alone has had the time that the other took.
    let object = admin.get(&outside).await.expect("it is there");
    assert!(object["metadata"]["finalizers"].is_null() && object["status"].is_null(), "{object}");
    let left = in_member.get(&there).await.err().filter(|error| error.is_not_found());
    assert!(left.is_some(), "what was propagated went with it");
}

//! The federation as an extension of a real Kubernetes, reached through it.

use std::process::{Command, Stdio};

use kubefed_api::federatedtypeconfig;
use kubefed_controllers::manager::Endpoints;
use kubefed_tests::control_plane::{ControlPlane, a_control_plane};
use kubefed_tests::installed::{manage, serve};
use kubefed_tests::{NAMESPACE, a_member, binary, eventually, federated_namespace, guide, join_by};
use serde_json::{Value, json};
use tempfile::TempDir;

const CORE: &str = "/apis/core.kubefed.io/v1beta1";
const TYPES: &str = "/apis/types.kubefed.io/v1beta1";

#[tokio::test(flavor = "multi_thread")]
async fn the_host_serves_our_kinds_as_its_own() {
    let Some(host) = a_control_plane().await else { return };
    let extension = host.extension().await;
    // Past the host, with a certificate of the host. The host takes up schemas when it is led to us, and then once a
    // minute: this one is there before.
    let mut config = federatedtypeconfig::defaults()
        .into_iter()
        .find(|config| config["metadata"]["name"] == "configmaps")
        .expect("a default for ConfigMaps");
    config["metadata"]["namespace"] = json!(NAMESPACE);
    let past = host.client_past(&extension, "admin", &["system:masters"]);
    past.create(&format!("{CORE}/namespaces/{NAMESPACE}/federatedtypeconfigs"), &config)
        .await
        .expect("created");
    host.register(&extension).await;
    let admin = host.admin();
    let kubectl = host.kubectl("admin", &["system:masters"]);

    // Everything of the guide that needs no other part, through the host, as it is.
    kubectl.ok("create namespace test-namespace", "").await;
    for section in ["2.2", "4.1"] {
        kubectl.ok("apply --validate=strict -f -", &guide(section)).await;
    }
    eventually("the federated kind is served", async || {
        admin.get(&format!("{TYPES}/federateddeployments")).await.ok()
    })
    .await;
    for field in ["kubefedcluster.spec.caBundle", "federatedconfigmap.spec.template.data"] {
        // That the host leads to us and that it has our schemas is the work of two of its controllers.
        eventually("kubectl explains the kind", async || {
            let output = kubectl.run(&format!("explain {field}"), "").await;
            output.status.success().then_some(())
        })
        .await;
    }
    let manifest = guide("4.2");
    eventually("kubectl finds the new kind through the host", async || {
        let output = kubectl.run("apply --validate=strict -f -", &manifest).await;
        output.status.success().then_some(())
    })
    .await;
    let again = kubectl.ok("apply --validate=strict -f -", &manifest).await;
    assert!(again.contains("unchanged"), "{again}");
    let table = kubectl.ok("-n test-namespace get fdeploy", "").await;
    assert!(table.contains("test-deployment"), "{table}");

    // Namespaces are the host's.
    let elsewhere = manifest.replace("test-namespace", "nowhere");
    let refused = kubectl.fails("apply -f -", &elsewhere).await;
    assert!(refused.contains("namespaces \"nowhere\" not found"), "{refused}");

    // Rights are the host's: a role in one namespace, seen by a user who has no other.
    kubectl
        .ok("-n test-namespace create role look --verb=get,list --resource=federateddeployments.types.kubefed.io", "")
        .await;
    kubectl.ok("-n test-namespace create rolebinding look --role=look --user=alice", "").await;
    let alice = host.client("alice", &["people"]);
    let there = format!("{TYPES}/namespaces/test-namespace/federateddeployments");
    eventually("alice may look", async || alice.get(&there).await.ok()).await;
    let elsewhere = [
        format!("{TYPES}/federateddeployments"),
        format!("{TYPES}/namespaces/{NAMESPACE}/federateddeployments"),
    ];
    for path in elsewhere {
        let refused = alice.get(&path).await.expect_err("alice may not look there");
        assert!(refused.to_string().contains("User \"alice\" cannot list"), "{refused}");
    }
    let refused = alice.delete(&format!("{there}/test-deployment"), &json!({})).await;
    assert!(refused.expect_err("alice may not delete").to_string().contains("cannot delete"));

    // The host's namespace controller empties our kinds too.
    kubectl.ok("delete namespace test-namespace --timeout=30s", "").await;
    let gone = admin.get(&format!("{there}/test-deployment")).await;
    assert!(gone.expect_err("it is gone").is_not_found());
}

/// `kubefed` with the contexts of all these clusters.
async fn kubefed(clusters: &[(&str, &ControlPlane)], arguments: &str) {
    let files = clusters.iter().map(|(name, cluster)| {
        let file = cluster.kubeconfig(name, &format!("admin-of-{name}"), &["system:masters"]);
        file.display().to_string()
    });
    let mut command = Command::new(binary("kubefed"));
    command.args(arguments.split(' ')).env("KUBECONFIG", files.collect::<Vec<_>>().join(":"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
    let output = output.expect("kubefed starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubefed {arguments}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_deployment_reaches_real_members_through_a_real_host() {
    let (host, one, two) = tokio::join!(a_control_plane(), a_control_plane(), a_control_plane());
    let (Some(host), Some(one), Some(two)) = (host, one, two) else { return };
    let members = [("cluster1", &one), ("cluster2", &two)];
    let clusters = [("host-cluster", &host), members[0], members[1]];
    let dir = TempDir::new().expect("a directory");
    let init = "init --host-cluster-context host-cluster --overlay single-node --timeout 90s";
    let ((), _server) = tokio::join!(kubefed(&clusters, init), serve(&host, dir.path()));
    let _manager = manage(&host, dir.path()).await;
    let admin = host.admin();
    let kubectl = host.kubectl("admin", &["system:masters"]);
    for (name, _) in members {
        let line = format!(
            "join {name} --cluster-context {name} --host-cluster-context host-cluster --v=2"
        );
        kubefed(&clusters, &line).await;
    }
    for (name, _) in members {
        let wait = format!("wait kubefedcluster {name} --for=condition=Ready --timeout=60s");
        kubectl.ok(&wait, "").await;
    }

    kubectl.ok("create namespace test-namespace", "").await;
    kubectl.ok("apply -f -", &guide("4.1")).await;
    for manifest in [federated_namespace("test-namespace").to_string(), guide("4.2")] {
        eventually("kubectl finds the kind", async || {
            kubectl.run("apply -f -", &manifest).await.status.success().then_some(())
        })
        .await;
    }
    let deployment = "/apis/apps/v1/namespaces/test-namespace/deployments/test-deployment";
    let has = async |cluster: &ControlPlane, replicas: i64| -> Value {
        eventually(&format!("{replicas} replicas"), async || {
            let found = cluster.admin().get(deployment).await.ok()?;
            (found["spec"]["replicas"] == replicas).then_some(found)
        })
        .await
    };
    has(&one, 2).await;
    let in_two = has(&two, 3).await;
    eventually("the member's own controller makes a ReplicaSet", async || {
        let sets = "/apis/apps/v1/namespaces/test-namespace/replicasets";
        let list = one.admin().get(sets).await.ok()?;
        (list["items"][0]["spec"]["replicas"] == 2).then_some(())
    })
    .await;
    let there = "-n test-namespace";
    let wait = "wait federateddeployment test-deployment --for=condition=Propagation --timeout=30s";
    kubectl.ok(&format!("{there} {wait}"), "").await;
    let table = kubectl.ok(&format!("{there} get federateddeployments -o wide"), "").await;
    assert!(table.contains("test-deployment") && table.contains("True"), "{table}");

    // An edit, and what is done in a member by hand.
    let patch = r#"patch federateddeployment test-deployment --type=merge -p {"spec":{"overrides":[{"clusterName":"cluster1","clusterOverrides":[{"path":"/spec/replicas","value":5}]}]}}"#;
    kubectl.ok(&format!("{there} {patch}"), "").await;
    has(&one, 5).await;
    two.admin().delete(deployment, &json!({})).await.expect("deleted");
    eventually("it is back", async || {
        let again = two.admin().get(deployment).await.ok()?;
        (again["metadata"]["uid"] != in_two["metadata"]["uid"]).then_some(())
    })
    .await;

    kubectl
        .ok(&format!("{there} delete federateddeployment test-deployment --timeout=60s"), "")
        .await;
    for (name, cluster) in members {
        let left = cluster.admin().get(deployment).await;
        assert!(left.is_err_and(|error| error.is_not_found()), "{name}");
        kubefed(
            &clusters,
            &format!("unjoin {name} --cluster-context {name} --host-cluster-context host-cluster"),
        )
        .await;
    }
    let known = admin.get(&format!("{CORE}/namespaces/{NAMESPACE}/kubefedclusters")).await;
    assert_eq!(known.expect("a list")["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_reach_a_federation_that_the_host_does_not_lead_to() {
    let (host, member) = tokio::join!(a_control_plane(), a_member());
    let Some(host) = host else { return };
    let extension = host.extension().await;
    let groups = ["system:masters"];
    let admin = host.admin();
    let past = host.client_past(&extension, "admin", &groups);
    let endpoints = Endpoints { host: admin.clone(), federation: past.clone() };
    let user = "system:kubefed-controller-manager";
    let mut command = tokio::process::Command::new(binary("kubefed-controller-manager"));
    command
        .arg("--kubeconfig")
        .arg(host.kubeconfig("host-cluster", user, &groups))
        .arg("--federation-kubeconfig")
        .arg(host.kubeconfig_past(&extension, user, &groups))
        .args(["--healthz-addr=127.0.0.1:0", "--metrics-addr=127.0.0.1:0", "--exit-with-parent"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let _ends_with_the_test = command.spawn().expect("it starts");

    for config in federatedtypeconfig::defaults() {
        if matches!(config["metadata"]["name"].as_str(), Some("namespaces" | "configmaps")) {
            let configs = format!("{CORE}/namespaces/{NAMESPACE}/federatedtypeconfigs");
            past.create(&configs, &config).await.expect("created");
        }
    }
    join_by(&endpoints, "cluster1", &member.url(), &member).await;
    let name = "test-namespace";
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    let map = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
        "metadata": {"name": "one"},
        "spec": {"template": {"data": {"a": "b"}}, "placement": {"clusterSelector": {}}},
    });
    for (plural, object) in
        [("federatednamespaces", federated_namespace(name)), ("federatedconfigmaps", map)]
    {
        let path = format!("{TYPES}/namespaces/{name}/{plural}");
        eventually("the extension knows kind and namespace", async || {
            past.create(&path, &object).await.ok()
        })
        .await;
    }
    let there = format!("/api/v1/namespaces/{name}/configmaps/one");
    let placed = eventually("the member has it", async || member.admin().get(&there).await.ok());
    assert_eq!(placed.await["data"], json!({"a": "b"}));

    // Each is where it belongs: the lease is the host's, which does not know the federation at all.
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    admin.get(&format!("{leases}/kubefed-controller-manager")).await.expect("the host has it");
    let road = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.core.kubefed.io";
    assert!(admin.get(road).await.is_err_and(|error| error.is_not_found()));

    past.delete(&format!("{TYPES}/namespaces/{name}/federatedconfigmaps/one"), &json!({}))
        .await
        .expect("deleted");
    eventually("the member has it no more", async || {
        member.admin().get(&there).await.is_err_and(|error| error.is_not_found()).then_some(())
    })
    .await;
}

//! The federation as an extension of a real Kubernetes, reached through it.

use kubefed_api::federatedtypeconfig;
use kubefed_tests::control_plane::a_control_plane;
use kubefed_tests::{NAMESPACE, eventually, guide};
use serde_json::json;

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
    kubectl.ok("explain kubefedcluster.spec.caBundle", "").await;
    kubectl.ok("explain federatedconfigmap.spec.template.data", "").await;
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

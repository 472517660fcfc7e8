//! FederatedTypeConfigs that depend on another one.

use kubefed_tests::scene::{event, federate_configmap, has, is_gone, told, with_ns};
use kubefed_tests::{Federation, NAMESPACE, eventually};
use serde_json::json;

fn path(name: &str) -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs/{name}")
}

async fn is(federation: &Federation, name: &str, state: &str) {
    let admin = federation.admin();
    eventually(&format!("{name} is {state}"), async || {
        let config = admin.get(&path(name)).await.ok()?;
        (config["status"]["propagationController"] == state).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kind_in_namespaces_is_synced_while_that_of_namespaces_is_not_there() {
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    let map = federate_configmap(&federation, "a").await;
    told(&federation, &map, "True").await;
    let mut namespaces = admin.get(&path("namespaces")).await.expect("there");
    admin.delete(&path("namespaces"), &json!({})).await.expect("deleted");
    is_gone(&federation.api, &path("namespaces")).await;
    for name in ["configmaps", "deployments.apps"] {
        is(&federation, name, "NotRunning").await;
    }
    is(&federation, "clusterroles.rbac.authorization.k8s.io", "Running").await;
    has(federation.member("one"), "a", "first").await;
    eventually("an event tells what is missing", async || {
        let events = admin.get(&format!("/api/v1/namespaces/{NAMESPACE}/events")).await.ok()?;
        let mut events = events["items"].as_array()?.iter();
        events.find(|event| event["reason"] == "MissingNamespaces").map(drop)
    })
    .await;

    namespaces["metadata"] = json!({"name": "namespaces"});
    namespaces["status"].take();
    admin.create(path("").trim_end_matches('/'), &namespaces).await.expect("created");
    is(&federation, "configmaps", "Running").await;
    kubefed_tests::scene::edit(&federation, &map, "second").await;
    has(federation.member("one"), "a", "second").await;
    event(&federation, "UpdateInCluster").await;
}

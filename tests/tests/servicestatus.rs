//! The status of Services in members, told apart from the FederatedService.

use kubefed_tests::scene::{TYPES, is_gone, told, with_ns};
use kubefed_tests::{NAMESPACE, eventually};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_services_is_told_beside_them_until_the_gate_is_on() {
    let federation = with_ns(&["one", "two"]).await;
    let admin = federation.admin();
    let core = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}");
    let config = format!("{core}/federatedtypeconfigs/services");
    let collects = json!({"spec": {
        "statusCollection": "Enabled",
        "statusType": {
            "group": "core.kubefed.io", "version": "v1alpha1", "kind": "FederatedServiceStatus",
            "pluralName": "federatedservicestatuses", "scope": "Namespaced",
        },
    }});
    admin.merge(&config, &collects).await.expect("changed");
    let controller = async |state: &str| {
        eventually(&format!("the status controller is {state}"), async || {
            let config = admin.get(&config).await.ok()?;
            let status = &config["status"];
            let current = status["observedGeneration"] == config["metadata"]["generation"];
            (current && status["statusController"] == state).then_some(())
        })
        .await;
    };
    controller("Running").await;
    let service = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedService", "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"ports": [{"port": 80}]}}, "placement": {"clusterSelector": {}}},
    });
    let path = format!("{TYPES}/federatedservices");
    let created = admin.create(&path, &service).await.expect("created");
    let path = format!("{path}/web");
    told(&federation, &path, "True").await;
    let ingress = |ip: &str| json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
    for (name, ip) in [("one", "192.0.2.1"), ("two", "192.0.2.2")] {
        let there = "/api/v1/namespaces/ns/services/web/status";
        let status = json!({"status": ingress(ip)});
        federation.member(name).admin().merge(there, &status).await.expect("changed");
    }
    let apart = "/apis/core.kubefed.io/v1alpha1/namespaces/ns/federatedservicestatuses/web";
    let found = eventually("both addresses are told", async || {
        let found = admin.get(apart).await.ok()?;
        let told = found["clusterStatus"].as_array()?.iter();
        let told = told.map(|c| (c["clusterName"].clone(), c["status"]["loadBalancer"].clone()));
        let wanted = [("one", "192.0.2.1"), ("two", "192.0.2.2")]
            .map(|(name, ip)| (json!(name), ingress(ip)["loadBalancer"].clone()));
        told.eq(wanted).then_some(found)
    })
    .await;
    assert_eq!(found["metadata"]["ownerReferences"][0]["uid"], created["metadata"]["uid"]);
    let object = admin.get(&path).await.expect("there");
    assert_eq!(object["status"]["clusters"], json!([{"name": "one"}, {"name": "two"}]));

    // With the gate it is told in the object, and no longer beside it.
    let gate = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {
            "scope": "Cluster",
            "featureGates": [{"name": "RawResourceStatusCollection", "configuration": "Enabled"}],
        },
    });
    admin.create(&format!("{core}/kubefedconfigs"), &gate).await.expect("created");
    controller("NotRunning").await;
    eventually("the object tells it", async || {
        let object = admin.get(&path).await.ok()?;
        let remote: &Value = &object["status"]["clusters"][1]["remoteStatus"];
        (remote["loadBalancer"] == ingress("192.0.2.2")["loadBalancer"]).then_some(())
    })
    .await;
    admin.delete(&path, &json!({})).await.expect("deleted");
    is_gone(&federation.api, apart).await;
}

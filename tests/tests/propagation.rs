//! From a federated object to the members, and back.

use kubefed_tests::{Federation, a_federation_of, a_namespace_everywhere, eventually, guide};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/test-namespace/deployments";
const FEDERATED: &str =
    "/apis/types.kubefed.io/v1beta1/namespaces/test-namespace/federateddeployments";

/// The guide's FederatedDeployment in its namespace, federated to both clusters.
async fn with_the_guides_deployment() -> Federation {
    let federation = a_federation_of(&["cluster1", "cluster2"]).await;
    a_namespace_everywhere(&federation.admin(), "test-namespace").await;
    federation.api.kubectl().ok("apply -f -", &guide("4.2")).await;
    federation
}

async fn replicas(federation: &Federation, cluster: &str, wanted: i64) -> Value {
    let member = federation.member(cluster).admin();
    eventually(&format!("{cluster} has {wanted} replicas"), async || {
        let deployment = member.get(&format!("{DEPLOYMENTS}/test-deployment")).await.ok()?;
        (deployment["spec"]["replicas"] == wanted).then_some(deployment)
    })
    .await
}

async fn condition(federation: &Federation, wanted: &str) -> Value {
    let admin = federation.admin();
    eventually(&format!("the condition is {wanted}"), async || {
        let object = admin.get(&format!("{FEDERATED}/test-deployment")).await.ok()?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        (current && object["status"]["conditions"][0]["status"] == wanted).then_some(object)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_deployment_reaches_both_clusters_and_is_kept_there() {
    let federation = with_the_guides_deployment().await;
    let one = replicas(&federation, "cluster1", 2).await;
    replicas(&federation, "cluster2", 3).await;
    assert_eq!(one["metadata"]["labels"]["kubefed.io/managed"], "true");
    condition(&federation, "True").await;

    // An edit of an override moves the member.
    let admin = federation.admin();
    let path = format!("{FEDERATED}/test-deployment");
    let patch = json!({"spec": {"overrides": [{"clusterName": "cluster1", "clusterOverrides": [{"path": "/spec/replicas", "value": 5}]}]}});
    admin.merge(&path, &patch).await.expect("created");
    replicas(&federation, "cluster1", 5).await;

    // Drift is undone: a change, and a deletion.
    let member = federation.member("cluster2").admin();
    let there = format!("{DEPLOYMENTS}/test-deployment");
    member.merge(&there, &json!({"spec": {"replicas": 1}})).await.unwrap();
    replicas(&federation, "cluster2", 3).await;
    let before = member.get(&there).await.unwrap();
    member.delete(&there, &json!({})).await.unwrap();
    let after = replicas(&federation, "cluster2", 3).await;
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);

    // A cluster that is no longer named loses the object, the other keeps it.
    admin
        .merge(&path, &json!({"spec": {"placement": {"clusters": [{"name": "cluster1"}]}}}))
        .await
        .unwrap();
    eventually("cluster2 loses the object", async || {
        member.get(&there).await.err().filter(|e| e.is_not_found())
    })
    .await;
    replicas(&federation, "cluster1", 5).await;

    // The end of the federated object is the end of the others.
    admin.delete(&path, &json!({})).await.unwrap();
    let member = federation.member("cluster1").admin();
    eventually("cluster1 loses the object", async || {
        member.get(&there).await.err().filter(|e| e.is_not_found())
    })
    .await;
    eventually("the federated object goes", async || {
        admin.get(&path).await.err().filter(|e| e.is_not_found())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_a_member_retains_survive_an_edit_of_the_template() {
    let federation = with_the_guides_deployment().await;
    let (admin, member) = (federation.admin(), federation.member("cluster2").admin());
    let path = format!("{FEDERATED}/test-deployment");
    admin.merge(&path, &json!({"spec": {"retainReplicas": true}})).await.unwrap();
    replicas(&federation, "cluster2", 3).await;
    condition(&federation, "True").await;
    let there = format!("{DEPLOYMENTS}/test-deployment");
    member.merge(&there, &json!({"spec": {"replicas": 7}})).await.unwrap();
    let label = json!({"spec": {"template": {"metadata": {"labels": {"tier": "web"}}}}});
    admin.merge(&path, &label).await.unwrap();
    let deployment = eventually("the template's new label is there", async || {
        let deployment = member.get(&there).await.ok()?;
        (deployment["metadata"]["labels"]["tier"] == "web").then_some(deployment)
    })
    .await;
    assert_eq!(deployment["spec"]["replicas"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_placed_is_told_in_the_status() {
    let federation = with_the_guides_deployment().await;
    let admin = federation.admin();
    let path = format!("{FEDERATED}/test-deployment");
    condition(&federation, "True").await;

    let unknown =
        json!({"spec": {"placement": {"clusters": [{"name": "cluster1"}, {"name": "clutser2"}]}}});
    admin.merge(&path, &unknown).await.unwrap();
    let object = condition(&federation, "False").await;
    assert_eq!(object["status"]["conditions"][0]["reason"], "UnknownClusters");
    assert!(object["status"]["conditions"][0]["message"].as_str().unwrap().contains("clutser2"));

    let missing = json!({"spec": {
        "placement": {"clusters": [{"name": "cluster1"}]},
        "overrides": [{"clusterName": "cluster1", "clusterOverrides": [{"path": "/spec/no/such/place", "value": 1}]}],
    }});
    admin.merge(&path, &missing).await.unwrap();
    let object = eventually("the override is told to fail", async || {
        let object = admin.get(&path).await.ok()?;
        (object["status"]["clusters"][0]["status"] == "ApplyOverridesFailed").then_some(object)
    })
    .await;
    assert!(
        object["status"]["clusters"][0]["message"]
            .as_str()
            .unwrap()
            .contains("/spec/no/such/place")
    );
    eventually("an event tells it too", async || {
        let events = admin.get("/api/v1/namespaces/test-namespace/events").await.ok()?;
        events["items"]
            .as_array()?
            .iter()
            .any(|event| event["reason"] == "ApplyOverridesFailed")
            .then_some(())
    })
    .await;
}

//! Clusters that are unjoined, replaced or no longer reached: nothing is deleted by accident.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kubefed_apimachinery::time;
use kubefed_tests::scene::{MANAGED, TYPES, federate_configmap, has, state_is, told, with_ns};
use kubefed_tests::{Cluster, Federation, NAMESPACE, a_member, eventually, join};
use serde_json::{Value, json};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ns/deployments/web";

fn cluster_path(name: &str) -> String {
    format!("{}/{name}", clusters())
}

fn clusters() -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters")
}

fn secret_path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
}

/// The uids of all that is ours in a member, by name.
async fn ours(member: &Cluster) -> BTreeMap<String, String> {
    let path = "/api/v1/namespaces/ns/configmaps";
    let list = member.admin().get(path).await.expect("a list");
    let items = list["items"].as_array().into_iter().flatten();
    let ours = items.filter(|item| item["metadata"]["labels"][MANAGED] == "true");
    let text =
        |item: &Value, field: &str| item["metadata"][field].as_str().unwrap_or("").to_owned();
    ours.map(|item| (text(item, "name"), text(item, "uid"))).collect()
}

/// Waits until all FederatedConfigMaps tell of these clusters, and of nothing that is wrong there.
async fn all_tell(federation: &Federation, clusters: Value) {
    let admin = federation.admin();
    eventually(&format!("all are in {clusters}"), async || {
        let list = admin.get(&format!("{TYPES}/federatedconfigmaps")).await.ok()?;
        let mut items = list["items"].as_array()?.iter();
        items
            .all(|item| {
                let told = &item["status"]["clusters"];
                *told == clusters || told.is_null() && clusters == json!([])
            })
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_has_stays_when_it_is_unjoined_and_when_it_is_joined_again() {
    const COUNT: usize = 200;
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    for number in 0..COUNT {
        federate_configmap(&federation, &format!("c{number}")).await;
    }
    all_tell(&federation, json!([{"name": "one"}])).await;
    let member = federation.member("one");
    let before = ours(member).await;
    assert_eq!(before.len(), COUNT);
    for _ in 0..3 {
        let mut cluster = admin.get(&cluster_path("one")).await.expect("it is there");
        admin.delete(&cluster_path("one"), &json!({})).await.expect("unjoined");
        all_tell(&federation, json!([])).await;
        assert_eq!(ours(member).await, before);
        let labels = cluster["metadata"]["labels"].take();
        cluster["metadata"] = json!({"name": "one", "labels": labels});
        admin.create(&clusters(), &cluster).await.expect("joined");
        federation.wait_ready("one").await;
        all_tell(&federation, json!([{"name": "one"}])).await;
        assert_eq!(ours(member).await, before);
    }
    // It is synced as before.
    let path = format!("{TYPES}/federatedconfigmaps/c0");
    kubefed_tests::scene::edit(&federation, &path, "second").await;
    has(member, "c0", "second").await;
}

fn deployment(image: &str) -> Value {
    json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": image}]},
        },
    })
}

fn image(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]["image"]
}

/// A member that has a Deployment of somebody else's with our mark, in this generation.
async fn a_member_with_a_namesake(generation: i64) -> Cluster {
    let member = a_member().await;
    let admin = member.admin();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    let namesake = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {MANAGED: "true"}},
        "spec": deployment("theirs"),
    });
    admin.create("/apis/apps/v1/namespaces/ns/deployments", &namesake).await.expect("created");
    for number in 1..generation {
        let spec = json!({"spec": deployment(&format!("theirs-{number}"))});
        admin.merge(DEPLOYMENT, &spec).await.expect("changed");
    }
    let there = admin.get(DEPLOYMENT).await.expect("it is there");
    assert_eq!(there["metadata"]["generation"], generation);
    member
}

/// Unjoins a cluster and joins another in its place.
async fn replace(federation: &Federation, name: &str, member: &Cluster) {
    let admin = federation.admin();
    admin.delete(&cluster_path(name), &json!({})).await.expect("unjoined");
    admin.delete(&secret_path(name), &json!({})).await.expect("deleted");
    join(&federation.api, name, &member.url(), member).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_in_the_place_of_another_is_not_believed_to_have_what_that_had() {
    let mut federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    let object = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedDeployment", "metadata": {"name": "web"},
        "spec": {"template": {"spec": deployment("ours")}, "placement": {"clusterSelector": {}}},
    });
    let path = format!("{TYPES}/federateddeployments");
    admin.create(&path, &object).await.expect("created");
    let path = format!("{path}/web");
    told(&federation, &path, "True").await;
    let record = "/apis/core.kubefed.io/v1alpha1/namespaces/ns/propagatedversions/deployment-web";
    let is_recorded = async |version: &str| {
        let versions = json!([{"clusterName": "one", "version": version}]);
        eventually(&format!("{version} is recorded"), async || {
            let record = admin.get(record).await.ok()?;
            (record["status"]["clusterVersions"] == versions).then_some(())
        })
        .await;
    };
    let is_ours = async |member: &Cluster| {
        let member = member.admin();
        eventually("it has our image", async || {
            let there = member.get(DEPLOYMENT).await.ok()?;
            (image(&there) == "ours").then_some(())
        })
        .await;
    };
    is_recorded("gen:1").await;
    let before = federation.member("one").admin().get(DEPLOYMENT).await.expect("it is there");

    let second = a_member_with_a_namesake(1).await;
    replace(&federation, "one", &second).await;
    is_ours(&second).await;
    is_recorded("gen:2").await;

    // While nobody looks, and in a later second than that of the record.
    federation.stop_manager().await;
    let made = admin.get(record).await.expect("it is there");
    let made = made["metadata"]["creationTimestamp"].as_str().expect("a time").to_owned();
    eventually("its second is over", async || {
        (time::rfc3339(Timestamp::now()) > made).then_some(())
    })
    .await;
    let third = a_member_with_a_namesake(2).await;
    replace(&federation, "one", &third).await;
    federation.start_manager();
    is_ours(&third).await;

    let after = federation.member("one").admin().get(DEPLOYMENT).await.expect("it stays");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    for left in [after, second.admin().get(DEPLOYMENT).await.expect("it stays")] {
        assert!(left["metadata"]["deletionTimestamp"].is_null());
        assert_eq!(
            (image(&left), &left["metadata"]["labels"][MANAGED]),
            (&json!("ours"), &json!("true"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_gone_takes_nothing_away() {
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {"scope": "Cluster", "clusterHealthCheck": {"failureThreshold": 1}},
    });
    let configs = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedconfigs");
    admin.create(&configs, &config).await.expect("a config");
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    let before = ours(federation.member("one")).await;

    let mut secret = admin.get(&secret_path("one")).await.expect("it is there");
    admin.delete(&secret_path("one"), &json!({})).await.expect("deleted");
    eventually("the cluster is malformed", async || {
        let cluster = admin.get(&cluster_path("one")).await.ok()?;
        let condition = &cluster["status"]["conditions"][0];
        let why = condition["message"].as_str().unwrap_or("");
        (condition["type"] == "ConfigMalformed" && why.contains("there is no secret")).then_some(())
    })
    .await;
    state_is(&federation, &path, "one", "ClusterNotReady").await;
    let new = federate_configmap(&federation, "b").await;
    state_is(&federation, &new, "one", "ClusterNotReady").await;
    assert_eq!(ours(federation.member("one")).await, before);

    secret["metadata"] = json!({"name": "one"});
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    admin.create(&secrets, &secret).await.expect("created");
    has(federation.member("one"), "b", "first").await;
    told(&federation, &path, "True").await;
    assert_eq!(ours(federation.member("one")).await.get("a"), before.get("a"));
}

//! The end of a federated object, and what becomes of its objects in the members.

use kubefed_tests::front::Front;
use kubefed_tests::scene::{
    MANAGED, TYPES, event, federate_configmap, has, is_gone, near_and_far, state_is, there, told,
    with_ns,
};
use kubefed_tests::{
    NAMESPACE, a_federation_of, a_member, a_namespace_everywhere, eventually, join,
};
use serde_json::{Value, json};

fn options(text: &str) -> Value {
    json!({"metadata": {"annotations": {"kubefed.io/deleteoption": text}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_options_of_the_annotation_go_to_the_members() {
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    // A member that is given this has to refuse.
    let another = r#"{"preconditions": {"uid": "another"}}"#;
    admin.merge(&path, &options(another)).await.expect("changed");
    admin.delete(&path, &json!({})).await.expect("deleted");
    let object = state_is(&federation, &path, "one", "DeletionFailed").await;
    let why = object["status"]["clusters"][0]["message"].as_str().expect("a message");
    assert!(why.contains("another"), "{why}");
    has(federation.member("one"), "a", "first").await;
    admin.merge(&path, &options("{}")).await.expect("changed");
    is_gone(federation.member("one"), &there("a")).await;
    is_gone(&federation.api, &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_are_not_understood_keep_everything_until_they_are_mended() {
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("one"), "a", "first").await;
    told(&federation, &path, "True").await;
    admin.merge(&path, &options("Orphan")).await.expect("changed");
    admin.delete(&path, &json!({})).await.expect("deleted");
    let object = state_is(&federation, &path, "one", "DeletionFailed").await;
    let why = object["status"]["clusters"][0]["message"].as_str().expect("a message");
    assert!(why.contains("kubefed.io/deleteoption is not understood"), "{why}");
    event(&federation, "DeleteInClusterFailed").await;
    has(federation.member("one"), "a", "first").await;
    admin.merge(&path, &options(r#"{"gracePeriodSeconds": 0}"#)).await.expect("changed");
    is_gone(federation.member("one"), &there("a")).await;
    is_gone(&federation.api, &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_for_ever_holds_no_deletion_once_it_is_unjoined() {
    let (federation, road) = near_and_far().await;
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    road.block();
    let admin = federation.admin();
    admin.delete(&path, &json!({})).await.expect("deleted");
    is_gone(federation.member("near"), &there("a")).await;
    state_is(&federation, &path, "near", "").await;
    let held = admin.get(&path).await.expect("it is held");
    assert_eq!(held["metadata"]["finalizers"], json!(["kubefed.io/sync-controller"]));
    let far = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters/far");
    admin.delete(&far, &json!({})).await.expect("unjoined");
    is_gone(&federation.api, &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_holds_no_deletion_of_what_it_never_had() {
    let federation = with_ns(&["one"]).await;
    let _silent = federation.join_silent("silent").await;
    let everywhere = federate_configmap(&federation, "a").await;
    state_is(&federation, &everywhere, "silent", "ClusterNotReady").await;
    let path = federate_configmap(&federation, "b").await;
    let elsewhere = json!({"spec": {"placement": {"clusters": [{"name": "one"}]}}});
    federation.admin().merge(&path, &elsewhere).await.expect("changed");
    told(&federation, &path, "True").await;
    federation.admin().delete(&path, &json!({})).await.expect("deleted");
    is_gone(&federation.api, &path).await;
    is_gone(federation.member("one"), &there("b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_own_namespace_is_marked_and_let_go_but_never_deleted() {
    let mut federation = a_federation_of(&[]).await;
    federation.stop_manager().await;
    let admin = federation.admin();
    // What was there before is not taken over, but this is the very namespace.
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {"scope": "Cluster", "syncController": {"adoptResources": "Disabled"}},
    });
    let configs = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedconfigs");
    admin.create(&configs, &config).await.expect("a config");
    federation.start_manager();
    let front = Front::start(&federation.api).await;
    join(&federation.api, "self", &front.url(), &federation.api).await;
    federation.wait_ready("self").await;
    a_namespace_everywhere(&admin, "ns").await;
    let namespace = async |mark: Value| {
        eventually(&format!("the namespace has the mark {mark}"), async || {
            let found = admin.get("/api/v1/namespaces/ns").await.ok()?;
            (found["metadata"]["labels"][MANAGED] == mark).then_some(found)
        })
        .await
    };
    let before = namespace(json!("true")).await;
    let path = format!("{TYPES}/federatednamespaces/ns");
    told(&federation, &path, "True").await;
    let nowhere = json!({"spec": {"placement": {"clusters": []}}});
    front.fail(true);
    admin.merge(&path, &nowhere).await.expect("changed");
    state_is(&federation, &path, "self", "LabelRemovalFailed").await;
    event(&federation, "RemoveManagedLabelFromInClusterFailed").await;
    front.fail(false);
    let after = namespace(Value::Null).await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["deletionTimestamp"], Value::Null);
    let everywhere = json!({"spec": {"placement": {"clusters": null}}});
    admin.merge(&path, &everywhere).await.expect("changed");
    namespace(json!("true")).await;
    told(&federation, &path, "True").await;

    // Its end waits for that of the federated one, which does not wait for it.
    admin.delete("/api/v1/namespaces/ns", &json!({})).await.expect("deleted");
    is_gone(&federation.api, "/api/v1/namespaces/ns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_fails_to_delete_is_told_of_and_asked_again() {
    let mut federation = a_federation_of(&[]).await;
    let frail = a_member().await;
    let front = Front::start(&frail).await;
    join(&federation.api, "frail", &front.url(), &frail).await;
    federation.members.push(("frail".into(), frail));
    federation.wait_ready("frail").await;
    let admin = federation.admin();
    a_namespace_everywhere(&admin, "ns").await;
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    front.fail(true);
    admin.delete(&path, &json!({})).await.expect("deleted");
    state_is(&federation, &path, "frail", "DeletionFailed").await;
    event(&federation, "DeleteInClusterFailed").await;
    front.fail(false);
    is_gone(&federation.api, &path).await;
    is_gone(federation.member("frail"), &there("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cluster_holds_an_object_that_leaves_what_it_placed() {
    let (federation, road) = near_and_far().await;
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    let admin = federation.admin();
    let orphan = json!({"metadata": {"annotations": {"kubefed.io/orphan": "true"}}});
    admin.merge(&path, &orphan).await.expect("changed");
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {"scope": "Cluster", "clusterHealthCheck": {"period": "100ms", "failureThreshold": 1}},
    });
    let configs = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedconfigs");
    admin.create(&configs, &config).await.expect("a config");
    road.block();
    let cluster =
        format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters/far");
    eventually("far is away", async || {
        let cluster = admin.get(&cluster).await.ok()?;
        (!kubefed_api::kubefedcluster::is_ready(&cluster)).then_some(())
    })
    .await;
    admin.delete(&path, &json!({})).await.expect("deleted");
    is_gone(&federation.api, &path).await;
    road.unblock();
    for name in ["near", "far"] {
        let member = federation.member(name).admin();
        eventually(&format!("{name} has it without the mark"), async || {
            let found = member.get(&there("a")).await.expect("it is left");
            found["metadata"]["labels"][MANAGED].is_null().then_some(())
        })
        .await;
    }
}

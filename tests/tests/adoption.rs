//! Objects that were in a member before, and objects that are nobody's any longer.

use kubefed_controllers::client::Client;
use kubefed_tests::NAMESPACE;
use kubefed_tests::scene::{
    MANAGED, event, federate_configmap, has, is_gone, near_and_far, state_is, there, told, with_ns,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_is_left_or_taken_over_as_the_config_says() {
    let mut federation = with_ns(&["one"]).await;
    let (admin, member) = (federation.admin(), federation.member("one").admin());
    told(
        &federation,
        "/apis/types.kubefed.io/v1beta1/namespaces/ns/federatednamespaces/ns",
        "True",
    )
    .await;
    let adopts = |word: &str| {
        json!({
            "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
            "spec": {"scope": "Cluster", "syncController": {"adoptResources": word}},
        })
    };
    let configs = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedconfigs");
    federation.stop_manager().await;
    admin.create(&configs, &adopts("Disabled")).await.expect("created");
    federation.start_manager();
    let mine = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
        "data": {"key": "mine", "other": "kept"},
    });
    let maps = there("").trim_end_matches('/').to_owned();
    member.create(&maps, &mine).await.expect("created");
    let path = federate_configmap(&federation, "a").await;
    state_is(&federation, &path, "one", "AlreadyExists").await;
    let found = member.get(&there("a")).await.expect("it stays");
    assert_eq!(found["data"]["key"], "mine");
    assert_eq!(found["metadata"]["labels"], Value::Null);

    admin.merge(&format!("{configs}/kubefed"), &adopts("Enabled")).await.expect("changed");
    let taken = has(federation.member("one"), "a", "first").await;
    assert_eq!(taken["metadata"]["labels"][MANAGED], "true");
    assert_eq!(taken["data"]["other"], "kept", "what the template does not say is left");
    assert_eq!(taken["metadata"]["uid"], found["metadata"]["uid"]);
    event(&federation, "AdoptedInCluster").await;
    told(&federation, &path, "True").await;
    admin.delete(&path, &json!({})).await.expect("deleted");
    is_gone(federation.member("one"), &there("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_without_an_owner_is_taken_off_and_the_object_left() {
    let federation = with_ns(&["one"]).await;
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    let member = federation.member("one").admin();
    let nobodys = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "nobodys", "labels": {MANAGED: "true", "app": "web"}}, "data": {"key": "mine"},
    });
    member.create(there("").trim_end_matches('/'), &nobodys).await.expect("created");
    kubefed_tests::eventually("the mark is taken off", async || {
        let found = member.get(&there("nobodys")).await.ok()?;
        (found["metadata"]["labels"] == json!({"app": "web"})).then_some(())
    })
    .await;
    let found = member.get(&there("nobodys")).await.expect("it stays");
    assert_eq!(found["data"]["key"], "mine");
    has(federation.member("one"), "a", "first").await;
}

/// The object in the member is left as it was, but is no longer marked.
async fn is_let_go(member: &Client, was: &Value) {
    let path = there("a");
    let found = kubefed_tests::eventually("the mark is taken off", async || {
        let found = member.get(&path).await;
        let found = found.expect("what was orphaned stays");
        found["metadata"]["labels"][MANAGED].is_null().then_some(found)
    })
    .await;
    assert_eq!(found["metadata"]["uid"], was["metadata"]["uid"]);
    assert_eq!(found["data"], was["data"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_orphaned_while_its_member_was_away_outlives_a_namesake_that_is_placed_elsewhere()
{
    let (federation, road) = near_and_far().await;
    let (admin, far) = (federation.admin(), federation.member("far").admin());
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    let was = has(federation.member("far"), "a", "first").await;
    road.cut();
    let patch = json!({"metadata": {"annotations": {"kubefed.io/orphan": "true"}}});
    admin.merge(&path, &patch).await.expect("marked");
    admin.delete(&path, &json!({})).await.expect("deleted");
    is_gone(&federation.api, &path).await;
    let mut namesake = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
        "metadata": {"name": "a", "namespace": "ns"},
        "spec": {"template": {"data": {"key": "second"}}, "placement": {"clusters": [{"name": "near"}]}},
    });
    let collection = path.strip_suffix("/a").expect("a path");
    namesake = admin.create(collection, &namesake).await.expect("created");
    has(federation.member("near"), "a", "second").await;
    road.mend();
    is_let_go(&far, &was).await;
    assert_eq!(
        told(&federation, &path, "True").await["metadata"]["uid"],
        namesake["metadata"]["uid"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_an_object_that_is_gone_says_nothing_of_its_namesake() {
    let mut federation = with_ns(&["one"]).await;
    let (admin, member) = (federation.admin(), federation.member("one").admin());
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    let was = has(federation.member("one"), "a", "first").await;
    federation.stop_manager().await;
    admin.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect("let go");
    admin.delete(&path, &json!({})).await.expect("deleted");
    let namesake = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
        "metadata": {"name": "a", "namespace": "ns"},
        "spec": {"template": {"data": {"key": "second"}}, "placement": {"clusters": []}},
    });
    let collection = path.strip_suffix("/a").expect("a path");
    admin.create(collection, &namesake).await.expect("created");
    federation.start_manager();
    is_let_go(&member, &was).await;
}

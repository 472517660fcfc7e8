//! Objects that were in a member before, and objects that are nobody's any longer.

use kubefed_tests::NAMESPACE;
use kubefed_tests::scene::{
    MANAGED, event, federate_configmap, has, is_gone, state_is, there, told, with_ns,
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

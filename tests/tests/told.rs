//! What the status and the events of a federated object tell.

use kubefed_tests::scene::{
    TYPES, event, federate_configmap, has, is_gone, state_is, there, told, with_ns,
};
use kubefed_tests::{NAMESPACE, a_federation_of, eventually, federated_namespace, join};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_is_told_of_and_delays_no_other() {
    let federation = with_ns(&["one"]).await;
    let _silent = federation.join_silent("silent").await;
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("one"), "a", "first").await;
    let object = state_is(&federation, &path, "silent", "ClusterNotReady").await;
    assert_eq!(object["status"]["conditions"][0]["reason"], "CheckClusters");
    let event = event(&federation, "ClusterNotReady").await;
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["source"]["component"], "federatedconfigmap-controller");
    assert_eq!(event["involvedObject"]["name"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_in_a_member_is_told_by_kubefeds_events() {
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    let path = federate_configmap(&federation, "a").await;
    let created = event(&federation, "CreateInCluster").await;
    assert_eq!(created["type"], "Normal");
    let message = created["message"].as_str().expect("a message");
    assert!(
        message.starts_with("Creating ") && message.ends_with("in cluster \"one\""),
        "{message}"
    );
    told(&federation, &path, "True").await;
    kubefed_tests::scene::edit(&federation, &path, "second").await;
    let updated = event(&federation, "UpdateInCluster").await;
    assert_eq!(updated["message"], "Updating ConfigMap \"ns/a\" in cluster \"one\"");
    admin.delete(&path, &json!({})).await.expect("deleted");
    event(&federation, "DeleteInCluster").await;

    let path = federate_configmap(&federation, "b").await;
    told(&federation, &path, "True").await;
    let orphan = json!({"metadata": {"annotations": {"kubefed.io/orphan": "true"}}});
    admin.merge(&path, &orphan).await.expect("changed");
    admin.delete(&path, &json!({})).await.expect("deleted");
    event(&federation, "RemoveManagedLabelFromInCluster").await;

    // Something in the member holds the object.
    let path = federate_configmap(&federation, "c").await;
    told(&federation, &path, "True").await;
    let member = federation.member("one").admin();
    let held = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    member.merge(&there("c"), &held(json!(["example.com/hold"]))).await.expect("changed");
    told(&federation, &path, "True").await;
    admin.delete(&path, &json!({})).await.expect("deleted");
    let waiting = state_is(&federation, &path, "one", "WaitingForRemoval").await;
    assert_eq!(waiting["status"]["conditions"][0]["reason"], "CheckClusters");
    event(&federation, "WaitForRemovalInCluster").await;
    member.merge(&there("c"), &held(Value::Null)).await.expect("changed");
    is_gone(&federation.api, &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_and_finalizers_of_a_template_are_told_to_be_in_vain() {
    let federation = with_ns(&["one"]).await;
    let object = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap", "metadata": {"name": "a"},
        "spec": {
            "template": {
                "metadata": {"annotations": {"a": "b"}, "finalizers": ["example.com/hold"], "labels": {"app": "web"}},
                "data": {"key": "first"},
            },
            "placement": {"clusterSelector": {}},
        },
    });
    federation
        .admin()
        .create(&format!("{TYPES}/federatedconfigmaps"), &object)
        .await
        .expect("created");
    let metadata = has(federation.member("one"), "a", "first").await["metadata"].clone();
    assert_eq!(metadata["labels"]["app"], "web");
    assert_eq!([&metadata["annotations"], &metadata["finalizers"]], [&Value::Null, &Value::Null]);
    for reason in ["AnnotationsNotSupported", "FinalizersNotSupported"] {
        assert_eq!(event(&federation, reason).await["type"], "Warning");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_cannot_be_read_is_told_and_moves_nothing() {
    let federation = with_ns(&["one"]).await;
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("one"), "a", "first").await;
    told(&federation, &path, "True").await;
    let wrong = json!({"spec": {"placement": {"clusterSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}}});
    federation.admin().merge(&path, &wrong).await.expect("changed");
    let object = told(&federation, &path, "False").await;
    let condition = &object["status"]["conditions"][0];
    assert_eq!(condition["reason"], "ComputePlacementFailed");
    let message = condition["message"].as_str().expect("a message");
    assert!(message.contains("spec.placement.clusterSelector"), "{message}");
    event(&federation, "ComputePlacementFailed").await;
    has(federation.member("one"), "a", "first").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_namespace_is_not_federated_is_nowhere_and_says_why() {
    let federation = a_federation_of(&["one"]).await;
    let admin = federation.admin();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    federation
        .member("one")
        .admin()
        .create("/api/v1/namespaces", &namespace)
        .await
        .expect("created");
    let path = federate_configmap(&federation, "a").await;
    let object = told(&federation, &path, "False").await;
    assert_eq!(object["status"]["conditions"][0]["reason"], "NamespaceNotFederated");
    assert_eq!(object["status"]["clusters"], json!([]));

    let misnamed = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedNamespace", "metadata": {"name": "other"},
        "spec": {"template": {}, "placement": {"clusterSelector": {}}},
    });
    let namespaces = format!("{TYPES}/federatednamespaces");
    admin.create(&namespaces, &misnamed).await.expect("created");
    let event = event(&federation, "InvalidName").await;
    let wanted =
        "The name of a federated namespace must match the name of its containing namespace.";
    assert_eq!(event["message"], wanted);
    told(&federation, &format!("{namespaces}/other"), "False").await;

    admin.create(&namespaces, &federated_namespace("ns")).await.expect("created");
    told(&federation, &path, "True").await;
    has(federation.member("one"), "a", "first").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_whose_labels_change_are_chosen_anew() {
    let federation = with_ns(&["one", "two"]).await;
    let admin = federation.admin();
    let path = federate_configmap(&federation, "a").await;
    let blue =
        json!({"spec": {"placement": {"clusterSelector": {"matchLabels": {"color": "blue"}}}}});
    for name in ["one", "two"] {
        has(federation.member(name), "a", "first").await;
    }
    admin.merge(&path, &blue).await.expect("changed");
    for name in ["one", "two"] {
        is_gone(federation.member(name), &there("a")).await;
    }
    let two = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters/two");
    let color = json!({"metadata": {"labels": {"color": "blue"}}});
    admin.merge(&two, &color).await.expect("changed");
    has(federation.member("two"), "a", "first").await;
    eventually("the status tells of that cluster alone", async || {
        let object = admin.get(&path).await.ok()?;
        (object["status"]["clusters"] == json!([{"name": "two"}])).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_a_member_does_not_serve_is_told_and_harms_no_other_kind_or_member() {
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    // A control plane has ConfigMaps, but no Services.
    join(&federation.api, "self", &federation.api.url(), &federation.api).await;
    federation.wait_ready("self").await;
    let service = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedService", "metadata": {"name": "a"},
        "spec": {"template": {"spec": {"ports": [{"port": 80}]}}, "placement": {"clusterSelector": {}}},
    });
    let services = format!("{TYPES}/federatedservices");
    admin.create(&services, &service).await.expect("created");
    let map = federate_configmap(&federation, "a").await;
    told(&federation, &map, "True").await;
    let object =
        state_is(&federation, &format!("{services}/a"), "self", "CachedRetrievalFailed").await;
    assert_eq!(object["status"]["clusters"][0], json!({"name": "one"}));
    let member = federation.member("one").admin();
    eventually("the other member has it", async || {
        member.get("/api/v1/namespaces/ns/services/a").await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_cluster_that_loses_its_secret_harms_no_other() {
    let federation = with_ns(&["one", "two"]).await;
    let map = federate_configmap(&federation, "a").await;
    told(&federation, &map, "True").await;
    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/two");
    let admin = federation.admin();
    admin.delete(&secret, &json!({})).await.expect("deleted");
    let clusters = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters");
    eventually("the cluster is told of", async || {
        let two = admin.get(&format!("{clusters}/two")).await.ok()?;
        let mut conditions = two["status"]["conditions"].as_array()?.iter();
        conditions.find(|condition| condition["type"] == "ConfigMalformed").map(drop)
    })
    .await;
    kubefed_tests::scene::edit(&federation, &map, "second").await;
    has(federation.member("one"), "a", "second").await;
    federate_configmap(&federation, "b").await;
    has(federation.member("one"), "b", "first").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_member_refuses_is_told_with_its_words_and_tried_again_when_it_changes() {
    let federation = with_ns(&["one", "two"]).await;
    let admin = federation.admin();
    let path = format!("{TYPES}/federatedconfigmaps");
    let wrong = json!([{"clusterName": "one", "clusterOverrides": [{"path": "/data/key", "value": {"no": "text"}}]}]);
    let object = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap", "metadata": {"name": "a"},
        "spec": {
            "template": {"data": {"key": "first"}}, "placement": {"clusterSelector": {}},
            "overrides": wrong,
        },
    });
    admin.create(&path, &object).await.expect("created");
    let path = format!("{path}/a");
    let object = eventually("one fails and two does not", async || {
        let object = admin.get(&path).await.ok()?;
        let well = object["status"]["clusters"][1] == json!({"name": "two"});
        (well && object["status"]["clusters"][0]["status"] == "CreationFailed").then_some(object)
    })
    .await;
    let why = object["status"]["clusters"][0]["message"].as_str().expect("a message");
    assert!(why.contains("data"), "{why}");
    let said = event(&federation, "CreateInClusterFailed").await;
    assert!(said["message"].as_str().expect("a message").contains("in cluster \"one\""), "{said}");

    let overrides = |overrides: &Value| json!({"spec": {"overrides": overrides}});
    admin.merge(&path, &overrides(&json!([]))).await.expect("changed");
    has(federation.member("one"), "a", "first").await;
    told(&federation, &path, "True").await;
    admin.merge(&path, &overrides(&wrong)).await.expect("changed");
    state_is(&federation, &path, "one", "UpdateFailed").await;
    event(&federation, "UpdateInClusterFailed").await;
    has(federation.member("one"), "a", "first").await;
}

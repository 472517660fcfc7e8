//! PropagatedVersions: what the controllers remember of each member.

use kubefed_api::versions::{object_version, overrides_hash, template_hash};
use kubefed_apimachinery::meta;
use kubefed_tests::scene::{
    TYPES, edit, event, federate_configmap, has, is_gone, near_and_far, state_is, there, told,
    with_ns,
};
use kubefed_tests::{Federation, eventually};
use serde_json::{Value, json};

const RECORDS: &str = "/apis/core.kubefed.io/v1alpha1/namespaces/ns/propagatedversions";

/// Waits until the record of the ConfigMap tells what these members have now; the record.
async fn record_of(federation: &Federation, path: &str, members: &[&str]) -> Value {
    let admin = federation.admin();
    eventually(&format!("the record tells of {members:?}"), async || {
        let (object, record) =
            (admin.get(path).await.ok()?, admin.get(&format!("{RECORDS}/configmap-a")).await.ok()?);
        let mut versions = Vec::new();
        for name in members {
            let found = federation.member(name).admin().get(&there("a")).await.ok()?;
            let version = object_version(meta::generation(&found), meta::resource_version(&found));
            versions.push(json!({"clusterName": name, "version": version}));
        }
        let wanted = json!({
            "templateVersion": template_hash(&object), "overridesVersion": overrides_hash(&object),
            "clusterVersions": versions,
        });
        (record["status"] == wanted).then_some(record)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_tells_what_each_member_has_and_goes_with_its_object() {
    let federation = with_ns(&["one", "two"]).await;
    let admin = federation.admin();
    let path = federate_configmap(&federation, "a").await;
    let record = record_of(&federation, &path, &["one", "two"]).await;
    let object = admin.get(&path).await.expect("there");
    let owner = json!([{
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap", "name": "a",
        "uid": object["metadata"]["uid"],
    }]);
    assert_eq!(record["metadata"]["ownerReferences"], owner);

    edit(&federation, &path, "second").await;
    let next = record_of(&federation, &path, &["one", "two"]).await;
    assert_ne!(next["status"]["templateVersion"], record["status"]["templateVersion"]);
    assert_eq!(next["metadata"]["uid"], record["metadata"]["uid"]);

    let in_two = json!({"spec": {"placement": {"clusters": [{"name": "two"}]}}});
    admin.merge(&path, &in_two).await.expect("changed");
    record_of(&federation, &path, &["two"]).await;

    // One that was lost is made anew with the next change.
    admin.delete(&format!("{RECORDS}/configmap-a"), &json!({})).await.expect("deleted");
    edit(&federation, &path, "third").await;
    record_of(&federation, &path, &["two"]).await;

    admin.delete(&path, &json!({})).await.expect("deleted");
    is_gone(&federation.api, &format!("{RECORDS}/configmap-a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_an_older_object_is_recorded_without_a_version() {
    let (federation, road) = near_and_far().await;
    let path = federate_configmap(&federation, "a").await;
    let record = record_of(&federation, &path, &["far", "near"]).await;
    road.block();
    edit(&federation, &path, "second").await;
    let admin = federation.admin();
    eventually("the new template is recorded", async || {
        let next = admin.get(&format!("{RECORDS}/configmap-a")).await.ok()?;
        let far = &next["status"]["clusterVersions"][0];
        let is_new = next["status"]["templateVersion"] != record["status"]["templateVersion"];
        (is_new && *far == json!({"clusterName": "far", "version": ""})).then_some(())
    })
    .await;
    road.unblock();
    record_of(&federation, &path, &["far", "near"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_without_namespaces_has_cluster_records_and_a_namespace_one_of_its_own() {
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    let role = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedClusterRole", "metadata": {"name": "look"},
        "spec": {
            "template": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
            "placement": {"clusterSelector": {}},
        },
    });
    let roles = "/apis/types.kubefed.io/v1beta1/federatedclusterroles";
    admin.create(roles, &role).await.expect("created");
    let cluster_records = "/apis/core.kubefed.io/v1alpha1/clusterpropagatedversions";
    let of_ns = format!("{RECORDS}/namespace-ns");
    for path in [format!("{cluster_records}/clusterrole-look"), of_ns] {
        eventually(&format!("{path} is there"), async || {
            let record = admin.get(&path).await.ok()?;
            (record["status"]["clusterVersions"][0]["clusterName"] == "one").then_some(())
        })
        .await;
    }
    admin.delete(&format!("{roles}/look"), &json!({})).await.expect("deleted");
    is_gone(&federation.api, &format!("{cluster_records}/clusterrole-look")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_may_not_be_written_holds_back_no_status_but_a_finalizer_does() {
    let federation = with_ns(&["one"]).await;
    let admin = federation.admin();
    told(&federation, &format!("{TYPES}/federatednamespaces/ns"), "True").await;
    let verbs = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
    let rules = json!([
        {"apiGroups": ["types.kubefed.io"], "resources": ["*"], "verbs": verbs},
        {
            "apiGroups": ["core.kubefed.io"], "verbs": verbs,
            "resources": ["kubefedconfigs", "kubefedclusters", "kubefedclusters/status", "federatedtypeconfigs", "federatedtypeconfigs/status"],
        },
        {"apiGroups": ["", "coordination.k8s.io"], "resources": ["namespaces", "secrets", "events", "leases"], "verbs": verbs},
    ]);
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:kubefed-controller-manager";
    admin.merge(role, &json!({"rules": rules})).await.expect("changed");
    let controllers = federation.api.client("system:kubefed-controller-manager", &[]);
    eventually("they may not read records", async || controllers.get(RECORDS).await.err()).await;
    let path = federate_configmap(&federation, "a").await;
    told(&federation, &path, "True").await;
    state_is(&federation, &path, "one", "").await;
    has(federation.member("one"), "a", "first").await;
    assert!(admin.get(&format!("{RECORDS}/configmap-a")).await.is_err_and(|e| e.is_not_found()));

    // Without the right to hold an object nothing of it is put anywhere.
    let mut rules = rules;
    rules[0]["verbs"] = json!(["get", "list", "watch"]);
    admin.merge(role, &json!({"rules": rules})).await.expect("changed");
    eventually("they may not change objects", async || {
        controllers.merge(&path, &json!({})).await.err()
    })
    .await;
    let path = federate_configmap(&federation, "b").await;
    event(&federation, "EnsureFinalizerError").await;
    let object = admin.get(&path).await.expect("there");
    assert_eq!(object["metadata"]["finalizers"], Value::Null);
    let member = federation.member("one").admin();
    assert!(member.get(&there("b")).await.is_err_and(|error| error.is_not_found()));
}

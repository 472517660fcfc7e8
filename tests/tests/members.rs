//! Members that hang, that were changed by others, or that must be left alone; and a manager that starts anew.

use kubefed_tests::front::Front;
use kubefed_tests::scene::{
    MANAGED, TYPES, edit, federate_configmap, has, is_gone, near_and_far, state_in, there, told,
};
use kubefed_tests::{
    Federation, NAMESPACE, a_federation_of, a_member, a_namespace_everywhere, eventually, join,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_delays_no_other_and_is_told_of() {
    let (federation, road) = near_and_far().await;
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("far"), "a", "first").await;
    told(&federation, &path, "True").await;

    road.block();
    edit(&federation, &path, "second").await;
    has(federation.member("near"), "a", "second").await;
    let new = federate_configmap(&federation, "b").await;
    has(federation.member("near"), "b", "first").await;
    let object = told(&federation, &new, "False").await;
    assert_eq!(state_in(&object, "near"), "");
    assert_ne!(state_in(&object, "far"), "");

    road.unblock();
    has(federation.member("far"), "a", "second").await;
    has(federation.member("far"), "b", "first").await;
    told(&federation, &path, "True").await;
    told(&federation, &new, "True").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_the_member_that_is_away() {
    let (federation, road) = near_and_far().await;
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("far"), "a", "first").await;
    told(&federation, &path, "True").await;

    road.block();
    federation.admin().delete(&path, &json!({})).await.unwrap();
    is_gone(federation.member("near"), &there("a")).await;
    let object = federation.admin().get(&path).await.unwrap();
    assert!(object["metadata"]["deletionTimestamp"].is_string());

    road.unblock();
    is_gone(&federation.api, &path).await;
    is_gone(federation.member("far"), &there("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_edits_in_a_row_the_last_one_stays() {
    let federation = a_federation_of(&["one", "two"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let path = federate_configmap(&federation, "a").await;
    for round in 0..5 {
        for number in 0..20 {
            edit(&federation, &path, &format!("{round}-{number}")).await;
        }
        for name in ["one", "two"] {
            has(federation.member(name), "a", &format!("{round}-19")).await;
        }
        told(&federation, &path, "True").await;
        for name in ["one", "two"] {
            let found = federation.member(name).admin().get(&there("a")).await.unwrap();
            assert_eq!(found["data"]["key"], format!("{round}-19"), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_stays_marked_and_its_mark_is_put_back() {
    let federation = a_federation_of(&["one"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    federate_configmap(&federation, "a").await;
    let member = federation.member("one");
    has(member, "a", "first").await;
    let admin = member.admin();
    let marked = async || {
        let namespace = admin.get("/api/v1/namespaces/ns").await.ok()?;
        (namespace["metadata"]["labels"][MANAGED] == "true").then_some(namespace)
    };
    assert!(marked().await.is_some());

    let patch = json!({"metadata": {"labels": {MANAGED: null}}});
    admin.merge("/api/v1/namespaces/ns", &patch).await.unwrap();
    eventually("the mark is back", marked).await;

    // The namespace goes, and is made anew with what is in it.
    let before = admin.get("/api/v1/namespaces/ns").await.unwrap();
    admin.delete("/api/v1/namespaces/ns", &json!({})).await.unwrap();
    eventually("the namespace is another one", async || {
        let namespace = admin.get("/api/v1/namespaces/ns").await.ok()?;
        (namespace["metadata"]["uid"] != before["metadata"]["uid"]).then_some(())
    })
    .await;
    has(member, "a", "first").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_owner_took_it_back_is_left_alone() {
    let federation = a_federation_of(&["one"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let path = federate_configmap(&federation, "a").await;
    let member = federation.member("one");
    has(member, "a", "first").await;
    told(&federation, &path, "True").await;

    let mine = json!({"metadata": {"labels": {MANAGED: "false"}}, "data": {"key": "mine"}});
    member.admin().merge(&there("a"), &mine).await.unwrap();
    let object = told(&federation, &path, "False").await;
    assert_eq!(state_in(&object, "one"), "ManagedLabelFalse");
    edit(&federation, &path, "second").await;
    told(&federation, &path, "False").await;
    federation.admin().delete(&path, &json!({})).await.unwrap();
    is_gone(&federation.api, &path).await;
    let found = member.admin().get(&there("a")).await.unwrap();
    assert_eq!(found["data"]["key"], "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_orphaned_stays_without_the_mark() {
    let federation = a_federation_of(&["one"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("one"), "a", "first").await;
    let orphan = json!({"metadata": {"annotations": {"kubefed.io/orphan": "true"}}});
    federation.admin().merge(&path, &orphan).await.unwrap();
    federation.admin().delete(&path, &json!({})).await.unwrap();
    is_gone(&federation.api, &path).await;
    let found = federation.member("one").admin().get(&there("a")).await.unwrap();
    assert_eq!(found["metadata"]["labels"][MANAGED], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_only_where_their_namespace_is() {
    let federation = a_federation_of(&["one", "two"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("two"), "a", "first").await;
    told(&federation, &path, "True").await;
    let admin = federation.admin();
    let namespace = format!("{TYPES}/federatednamespaces/ns");
    let one = json!({"spec": {"placement": {"clusters": [{"name": "one"}]}}});
    admin.merge(&namespace, &one).await.unwrap();
    is_gone(federation.member("two"), &there("a")).await;
    is_gone(federation.member("two"), "/api/v1/namespaces/ns").await;
    has(federation.member("one"), "a", "first").await;
    let all = json!({"spec": {"placement": {"clusters": null}}});
    admin.merge(&namespace, &all).await.unwrap();
    has(federation.member("two"), "a", "first").await;
    told(&federation, &path, "True").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_keeps_its_replicas_is_not_scaled() {
    let federation = a_federation_of(&["one"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let admin = federation.admin();
    let pod = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let object = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedDeployment",
        "metadata": {"name": "a", "namespace": "ns"},
        "spec": {
            "template": {"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": pod}},
            "placement": {"clusterSelector": {}},
            "retainReplicas": true,
        },
    });
    let collection = format!("{TYPES}/federateddeployments");
    admin.create(&collection, &object).await.unwrap();
    let member = federation.member("one").admin();
    let there = "/apis/apps/v1/namespaces/ns/deployments/a";
    let with = async |label: &str, replicas: i64| {
        eventually(&format!("{label} with {replicas} replicas"), async || {
            let found = member.get(there).await.ok()?;
            let labelled = found["metadata"]["labels"]["edit"].as_str().unwrap_or("") == label;
            (labelled && found["spec"]["replicas"] == replicas).then_some(())
        })
        .await;
    };
    let label = async |label: &str| {
        let patch = json!({"spec": {"template": {"metadata": {"labels": {"edit": label}}}}});
        admin.merge(&format!("{collection}/a"), &patch).await.unwrap();
    };
    with("", 3).await;
    told(&federation, &format!("{collection}/a"), "True").await;
    label("before").await;
    with("before", 3).await;
    member.merge(there, &json!({"spec": {"replicas": 7}})).await.unwrap();
    label("after").await;
    with("after", 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_starts_anew_writes_only_what_differs() {
    let mut federation = a_federation_of(&["one", "two"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let mut paths = Vec::new();
    for number in 0..20 {
        paths.push(federate_configmap(&federation, &format!("c{number}")).await);
    }
    for path in &paths {
        told(&federation, path, "True").await;
    }
    told(&federation, &format!("{TYPES}/federatednamespaces/ns"), "True").await;
    let versions = async |federation: &Federation| {
        let mut versions = Vec::new();
        let records = "/apis/core.kubefed.io/v1alpha1/namespaces/ns/propagatedversions";
        let (here, federated) = (federation.admin(), format!("{TYPES}/federatedconfigmaps"));
        for path in [records, &federated] {
            versions.push(here.get(path).await.unwrap()["items"].clone());
        }
        for (name, member) in &federation.members {
            let list = member.admin().get("/api/v1/namespaces/ns/configmaps").await.unwrap();
            let mut items = list["items"].as_array().unwrap().clone();
            items.retain(|item| name != "one" || item["metadata"]["name"] != "c7");
            versions.push(json!(items));
        }
        let strip = |list: &Value| -> Vec<Value> {
            let items = list.as_array().into_iter().flatten();
            items
                .map(|item| json!([item["metadata"]["name"], item["metadata"]["resourceVersion"]]))
                .filter(|item| {
                    let name = item[0].as_str().unwrap_or("");
                    // The one that is put back has another version, and so another record.
                    name != "propagatedversion" && !name.ends_with("c7")
                })
                .collect()
        };
        versions.iter().map(strip).collect::<Vec<_>>()
    };
    // Records are written just before the statuses that were waited for.
    let before = versions(&federation).await;
    federation.stop_manager().await;
    federation.member("one").admin().delete(&there("c7"), &json!({})).await.unwrap();
    federation.start_manager();
    has(federation.member("one"), "c7", "first").await;
    edit(&federation, &paths[7], "second").await;
    has(federation.member("two"), "c7", "second").await;
    told(&federation, &paths[7], "True").await;
    assert_eq!(versions(&federation).await, before);
}

fn type_config(name: &str) -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs/{name}")
}

/// Waits until the status of a type's generation says this of its sync.
async fn type_is(federation: &Federation, name: &str, state: &str) -> Value {
    let admin = federation.admin();
    eventually(&format!("{name} is {state}"), async || {
        let config = admin.get(&type_config(name)).await.ok()?;
        let status = &config["status"];
        let current = status["observedGeneration"] == config["metadata"]["generation"];
        (current && status["propagationController"] == state).then_some(config)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_type_is_the_end_of_its_sync_and_of_nothing_else() {
    let mut federation = a_federation_of(&["one"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("one"), "a", "first").await;
    told(&federation, &path, "True").await;
    let mut config = type_is(&federation, "configmaps", "Running").await;
    let finalizers = &config["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!(["core.kubefed.io/federated-type-config"]));

    // Nobody lets it go while no controller manager is there to end the sync.
    federation.stop_manager().await;
    let admin = federation.admin();
    let kubectl = federation.api.kubectl();
    let delete = format!("-n {NAMESPACE} delete --wait=false federatedtypeconfigs");
    let said = kubectl.run(&format!("{delete} secrets configmaps --dry-run=server"), "").await;
    let warned = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(warned.matches("Warning: ").count(), 1, "of secrets there are none: {warned}");
    let said = kubectl.run(&format!("{delete} configmaps"), "").await;
    assert!(said.status.success());
    let again = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(again, warned);
    let stay = "1 object of federatedconfigmaps.types.kubefed.io stays in the store, and nobody reaches them until there is a FederatedTypeConfig";
    assert!(warned.contains(stay), "{warned}");
    let held = admin.get(&type_config("configmaps")).await.expect("it is still there");
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    federation.start_manager();
    is_gone(&federation.api, &type_config("configmaps")).await;
    let left = federation.member("one").admin().get(&there("a")).await.expect("it is left");
    assert_eq!(left["metadata"]["labels"][MANAGED], "true");

    // What was federated is taken up again with the type.
    config["metadata"] = json!({"name": "configmaps"});
    config["status"].take();
    let collection = type_config("");
    admin.create(collection.trim_end_matches('/'), &config).await.expect("created");
    eventually("the kind is served again", async || admin.get(&path).await.ok()).await;
    edit(&federation, &path, "second").await;
    let there = has(federation.member("one"), "a", "second").await;
    assert_eq!(there["metadata"]["uid"], left["metadata"]["uid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_whose_propagation_is_off_is_not_synced_and_says_so() {
    let federation = a_federation_of(&["one"]).await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let path = federate_configmap(&federation, "a").await;
    has(federation.member("one"), "a", "first").await;
    let admin = federation.admin();
    let propagation = |value: &str| json!({"spec": {"propagation": value}});
    admin.merge(&type_config("configmaps"), &propagation("Disabled")).await.expect("done");
    type_is(&federation, "configmaps", "NotRunning").await;
    // By then nothing writes for it any longer.
    edit(&federation, &path, "second").await;
    let before = federation.member("one").admin().get(&there("a")).await.expect("it is left");
    assert_eq!(before["data"]["key"], "first");
    admin.merge(&type_config("configmaps"), &propagation("Enabled")).await.expect("done");
    type_is(&federation, "configmaps", "Running").await;
    has(federation.member("one"), "a", "second").await;
}

/// The number that a metric has for ConfigMaps in a member.
fn metric(federation: &Federation, name: &str, cluster: &str) -> usize {
    let line = format!("{name}{{cluster=\"{cluster}\",kind=\"federatedconfigmap\"}} ");
    let text = federation.metrics.render();
    let value = text.lines().find_map(|found| found.strip_prefix(&line));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_fails_whatever_it_is_asked_is_asked_rarely_and_taken_up_again() {
    const OBJECTS: usize = 100;
    let mut federation = a_federation_of(&["near"]).await;
    let frail = a_member().await;
    let front = Front::start(&frail).await;
    join(&federation.api, "frail", &front.url(), &frail).await;
    federation.members.push(("frail".into(), frail));
    federation.wait_ready("frail").await;
    a_namespace_everywhere(&federation.admin(), "ns").await;
    let first = federate_configmap(&federation, "first").await;
    told(&federation, &first, "True").await;
    let pauses = |federation: &Federation| metric(federation, "kubefed_lane_pauses_total", "frail");
    let before = (front.refused(), pauses(&federation));

    front.fail(true);
    for number in 0..OBJECTS {
        federate_configmap(&federation, &format!("c{number}")).await;
    }
    let last = format!("{TYPES}/federatedconfigmaps/c{}", OBJECTS - 1);
    let object = told(&federation, &last, "False").await;
    assert_eq!(state_in(&object, "near"), "");
    let admin = federation.admin();
    eventually("it is told why they wait", async || {
        let list = admin.get(&format!("{TYPES}/federatedconfigmaps")).await.ok()?;
        let mut waiting = list["items"].as_array()?.iter().filter(|object| {
            let text = object["status"].to_string();
            state_in(object, "frail") == "Pending" && text.contains("HTTP 503: nobody is at home")
        });
        waiting.next().map(drop)
    })
    .await;
    eventually("two pauses", async || (pauses(&federation) >= before.1 + 2).then_some(())).await;
    assert_eq!(metric(&federation, "kubefed_lane_paused", "frail"), 1);
    // Five failures, what was under way by then, and one try after each pause.
    let refused = front.refused() - before.0;
    let most = 5 + 16 + pauses(&federation) - before.1;
    assert!(refused <= most, "{refused} requests, {most} at most");
    assert_eq!(metric(&federation, "kubefed_lane_pauses_total", "near"), 0);

    front.fail(false);
    for number in 0..OBJECTS {
        has(federation.member("frail"), &format!("c{number}"), "first").await;
    }
    told(&federation, &last, "True").await;
    assert_eq!(metric(&federation, "kubefed_lane_paused", "frail"), 0);
}

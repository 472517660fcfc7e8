//! Kinds that CustomResourceDefinitions define: served by a member, and federated.

use std::sync::Arc;

use kubefed_controllers::client::{Client, Error};
use kubefed_storage::embedded;
use kubefed_tests::raw::ADMIN;
use kubefed_tests::{Cluster, NAMESPACE, a_federation_of, a_member, a_member_with, eventually};
use serde_json::{Value, json};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/namespaces/default/widgets";
const V1BETA1: &str = "/apis/example.com/v1beta1/namespaces/default/widgets";

/// `widgets.example.com` in the versions `v1`, which is stored, and `v1beta1`.
fn widgets() -> Value {
    let schema = json!({
        "type": "object",
        "description": "Widget is a thing to turn.",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "description": "What is wanted of the widget.",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1, "description": "How large it is."},
                    "color": {"type": "string", "default": "grey", "pattern": "^[a-z]+$"},
                    "replicas": {"type": "integer", "default": 1},
                    "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "parts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"], "properties": {
                            "name": {"type": "string"}, "weight": {"type": "integer"},
                        }},
                    },
                },
            },
            "status": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "phase": {"type": "string"}, "selector": {"type": "string"},
            }},
        },
    });
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {
                "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector",
            }},
            "additionalPrinterColumns": [
                {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
            ],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [version("v1", true), version("v1beta1", false)],
        },
    })
}

fn widget(version: &str, name: &str) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 3}})
}

async fn condition(admin: &Client, crd: &str, kind: &str, status: &str) -> Value {
    eventually(&format!("{kind} of {crd} is {status}"), async || {
        let crd = admin.get(&format!("{CRDS}/{crd}")).await.ok()?;
        let conditions = crd["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|found| found["type"] == kind && found["status"] == status)
    })
    .await
}

async fn define(member: &Cluster, crd: &Value) {
    let admin = member.admin();
    admin.create(CRDS, crd).await.expect("a definition");
    let name = crd["metadata"]["name"].as_str().expect("a name");
    condition(&admin, name, "Established", "True").await;
}

fn refusal(outcome: Result<Value, Error>) -> (u16, String) {
    match outcome {
        Err(Error::Status(status)) => (status.code, status.message),
        other => panic!("not refused: {other:?}"),
    }
}

async fn is_gone(admin: &Client, path: &str) {
    eventually(&format!("{path} is gone"), async || {
        admin.get(path).await.err().filter(Error::is_not_found)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_with_a_kind_from_its_definition_to_its_end() {
    let member = a_member().await;
    let kubectl = member.kubectl();
    kubectl.ok("apply --validate=strict -f -", &widgets().to_string()).await;
    kubectl.ok("wait --for=condition=Established crd/widgets.example.com --timeout=30s", "").await;
    let again = kubectl.ok("apply -f -", &widgets().to_string()).await;
    assert!(again.contains("unchanged"), "{again}");

    let named = kubectl.ok("api-resources --api-group=example.com", "").await;
    assert!(
        named.contains("widgets") && named.contains("wd") && named.contains("Widget"),
        "{named}"
    );
    let explained = kubectl.ok("explain widget.spec.size", "").await;
    assert!(explained.contains("How large it is."), "{explained}");

    let ns = "-n default";
    kubectl.ok(&format!("{ns} apply --validate=strict -f -"), &widget("v1", "a").to_string()).await;
    let mut unknown = widget("v1", "b");
    unknown["spec"]["colour"] = json!("red");
    let refused =
        kubectl.fails(&format!("{ns} apply --validate=strict -f -"), &unknown.to_string()).await;
    assert!(refused.contains("spec.colour"), "{refused}");
    kubectl
        .ok(&format!("{ns} apply --server-side -f -"), &widget("v1beta1", "c").to_string())
        .await;
    let table = kubectl.ok(&format!("{ns} get wd"), "").await;
    assert!(
        table.contains("COLOR") && table.contains("grey") && !table.contains("SIZE"),
        "{table}"
    );
    let wide = kubectl.ok(&format!("{ns} get all -o wide"), "").await;
    assert!(wide.contains("SIZE") && wide.contains("widget.example.com/a"), "{wide}");

    kubectl.ok(&format!("{ns} scale widget a --replicas=4"), "").await;
    let replicas =
        kubectl.ok(&format!("{ns} get widget a -o jsonpath={{.spec.replicas}}"), "").await;
    assert_eq!(replicas, "4");
    let patch =
        r#"patch widget a --subresource=status --type=merge -p {"status":{"phase":"Turning"}}"#;
    kubectl.ok(&format!("{ns} {patch}"), "").await;
    kubectl
        .ok(
            &format!("{ns} wait widget a --for=jsonpath={{.status.phase}}=Turning --timeout=30s"),
            "",
        )
        .await;
    kubectl.ok(&format!("{ns} delete widget c --timeout=30s"), "").await;

    kubectl.ok("delete crd widgets.example.com --timeout=30s", "").await;
    let left = kubectl.ok("api-resources --api-group=example.com --cached=false", "").await;
    assert!(!left.contains("widgets"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_checked_pruned_and_filled_in_by_its_schema() {
    let member = a_member().await;
    define(&member, &widgets()).await;
    let admin = member.admin();
    let mut object = widget("v1", "a");
    object["spec"]["unknown"] = json!(1);
    object["spec"]["extra"] = json!({"any": {"thing": true}});
    object["status"] = json!({"phase": "Done"});
    let created = admin.create(V1, &object).await.unwrap();
    let spec =
        json!({"size": 3, "color": "grey", "replicas": 1, "extra": {"any": {"thing": true}}});
    assert_eq!(created["spec"], spec);
    assert_eq!(created["status"], Value::Null);

    for (field, value, wanted) in [
        ("size", json!(0), "spec.size: Invalid value: 0"),
        ("color", json!("Red"), "spec.color in body should match"),
        ("parts", json!([{"name": "x"}, {"name": "x"}]), "spec.parts[1]: Duplicate value"),
        ("parts", json!([{"weight": 1}]), "spec.parts[0].name: Required value"),
    ] {
        let mut object = widget("v1", "b");
        object["spec"][field] = value;
        let (code, message) = refusal(admin.create(V1, &object).await);
        assert_eq!(code, 422, "{message}");
        assert!(message.starts_with(r#"Widget.example.com "b" is invalid"#), "{message}");
        assert!(message.contains(wanted), "{message}");
    }

    // As every custom resource: an update says which version it is based on, and there is no strategic merge.
    let (code, message) = refusal(admin.replace(&format!("{V1}/a"), &widget("v1", "a")).await);
    assert!(code == 422 && message.contains("metadata.resourceVersion"), "{message}");
    let mut raw = member.raw(ADMIN).await;
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    assert_eq!(raw.send("PATCH", &format!("{V1}/a"), &headers, "{}").await.code, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_the_same_in_every_version_and_by_every_way() {
    let member = a_member().await;
    define(&member, &widgets()).await;
    let admin = member.admin();
    let list = admin.get(V1).await.unwrap();
    assert_eq!(
        (list["kind"].as_str(), list["apiVersion"].as_str()),
        (Some("WidgetList"), Some("example.com/v1"))
    );
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = admin.watch(V1BETA1, "", "application/json", from).await.unwrap();

    let created = admin.create(V1BETA1, &widget("v1beta1", "a")).await.unwrap();
    assert_eq!(created["apiVersion"], "example.com/v1beta1");
    let found = admin.get(&format!("{V1}/a")).await.unwrap();
    assert_eq!(found["apiVersion"], "example.com/v1");
    assert_eq!(found["metadata"]["uid"], created["metadata"]["uid"]);
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!(
        (event["type"].as_str(), event["object"]["apiVersion"].as_str()),
        (Some("ADDED"), Some("example.com/v1beta1"))
    );

    // Two managers each have their own parts of a list that is a map.
    let parts =
        |names: &[&str]| -> Vec<Value> { names.iter().map(|name| json!({"name": name})).collect() };
    let mut mine = widget("v1", "a");
    mine["spec"] = json!({"size": 3, "parts": parts(&["x"])});
    admin.apply(&format!("{V1}/a"), &mine, true).await.unwrap();
    let theirs = json!({"apiVersion": "example.com/v1beta1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"parts": parts(&["y"])}});
    let mut raw = member.raw(ADMIN).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{V1BETA1}/a?fieldManager=other");
    let applied = raw.send("PATCH", &path, &apply, theirs.to_string()).await;
    assert_eq!(applied.json()["spec"]["parts"], json!(parts(&["x", "y"])));
    let larger = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 4}});
    let conflict =
        raw.send("PATCH", &format!("{V1}/a?fieldManager=other"), &apply, larger.to_string()).await;
    assert_eq!(conflict.code, 409, "{}", conflict.json());

    // The status is written alone, and is no change of what is wanted.
    let before = admin.get(&format!("{V1}/a")).await.unwrap();
    let both = json!({"spec": {"size": 9}, "status": {"replicas": 2, "selector": "app=a"}});
    let after = admin.merge(&format!("{V1}/a/status"), &both).await.unwrap();
    assert_eq!(
        (&after["spec"], &after["metadata"]["generation"]),
        (&before["spec"], &before["metadata"]["generation"])
    );
    let scale = admin.get(&format!("{V1}/a/scale")).await.unwrap();
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a"}));
    admin.merge(&format!("{V1}/a/scale"), &json!({"spec": {"replicas": 5}})).await.unwrap();
    let scaled = admin.get(&format!("{V1BETA1}/a")).await.unwrap();
    assert_eq!(
        (&scaled["spec"]["replicas"], &scaled["status"]["replicas"]),
        (&json!(5), &json!(2))
    );
    assert_ne!(scaled["metadata"]["generation"], before["metadata"]["generation"]);

    admin.delete(&format!("{V1}/a"), &json!({})).await.unwrap();
    let gone = async {
        while let Some(event) = watch.next().await {
            if event.unwrap()["type"] == "DELETED" {
                return;
            }
        }
        panic!("the watch ended before the deletion");
    };
    tokio::time::timeout(kubefed_tests::PATIENCE, gone).await.expect("the deletion is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_is_wrong_is_refused_field_by_field() {
    let member = a_member().await;
    let mut crd = widgets();
    crd["metadata"]["name"] = json!("widgets");
    crd["spec"]["versions"][1]["storage"] = json!(true);
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({});
    crd["spec"]["versions"][1].as_object_mut().unwrap().remove("schema");
    let answer = member.raw(ADMIN).await.json("POST", CRDS, &crd).await;
    let fields: Vec<String> = answer.json()["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| cause["field"].as_str().unwrap_or("").to_owned())
        .collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[size].type",
            "spec.versions[1].schema.openAPIV3Schema",
            "spec.versions",
        ],
        "{}",
        answer.json()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_are_told_and_not_served_until_they_are_free() {
    let member = a_member().await;
    define(&member, &widgets()).await;
    let admin = member.admin();
    let mut other = widgets();
    other["metadata"]["name"] = json!("gadgets.example.com");
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"]});
    admin.create(CRDS, &other).await.unwrap();
    let told = condition(&admin, "gadgets.example.com", "NamesAccepted", "False").await;
    assert_eq!(told["reason"], "ShortNamesConflict");
    assert_eq!(told["message"], r#""wd" is already in use"#);
    condition(&admin, "gadgets.example.com", "Established", "False").await;
    let gadgets = "/apis/example.com/v1/gadgets";
    assert!(admin.get(gadgets).await.unwrap_err().is_not_found());

    admin.delete(&format!("{CRDS}/widgets.example.com"), &json!({})).await.unwrap();
    condition(&admin, "gadgets.example.com", "Established", "True").await;
    admin.get(gadgets).await.unwrap();

    // What the server has of its own is nobody's to define anew, however it is asked for.
    let mut own = widgets();
    own["metadata"] = json!({"name": "networkpolicies.networking.k8s.io", "annotations": {"api-approved.kubernetes.io": "no"}});
    own["spec"]["group"] = json!("networking.k8s.io");
    own["spec"]["names"] = json!({"plural": "networkpolicies", "kind": "NetworkPolicy"});
    admin.create(CRDS, &own).await.unwrap();
    let told =
        condition(&admin, "networkpolicies.networking.k8s.io", "NamesAccepted", "False").await;
    assert_eq!(told["reason"], "PluralConflict");
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = json!({"metadata": {"name": "a"}, "spec": {"podSelector": {}}});
    admin.create(policies, &policy).await.unwrap();
    admin.delete(&format!("{CRDS}/networkpolicies.networking.k8s.io"), &json!({})).await.unwrap();
    is_gone(&admin, &format!("{CRDS}/networkpolicies.networking.k8s.io")).await;
    admin.get(&format!("{policies}/a")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_changes_changes_what_is_served() {
    let member = a_member().await;
    define(&member, &widgets()).await;
    let admin = member.admin();
    admin.create(V1, &widget("v1", "a")).await.unwrap();
    let path = format!("{CRDS}/widgets.example.com");

    let mut versions = widgets()["spec"]["versions"].clone();
    versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["weight"] =
        json!({"type": "number"});
    versions[0]["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    versions[1]["served"] = json!(false);
    admin.merge(&path, &json!({"spec": {"versions": versions}})).await.unwrap();
    is_gone(&admin, V1BETA1).await;
    let heavy = json!({"spec": {"weight": 1.5, "color": "red"}});
    let changed = admin.merge(&format!("{V1}/a"), &heavy).await.unwrap();
    assert_eq!(changed["spec"]["weight"], 1.5);
    admin.create(V1, &widget("v1", "b")).await.unwrap();
    let red = admin.get(&format!("{V1}?fieldSelector=spec.color%3Dred")).await.unwrap();
    assert_eq!(red["items"].as_array().unwrap().len(), 1);

    // Another version is stored from now on; what was stored in the old one is still there.
    versions[0]["storage"] = json!(false);
    versions[1]["storage"] = json!(true);
    versions[1]["served"] = json!(true);
    let changed = admin.merge(&path, &json!({"spec": {"versions": versions}})).await.unwrap();
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    eventually("the version is served again", async || admin.get(V1BETA1).await.ok()).await;
    let found = admin.get(&format!("{V1BETA1}/a")).await.unwrap();
    assert_eq!(found["apiVersion"], "example.com/v1beta1");
    let found = admin.get(&format!("{V1}/a")).await.unwrap();
    assert_eq!(
        (found["apiVersion"].as_str(), &found["spec"]["size"]),
        (Some("example.com/v1"), &json!(3))
    );
    let only_new = json!([versions[1]]);
    let (code, message) =
        refusal(admin.merge(&path, &json!({"spec": {"versions": only_new}})).await);
    assert!(code == 422 && message.contains("status.storedVersions[0]"), "{message}");
    let (code, message) = refusal(admin.merge(&path, &json!({"spec": {"scope": "Cluster"}})).await);
    assert!(code == 422 && message.contains("spec.scope"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_goes_after_its_objects_and_what_they_own() {
    let member = a_member().await;
    define(&member, &widgets()).await;
    let admin = member.admin();
    let mut held = widget("v1", "held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.create(V1, &held).await.unwrap();
    let owner = admin.create(V1, &widget("v1", "owner")).await.unwrap();
    let owned = json!({"metadata": {"name": "owned", "ownerReferences": [
        {"apiVersion": "example.com/v1", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"]},
    ]}});
    let configmaps = "/api/v1/namespaces/default/configmaps";
    admin.create(configmaps, &owned).await.unwrap();

    let path = format!("{CRDS}/widgets.example.com");
    admin.delete(&path, &json!({})).await.unwrap();
    condition(&admin, "widgets.example.com", "Terminating", "True").await;
    is_gone(&admin, &format!("{V1}/owner")).await;
    let (code, message) = refusal(admin.create(V1, &widget("v1", "late")).await);
    assert!(code == 405 && message.contains("terminating"), "{message}");
    let crd = admin.get(&path).await.unwrap();
    assert_eq!(
        crd["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );

    admin.merge(&format!("{V1}/held"), &json!({"metadata": {"finalizers": null}})).await.unwrap();
    is_gone(&admin, &path).await;
    is_gone(&admin, V1).await;
    is_gone(&admin, &format!("{configmaps}/owned")).await;

    define(&member, &widgets()).await;
    assert_eq!(admin.get(V1).await.unwrap()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_takes_custom_resources_with_it() {
    let member = a_member().await;
    define(&member, &widgets()).await;
    let admin = member.admin();
    admin.create("/api/v1/namespaces", &json!({"metadata": {"name": "ns"}})).await.unwrap();
    let there = "/apis/example.com/v1/namespaces/ns/widgets";
    admin.create(there, &widget("v1", "a")).await.unwrap();
    admin.delete("/api/v1/namespaces/ns", &json!({})).await.unwrap();
    is_gone(&admin, "/api/v1/namespaces/ns").await;
    assert!(admin.get(&format!("{there}/a")).await.unwrap_err().is_not_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_served_with_the_first_request_after_a_restart() {
    let store = embedded::in_memory();
    let first = a_member_with(|config| config.store = Arc::clone(&store)).await;
    define(&first, &widgets()).await;
    first.admin().create(V1, &widget("v1", "a")).await.unwrap();
    first.stop().await;
    for _ in 0..3 {
        let again = a_member_with(|config| config.store = Arc::clone(&store)).await;
        let found = again.admin().get(&format!("{V1}/a")).await.unwrap();
        assert_eq!(found["spec"]["color"], "grey");
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_is_federated_like_any_other_kind() {
    let federation = a_federation_of(&["one", "two"]).await;
    let admin = federation.admin();
    let (one, two) = (federation.member("one"), federation.member("two"));
    define(one, &widgets()).await;
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "FederatedTypeConfig", "metadata": {"name": "widgets.example.com"},
        "spec": {
            "propagation": "Enabled",
            "targetType": {"group": "example.com", "version": "v1", "kind": "Widget", "pluralName": "widgets", "scope": "Namespaced"},
            "federatedType": {"group": "types.kubefed.io", "version": "v1beta1", "kind": "FederatedWidget", "pluralName": "federatedwidgets", "scope": "Namespaced"},
        },
    });
    let configs =
        format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs");
    admin.create(&configs, &config).await.unwrap();

    let types = "/apis/types.kubefed.io/v1beta1/namespaces/ns";
    admin.create("/api/v1/namespaces", &json!({"metadata": {"name": "ns"}})).await.unwrap();
    let namespace = json!({"apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedNamespace", "metadata": {"name": "ns"}, "spec": {"template": {}, "placement": {"clusterSelector": {}}}});
    admin.create(&format!("{types}/federatednamespaces"), &namespace).await.unwrap();
    let federated = json!({"apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedWidget", "metadata": {"name": "a"}, "spec": {
        "template": {"spec": {"size": 3, "parts": [{"name": "x"}]}},
        "placement": {"clusterSelector": {}},
        "overrides": [{"clusterName": "two", "clusterOverrides": [{"path": "/spec/size", "value": 7}]}],
    }});
    let collection = format!("{types}/federatedwidgets");
    eventually("the federated kind is served", async || {
        admin.create(&collection, &federated).await.ok()
    })
    .await;
    let path = format!("{collection}/a");

    let there = "/apis/example.com/v1/namespaces/ns/widgets/a";
    let has = async |member: &Cluster, size: i64| {
        let member = member.admin();
        eventually(&format!("the widget has size {size}"), async || {
            let found = member.get(there).await.ok()?;
            (found["spec"]["size"] == size).then_some(found)
        })
        .await
    };
    let told = async |status: &str| {
        eventually(&format!("the propagation is {status}"), async || {
            let object = admin.get(&path).await.ok()?;
            let current =
                object["status"]["observedGeneration"] == object["metadata"]["generation"];
            (current && object["status"]["conditions"][0]["status"] == status).then_some(object)
        })
        .await
    };
    // The member that does not know the kind is told of, and keeps the other from nothing.
    has(one, 3).await;
    let object = told("False").await;
    let states: Vec<(Option<&str>, bool)> = object["status"]["clusters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cluster| (cluster["name"].as_str(), cluster["status"].is_null()))
        .collect();
    assert_eq!(states, [(Some("one"), true), (Some("two"), false)]);
    define(two, &widgets()).await;
    let found = has(two, 7).await;
    assert_eq!(found["spec"]["color"], "grey");
    told("True").await;

    // Drift is undone, but not what the template says nothing of.
    let drift = json!({"spec": {"size": 5, "color": "red", "replicas": 4}});
    one.admin().merge(there, &drift).await.unwrap();
    let found = has(one, 3).await;
    assert_eq!((&found["spec"]["color"], &found["spec"]["replicas"]), (&json!("red"), &json!(4)));

    // A kind that goes from a member and comes back finds its objects again.
    let crd = format!("{CRDS}/widgets.example.com");
    two.admin().delete(&crd, &json!({})).await.unwrap();
    is_gone(&two.admin(), &crd).await;
    has(one, 3).await;
    define(two, &widgets()).await;
    has(two, 7).await;

    admin.delete(&path, &json!({})).await.unwrap();
    is_gone(&one.admin(), there).await;
    is_gone(&two.admin(), there).await;
    is_gone(&admin, &path).await;
}

//! CustomResourceDefinitions in a member: what they may be, and what follows when they come, change and go.

use std::sync::Arc;

use kubefed_storage::embedded;
use kubefed_tests::raw::ADMIN;
use kubefed_tests::widgets::{
    CRDS, V1, V1BETA1, condition, define, is_gone, refusal, widget, widgets,
};
use kubefed_tests::{a_member, a_member_with, eventually};
use serde_json::{Value, json};

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

/// The pointers to every place of a document.
fn places(document: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match document {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found))
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, item)| places(item, &format!("{at}/{index}"), found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_definition_whatever_stands_in_it_is_trouble() {
    let member = a_member().await;
    let mut raw = member.raw(ADMIN).await;
    let mut pointers = Vec::new();
    places(&widgets()["spec"], "/spec", &mut pointers);
    let values = [json!(null), json!(-1), json!("("), json!([]), json!({}), json!(true)];
    let mut accepted = Vec::new();
    for (index, pointer) in pointers.iter().enumerate() {
        for (other, value) in values.iter().enumerate() {
            let mut crd = widgets();
            let group = format!("g{index}x{other}.example.com");
            let name = format!("widgets.{group}");
            crd["metadata"]["name"] = json!(name);
            crd["spec"]["group"] = json!(group);
            *crd.pointer_mut(pointer).expect("a place of the document") = value.clone();
            let answer = raw.json("POST", CRDS, &crd).await;
            match answer.code {
                201 => accepted.push(name),
                400 | 422 => {}
                code => panic!("{code} for {value} at {pointer}: {}", answer.json()),
            }
        }
    }
    let admin = member.admin();
    for name in &accepted {
        condition(&admin, name, "Established", "True").await;
    }
    assert!(accepted.len() > 20, "descriptions may be anything: {accepted:?}");
    admin.get("/apis").await.unwrap();
    admin.get("/openapi/v2").await.unwrap();
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

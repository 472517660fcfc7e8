//! Objects of kinds that CustomResourceDefinitions define: in a member, and federated.

use kubefed_tests::raw::ADMIN;
use kubefed_tests::widgets::{CRDS, V1, V1BETA1, define, is_gone, refusal, widget, widgets};
use kubefed_tests::{
    Cluster, Kubectl, NAMESPACE, PATIENCE, a_federation_of, a_member, a_namespace_everywhere,
    eventually, kubernetes,
};
use serde_json::{Value, json};

/// A kind from its definition to its end, with one kubectl.
async fn from_definition_to_end(kubectl: &Kubectl) {
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
async fn old_and_new_kubectl_work_with_a_kind_from_its_definition_to_its_end() {
    let mut programs = vec!["kubectl".into()];
    for module in ["kubectl/v1.29", "kubectl/v1.33"] {
        programs.extend(kubernetes::binary(module).await);
    }
    let member = a_member().await;
    for program in programs {
        from_definition_to_end(&member.kubectl_at(program)).await;
    }
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
    tokio::time::timeout(PATIENCE, gone).await.expect("the deletion is told");
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
    a_namespace_everywhere(&admin, "ns").await;
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

    // Nobody here knows the kind, so that the members tell what is wrong with a template.
    let typo = |value: Value| json!({"spec": {"template": {"spec": {"colour": value}}}});
    admin.merge(&path, &typo(json!("red"))).await.unwrap();
    let object = told("False").await;
    for cluster in object["status"]["clusters"].as_array().unwrap() {
        assert_eq!(cluster["status"], "UpdateFailed");
        let why = cluster["message"].as_str().unwrap();
        assert!(why.contains(".spec.colour: field not declared in schema"), "{why}");
    }
    admin.merge(&path, &typo(Value::Null)).await.unwrap();
    told("True").await;

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

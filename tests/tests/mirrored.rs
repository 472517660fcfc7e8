//! CustomResourceDefinitions of a real host in groups that it leads to us: nobody but us serves their kinds.

use kubefed_apiserver::host::{self, Host};
use kubefed_controllers::client::Client;
use kubefed_tests::control_plane::{ControlPlane, EXTENSION, a_control_plane};
use kubefed_tests::raw::{HTTP1, Raw};
use kubefed_tests::widgets::{CRDS, condition, is_gone, refusal, widgets};
use kubefed_tests::{Cluster, Kubectl, NAMESPACE, PATIENCE, eventually};
use serde_json::{Value, json};

const GADGETS: &str = "/apis/types.kubefed.io/v1beta1/namespaces/default/gadgets";
const FEDERATED: &str = "/apis/types.kubefed.io/v1beta1/namespaces/default/federatedwidgets";

/// Widgets under another name, in a group of ours.
fn gadgets() -> Value {
    let mut crd = widgets();
    crd["metadata"]["name"] = json!("gadgets.types.kubefed.io");
    crd["spec"]["group"] = json!("types.kubefed.io");
    crd["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget", "shortNames": ["gd"]});
    let mut version = crd["spec"]["versions"][0].clone();
    version["name"] = json!("v1beta1");
    crd["spec"]["versions"] = json!([version]);
    crd
}

fn gadget(name: &str) -> Value {
    json!({"apiVersion": "types.kubefed.io/v1beta1", "kind": "Gadget", "metadata": {"name": name}, "spec": {"size": 3}})
}

/// What KubeFed's `kubefedctl enable widgets.example.com` writes.
fn enabled() -> (Value, Value) {
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let list = |item: Value| json!({"type": "array", "items": item});
    let object = |required: Value, fields: Value| json!({"type": "object", "required": required, "properties": fields});
    let expression = object(
        json!(["key", "operator"]),
        json!({"key": text, "operator": text, "values": list(text.clone())}),
    );
    let change = object(
        json!(["path"]),
        json!({
            "op": {"type": "string", "pattern": "^(add|remove|replace)?$"}, "path": text,
            "value": {"x-kubernetes-preserve-unknown-fields": true},
        }),
    );
    let spec = json!({"type": "object", "properties": {
        "placement": {"type": "object", "properties": {
            "clusters": list(object(json!(["name"]), json!({"name": text}))),
            "clusterSelector": {"type": "object", "properties": {
                "matchExpressions": list(expression),
                "matchLabels": {"type": "object", "additionalProperties": text},
            }},
        }},
        "overrides": list(json!({"type": "object", "properties": {"clusterName": text, "clusterOverrides": list(change)}})),
        "template": open,
        "retainReplicas": {"type": "boolean"},
    }});
    let told = object(
        json!(["type", "status"]),
        json!({"type": text, "status": text, "reason": text, "lastUpdateTime": time, "lastTransitionTime": time}),
    );
    let status = json!({"type": "object", "properties": {
        "conditions": list(told),
        "clusters": list(object(json!(["name"]), json!({"name": text, "status": text, "remoteStatus": open}))),
        "observedGeneration": {"type": "integer", "format": "int64"},
    }});
    let schema = object(
        json!(["spec"]),
        json!({"apiVersion": text, "kind": text, "metadata": {"type": "object"}, "spec": spec, "status": status}),
    );
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "federatedwidgets.types.kubefed.io"},
        "spec": {
            "group": "types.kubefed.io", "scope": "Namespaced",
            "names": {"plural": "federatedwidgets", "kind": "FederatedWidget", "shortNames": ["fwd"]},
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}},
            }],
        },
    });
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "FederatedTypeConfig",
        "metadata": {"name": "widgets.example.com", "namespace": NAMESPACE},
        "spec": {
            "propagation": "Enabled",
            "targetType": {"group": "example.com", "version": "v1", "kind": "Widget", "pluralName": "widgets", "scope": "Namespaced"},
            "federatedType": {"group": "types.kubefed.io", "version": "v1beta1", "kind": "FederatedWidget", "pluralName": "federatedwidgets", "scope": "Namespaced"},
        },
    });
    (crd, config)
}

fn federated(template: Value) -> Value {
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedWidget", "metadata": {"name": "a"},
        "spec": {"template": template, "placement": {"clusters": [{"name": "one"}]}, "retainReplicas": true},
    })
}

struct Scene {
    host: ControlPlane,
    extension: Cluster,
    admin: Client,
    kubectl: Kubectl,
}

/// Deletes a definition, and waits until the host has let it go.
async fn undefine(admin: &Client, name: &str) {
    let path = format!("{CRDS}/{name}");
    admin.delete(&path, &json!({})).await.expect("deleted");
    eventually("the definition is gone", async || {
        let crd = match admin.get(&path).await {
            Ok(crd) => crd,
            Err(error) => return error.is_not_found().then_some(()),
        };
        // When the host could not list the objects ("storage is (re)initializing"), its own word on that may get in the
        // way of its next try; only a change other than that word makes it look again before five minutes are over.
        let told = crd["status"]["conditions"].as_array().expect("conditions");
        if told.iter().any(|condition| condition["reason"] == "InstanceDeletionFailed") {
            let version = &crd["metadata"]["resourceVersion"];
            let touch = json!({"metadata": {"annotations": {"touched-at": version}}});
            let _ = admin.merge(&path, &touch).await;
        }
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_defines_in_our_groups_is_served_by_us() {
    let Some(host) = a_control_plane().await else { return };
    let (admin, kubectl) = (host.admin(), host.kubectl("admin", &["system:masters"]));
    let extension = one_that_waits_for_definitions(&host, &kubectl).await;
    host.register(&extension).await;
    let scene = Scene { host, extension, admin, kubectl };
    kinds_of_our_own_stay_ours(&scene).await;
    a_kind_lives_as_long_as_its_definition(&scene).await;
    a_definition_may_be_followed_by_a_config(&scene).await;
}

/// An extension that is not ready, and is none for its clients, as long as it does not know what the host defines.
async fn one_that_waits_for_definitions(host: &ControlPlane, kubectl: &Kubectl) -> Cluster {
    const USER: &str = "newcomer";
    let reader = "--role=extension-apiserver-authentication-reader";
    kubectl
        .ok(&format!("-n kube-system create rolebinding {USER} {reader} --user={USER}"), "")
        .await;
    let reached = eventually("the host says whom to trust", async || {
        let kubeconfig = Some(host.kubeconfig(USER, USER, &[]));
        Host::connect(host::Options { kubeconfig, ..host::Options::default() }).await.ok()
    })
    .await;
    let extension = host.extension_with(|config| config.host = Some(reached)).await;
    let mut raw = Raw::over(extension.stream_of(None, HTTP1).await).await;
    let told = raw.get("/readyz?verbose").await;
    let text = String::from_utf8_lossy(&told.body).into_owned();
    assert!(told.code == 500 && text.contains("[-]informer-sync failed"), "{text}");
    for role in [EXTENSION, "system:auth-delegator"] {
        let binding = format!("{USER}-{}", role.replace(':', "-"));
        let command =
            format!("create clusterrolebinding {binding} --clusterrole={role} --user={USER}");
        kubectl.ok(&command, "").await;
    }
    eventually("it is ready", async || (raw.get("/readyz").await.code == 200).then_some(())).await;
    extension
}

/// KubeFed's chart defines kinds of the same names as ours.
async fn kinds_of_our_own_stay_ours(scene: &Scene) {
    let mut crd = gadgets();
    crd["metadata"]["name"] = json!("kubefedclusters.core.kubefed.io");
    crd["spec"]["group"] = json!("core.kubefed.io");
    crd["spec"]["names"] = json!({"plural": "kubefedclusters", "kind": "KubeFedCluster"});
    scene.kubectl.ok("apply -f -", &crd.to_string()).await;
    condition(&scene.admin, "kubefedclusters.core.kubefed.io", "Established", "True").await;
    // Definitions are seen in their order: what comes of this one has come with the next.
    scene.kubectl.ok("apply --validate=strict -f -", &gadgets().to_string()).await;
    eventually("the gadgets are served", async || scene.admin.get(GADGETS).await.ok()).await;
    let clusters = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters");
    let widget = json!({"apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedCluster", "metadata": {"name": "one"}, "spec": {"size": 3}});
    let (code, message) = refusal(scene.admin.create(&clusters, &widget).await);
    assert!(code == 422 && message.contains("spec.apiEndpoint"), "{message}");
    undefine(&scene.admin, "kubefedclusters.core.kubefed.io").await;
    scene.admin.get(&clusters).await.expect("it is served as before");
}

async fn a_kind_lives_as_long_as_its_definition(scene: &Scene) {
    let Scene { host, extension, admin, kubectl } = scene;
    let list = admin.get(GADGETS).await.expect("a list");
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch = admin.watch(GADGETS, "", "application/json", &from).await.expect("a watch");

    // Checked, pruned and filled in by its schema, and with us rather than with the host.
    let mut object = gadget("a");
    object["spec"]["unknown"] = json!(1);
    let created = admin.create(GADGETS, &object).await.expect("created");
    assert_eq!(created["spec"], json!({"size": 3, "color": "grey", "replicas": 1}));
    object["spec"]["size"] = json!(0);
    let (code, message) = refusal(admin.create(GADGETS, &object).await);
    assert!(code == 422 && message.contains("spec.size"), "{message}");
    let past = host.client_past(extension, "admin", &["system:masters"]);
    let found = past.get(&format!("{GADGETS}/a")).await.expect("it is with us");
    assert_eq!(found["metadata"]["uid"], created["metadata"]["uid"]);
    let event = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time");
    let event = event.expect("an event").expect("an event");
    assert_eq!((event["type"].as_str(), &event["object"]), (Some("ADDED"), &created));

    // With kubectl, once the host has looked at what we serve.
    let table = eventually("kubectl knows the short name", async || {
        let output = kubectl.run("-n default get gd", "").await;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .await;
    assert!(
        table.contains("COLOR") && table.contains("grey") && !table.contains("SIZE"),
        "{table}"
    );
    let explained = eventually("kubectl explains the kind", async || {
        let output = kubectl.run("explain gadget.spec.size", "").await;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .await;
    assert!(explained.contains("How large it is."), "{explained}");
    kubectl.ok("-n default scale gadget a --replicas=4", "").await;
    let mut unknown = gadget("b");
    unknown["spec"]["colour"] = json!("red");
    let refused =
        kubectl.fails("-n default apply --validate=strict -f -", &unknown.to_string()).await;
    assert!(refused.contains("spec.colour"), "{refused}");

    // A definition that changes changes what is served.
    let mut versions = gadgets()["spec"]["versions"].clone();
    versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["weight"] =
        json!({"type": "number"});
    let path = format!("{CRDS}/gadgets.types.kubefed.io");
    admin.merge(&path, &json!({"spec": {"versions": versions}})).await.expect("changed");
    eventually("the new field is kept", async || {
        let heavy = json!({"spec": {"weight": 1.5}});
        let changed = admin.merge(&format!("{GADGETS}/a"), &heavy).await.expect("changed");
        (changed["spec"]["weight"] == 1.5).then_some(())
    })
    .await;

    // It goes although it has objects, and they are back with it.
    undefine(admin, "gadgets.types.kubefed.io").await;
    is_gone(admin, GADGETS).await;
    eventually("discovery is without it", async || {
        let known =
            kubectl.ok("api-resources --api-group=types.kubefed.io --cached=false", "").await;
        (!known.contains("gadgets")).then_some(())
    })
    .await;
    admin.create(CRDS, &gadgets()).await.expect("created");
    let again =
        eventually("it is back", async || admin.get(&format!("{GADGETS}/a")).await.ok()).await;
    assert_eq!(again["metadata"]["uid"], created["metadata"]["uid"]);
    undefine(admin, "gadgets.types.kubefed.io").await;
}

/// As KubeFed's own tool does it: first the definition, then the config.
async fn a_definition_may_be_followed_by_a_config(scene: &Scene) {
    let Scene { admin, kubectl, .. } = scene;
    let (crd, config) = enabled();
    kubectl.ok("apply --validate=strict -f -", &crd.to_string()).await;
    let template = json!({"spec": {"size": 3, "replicas": 2, "any": {"thing": true}}});
    let created = eventually("the kind is served as it is defined", async || {
        admin.create(FEDERATED, &federated(template.clone())).await.ok()
    })
    .await;
    assert_eq!(created["spec"]["template"], template);
    // What is validated by the definition alone.
    let mut wrong = federated(json!({"spec": {"replicas": "two"}}));
    wrong["metadata"]["name"] = json!("wrong");
    let deleted = admin.create(FEDERATED, &wrong).await;
    deleted.expect("the definition lets anything stand in a template");
    admin.delete(&format!("{FEDERATED}/wrong"), &json!({})).await.expect("deleted");

    kubectl.ok("apply --validate=strict -f -", &config.to_string()).await;
    let (code, message) = eventually("the kind is that of the config", async || {
        let outcome = admin.create(&format!("{FEDERATED}?dryRun=All"), &wrong).await;
        outcome.is_err().then(|| refusal(outcome))
    })
    .await;
    assert!(code == 422 && message.contains("spec.template.spec.replicas"), "{message}");
    // What stands in the template is kept, and what the controllers write.
    let path = format!("{FEDERATED}/a");
    let mut other = template.clone();
    other["spec"]["size"] = json!(4);
    let changed = admin.merge(&path, &json!({"spec": {"template": other}})).await;
    let changed = changed.expect("changed");
    assert_eq!(changed["spec"], {
        let mut spec = created["spec"].clone();
        spec["template"]["spec"]["size"] = json!(4);
        spec
    });
    let status =
        json!({"clusters": [{"name": "one", "status": "CreationFailed", "message": "denied"}]});
    let told = admin.merge(&format!("{path}/status"), &json!({"status": status})).await;
    assert_eq!(told.expect("told")["status"], status);
    let table = eventually("kubectl knows the short name", async || {
        let output = kubectl.run("-n default get fwd", "").await;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .await;
    assert!(table.contains("PROPAGATED") && table.contains("REPLICAS"), "{table}");

    // The config alone keeps the kind.
    undefine(admin, "federatedwidgets.types.kubefed.io").await;
    eventually("the template is not that of the definition any more", async || {
        admin.create(&format!("{FEDERATED}?dryRun=All"), &wrong).await.ok()
    })
    .await;
    admin.get(&path).await.expect("it is there");

    // And without it the definition.
    admin.create(CRDS, &crd).await.expect("created");
    let configs =
        format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs");
    admin.delete(&format!("{configs}/widgets.example.com"), &json!({})).await.expect("deleted");
    eventually("the kind is that of the definition", async || {
        let columns = kubectl.ok("-n default get federatedwidgets.types.kubefed.io", "").await;
        (!columns.contains("PROPAGATED")).then_some(())
    })
    .await;
    let found = admin.get(&path).await.expect("it is there");
    assert_eq!(found["metadata"]["uid"], created["metadata"]["uid"]);
    undefine(admin, "federatedwidgets.types.kubefed.io").await;
    is_gone(admin, FEDERATED).await;
}

//! `kubefed migrate` where KubeFed's host becomes ours, and is a member as well: a real Kubernetes, which sees who wrote
//! what.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_api::federatedtypeconfig;
use kubefed_api::versions::{object_version, overrides_hash, template_hash};
use kubefed_api::{MANAGED_LABEL, SYNC_FINALIZER};
use kubefed_apimachinery::meta;
use kubefed_controllers::client::Client;
use kubefed_tests::cli::Kubefed;
use kubefed_tests::control_plane::{ControlPlane, a_control_plane};
use kubefed_tests::installed::{manage, serve};
use kubefed_tests::widgets::{CRDS, condition};
use kubefed_tests::{NAMESPACE, eventually, federated_namespace};
use serde_json::{Value, json};
use tempfile::TempDir;

const CORE: &str = "/apis/core.kubefed.io/v1beta1/namespaces/kube-federation-system";
const TYPES: &str = "/apis/types.kubefed.io/v1beta1/namespaces/ns";
const RECORDS: &str = "/apis/core.kubefed.io/v1alpha1/namespaces/ns/propagatedversions";
const SETTINGS: &str = "/api/v1/namespaces/ns/configmaps/settings";

/// Defines a kind of KubeFed's, as loosely as does here.
async fn define(admin: &Client, group: &str, version: &str, kind: &str) {
    let plural = federatedtypeconfig::plural_name(kind);
    let name = format!("{plural}.{group}");
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    });
    admin.create(CRDS, &crd).await.expect("a definition");
    condition(admin, &name, "Established", "True").await;
}

/// What KubeFed leaves in a host that is its member `self` too: a FederatedConfigMap and what came of it.
async fn leave_kubefed_behind(host: &ControlPlane) {
    let admin = host.admin();
    for kind in ["KubeFedConfig", "KubeFedCluster", "FederatedTypeConfig"] {
        define(&admin, "core.kubefed.io", "v1beta1", kind).await;
    }
    define(&admin, "core.kubefed.io", "v1alpha1", "PropagatedVersion").await;
    for kind in ["FederatedNamespace", "FederatedConfigMap"] {
        define(&admin, "types.kubefed.io", "v1beta1", kind).await;
    }
    let create = async |path: &str, object: Value| {
        let path = format!("{path}?fieldManager=controller-manager");
        admin.create(&path, &object).await.expect("created")
    };
    for name in [NAMESPACE, "ns"] {
        let labels = if name == "ns" { json!({MANAGED_LABEL: "true"}) } else { json!({}) };
        let metadata = json!({"name": name, "labels": labels});
        create("/api/v1/namespaces", json!({"metadata": metadata})).await;
    }
    let account = json!({"metadata": {"name": "member"}});
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    create(&accounts, account).await;
    let binding = json!({
        "metadata": {"name": "member"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "member", "namespace": NAMESPACE}],
    });
    create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = admin.create(&format!("{accounts}/member/token"), &request).await.expect("one");
    let secret =
        json!({"metadata": {"name": "self"}, "stringData": {"token": token["status"]["token"]}});
    create(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"), secret).await;

    let core = "core.kubefed.io/v1beta1";
    for config in federatedtypeconfig::defaults() {
        if ["namespaces", "configmaps"].contains(&meta::name(&config)) {
            create(&format!("{CORE}/federatedtypeconfigs"), config).await;
        }
    }
    let ca = std::fs::read(host.dir.path().join("ca.crt")).expect("the CA");
    let cluster = json!({
        "apiVersion": core, "kind": "KubeFedCluster", "metadata": {"name": "self"},
        "spec": {
            "apiEndpoint": host.url(), "caBundle": BASE64_STANDARD.encode(ca), "secretRef": {"name": "self"},
            "proxyURL": "",
        },
    });
    create(&format!("{CORE}/kubefedclusters"), cluster).await;

    let mut namespace = federated_namespace("ns");
    namespace["metadata"]["finalizers"] = json!([SYNC_FINALIZER]);
    let namespace = create(&format!("{TYPES}/federatednamespaces"), namespace).await;
    let there = admin.get("/api/v1/namespaces/ns").await.expect("there");
    note(&admin, "namespace-ns", &namespace, &there).await;
    let data = json!({"kept": "1", "dropped": "2"});
    let settings = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
        "metadata": {"name": "settings", "finalizers": [SYNC_FINALIZER]},
        "spec": {"template": {"data": data}, "placement": {"clusters": [{"name": "self"}]}},
    });
    let settings = create(&format!("{TYPES}/federatedconfigmaps"), settings).await;
    let metadata = json!({"name": "settings", "labels": {MANAGED_LABEL: "true"}});
    let maps = SETTINGS.trim_end_matches("/settings");
    let there = create(maps, json!({"metadata": metadata, "data": data})).await;
    note(&admin, "configmap-settings", &settings, &there).await;
}

/// Notes which version the member has.
async fn note(admin: &Client, name: &str, object: &Value, there: &Value) {
    let record = json!({
        "apiVersion": "core.kubefed.io/v1alpha1", "kind": "PropagatedVersion", "metadata": {"name": name},
    });
    admin.create(RECORDS, &record).await.expect("created");
    let version = object_version(meta::generation(there), meta::resource_version(there));
    let status = json!({
        "templateVersion": template_hash(object), "overridesVersion": overrides_hash(object),
        "clusterVersions": [{"clusterName": "self", "version": version}],
    });
    let path = format!("{RECORDS}/{name}/status");
    admin.merge(&path, &json!({"status": status})).await.expect("noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_kubefeds_becomes_ours_and_what_it_has_as_a_member_stays_until_it_is_changed() {
    let Some(host) = a_control_plane().await else { return };
    leave_kubefed_behind(&host).await;
    let (admin, dir) = (host.admin(), TempDir::new().expect("a directory"));
    let kubefed = Kubefed::new(&[host.kubeconfig("host", "admin", &["system:masters"])]);
    let refused = kubefed.fails(1, "migrate --from-context host").await;
    assert!(refused.contains("--to-file"), "{refused}");
    let file = dir.path().join("kubefed.jsonl");
    kubefed.ok(&format!("migrate --from-context host --to-file {}", file.display())).await;
    let before = [
        admin.get(SETTINGS).await.expect("there"),
        admin.get("/api/v1/namespaces/ns").await.expect("there"),
    ];

    let init = "init --overlay single-node --timeout 90s";
    let (said, _server) = tokio::join!(kubefed.ok(init), serve(&host, dir.path()));
    assert!(said.contains("is ready"), "{said}");
    let _manager = manage(&host, dir.path()).await;
    let said = kubefed.ok(&format!("migrate --from-file {}", file.display())).await;
    for line in ["FederatedConfigMap: 1 moved, 0 unchanged", "Secret: 0 moved, 1 unchanged"] {
        assert!(said.contains(line), "{said}");
    }
    let settings = format!("{TYPES}/federatedconfigmaps/settings");
    eventually("the federation knows that all is well", async || {
        let object = admin.get(&settings).await.ok()?;
        (object["status"]["clusters"] == json!([{"name": "self"}])).then_some(())
    })
    .await;
    for object in &before {
        let namespace = meta::namespace(object);
        let path = if namespace.is_empty() { "/api/v1/namespaces/ns" } else { SETTINGS };
        assert_eq!(admin.get(path).await.expect("there"), *object, "nobody has written it");
    }

    // With the first change what KubeFed has set is ours, and goes.
    let change = json!({"spec": {"template": {"data": {"dropped": null, "new": "3"}}}});
    admin.merge(&settings, &change).await.expect("changed");
    let there = eventually("the change is there", async || {
        let found = admin.get(SETTINGS).await.ok()?;
        (found["data"]["new"] == "3").then_some(found)
    })
    .await;
    assert_eq!(there["data"], json!({"kept": "1", "new": "3"}));
    let managers = there["metadata"]["managedFields"].as_array().expect("managers");
    let managers: Vec<Value> =
        managers.iter().map(|entry| json!([entry["manager"], entry["operation"]])).collect();
    assert_eq!(managers, [json!(["kubefed", "Apply"])]);
}

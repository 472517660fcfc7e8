//! `kubefed init` and `deinit` with a real host.

use std::path::PathBuf;
use std::process::{Command, Output};

use kubefed_tests::cli::Kubefed;
use kubefed_tests::control_plane::{ControlPlane, a_control_plane};
use kubefed_tests::installed::{manage, path, serve};
use kubefed_tests::manifests::{documents, overlay};
use kubefed_tests::widgets::{self, CRDS, condition, is_gone, widget, widgets};
use kubefed_tests::{Cluster, NAMESPACE, a_member, binary, eventually, federated_namespace};
use serde_json::{Value, json};
use tempfile::TempDir;

const SECRETS: &[&str] = &[
    "kubefed-ca",
    "kubefed-apiserver-tls",
    "kubefed-etcd-ca",
    "kubefed-etcd-tls",
    "kubefed-etcd-client",
];
const TYPES: &str = "/apis/types.kubefed.io/v1beta1";
const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
/// The mark of an APIService that the host makes and keeps by itself.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Defines a kind in the host.
async fn define(host: &ControlPlane, group: &str, plural: &str, versions: &[&str]) {
    let version = |(index, name): (usize, &&str)| {
        json!({
            "name": name, "served": true, "storage": index == 0,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        })
    };
    let versions: Vec<Value> = versions.iter().enumerate().map(version).collect();
    let name = format!("{plural}.{group}");
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {"group": group, "scope": "Cluster", "names": {"plural": plural, "kind": format!("A{plural}")}, "versions": versions},
    });
    let admin = host.admin();
    admin.create(CRDS, &crd).await.expect("a definition");
    condition(&admin, &name, "Established", "True").await;
}

/// Whom the host leads a group and version to by itself, once it does.
async fn led_by_itself(host: &ControlPlane, group_version: &str) {
    let admin = host.admin();
    eventually(&format!("the host serves {group_version} itself"), async || {
        let road = admin.get(&format!("{APISERVICES}/{group_version}")).await.ok()?;
        (road["metadata"]["labels"][AUTOMANAGED] == "true" && road["spec"]["service"].is_null())
            .then_some(())
    })
    .await;
}

/// The host leads this group and version to us, and will not change that.
async fn is_led_to_us(host: &ControlPlane, group_version: &str) {
    let road = host.admin().get(&format!("{APISERVICES}/{group_version}")).await;
    let road = road.expect("an APIService");
    assert_eq!(road["metadata"]["labels"][AUTOMANAGED], Value::Null, "{road}");
    assert_eq!(road["spec"]["service"]["name"], "kubefed-apiserver", "{road}");
}

async fn kubefed(kubeconfigs: &[PathBuf], arguments: &str) -> Output {
    let files: Vec<String> = kubeconfigs.iter().map(|file| file.display().to_string()).collect();
    let mut command = Command::new(binary("kubefed"));
    command.args(arguments.split(' ')).env("KUBECONFIG", files.join(":"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
    output.expect("kubefed starts")
}

fn stdout(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn kubeconfig(host: &ControlPlane) -> PathBuf {
    host.kubeconfig("host-cluster", "admin", &["system:masters"])
}

fn secret(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
}

#[tokio::test(flavor = "multi_thread")]
async fn init_applies_the_manifests_and_a_second_run_changes_nothing() {
    let Some(host) = a_control_plane().await else { return };
    let admin = host.admin();
    let files = [kubeconfig(&host)];
    let init = "init --host-cluster-context host-cluster";

    // What it would do in an empty host: new certificates, and what kubectl makes of the manifests.
    let dry = documents(
        stdout(&kubefed(&files, &format!("{init} --dry-run")).await).trim_start_matches("---\n"),
    );
    let secrets: Vec<&Value> = dry.iter().filter(|object| object["kind"] == "Secret").collect();
    assert_eq!(secrets.len(), SECRETS.len());
    assert!(
        admin.get(&format!("/api/v1/namespaces/{NAMESPACE}")).await.is_err(),
        "nothing was done"
    );

    // No pod runs here, so that it waits in vain, and says for what.
    let said = stderr(&kubefed(&files, &format!("{init} --timeout 3s")).await);
    assert!(
        said.contains("APIService v1beta1.core.kubefed.io") && said.contains("--timeout"),
        "{said}"
    );

    let served = admin.get(&secret("kubefed-apiserver-tls")).await.expect("the certificate");
    let mut wanted = overlay("production");
    for object in wanted.iter_mut().filter(|object| object["kind"] == "APIService") {
        object["spec"]["caBundle"] = served["data"]["ca.crt"].clone();
        let found = admin.get(&path(object)).await.expect("the APIService");
        assert_eq!(found["spec"]["caBundle"], served["data"]["ca.crt"]);
    }

    // The certificates are good, so that a second run would make none.
    let output = kubefed(&files, &format!("{init} --dry-run")).await;
    let text = stdout(&output);
    let mut again = documents(text.trim_start_matches("---\n"));
    let by_path = |objects: &mut Vec<Value>| objects.sort_by_key(path);
    by_path(&mut wanted);
    by_path(&mut again);
    assert_eq!(again, wanted);
    let kubectl = host.kubectl("admin", &["system:masters"]);
    kubectl
        .ok("apply --server-side --force-conflicts --dry-run=server --validate=strict -f -", &text)
        .await;

    // The host's controllers come to rest at some time.
    let mut paths: Vec<String> = wanted.iter().map(path).collect();
    paths.extend(SECRETS.iter().map(|name| secret(name)));
    let versions = async || {
        let mut versions = Vec::new();
        for path in &paths {
            let found = admin.get(path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
            versions.push((path.clone(), found["metadata"]["resourceVersion"].to_string()));
        }
        versions
    };
    eventually("a run changes no object", async || {
        let before = versions().await;
        stderr(&kubefed(&files, &format!("{init} --timeout 0s")).await);
        (before == versions().await).then_some(())
    })
    .await;

    let deinit = "deinit --host-cluster-context host-cluster";
    let would = stdout(&kubefed(&files, &format!("{deinit} --dry-run")).await);
    assert!(would.contains("Deployment kubefed-apiserver\n"), "{would}");
    stdout(&kubefed(&files, &format!("{deinit} --timeout 60s")).await);
    for path in &paths {
        let found = admin.get(path).await;
        assert!(found.is_err_and(|error| error.is_not_found()), "{path}");
    }
    assert_eq!(stdout(&kubefed(&files, deinit).await), "", "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_survives_deinit() {
    let Some(host) = a_control_plane().await else { return };
    let kubectl = host.kubectl("admin", &["system:masters"]);
    kubectl.ok(&format!("create namespace {NAMESPACE}"), "").await;
    kubectl.ok("create clusterrole kubefed-apiserver --verb=get --resource=pods", "").await;
    let said = stdout(&kubefed(&[kubeconfig(&host)], "deinit").await);
    assert!(said.contains(&format!("Namespace {NAMESPACE} stays")), "{said}");
    kubectl.ok("get clusterrole kubefed-apiserver", "").await;
}

/// Federates a kind of the host that the federation does not ship, and then one that the host defines, in a group of its
/// own; where a member has that at last.
async fn enable_kinds_of_the_host(
    host: &ControlPlane,
    member: &Cluster,
    files: &[PathBuf],
) -> String {
    let admin = host.admin();
    let kubefed = Kubefed::new(files);
    let context = "--host-cluster-context host-cluster";
    let policies = "/apis/networking.k8s.io/v1/namespaces/test-namespace/networkpolicies";
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    admin.create(policies, &policy).await.expect("created");
    let role = "kubefed-controller-manager:federatednetworkpolicies.types.kubefed.io";
    assert_eq!(
        kubefed.ok(&format!("federate netpol closed -n test-namespace -t {context}")).await,
        format!(
            "clusterrole.rbac.authorization.k8s.io/{role} created\nfederatedtypeconfig.core.kubefed.io/networkpolicies.networking.k8s.io created in namespace {NAMESPACE}\n"
        )
    );
    let there = format!("{policies}/closed");
    eventually("the member has the policy", async || member.admin().get(&there).await.ok()).await;
    let refused = kubefed.fails(1, &format!("disable netpol {context}")).await;
    assert!(refused.contains("while resource instances exist"), "{refused}");
    let federated = format!("{TYPES}/namespaces/test-namespace/federatednetworkpolicies/closed");
    admin.delete(&federated, &json!({})).await.expect("deleted");
    is_gone(&admin, &federated).await;
    let said = kubefed.ok(&format!("disable netpol {context}")).await;
    let wanted = format!("clusterrole.rbac.authorization.k8s.io {role:?} deleted\n");
    assert!(said.ends_with(&wanted), "{said}");

    admin.create(CRDS, &widgets()).await.expect("a definition");
    condition(&admin, "widgets.example.com", "Established", "True").await;
    widgets::define(member, &widgets()).await;
    let own = "enable widgets.example.com --federated-group fed.example.com";
    assert_eq!(kubefed.ok(&format!("{own} --dry-run {context}")).await, "");
    assert!(admin.get(&format!("{APISERVICES}/v1beta1.fed.example.com")).await.is_err());
    let said = kubefed.ok(&format!("{own} {context}")).await;
    let wanted = "apiservice.apiregistration.k8s.io/v1beta1.fed.example.com created\n";
    assert!(said.ends_with(wanted), "{said}");
    let widgets = "/apis/example.com/v1/namespaces/test-namespace/widgets";
    admin.create(widgets, &widget("v1", "gear")).await.expect("created");
    eventually("the host leads to the new group", async || {
        let line = format!("federate widget gear -n test-namespace {context}");
        (kubefed.run(&line, "").await.code == Some(0)).then_some(())
    })
    .await;
    let there = format!("{widgets}/gear");
    eventually("the member has the widget", async || member.admin().get(&there).await.ok()).await;
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_federation_works_with_the_rights_that_it_is_given() {
    let Some(host) = a_control_plane().await else { return };
    let dir = TempDir::new().expect("a directory");
    let member = a_member().await;
    let files = [
        kubeconfig(&host),
        member.kubeconfig("cluster1", "admin-of-cluster1", &["system:masters"]),
    ];
    // The host serves one of our groups itself, as one does that KubeFed was in.
    define(&host, "types.kubefed.io", "gadgets", &["v1beta1"]).await;
    led_by_itself(&host, "v1beta1.types.kubefed.io").await;
    let context = "--host-cluster-context host-cluster";
    let init = format!("init {context} --overlay single-node --timeout 90s");
    let (output, _server) = tokio::join!(kubefed(&files, &init), serve(&host, dir.path()));
    let said = stdout(&output);
    assert!(said.contains("is ready"), "{said}");
    let admin = host.admin();
    is_led_to_us(&host, "v1beta1.types.kubefed.io").await;
    eventually("we serve the kind", async || admin.get(&format!("{TYPES}/gadgets")).await.ok())
        .await;
    // A definition that comes later changes nothing; the host has looked at it when its other version is led.
    define(&host, "scheduling.kubefed.io", "plans", &["v1alpha1", "v9"]).await;
    led_by_itself(&host, "v9.scheduling.kubefed.io").await;
    for version in ["v1alpha1", "v9"] {
        eventually(&format!("{version} is served"), async || {
            admin.get(&format!("/apis/scheduling.kubefed.io/{version}/plans")).await.ok()
        })
        .await;
    }
    is_led_to_us(&host, "v1alpha1.scheduling.kubefed.io").await;
    is_led_to_us(&host, "v1beta1.types.kubefed.io").await;
    let configs =
        format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs");
    let found = admin.get(&configs).await.expect("a list");
    let defaults = kubefed_api::federatedtypeconfig::defaults().len();
    assert_eq!(found["items"].as_array().map(Vec::len), Some(defaults));

    let _manager = manage(&host, dir.path()).await;
    stdout(&kubefed(&files, &format!("join cluster1 {context} --cluster-context cluster1")).await);
    let kubectl = host.kubectl("admin", &["system:masters"]);
    kubectl.ok("wait kubefedcluster cluster1 --for=condition=Ready --timeout=60s", "").await;
    kubectl.ok("create namespace test-namespace", "").await;
    let objects = [
        ("federatednamespaces", federated_namespace("test-namespace")),
        (
            "federatedconfigmaps",
            json!({
                "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
                "metadata": {"name": "settings"}, "spec": {"template": {"data": {"a": "b"}}, "placement": {"clusterSelector": {}}},
            }),
        ),
    ];
    let there = format!("{TYPES}/namespaces/test-namespace");
    for (plural, object) in &objects {
        eventually("the host serves the kind", async || {
            admin.create(&format!("{there}/{plural}"), object).await.ok()
        })
        .await;
    }
    let settings = "/api/v1/namespaces/test-namespace/configmaps/settings";
    let log = || {
        std::fs::read_to_string(dir.path().join("kubefed-controller-manager.log"))
            .unwrap_or_default()
    };
    eventually("the member has the object", async || member.admin().get(settings).await.ok()).await;
    eventually("that is told in the federation", async || {
        let object = admin.get(&format!("{there}/federatedconfigmaps/settings")).await.ok()?;
        (object["status"]["clusters"] == json!([{"name": "cluster1"}])).then_some(())
    })
    .await;
    let records = "/apis/core.kubefed.io/v1alpha1/namespaces/test-namespace/propagatedversions";
    eventually("and recorded", async || {
        let record = admin.get(&format!("{records}/configmap-settings")).await.ok()?;
        record["status"].is_object().then_some(())
    })
    .await;
    assert!(!log().contains("orbidden"), "{}", log());

    let widget = enable_kinds_of_the_host(&host, &member, &files).await;
    assert!(!log().contains("orbidden"), "{}", log());
    let served = std::fs::read_to_string(dir.path().join("kubefed-apiserver.log"));
    assert!(!served.as_ref().expect("a log").contains("orbidden"), "{served:?}");
    let again = stdout(&kubefed(&files, &format!("{init} --dry-run")).await);
    assert!(again.contains("v1beta1.fed.example.com"), "its certificate is seen to as well");

    stdout(&kubefed(&files, &format!("deinit {context} --delete-propagated --timeout 90s")).await);
    let gone = member.admin().get(settings).await;
    assert!(gone.is_err_and(|error| error.is_not_found()));
    let rest = [
        format!("/api/v1/namespaces/{NAMESPACE}"),
        format!("{APISERVICES}/v1beta1.fed.example.com"),
        format!("{ROLES}/kubefed-apiserver:v1beta1.fed.example.com"),
        format!("{ROLES}/kubefed-controller-manager:federatedwidgets.fed.example.com"),
    ];
    for path in rest {
        let gone = admin.get(&path).await;
        assert!(gone.is_err_and(|error| error.is_not_found()), "{path}");
    }
    let gone = member.admin().get(&widget).await;
    assert!(gone.is_err_and(|error| error.is_not_found()));
    // A namespace of the user stays.
    kubectl.ok("get namespace test-namespace", "").await;
    // And the host serves again what it defines.
    led_by_itself(&host, "v1beta1.types.kubefed.io").await;
    eventually("the host serves its kind", async || {
        admin.get(&format!("{TYPES}/gadgets")).await.ok()
    })
    .await;
}

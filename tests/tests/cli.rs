//! What KubeFed's command line does, by `kubefed`, in a federation that stands alone and has one local member.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use kubefed_controllers::client::Client;
use kubefed_tests::binary;
use kubefed_tests::cli::Kubefed;
use kubefed_tests::manifests::documents;
use kubefed_tests::widgets::{define, is_gone, widget, widgets};
use kubefed_tests::{Federation, NAMESPACE, a_federation_of, a_namespace_everywhere, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

async fn a_federation() -> (Federation, Kubefed, Client) {
    let federation = a_federation_of(&["one"]).await;
    let file = federation.api.kubeconfig("federation", "admin", &["system:masters"]);
    let kubefed = Kubefed::new(&[file]);
    let admin = federation.admin();
    (federation, kubefed, admin)
}

fn config(name: &str) -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs/{name}")
}

async fn is_there(admin: &Client, path: &str) -> bool {
    match admin.get(path).await {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => panic!("{path}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_network_policy_is_federated_with_its_kind_and_outlives_both() {
    let (federation, kubefed, admin) = a_federation().await;
    let member = federation.member("one").admin();
    let kubectl = federation.api.kubectl();
    a_namespace_everywhere(&admin, "test-namespace").await;
    let name = "networkpolicies.networking.k8s.io";

    // The federation does not have the target; its member has.
    assert_eq!(kubefed.ok("enable netpol --dry-run").await, "");
    let shown = documents(kubefed.ok("enable netpol -o yaml").await.trim_start_matches("---\n"));
    assert_eq!(shown.len(), 1);
    assert!(!is_there(&admin, &config(name)).await, "nothing was done");
    let said = |done: &str| {
        format!("federatedtypeconfig.core.kubefed.io/{name} {done} in namespace {NAMESPACE}\n")
    };
    assert_eq!(kubefed.ok("enable netpol").await, said("created"));
    let created = admin.get(&config(name)).await.expect("the config");
    assert_eq!(created["spec"], shown[0]["spec"]);
    assert_eq!(kubefed.ok(&format!("enable {name}")).await, said("updated"));
    let elsewhere =
        kubefed.fails(1, &format!("enable {name} --federated-group fed.example.com")).await;
    assert!(elsewhere.contains("Changing the federated type"), "{elsewhere}");

    // From the file of the guide into every member.
    let file =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../kubefed/testdata/federate/networkpolicy.yaml");
    let made = kubefed.ok(&format!("federate -f {file}")).await;
    let text = std::fs::read_to_string(file).expect("the guide's manifest");
    assert_eq!(kubefed.run("federate -f -", &text).await.stdout, made);
    eventually("kubectl finds the kind", async || {
        kubectl.run("-n test-namespace apply -f -", &made).await.status.success().then_some(())
    })
    .await;
    let path =
        "/apis/networking.k8s.io/v1/namespaces/test-namespace/networkpolicies/federation-policy";
    eventually("the member has the policy", async || member.get(path).await.ok()).await;

    // The config serves its objects, so it stays as long as there are any.
    let refused = kubefed.fails(1, "disable netpol").await;
    assert!(refused.contains("while resource instances exist"), "{refused}");
    let config_now = admin.get(&config(name)).await.expect("the config");
    assert_eq!(config_now["spec"]["propagation"], "Enabled");

    let orphaning = async |command: &str, flags: &str| {
        let kind = "federatednetworkpolicy federation-policy -n test-namespace";
        kubefed.ok(&format!("orphaning-deletion {command} {kind} {flags}")).await
    };
    assert_eq!(orphaning("status", "").await, "Disabled\n");
    assert_eq!(orphaning("enable", "--dry-run").await, "");
    assert_eq!(orphaning("status", "").await, "Disabled\n");
    assert_eq!(orphaning("enable", "").await, "");
    assert_eq!(orphaning("status", "").await, "Enabled\n");
    assert_eq!(orphaning("disable", "").await, "");
    assert_eq!(orphaning("status", "").await, "Disabled\n");
    assert_eq!(orphaning("enable", "").await, "");
    kubectl.ok("-n test-namespace delete federatednetworkpolicy federation-policy", "").await;
    assert!(is_there(&member, path).await, "the member keeps it");

    assert_eq!(kubefed.ok("disable netpol --dry-run").await, "");
    assert!(is_there(&admin, &config(name)).await, "nothing was done");
    let title = format!("FederatedTypeConfig \"{NAMESPACE}/{name}\"");
    assert_eq!(
        kubefed.ok("disable netpol").await,
        format!(
            "Disabled propagation for {title}\nVerifying propagation controller is stopped for {title}\nPropagation controller for {title} is stopped\nfederatedtypeconfig \"{NAMESPACE}/{name}\" deleted\n"
        )
    );
    is_gone(&admin, &config(name)).await;
    assert_eq!(kubefed.ok(&format!("disable {name}")).await, format!("{title} does not exist\n"));
    assert_eq!(
        kubefed.ok("disable netpol --delete-crd").await,
        format!(
            "{title} does not exist\ncustomresourcedefinition \"federatednetworkpolicies.types.kubefed.io\" does not exist\n"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_a_member_defines_is_federated_in_a_group_of_its_own() {
    let (federation, kubefed, admin) = a_federation().await;
    let member = federation.member("one");
    define(member, &widgets()).await;
    a_namespace_everywhere(&admin, "shop").await;
    let directive = "kind: EnableTypeDirective\nmetadata: {name: wd}\nspec: {targetVersion: v1beta1, federatedGroup: fed.example.com, federatedVersion: v2}\n";
    let said = kubefed.run("enable -f -", directive).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let role = "kubefed-controller-manager:federatedwidgets.fed.example.com";
    assert_eq!(
        said.stdout,
        format!(
            "clusterrole.rbac.authorization.k8s.io/{role} created\nclusterrolebinding.rbac.authorization.k8s.io/{role} created\nfederatedtypeconfig.core.kubefed.io/widgets.example.com created in namespace {NAMESPACE}\n"
        )
    );
    let object = json!({
        "apiVersion": "fed.example.com/v2", "kind": "FederatedWidget", "metadata": {"name": "a"},
        "spec": {"template": {"spec": widget("v1beta1", "a")["spec"]}, "placement": {"clusterSelector": {}}},
    });
    let path = "/apis/fed.example.com/v2/namespaces/shop/federatedwidgets";
    eventually("the kind is served", async || admin.create(path, &object).await.ok()).await;
    let there = "/apis/example.com/v1beta1/namespaces/shop/widgets/a";
    let member = member.admin();
    eventually("the member has the widget", async || member.get(there).await.ok()).await;
    admin.delete(&format!("{path}/a"), &json!({})).await.expect("deleted");
    is_gone(&member, there).await;
    is_gone(&admin, &format!("{path}/a")).await;

    let said = kubefed.ok("disable widget").await;
    assert!(said.contains(&format!("clusterrole.rbac.authorization.k8s.io {role:?} deleted\n")));
    assert!(!is_there(&admin, &format!("{ROLES}/{role}")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_federated_and_serve_their_kinds_in_the_members() {
    let (federation, kubefed, admin) = a_federation().await;
    let member = federation.member("one").admin();
    let name = "customresourcedefinitions.apiextensions.k8s.io";
    let said = kubefed.ok("enable crd").await;
    assert!(
        said.contains(&format!("federatedtypeconfig.core.kubefed.io/{name} created")),
        "{said}"
    );
    // A schema is made of schemas; whoever describes the kind must come to an end.
    let kubectl = federation.api.kubectl();
    let explain = "explain federatedcustomresourcedefinition.spec.template.spec.versions.schema.openAPIV3Schema.properties";
    eventually("kubectl explains the kind", async || {
        kubectl.run(explain, "").await.status.success().then_some(())
    })
    .await;
    let definition = widgets();
    let object = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedCustomResourceDefinition",
        "metadata": {"name": definition["metadata"]["name"]},
        "spec": {"template": {"spec": definition["spec"]}, "placement": {"clusterSelector": {}}},
    });
    let path = "/apis/types.kubefed.io/v1beta1/federatedcustomresourcedefinitions";
    admin.create(path, &object).await.expect("created");
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    eventually("the member serves the kind", async || {
        member.create(widgets, &widget("v1", "a")).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_federated_with_all_that_is_in_it() {
    let (federation, kubefed, admin) = a_federation().await;
    let member = federation.member("one").admin();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    let objects = [
        (
            "/api/v1/namespaces/shop/configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "annotations": {"note": "x"}}, "data": {"a": "b"}}),
        ),
        (
            "/api/v1/namespaces/shop/secrets",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "data": {"k": "dg=="}}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "look"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
            }),
        ),
    ];
    for (path, object) in &objects {
        admin.create(path, object).await.expect("created");
    }
    let federated = async || -> Vec<String> {
        let mut names = Vec::new();
        for plural in ["federatednamespaces", "federatedconfigmaps", "federatedsecrets"] {
            let path = format!("/apis/types.kubefed.io/v1beta1/namespaces/shop/{plural}");
            let list = admin.get(&path).await.expect("a list");
            let items = list["items"].as_array().expect("items").iter();
            names.extend(items.map(|item| item["metadata"]["name"].to_string()));
        }
        names
    };

    // Roles are no kind of the federation yet: either all comes along, or nothing does.
    let line = "federate namespace shop --contents";
    let refused = kubefed.fails(1, line).await;
    assert!(
        refused.contains("roles.rbac.authorization.k8s.io") && refused.contains("--enable-type")
    );
    assert_eq!(kubefed.ok(&format!("{line} --enable-type --dry-run")).await, "");
    let shown = kubefed.run(&format!("{line} -o yaml"), "").await;
    let kinds: Vec<Value> = documents(shown.stdout.trim_start_matches("---\n"))
        .into_iter()
        .map(|object| object["kind"].clone())
        .collect();
    assert_eq!(
        kinds,
        ["FederatedNamespace", "FederatedConfigMap", "FederatedRole", "FederatedSecret"]
    );
    assert_eq!(
        shown.stderr,
        "Warning: annotations of ConfigMap \"settings\" will not be in the template of the federated resource: note\n"
    );
    assert_eq!(federated().await, [""; 0], "nothing was done");
    assert!(!is_there(&admin, &config("roles.rbac.authorization.k8s.io")).await);

    assert_eq!(kubefed.ok(&format!("{line} -s rbac.authorization.k8s.io,secret")).await, "");
    assert_eq!(federated().await, ["\"shop\"", "\"settings\""]);
    eventually("the member has the map", async || {
        let found = member.get("/api/v1/namespaces/shop/configmaps/settings").await.ok()?;
        (found["data"]["a"] == "b").then_some(())
    })
    .await;
    let labelled = member.get("/api/v1/namespaces/shop").await.expect("the namespace");
    assert_eq!(labelled["metadata"]["labels"]["team"], "a");

    assert_eq!(kubefed.ok("federate secrets key -n shop").await, "");
    let again = kubefed.fails(1, "federate secrets key -n shop").await;
    assert!(again.contains("AlreadyExists"), "{again}");
    let enabled = kubefed.ok("federate role look -n shop -t").await;
    assert_eq!(
        enabled,
        format!(
            "federatedtypeconfig.core.kubefed.io/roles.rbac.authorization.k8s.io created in namespace {NAMESPACE}\n"
        )
    );
    let role = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/look";
    eventually("the member has the role", async || member.get(role).await.ok()).await;

    for (line, wanted) in [
        ("federate cm settings -n shop --contents", "--contents"),
        ("federate cm nothing -n shop", "\"nothing\" not found"),
        ("federate deployment web -n shop", "--filename"),
        ("enable nothing", "Unable to find api resource named \"nothing\"."),
        ("enable cm --kubefed-namespace nowhere", "--kubefed-namespace"),
        ("enable federatedconfigmaps", "is a kind of the federation itself"),
        ("enable -f /nowhere", "/nowhere (--filename)"),
        ("enable cm --host-cluster-context nowhere", "no context \"nowhere\""),
        ("orphaning-deletion status fcm nothing -n shop", "\"nothing\" not found"),
    ] {
        let said = kubefed.fails(1, line).await;
        assert!(said.starts_with("error: ") && said.contains(wanted), "{line}: {said}");
    }
    for line in ["enable", "enable cm -o json", "federate cm", "disable cm --version v1", "no-such"]
    {
        let said = kubefed.fails(2, line).await;
        assert!(said.starts_with("error: "), "{line}: {said}");
    }
    let plain = kubefed.run("orphaning-deletion status cm settings -n shop", "").await;
    assert_eq!(plain.stdout, "Disabled\n");
    assert_eq!(plain.stderr, "Warning: configmaps/v1 might not be a federated resource\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_joined_is_not_joined_again_unasked() {
    let (federation, _, admin) = a_federation().await;
    let member = federation.member("one");
    let kubefed = Kubefed::new(&[
        federation.api.kubeconfig("federation", "admin", &["system:masters"]),
        member.kubeconfig("one", "admin-of-one", &["system:masters"]),
    ]);
    // The fixture has joined it by hand, under the same name.
    let path = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters/one");
    let before = admin.get(&path).await.expect("the cluster");
    let refused = kubefed.fails(1, "join one").await;
    assert!(refused.contains("--error-on-existing=false"), "{refused}");
    assert_eq!(kubefed.ok("join one --error-on-existing=false --dry-run").await, "");
    let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/one-federation");
    assert!(!is_there(&member.admin(), &account).await, "nothing was done");
    let after = admin.get(&path).await.expect("the cluster");
    assert_eq!(before["spec"], after["spec"]);

    // A binding to somebody else's role is in the way, and cannot be changed.
    let stray = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "kubefed-controller-manager:one-federation"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    member.admin().create(bindings, &stray).await.expect("created");
    assert_eq!(kubefed.ok("join one --error-on-existing=false").await, "");
    assert!(is_there(&member.admin(), &account).await);

    assert_eq!(kubefed.ok("unjoin one --dry-run").await, "");
    assert!(is_there(&admin, &path).await && is_there(&member.admin(), &account).await);
    assert_eq!(kubefed.ok("unjoin one").await, "");
    assert!(!is_there(&admin, &path).await && !is_there(&member.admin(), &account).await);
}

/// Runs a program of a directory that is first on the PATH.
fn run(dir: &TempDir, program: &str, arguments: &str) -> Output {
    let path = std::env::var("PATH").expect("a PATH");
    Command::new(program)
        .args(arguments.split(' '))
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .env("HOME", dir.path())
        .env_remove("KUBECONFIG")
        .output()
        .expect("it starts")
}

#[test]
fn it_is_kubefedctl_and_a_plugin_of_kubectl_by_its_names() {
    let dir = TempDir::new().expect("a directory");
    for name in ["kubefed", "kubefedctl", "kubectl-kubefed", "kubectl_complete-kubefed"] {
        symlink(binary("kubefed"), dir.path().join(name)).expect("a link");
    }
    let ok = |program: &str, arguments: &str| {
        let program = match program {
            "kubectl" => program.to_owned(),
            program => dir.path().join(program).display().to_string(),
        };
        let output = run(&dir, &program, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    for (program, arguments, name) in [
        ("kubefed", "version", "kubefed"),
        ("kubefedctl", "version", "kubefedctl"),
        ("kubectl", "kubefed version", "kubectl kubefed"),
    ] {
        let said = ok(program, arguments);
        let wanted = format!("{name} version: version.Info{{Version:\"v0.1.0\", GitCommit:\"");
        assert!(said.starts_with(&wanted), "{said}");
    }
    for (program, arguments, wanted) in [
        ("kubefed", "--help", "Usage: kubefed [OPTIONS] <COMMAND>"),
        ("kubefedctl", "enable --help", "Usage: kubefedctl enable [OPTIONS] [NAME]"),
        ("kubectl", "kubefed federate --help", "Usage: kubectl kubefed federate [OPTIONS]"),
        ("kubefed", "--version", "kubefed 0.1.0"),
        ("kubefed", "completion bash", "-F _kubefed "),
        ("kubefedctl", "completion bash", "-F _kubefedctl "),
        ("kubefedctl", "completion fish", "complete -c kubefedctl"),
        ("kubectl-kubefed", "completion zsh", "#compdef kubectl-kubefed"),
        ("kubectl", "__complete kubefed orph", "orphaning-deletion\t"),
        ("kubectl", "__complete kubefed enable --fed", "--federated-group\t"),
    ] {
        let said = ok(program, arguments);
        assert!(said.contains(wanted), "{program} {arguments}: {said}");
    }
    let output = run(&dir, &dir.path().join("kubefedctl").display().to_string(), "enable");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Usage: kubefedctl enable"), "{said}");
}

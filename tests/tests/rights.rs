//! Rights in the host to what we serve: what `kubectl auth can-i` says is what happens, through the host and past it.

use kubefed_tests::control_plane::{ControlPlane, a_control_plane};
use kubefed_tests::raw::{Answer, HTTP2, Raw};
use kubefed_tests::{Cluster, Kubectl, NAMESPACE, eventually, guide};
use serde_json::{Value, json};

const CORE: &str = "/apis/core.kubefed.io/v1beta1";
const TYPES: &str = "/apis/types.kubefed.io/v1beta1";
const RBAC: &str = "rbac.authorization.k8s.io";
const KIND: &str = "federateddeployments";
const HERE: &str = "test-namespace";
const ELSEWHERE: &str = "elsewhere";
const NAME: &str = "test-deployment";

/// Who wants to do what, to which subresource if any, in which namespace if not in all, and whether they may.
type Case = (&'static str, &'static str, &'static str, &'static str, bool);

const CASES: &[Case] = &[
    ("viewer", "get", "", HERE, true),
    ("viewer", "list", "", HERE, true),
    ("viewer", "watch", "", HERE, true),
    ("viewer", "get", "", ELSEWHERE, false),
    ("viewer", "list", "", ELSEWHERE, false),
    ("viewer", "watch", "", ELSEWHERE, false),
    ("viewer", "list", "", "", false),
    ("viewer", "watch", "", "", false),
    ("viewer", "get", "scale", HERE, false),
    ("viewer", "get", "status", HERE, false),
    ("viewer", "patch", "", HERE, false),
    ("viewer", "delete", "", HERE, false),
    ("scaler", "get", "scale", HERE, true),
    ("scaler", "patch", "scale", HERE, true),
    ("scaler", "patch", "scale", ELSEWHERE, false),
    ("scaler", "get", "", HERE, false),
    ("scaler", "patch", "", HERE, false),
    ("scaler", "patch", "status", HERE, false),
    ("reporter", "get", "status", HERE, true),
    ("reporter", "patch", "status", HERE, true),
    ("reporter", "patch", "status", ELSEWHERE, false),
    ("reporter", "patch", "", HERE, false),
    ("reporter", "patch", "scale", HERE, false),
    ("editor", "create", "", HERE, true),
    ("editor", "patch", "", HERE, true),
    ("editor", "delete", "", HERE, true),
    ("editor", "create", "", ELSEWHERE, false),
    ("editor", "patch", "scale", HERE, false),
    ("editor", "patch", "status", HERE, false),
    ("keeper", "get", "", HERE, true),
    ("keeper", "list", "", HERE, false),
    ("stranger", "get", "", HERE, false),
];

/// The user, the resource, the verbs, and the one name that it is about, if it is.
const ROLES: &[(&str, &str, &[&str], Option<&str>)] = &[
    ("viewer", KIND, &["get", "list", "watch"], None),
    ("scaler", "federateddeployments/scale", &["get", "patch"], None),
    ("reporter", "federateddeployments/status", &["get", "patch"], None),
    ("editor", KIND, &["get", "create", "patch", "delete"], None),
    ("keeper", KIND, &["get", "list"], Some(NAME)),
];

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_what_the_host_says_for_each_part_of_each_kind() {
    let Some(host) = a_control_plane().await else { return };
    let extension = host.extension().await;
    let kubectl = host.kubectl("admin", &["system:masters"]);
    serve_in_two_namespaces(&host, &extension, &kubectl).await;
    let_each_do_theirs(&host).await;

    for &case in CASES {
        let (user, verb, subresource, namespace, allowed) = case;
        eventually(&format!("{case:?} is what can-i says"), async || {
            (can_i(&kubectl, case).await == allowed).then_some(())
        })
        .await;
        let shown = host.authority.issue_client(user, &[]).expect("a certificate");
        let through = host.raw(&shown, HTTP2).await;
        let past = Raw::over(extension.stream_of(Some(&shown), HTTP2).await).await;
        for mut raw in [through, past] {
            let answer = request(&mut raw, verb, subresource, namespace).await;
            let text = String::from_utf8_lossy(&answer.body);
            if !allowed {
                assert_eq!(answer.code, 403, "{case:?}: {text}");
                assert!(text.contains(&format!("cannot {verb}")), "{case:?}: {text}");
                continue;
            }
            assert!(matches!(answer.code, 200 | 201), "{case:?}: {} {text}", answer.code);
            assert!(text.contains(NAME) && !text.contains(ELSEWHERE), "{case:?}: {text}");
        }
    }
    who_may_see_one_may_ask_for_it_by_a_selector(&host, &extension).await;
}

/// An object of the same name in two namespaces.
async fn serve_in_two_namespaces(host: &ControlPlane, extension: &Cluster, kubectl: &Kubectl) {
    let past = host.client_past(extension, "admin", &["system:masters"]);
    let config = kubefed_api::federatedtypeconfig::defaults()
        .into_iter()
        .find(|config| config["metadata"]["name"] == "deployments.apps")
        .expect("a default for Deployments");
    let path = format!("{CORE}/namespaces/{NAMESPACE}/federatedtypeconfigs");
    past.create(&path, &config).await.expect("created");
    let admin = host.admin();
    for name in [HERE, ELSEWHERE] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    }
    eventually("the kind is served", async || past.get(&format!("{TYPES}/{KIND}")).await.ok())
        .await;
    host.register(extension).await;
    eventually("the host serves it too", async || admin.get(&format!("{TYPES}/{KIND}")).await.ok())
        .await;
    for namespace in [HERE, ELSEWHERE] {
        let manifest = guide("4.2").replace(HERE, namespace);
        kubectl.ok("apply --validate=false -f -", &manifest).await;
    }
}

async fn let_each_do_theirs(host: &ControlPlane) {
    let admin = host.admin();
    let path = format!("/apis/{RBAC}/v1/namespaces/{HERE}");
    let object = |kind: &str, name: &str| json!({"apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": {"name": name}});
    for (user, resource, verbs, name) in ROLES {
        let mut role = object("Role", user);
        role["rules"] =
            json!([{"apiGroups": ["types.kubefed.io"], "resources": [resource], "verbs": verbs}]);
        if let Some(name) = name {
            role["rules"][0]["resourceNames"] = json!([name]);
        }
        admin.create(&format!("{path}/roles"), &role).await.expect("created");
        let mut binding = object("RoleBinding", user);
        binding["roleRef"] = json!({"apiGroup": RBAC, "kind": "Role", "name": user});
        binding["subjects"] = json!([{"apiGroup": RBAC, "kind": "User", "name": user}]);
        admin.create(&format!("{path}/rolebindings"), &binding).await.expect("created");
    }
}

async fn can_i(kubectl: &Kubectl, (user, verb, subresource, namespace, _): Case) -> bool {
    let name = if names(verb) { format!("/{NAME}") } else { String::new() };
    let place = match namespace {
        "" => "--all-namespaces".to_owned(),
        namespace => format!("--namespace={namespace}"),
    };
    let mut arguments =
        format!("auth can-i {verb} {KIND}.types.kubefed.io{name} {place} --as={user}");
    if !subresource.is_empty() {
        arguments.push_str(&format!(" --subresource={subresource}"));
    }
    let output = kubectl.run(&arguments, "").await;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => true,
        "no" => false,
        other => panic!("{arguments}: {other} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Whether a verb is about one object.
fn names(verb: &str) -> bool {
    matches!(verb, "get" | "patch" | "delete")
}

/// Does it, but for what would stay.
async fn request(raw: &mut Raw, verb: &str, subresource: &str, namespace: &str) -> Answer {
    let mut path = match namespace {
        "" => format!("{TYPES}/{KIND}"),
        namespace => format!("{TYPES}/namespaces/{namespace}/{KIND}"),
    };
    if names(verb) {
        path.push_str(&format!("/{NAME}"));
    }
    if !subresource.is_empty() {
        path.push_str(&format!("/{subresource}"));
    }
    let send = async |raw: &mut Raw, method: &str, content: &str, body: String| {
        let path = format!("{path}?dryRun=All");
        raw.send(method, &path, &[("content-type", content)], body).await
    };
    match verb {
        "get" | "list" => raw.get(&path).await,
        "watch" => raw.get(&format!("{path}?watch=true&timeoutSeconds=1")).await,
        "create" => {
            let manifest = guide("4.2").replace(HERE, namespace);
            let manifest = manifest.replace(NAME, &format!("{NAME}-2"));
            send(raw, "POST", "application/yaml", manifest).await
        }
        "patch" => {
            let patch = match subresource {
                "scale" => json!({"spec": {"replicas": 7}}),
                "status" => json!({"status": {"observedGeneration": 1}}),
                _ => json!({"metadata": {"labels": {"patched": "yes"}}}),
            };
            send(raw, "PATCH", "application/merge-patch+json", patch.to_string()).await
        }
        "delete" => send(raw, "DELETE", "application/json", String::new()).await,
        verb => panic!("{verb} is not tried"),
    }
}

async fn who_may_see_one_may_ask_for_it_by_a_selector(host: &ControlPlane, extension: &Cluster) {
    let path = format!("{TYPES}/namespaces/{HERE}/{KIND}?fieldSelector=metadata.name%3D");
    for keeper in [host.client("keeper", &[]), host.client_past(extension, "keeper", &[])] {
        let list = keeper.get(&format!("{path}{NAME}")).await.expect("keeper may");
        let found: Vec<&Value> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|o| &o["metadata"]["name"])
            .collect();
        assert_eq!(found, [NAME]);
        let refused = keeper.get(&format!("{path}another")).await.expect_err("keeper may not");
        assert!(refused.to_string().contains("cannot list"), "{refused}");
    }
}

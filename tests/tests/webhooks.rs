//! Webhooks that are registered at a real host have their say in what is written to its extension.

use kubefed_api::federatedtypeconfig;
use kubefed_apiserver::audit;
use kubefed_controllers::client::Client;
use kubefed_tests::control_plane::{ControlPlane, EXTENSION, a_control_plane};
use kubefed_tests::raw::{HTTP1, Raw};
use kubefed_tests::webhook::{Said, Webhook, deny, patch};
use kubefed_tests::widgets::refusal;
use kubefed_tests::{NAMESPACE, eventually};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const CORE: &str = "/apis/core.kubefed.io/v1beta1";
const TYPES: &str = "/apis/types.kubefed.io/v1beta1";
const CLUSTERS: &str = "/apis/core.kubefed.io/v1beta1/namespaces/a/kubefedclusters";
const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
const SERVICE: &str = "hooks";

/// A cluster that the webhooks called `case` are about.
fn cluster(name: &str, case: &str) -> Value {
    json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedCluster",
        "metadata": {"name": name, "labels": {"case": case}},
        "spec": {"apiEndpoint": "https://example.com:6443", "secretRef": {"name": "secret"}},
    })
}

/// The webhook of a case: at a path of our server, which the host knows as a Service.
fn hook(webhook: &Webhook, case: &str, changes: &Value) -> Value {
    let mut hook = json!({
        "name": format!("{case}.example.com"),
        "rules": [{
            "apiGroups": ["core.kubefed.io"], "apiVersions": ["v1beta1"],
            "operations": ["CREATE", "UPDATE"], "resources": ["kubefedclusters"],
        }],
        "objectSelector": {"matchLabels": {"case": case}},
        "clientConfig": {
            "service": {"name": SERVICE, "namespace": NAMESPACE, "port": webhook.address.port(), "path": format!("/{case}")},
            "caBundle": webhook.ca_bundle(),
        },
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
    });
    kubefed_apimachinery::patch::merge::apply(&mut hook, changes);
    hook
}

/// What the server at the end of all webhooks says.
fn answer(path: &str, request: &Value) -> Said {
    let label = json!([{"op": "add", "path": "/metadata/labels/touched", "value": "yes"}]);
    match path {
        "/touch" => match patch(&label) {
            Said::Response(mut response) => {
                response["warnings"] = json!(["mind the gap"]);
                response["auditAnnotations"] = json!({"why": "because"});
                Said::Response(response)
            }
            other => other,
        },
        "/deny" | "/there" | "/small" => deny(403, "not here"),
        "/hostile" => {
            patch(&json!([{"op": "replace", "path": "/metadata/name", "value": "another"}]))
        }
        "/untyped" => patch(&json!([{"op": "add", "path": "/spec/secretRef", "value": 5}])),
        "/garbage" => Said::Raw(200, "well".into(), None),
        "/away" => Said::Raw(302, String::new(), Some("/touch")),
        "/hangs" => Said::Nothing,
        "/guard" if request["oldObject"]["metadata"]["labels"]["keep"] == "yes" => {
            deny(0, "it is kept")
        }
        "/report" => patch(&json!([{"op": "add", "path": "/status/region", "value": "north"}])),
        "/config" => patch(
            &json!([{"op": "add", "path": "/metadata/annotations", "value": {"seen": request["kind"]["group"]}}]),
        ),
        "/scale" if request["object"]["spec"]["replicas"].as_i64() > Some(5) => deny(0, "too many"),
        _ => Said::Response(json!({"allowed": true})),
    }
}

/// Registers everything that the steps below are about.
async fn register(host: &ControlPlane, webhook: &Webhook) {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let dead = format!("https://{}/", closed.local_addr().expect("an address"));
    let at_dead = |policy: &str| json!({"failurePolicy": policy, "clientConfig": {"service": null, "url": dead}});
    let rule = |resource: &str, operations: Value| {
        json!([{
            "apiGroups": ["core.kubefed.io", "types.kubefed.io"], "apiVersions": ["v1beta1"],
            "operations": operations, "resources": [resource],
        }])
    };
    let mutating = [
        hook(webhook, "touch", &json!({})),
        hook(webhook, "hostile", &json!({"failurePolicy": "Ignore"})),
        hook(webhook, "untyped", &json!({})),
        hook(webhook, "garbage", &json!({})),
        hook(webhook, "away", &json!({})),
        hook(webhook, "hangs", &json!({"timeoutSeconds": 1})),
        hook(
            webhook,
            "report",
            &json!({"rules": rule("kubefedclusters/status", json!(["UPDATE"]))}),
        ),
        hook(
            webhook,
            "config",
            &json!({"rules": [{
                "apiGroups": ["types.kubefed.io"], "apiVersions": ["*"],
                "operations": ["*"], "resources": ["federatedtypeconfigs"],
            }]}),
        ),
    ];
    let validating = [
        hook(webhook, "deny", &json!({})),
        hook(webhook, "dead", &at_dead("Fail")),
        hook(webhook, "ghost", &at_dead("Ignore")),
        hook(webhook, "there", &json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}})),
        hook(webhook, "guard", &json!({"rules": rule("kubefedclusters", json!(["DELETE"]))})),
        hook(
            webhook,
            "small",
            &json!({"matchConditions": [{"name": "small", "expression": "object.metadata.name.size() < 3 && request.userInfo.username == 'admin'"}]}),
        ),
        hook(
            webhook,
            "scale",
            &json!({
                "objectSelector": null,
                "rules": rule("federateddeployments/scale", json!(["UPDATE"])),
            }),
        ),
    ];
    let admin = host.admin();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
    admin.create(&services, &service).await.expect("created");
    for (kind, webhooks) in [
        ("MutatingWebhookConfiguration", json!(mutating)),
        ("ValidatingWebhookConfiguration", json!(validating)),
    ] {
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "ours"}, "webhooks": webhooks,
        });
        let path = format!("{REGISTRATION}/{}s", kind.to_lowercase());
        admin.create(&path, &object).await.expect("created");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_webhooks_have_their_say_in_our_kinds() {
    let Some(host) = a_control_plane().await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("audit.log");
    let options = audit::Options {
        path: log.clone(),
        max_size: u64::MAX,
        max_backups: 0,
        policy: audit::Policy::default(),
    };
    let extension = host.extension_with(|config| config.audit = Some(options)).await;
    let past = host.client_past(&extension, "admin", &["system:masters"]);
    for mut config in federatedtypeconfig::defaults() {
        if config["metadata"]["name"] == "deployments.apps" {
            config["metadata"]["namespace"] = json!(NAMESPACE);
            let configs = format!("{CORE}/namespaces/{NAMESPACE}/federatedtypeconfigs");
            past.create(&configs, &config).await.expect("created");
        }
    }
    host.register(&extension).await;
    let admin = host.admin();
    for (name, labels) in [("a", json!({"team": "blue"})), ("b", json!({"team": "red"}))] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    }
    let webhook = Webhook::start(&[&format!("{SERVICE}.{NAMESPACE}.svc")], answer).await;
    register(&host, &webhook).await;
    let tried = format!("{CLUSTERS}?dryRun=All");
    eventually("the extension knows the webhooks", async || {
        let touched = admin.create(&tried, &cluster("tried", "touch")).await.ok()?;
        let denied = admin.create(&tried, &cluster("tried", "deny")).await;
        (touched["metadata"]["labels"]["touched"] == "yes" && denied.is_err()).then_some(())
    })
    .await;
    let seen = webhook.take("/touch");
    assert_eq!(seen.last().expect("it was asked")["dryRun"], true);
    let nothing = admin.get(&format!("{CLUSTERS}/tried")).await;
    assert!(nothing.is_err_and(|error| error.is_not_found()), "a dry run stores nothing");

    changes(&host, &admin, &webhook).await;
    refusals(&admin, &webhook).await;
    answers_that_are_none(&admin).await;
    deletes(&admin, &webhook).await;
    parts_and_versions(&admin, &webhook).await;

    let metrics = past.text("/metrics", std::time::Duration::from_secs(10)).await.expect("metrics");
    for wanted in [
        r#"apiserver_admission_webhook_rejection_count{name="deny.example.com",type="validating",operation="CREATE",error_type="no_error",rejection_code="403"}"#,
        r#"apiserver_admission_webhook_rejection_count{name="dead.example.com",type="validating",operation="CREATE",error_type="calling_webhook_error",rejection_code="0"}"#,
        r#"apiserver_admission_webhook_admission_duration_seconds_count{name="touch.example.com",type="admit",operation="CREATE",rejected="false"}"#,
    ] {
        assert!(metrics.contains(wanted), "{wanted}");
    }
    eventually("what they said is recorded", async || {
        let log = std::fs::read_to_string(&log).ok()?;
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_touch =
            lines.find(|line| line["annotations"]["touch.example.com/why"] == "because")?;
        let mutated = r#"{"configuration":"ours","mutated":true,"webhook":"touch.example.com"}"#;
        let place = "mutation.webhook.admission.k8s.io/round_0_index_0";
        let allowed = "authorization.k8s.io/decision";
        let annotations = &of_touch["annotations"];
        (annotations[place] == mutated && annotations[allowed] == "allow").then_some(())?;
        let open = "failed-open.validating.webhook.admission.k8s.io/round_0_index_2";
        lines.any(|line| line["annotations"][open] == "ghost.example.com").then_some(())
    })
    .await;
    no_write_is_taken_before_the_webhooks_are_known(&host, &admin).await;
}

async fn changes(host: &ControlPlane, admin: &Client, webhook: &Webhook) {
    let created = admin.create(CLUSTERS, &cluster("one", "touch")).await.expect("created");
    assert_eq!(created["metadata"]["labels"], json!({"case": "touch", "touched": "yes"}));
    let fields = created["metadata"]["managedFields"].to_string();
    assert!(fields.contains("f:case") && !fields.contains("f:touched"), "{fields}");
    let asked = webhook.take("/touch").pop().expect("it was asked");
    assert_eq!(asked["operation"], "CREATE");
    assert_eq!(
        asked["kind"],
        json!({"group": "core.kubefed.io", "version": "v1beta1", "kind": "KubeFedCluster"})
    );
    assert_eq!((&asked["name"], &asked["namespace"]), (&json!("one"), &json!("a")));
    assert_eq!(asked["userInfo"]["username"], "admin");
    assert_eq!(asked["object"]["metadata"]["namespace"], "a");
    assert_eq!(asked["object"]["metadata"]["uid"], Value::Null);
    assert_eq!((&asked["oldObject"], &asked["dryRun"]), (&Value::Null, &json!(false)));
    assert_eq!(asked["options"]["kind"], "CreateOptions");

    // Patches and updates: a webhook sees what there was.
    let one = format!("{CLUSTERS}/one");
    let merged = json!({"metadata": {"labels": {"touched": null, "new": "label"}}});
    let merged = admin.merge(&one, &merged).await.expect("patched");
    assert_eq!(merged["metadata"]["labels"]["touched"], "yes");
    let mut replaced = merged.clone();
    replaced["spec"]["apiEndpoint"] = json!("https://example.org:6443");
    let replaced = admin.replace(&one, &replaced).await.expect("replaced");
    assert_eq!(replaced["metadata"]["generation"], 2);
    let asked = webhook.take("/touch");
    assert_eq!(asked.len(), 2, "{asked:?}");
    for asked in &asked {
        assert_eq!(asked["operation"], "UPDATE");
        assert_eq!(asked["oldObject"]["metadata"]["uid"], created["metadata"]["uid"]);
        assert_eq!(asked["options"]["kind"], "UpdateOptions");
    }

    // Server-side apply: what a webhook sets is nobody's, so it is in nobody's way.
    let two = format!("{CLUSTERS}/two");
    let applied = admin.apply(&two, &cluster("two", "touch"), false).await.expect("applied");
    assert_eq!(applied["metadata"]["labels"]["touched"], "yes");
    let mut again = cluster("two", "touch");
    again["metadata"]["labels"]["touched"] = json!("yes");
    admin.apply(&two, &again, false).await.expect("applied");
    let operations: Vec<Value> =
        webhook.take("/touch").iter().map(|asked| asked["operation"].clone()).collect();
    assert_eq!(operations, [json!("CREATE"), json!("UPDATE")]);

    // Its warnings reach the client; a name that is still to be made is not shown.
    let pair = host.authority.issue_client("admin", &["system:masters"]).expect("a certificate");
    let mut unnamed = cluster("", "touch");
    unnamed["metadata"]["generateName"] = json!("some-");
    let answer = host.raw(&pair, HTTP1).await.json("POST", CLUSTERS, &unnamed).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let mut warnings = answer.headers.get_all("warning").iter();
    assert!(warnings.any(|warning| warning == "299 - \"mind the gap\""), "{:?}", answer.headers);
    let asked = webhook.take("/touch").pop().expect("it was asked");
    assert_eq!(asked["name"], Value::Null);
}

async fn refusals(admin: &Client, webhook: &Webhook) {
    let (code, text) = refusal(admin.create(CLUSTERS, &cluster("no", "deny")).await);
    assert_eq!(
        (code, text.as_str()),
        (403, "admission webhook \"deny.example.com\" denied the request: not here")
    );
    let asked = webhook.take("/deny").pop().expect("it was asked");
    assert!(asked["object"]["metadata"]["uid"].is_string(), "it sees the object that is stored");

    let (code, text) = refusal(admin.create(CLUSTERS, &cluster("no", "dead")).await);
    let wanted = "Internal error occurred: failed calling webhook \"dead.example.com\": failed to call webhook: Post \"https://127.0.0.1:";
    assert!(code == 500 && text.starts_with(wanted) && text.contains("?timeout=10s\""), "{text}");
    admin.create(CLUSTERS, &cluster("ghost", "ghost")).await.expect("its webhook may be missing");

    // Only in namespaces, and of objects, that it is about.
    let elsewhere = CLUSTERS.replace("/a/", "/b/");
    assert_eq!(refusal(admin.create(CLUSTERS, &cluster("no", "there")).await).0, 403);
    admin.create(&elsewhere, &cluster("there", "there")).await.expect("created");
    assert_eq!(webhook.take("/there").len(), 1);
    // A label that it had counts as one that it is to have.
    let free = json!({"metadata": {"labels": {"case": "none"}}});
    admin.merge(&format!("{elsewhere}/there"), &free).await.expect("patched");
    let caught = json!({"metadata": {"labels": {"case": "deny"}}});
    let there = format!("{elsewhere}/there");
    assert_eq!(refusal(admin.merge(&there, &caught).await).0, 403);

    // Conditions in CEL.
    assert_eq!(refusal(admin.create(CLUSTERS, &cluster("no", "small")).await).0, 403);
    admin.create(CLUSTERS, &cluster("larger", "small")).await.expect("created");
    assert_eq!(webhook.take("/small").len(), 1);
}

async fn answers_that_are_none(admin: &Client) {
    for (case, wanted) in [
        ("hostile", "\"hostile.example.com\" attempted to change metadata.name"),
        ("garbage", "\"garbage.example.com\": received invalid webhook response"),
        (
            "away",
            "\"away.example.com\": failed to call webhook: the server responded with the status code 302",
        ),
        ("hangs", "context deadline exceeded"),
    ] {
        let (code, text) = refusal(admin.create(CLUSTERS, &cluster("no", case)).await);
        assert!(code == 500 && text.contains(wanted), "{case}: {code} {text}");
    }
    // What a webhook makes of an object is held to the same rules as what a client sends.
    let (code, text) = refusal(admin.create(CLUSTERS, &cluster("no", "untyped")).await);
    assert!(code == 422 && text.contains("spec.secretRef"), "{code} {text}");
    for name in ["no", "another"] {
        let found = admin.get(&format!("{CLUSTERS}/{name}")).await;
        assert!(found.is_err_and(|error| error.is_not_found()), "{name} was stored");
    }
}

async fn deletes(admin: &Client, webhook: &Webhook) {
    for (name, keep) in [("kept", "yes"), ("loose", "no")] {
        let mut object = cluster(name, "guard");
        object["metadata"]["labels"]["keep"] = json!(keep);
        admin.create(CLUSTERS, &object).await.expect("created");
    }
    let kept = format!("{CLUSTERS}/kept");
    let denied =
        (400, "admission webhook \"guard.example.com\" denied the request: it is kept".to_owned());
    assert_eq!(refusal(admin.delete(&kept, &json!({})).await), denied);
    let asked = webhook.take("/guard").pop().expect("it was asked");
    assert_eq!((&asked["operation"], &asked["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(asked["oldObject"]["metadata"]["name"], "kept");
    assert_eq!(asked["options"]["kind"], "DeleteOptions");
    let all = format!("{CLUSTERS}?labelSelector=case%3Dguard");
    assert_eq!(refusal(admin.delete(&all, &json!({})).await), denied);
    admin.get(&kept).await.expect("it is kept");
    let free = json!({"metadata": {"labels": {"keep": "no"}}});
    admin.merge(&kept, &free).await.expect("patched");
    admin.delete(&all, &json!({})).await.expect("deleted");
    assert!(admin.get(&kept).await.is_err_and(|error| error.is_not_found()));
}

async fn parts_and_versions(admin: &Client, webhook: &Webhook) {
    // The status is a part with rules of its own.
    admin.create(CLUSTERS, &cluster("told", "report")).await.expect("created");
    assert!(webhook.take("/report").is_empty());
    let status = json!({"status": {"region": "south", "zones": ["x"]}});
    let told = admin.merge(&format!("{CLUSTERS}/told/status"), &status).await.expect("patched");
    assert_eq!(told["status"], json!({"region": "north", "zones": ["x"]}));
    let asked = webhook.take("/report").pop().expect("it was asked");
    assert_eq!(asked["subResource"], "status");

    // One kind in two groups: a webhook for one is asked for writes by the other, and sees its own.
    let configs = format!("{CORE}/namespaces/{NAMESPACE}/federatedtypeconfigs");
    let labelled = json!({"metadata": {"labels": {"case": "config"}}});
    let config = admin.merge(&format!("{configs}/deployments.apps"), &labelled).await;
    let config = config.expect("patched");
    assert_eq!(config["apiVersion"], "core.kubefed.io/v1beta1");
    assert_eq!(config["metadata"]["annotations"]["seen"], "types.kubefed.io");
    let asked = webhook.take("/config").pop().expect("it was asked");
    assert_eq!(asked["object"]["apiVersion"], "types.kubefed.io/v1beta1");
    assert_eq!(asked["requestKind"]["group"], "core.kubefed.io");

    let deployments = format!("{TYPES}/namespaces/a/federateddeployments");
    let deployment = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedDeployment", "metadata": {"name": "web"},
        "spec": {
            "placement": {},
            "template": {"spec": {
                "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            }},
        },
    });
    eventually("the host leads to the kind", async || {
        admin.create(&deployments, &deployment).await.ok()
    })
    .await;
    let scale = format!("{deployments}/web/scale");
    let to = |replicas: i64| json!({"spec": {"replicas": replicas}});
    let (code, text) = refusal(admin.merge(&scale, &to(9)).await);
    assert!(code == 400 && text.ends_with("too many"), "{code} {text}");
    let scaled = admin.merge(&scale, &to(3)).await.expect("scaled");
    assert_eq!(scaled["spec"]["replicas"], 3);
    let asked = webhook.take("/scale").pop().expect("it was asked");
    assert_eq!(asked["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(asked["resource"]["resource"], "federateddeployments");
    assert_eq!(asked["oldObject"]["spec"]["replicas"], 1);
}

async fn no_write_is_taken_before_the_webhooks_are_known(host: &ControlPlane, admin: &Client) {
    let role = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{EXTENSION}");
    let mut without = admin.get(&role).await.expect("its role");
    let rules = without["rules"].as_array_mut().expect("rules");
    rules.retain(|rule| rule["apiGroups"] != json!(["admissionregistration.k8s.io"]));
    admin.replace(&role, &without).await.expect("replaced");
    // The host's authorizer follows its own roles.
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": EXTENSION, "resourceAttributes": {
            "verb": "list", "group": "admissionregistration.k8s.io", "resource": "mutatingwebhookconfigurations",
        }},
    });
    eventually("the right is gone", async || {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = admin.create(path, &review).await.ok()?;
        (answer["status"]["allowed"] != true).then_some(())
    })
    .await;
    let extension = host.another_extension(&host.url(), |_| {}).await;
    let past = host.client_past(&extension, "admin", &["system:masters"]);
    let pair = host.authority.issue_client("admin", &["system:masters"]).expect("a certificate");
    let mut raw = Raw::over(extension.stream_of(Some(&pair), HTTP1).await).await;
    let answer = raw.json("POST", CLUSTERS, &cluster("early", "none")).await;
    let wanted =
        "kubefedclusters.core.kubefed.io \"early\" is forbidden: not yet ready to handle request";
    assert_eq!((answer.code, &answer.json()["message"]), (403, &json!(wanted)));
    let ready = past.text("/readyz", std::time::Duration::from_secs(10)).await;
    assert!(ready.is_err_and(|error| error.to_string().contains("informer-sync")));
}

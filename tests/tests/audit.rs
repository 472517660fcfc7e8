//! The audit log of a server that runs.

use kubefed_apiserver::audit;
use kubefed_tests::raw::ADMIN;
use kubefed_tests::{a_federation_with, eventually};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn every_request_leaves_its_line_and_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.log");
    let options = audit::Options {
        path: path.clone(),
        max_size: u64::MAX,
        max_backups: 0,
        policy: audit::Policy::default(),
    };
    let federation = a_federation_with(|config| config.audit = Some(options)).await;
    let mut admin = federation.raw(ADMIN).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "s-"},
        "stringData": {"password": "sesame"},
    });
    let headers =
        [("content-type", "application/json"), ("audit-id", "create"), ("user-agent", "t/1")];
    let answer = admin.send("POST", secrets, &headers, secret.to_string()).await;
    assert_eq!(answer.code, 201);
    let name = answer.json()["metadata"]["name"].clone();
    let headers = [("audit-id", "impersonate"), ("impersonate-user", "alice")];
    assert_eq!(admin.send("GET", secrets, &headers, "").await.code, 403);
    let watch = format!("{secrets}?watch=1&timeoutSeconds=1");
    assert_eq!(admin.send("GET", &watch, &[("audit-id", "watch")], "").await.code, 200);
    let headers = [("audit-id", "stranger"), ("authorization", "Bearer open-sesame")];
    let nobody = async || federation.raw_h2(None).await;
    assert_eq!(nobody().await.send("GET", secrets, &headers, "").await.code, 401);
    let probe = [("audit-id", "probe")];
    assert_eq!(nobody().await.send("GET", "/livez", &probe, "").await.code, 200);
    // One that goes before it has an answer.
    let mut gone = federation.stream(ADMIN, "http/1.1").await;
    let head = format!(
        "POST {secrets} HTTP/1.1\r\nhost: localhost\r\naudit-id: gone\r\ncontent-length: 100\r\n\r\n{{"
    );
    gone.write_all(head.as_bytes()).await.expect("sent");
    gone.shutdown().await.expect("closed");

    let lines = eventually("all lines are written", async || {
        let text = std::fs::read_to_string(&path).ok()?;
        let lines: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        (lines.len() >= 6).then_some(lines)
    })
    .await;
    let text = std::fs::read_to_string(&path).expect("the log");
    assert!(!text.contains("sesame") && !text.contains("probe"), "{text}");
    let of = |id: &str| -> Vec<&Value> { lines.iter().filter(|l| l["auditID"] == id).collect() };

    let [create] = of("create")[..] else { panic!("{text}") };
    assert_eq!(create["stage"], "ResponseComplete");
    assert_eq!(create["verb"], "create");
    assert_eq!(create["user"]["username"], "admin");
    assert_eq!(create["userAgent"], "t/1");
    assert_eq!(create["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(
        create["objectRef"],
        json!({"resource": "secrets", "namespace": "default", "name": name, "apiVersion": "v1"})
    );
    assert_eq!(create["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(create["annotations"]["authorization.k8s.io/decision"], "allow");

    let [impersonated] = of("impersonate")[..] else { panic!("{text}") };
    assert_eq!(impersonated["user"]["username"], "admin");
    assert_eq!(impersonated["impersonatedUser"]["username"], "alice");
    assert_eq!(impersonated["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(impersonated["responseStatus"]["reason"], "Forbidden");

    let stages: Vec<&Value> = of("watch").iter().map(|line| &line["stage"]).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);

    let [stranger] = of("stranger")[..] else { panic!("{text}") };
    assert_eq!(stranger["user"], json!({}));
    assert_eq!(stranger["responseStatus"]["code"], 401);

    let [gone] = of("gone")[..] else { panic!("{text}") };
    assert_eq!(gone["stage"], "ResponseComplete");
    assert_ne!(gone["responseStatus"]["code"], 201);
}

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted]
rules:
- level: None
  verbs: [list]
- level: RequestResponse
  omitManagedFields: true
  users: [admin]
  resources: [{group: "", resources: [configmaps, secrets]}]
- level: Request
  resources: [{group: "", resources: [namespaces]}]
  omitStages: [RequestReceived]
- level: Metadata
  nonResourceURLs: [/livez]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_what_is_recorded_and_how_much() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.log");
    let policy = audit::Policy::read(POLICY.as_bytes()).expect("a policy");
    let options = audit::Options { path: path.clone(), max_size: u64::MAX, max_backups: 0, policy };
    let federation = a_federation_with(|config| config.audit = Some(options)).await;
    let mut admin = federation.raw_h2(ADMIN).await;
    let in_default = "/api/v1/namespaces/default";
    let (configmaps, secrets) =
        (format!("{in_default}/configmaps"), format!("{in_default}/secrets"));
    let json = ("content-type", "application/json");
    let configmap = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
    let patch = "apiVersion: v1\nkind: ConfigMap\ndata: {a: c}";
    let apply = ("content-type", "application/apply-patch+yaml");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "sesame"}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let applied = format!("{configmaps}/c?fieldManager=t&force=true");
    let one = format!("{configmaps}/c");
    let watch = format!("{configmaps}?watch=1&timeoutSeconds=1");
    for (method, path, id, content, body, code) in [
        ("POST", configmaps.as_str(), "create", json, configmap.to_string(), 201),
        ("PATCH", &applied, "apply", apply, patch.to_owned(), 200),
        ("GET", &one, "get", json, String::new(), 200),
        ("GET", &configmaps, "list", json, String::new(), 200),
        ("GET", &watch, "watch", json, String::new(), 200),
        ("POST", &configmaps, "again", json, configmap.to_string(), 409),
        ("POST", &secrets, "secret", json, secret.to_string(), 201),
        ("POST", "/api/v1/namespaces", "namespace", json, namespace.to_string(), 201),
        ("GET", "/version", "version", json, String::new(), 200),
        ("GET", "/livez", "last", json, String::new(), 200),
    ] {
        let answer = admin.send(method, path, &[content, ("audit-id", id)], body).await;
        assert_eq!(answer.code, code, "{id}: {}", answer.json());
    }

    let lines = eventually("the last line is written", async || {
        let text = std::fs::read_to_string(&path).ok()?;
        let lines: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let is_last =
            |line: &Value| line["auditID"] == "last" && line["stage"] == "ResponseComplete";
        lines.iter().any(is_last).then_some(lines)
    })
    .await;
    let stages = |id: &str| -> Vec<&str> {
        let of_it = lines.iter().filter(|line| line["auditID"] == id);
        of_it.filter_map(|line| line["stage"].as_str()).collect()
    };
    for id in ["create", "apply", "get", "watch", "again", "secret", "last"] {
        assert_eq!(stages(id), ["RequestReceived", "ResponseComplete"], "{id}");
    }
    assert_eq!(stages("namespace"), ["ResponseComplete"]);
    assert!(stages("list").is_empty() && stages("version").is_empty());

    let completed = |id: &str| {
        let mut of_it = lines.iter().filter(|line| line["auditID"] == id);
        of_it.find(|line| line["stage"] == "ResponseComplete").expect("a line")
    };
    let create = completed("create");
    assert_eq!(create["level"], "RequestResponse");
    assert_eq!(create["requestObject"], configmap);
    assert_eq!(create["responseObject"]["data"], configmap["data"]);
    assert!(create["responseObject"]["metadata"]["uid"].is_string());
    assert!(create["responseObject"]["metadata"]["managedFields"].is_null());
    assert_eq!(
        completed("apply")["requestObject"],
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "c"}})
    );
    assert_eq!(completed("get")["responseObject"]["data"]["a"], "c");
    assert!(completed("get")["requestObject"].is_null());
    assert!(completed("watch")["responseObject"].is_null());
    assert_eq!(completed("again")["responseObject"]["reason"], "AlreadyExists");
    let namespace_line = completed("namespace");
    assert_eq!(namespace_line["level"], "Request");
    assert_eq!(namespace_line["requestObject"], namespace);
    assert!(namespace_line["responseObject"].is_null());
    let secret_line = completed("secret");
    assert_eq!(secret_line["level"], "Metadata");
    assert!(!std::fs::read_to_string(&path).expect("the log").contains("sesame"));
}

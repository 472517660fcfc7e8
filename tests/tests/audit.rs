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
    let options = audit::Options { path: path.clone(), max_size: u64::MAX, max_backups: 0 };
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
    let mut nobody = federation.raw_h2(None).await;
    let headers = [("audit-id", "stranger"), ("authorization", "Bearer open-sesame")];
    assert_eq!(nobody.send("GET", secrets, &headers, "").await.code, 401);
    assert_eq!(nobody.send("GET", "/livez", &[("audit-id", "probe")], "").await.code, 200);
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

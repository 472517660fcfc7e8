//! Requests that must not get what they ask for.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kubefed_apiserver::authn::tokens::{Grant, Reference};
use kubefed_tests::raw::{ADMIN, Raw};
use kubefed_tests::{Cluster, a_federation, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn named(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

fn role_binding(name: &str, role: (&str, &str), user: &str) -> Value {
    let mut binding = named("rbac.authorization.k8s.io/v1", "RoleBinding", name);
    binding["roleRef"] =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1});
    binding["subjects"] =
        json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]);
    binding
}

/// Namespaces `a` and `b` with a secret `one` and `two` in each.
async fn two_namespaces(federation: &Cluster) -> Raw {
    let mut admin = federation.raw(ADMIN).await;
    for namespace in ["a", "b"] {
        admin.create("/api/v1/namespaces", &named("v1", "Namespace", namespace)).await;
        for name in ["one", "two"] {
            let path = format!("/api/v1/namespaces/{namespace}/secrets");
            let mut secret = named("v1", "Secret", name);
            secret["stringData"] = json!({"password": format!("sesame-{namespace}-{name}")});
            admin.create(&path, &secret).await;
        }
    }
    admin
}

/// Waits until the rights of `user` reach the authorizer.
async fn until_allowed(federation: &Cluster, user: &str, path: &str) -> Raw {
    eventually("the rights are known", async || {
        let mut raw = federation.raw(Some((user, &[]))).await;
        (raw.get(path).await.code == 200).then_some(raw)
    })
    .await
}

fn whoami() -> String {
    named("authentication.k8s.io/v1", "SelfSubjectReview", "").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_a_front_proxy_are_not_believed() {
    let federation = a_federation().await;
    let claims: [&[(&str, &str)]; 4] = [
        &[("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")],
        &[
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
            ("x-remote-group", "g"),
        ],
        &[("X_Remote_User", "admin"), ("X_Remote_Group", "system:masters")],
        &[
            ("Connection", "X-Remote-User"),
            ("X-Remote-User", "admin"),
            ("X-Forwarded-User", "admin"),
        ],
    ];
    for claim in claims {
        let answer = federation.raw(None).await.send("GET", "/api/v1/namespaces", claim, "").await;
        assert_eq!(answer.code, 403, "{claim:?}");
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("\"system:anonymous\""), "{message}");
    }
    let mut h2 = federation.raw_h2(Some(("alice", &["ops"]))).await;
    let headers = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];
    eventually("the bootstrap roles are known", async || {
        let answer = h2.send("POST", SELF, &headers, whoami()).await;
        if answer.code == 403 {
            return None;
        }
        let user = answer.json()["status"]["userInfo"].clone();
        assert_eq!(user, json!({"username": "alice", "groups": ["ops", "system:authenticated"]}));
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_token_is_an_identity() {
    let federation = a_federation().await;
    let mut admin = two_namespaces(&federation).await;
    let accounts = "/api/v1/namespaces/a/serviceaccounts";
    admin.create(accounts, &named("v1", "ServiceAccount", "bot")).await;
    let uid = admin.get(&format!("{accounts}/bot")).await.json()["metadata"]["uid"].clone();
    let uid = uid.as_str().expect("a uid").to_owned();
    let now = seconds();
    let tokens = federation.server.tokens.clone().expect("the server signs tokens");
    let issue = |now: i64, lifetime: Option<i64>, audiences: &[&str], uid: &str| {
        tokens
            .issue(Grant {
                namespace: "a",
                service_account: Reference { name: "bot".into(), uid: uid.into() },
                secret: None,
                audiences: audiences.iter().map(|a| (*a).to_owned()).collect(),
                now,
                lifetime,
            })
            .expect("a token")
    };
    let good = issue(now, Some(600), &[], &uid);
    let (head, rest) = good.split_once('.').expect("a JWT");
    let (claims, signature) = rest.split_once('.').expect("a JWT");
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let masters = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64");
    let forged = String::from_utf8(masters).expect("text").replace(":bot", ":root");

    let send = async |authorization: &str| {
        let mut raw = federation.raw_h2(None).await;
        raw.send("POST", SELF, &[("authorization", authorization)], whoami()).await
    };
    let answer = eventually("the account is known", async || {
        Some(send(&format!("Bearer {good}")).await).filter(|answer| answer.code == 201)
    })
    .await;
    let user = &answer.json()["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:a:bot");
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"])
    );
    for bad in [
        format!("Bearer {}", issue(now - 3600, Some(600), &[], &uid)),
        format!("Bearer {}", issue(now + 3600, Some(600), &[], &uid)),
        format!("Bearer {}", issue(now, None, &[], &uid)),
        format!("Bearer {}", issue(now, Some(600), &["vault"], &uid)),
        format!("Bearer {}", issue(now, Some(600), &[], "another")),
        format!("Bearer {}.{claims}.", encode(r#"{"alg":"none"}"#)),
        format!("Bearer {}.{claims}.{signature}", encode(r#"{"alg":"HS256"}"#)),
        format!("Bearer {head}.{}.{signature}", encode(&forged)),
        format!("Bearer {head}.{claims}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer ~".to_owned(),
        format!("Basic {}", encode("admin:admin")),
    ] {
        let answer = send(&bad).await;
        assert_eq!(answer.code, 401, "{bad}");
        assert_eq!(answer.json()["reason"], "Unauthorized", "{bad}");
    }
    // A token is no longer one when its account is gone.
    assert_eq!(admin.send("DELETE", &format!("{accounts}/bot"), &[], "").await.code, 200);
    eventually("the token is refused", async || {
        (send(&format!("Bearer {good}")).await.code == 401).then_some(())
    })
    .await;
}

fn seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_secs()).expect("in range")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_somebody_else_without_the_right() {
    let federation = a_federation().await;
    let mut admin = two_namespaces(&federation).await;
    let mut role = named("rbac.authorization.k8s.io/v1", "ClusterRole", "as-alice");
    role["rules"] = json!([
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["alice"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["ops"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
    ]);
    admin.create(&format!("{RBAC}/clusterroles"), &role).await;
    let mut binding = role_binding("as-alice", ("ClusterRole", "as-alice"), "bob");
    binding["kind"] = json!("ClusterRoleBinding");
    admin.create(&format!("{RBAC}/clusterrolebindings"), &binding).await;

    let mut bob = federation.raw(Some(("bob", &[]))).await;
    let as_alice = [("impersonate-user", "alice"), ("impersonate-group", "ops")];
    let answer = eventually("bob may be alice", async || {
        Some(bob.send("POST", SELF, &as_alice, whoami()).await).filter(|answer| answer.code == 201)
    })
    .await;
    assert_eq!(
        answer.json()["status"]["userInfo"],
        json!({"username": "alice", "groups": ["ops", "system:authenticated"]})
    );
    for (claim, code) in [
        (&[("impersonate-user", "root")][..], 403),
        (&[("impersonate-user", "alice"), ("impersonate-group", "system:masters")], 403),
        (
            &[
                ("impersonate-user", "alice"),
                ("impersonate-group", "ops"),
                ("impersonate-group", "system:masters"),
            ],
            403,
        ),
        (&[("impersonate-user", "alice"), ("impersonate-uid", "0")], 403),
        (&[("impersonate-user", "alice"), ("impersonate-extra-scopes", "all")], 403),
        (&[("impersonate-user", "system:serviceaccount:a:bot")], 403),
        (&[("impersonate-group", "system:masters")], 400),
        (&[("impersonate-extra-scopes", "all")], 400),
    ] {
        let answer = bob.send("POST", SELF, claim, whoami()).await;
        assert_eq!(answer.code, code, "{claim:?}: {}", answer.json());
    }
    // Who is somebody else has that one's rights and no others.
    let answer = admin.send("GET", "/api/v1/secrets", &[("impersonate-user", "alice")], "").await;
    assert_eq!(answer.code, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_in_a_namespace_end_at_its_border() {
    let federation = a_federation().await;
    let mut admin = two_namespaces(&federation).await;
    let binding = role_binding("all", ("ClusterRole", "cluster-admin"), "alice");
    admin.create(&format!("{RBAC}/namespaces/a/rolebindings"), &binding).await;
    let mut alice = until_allowed(&federation, "alice", "/api/v1/namespaces/a/secrets").await;

    for path in [
        "/api/v1/namespaces/b/secrets",
        "/api/v1/namespaces/b/secrets/one",
        "/api/v1/namespaces/b",
        "/api/v1/namespaces",
        "/api/v1/secrets",
        "/api/v1/secrets?fieldSelector=metadata.namespace%3Da",
        "/api/v1/watch/secrets",
        "/api/v1/watch/namespaces/b/secrets",
        "/api/v1/namespaces/a/namespaces",
        "/api/v1/namespaces/a/namespaces/b",
        "/api/v1/namespaces/a/namespaces/b/status",
        "/api/v1/watch/namespaces/a/namespaces/b",
        "/api/v1/namespaces/a/../b/secrets",
        "/api/v1/namespaces/a%2F..%2Fb/secrets",
        "/api/v1/namespaces/a/secrets/..%2F..%2Fb%2Fsecrets%2Fone",
        "/api/v1/namespaces/a/%2e%2e/b/secrets",
        "/api/v1//namespaces//b//secrets",
        "/api/v1/namespaces/a;b/secrets",
        "/api/v1/namespaces/A/secrets",
        "/API/v1/namespaces/b/secrets",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/a/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/a/clusterroles/cluster-admin",
        "/metrics",
    ] {
        let answer = alice.get(path).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(matches!(answer.code, 400 | 403 | 404), "{path}: {} {text}", answer.code);
        assert!(!text.contains("sesame"), "{path}");
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "admin", "resourceAttributes": {"verb": "get", "resource": "secrets"}},
    });
    let mut local = review.clone();
    local["kind"] = json!("LocalSubjectAccessReview");
    local["spec"]["resourceAttributes"]["namespace"] = json!("b");
    let namespace = named("v1", "Namespace", "c");
    for (method, path, body) in [
        ("DELETE", "/api/v1/namespaces/a/namespaces/b", &json!({})),
        ("POST", "/api/v1/namespaces/a/namespaces", &namespace),
        ("DELETE", "/api/v1/namespaces/a/namespaces", &json!({})),
        ("POST", "/apis/authorization.k8s.io/v1/namespaces/a/subjectaccessreviews", &review),
        ("POST", "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews", &local),
        ("POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", &local),
        ("POST", "/apis/authentication.k8s.io/v1/namespaces/a/tokenreviews", &review),
    ] {
        let answer = alice.json(method, path, body).await;
        assert!(matches!(answer.code, 400 | 403 | 404), "{method} {path}: {}", answer.json());
    }
    for namespace in ["a", "b"] {
        assert_eq!(admin.get(&format!("/api/v1/namespaces/{namespace}")).await.code, 200);
    }
    assert_eq!(admin.get("/api/v1/namespaces/c").await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_one_name_shows_no_other() {
    let federation = a_federation().await;
    let mut admin = two_namespaces(&federation).await;
    let mut role = named("rbac.authorization.k8s.io/v1", "Role", "one");
    role["rules"] = json!([{
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["get", "list", "watch"],
    }]);
    admin.create(&format!("{RBAC}/namespaces/a/roles"), &role).await;
    let binding = role_binding("one", ("Role", "one"), "alice");
    admin.create(&format!("{RBAC}/namespaces/a/rolebindings"), &binding).await;
    let secrets = "/api/v1/namespaces/a/secrets";
    let mut alice = until_allowed(&federation, "alice", &format!("{secrets}/one")).await;

    for (path, code) in [
        (format!("{secrets}/one"), 200),
        (format!("{secrets}?fieldSelector=metadata.name%3Done"), 200),
        (format!("{secrets}?fieldSelector=metadata.name%3Done&watch=1&timeoutSeconds=1"), 200),
        ("/api/v1/watch/namespaces/a/secrets/one?timeoutSeconds=1".to_owned(), 200),
        (secrets.to_owned(), 403),
        (format!("{secrets}/two"), 403),
        (format!("{secrets}?watch=1&timeoutSeconds=1"), 403),
        (format!("{secrets}?fieldSelector=metadata.name%3Dtwo"), 403),
        (format!("{secrets}?fieldSelector=metadata.name%21%3Done"), 403),
        (format!("{secrets}?fieldSelector=&fieldSelector=metadata.name%3Done"), 403),
        ("/api/v1/watch/namespaces/a/secrets?timeoutSeconds=1".to_owned(), 403),
        ("/api/v1/watch/namespaces/a/secrets/two?timeoutSeconds=1".to_owned(), 403),
    ] {
        let answer = alice.get(&path).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.code, code, "{path}: {text}");
        assert_eq!(text.contains("\"one\""), code == 200, "{path}: {text}");
        assert!(!text.contains("\"two\"") || code == 403, "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_what_they_do_not_have() {
    let federation = a_federation().await;
    let mut admin = two_namespaces(&federation).await;
    let bindings = format!("{RBAC}/namespaces/a/rolebindings");
    let roles = format!("{RBAC}/namespaces/a/roles");
    admin.create(&bindings, &role_binding("admin", ("ClusterRole", "admin"), "alice")).await;
    let mut alice = until_allowed(&federation, "alice", &bindings).await;

    let mut role = named("rbac.authorization.k8s.io/v1", "Role", "reader");
    role["rules"] = json!([{"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get", "list"]}]);
    alice.create(&roles, &role).await;
    alice.create(&bindings, &role_binding("reader", ("Role", "reader"), "bob")).await;
    alice.create(&bindings, &role_binding("another", ("ClusterRole", "admin"), "bob")).await;

    let mut wider = role.clone();
    wider["metadata"]["name"] = json!("wider");
    wider["rules"] = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let widened = json!({"rules": wider["rules"]});
    let mut applied = wider.clone();
    applied["metadata"]["name"] = json!("reader");
    let mut new = applied.clone();
    new["metadata"]["name"] = json!("new");
    let merge = "application/merge-patch+json";
    let apply = "application/apply-patch+yaml";
    let query = "?fieldManager=t&force=true";
    for (method, path, kind, body) in [
        (
            "POST",
            bindings.clone(),
            "",
            role_binding("x", ("ClusterRole", "cluster-admin"), "alice"),
        ),
        ("POST", bindings.clone(), "", role_binding("x", ("ClusterRole", "missing"), "alice")),
        ("POST", roles.clone(), "", wider.clone()),
        ("PUT", format!("{roles}/reader"), "", applied.clone()),
        ("PATCH", format!("{roles}/reader"), merge, widened),
        ("PATCH", format!("{roles}/reader{query}"), apply, applied),
        ("PATCH", format!("{roles}/new{query}"), apply, new),
    ] {
        let kind = if kind.is_empty() { "application/json" } else { kind };
        let answer = alice.send(method, &path, &[("content-type", kind)], body.to_string()).await;
        assert_eq!(answer.code, 403, "{method} {path}: {}", answer.json());
    }
    assert_eq!(admin.get(&format!("{roles}/reader")).await.json()["rules"], role["rules"]);

    // What changes no right is no gift, and those who may `bind` a role need not hold it.
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let answer = alice
        .send("PATCH", &format!("{bindings}/admin"), &[("content-type", merge)], labels.to_string())
        .await;
    assert_eq!(answer.code, 200, "{}", answer.json());
    let mut binder = named("rbac.authorization.k8s.io/v1", "Role", "binder");
    binder["rules"] = json!([{
        "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        "resourceNames": ["cluster-admin"], "verbs": ["bind"],
    }]);
    admin.create(&roles, &binder).await;
    admin.create(&bindings, &role_binding("binder", ("Role", "binder"), "alice")).await;
    let gift = role_binding("gift", ("ClusterRole", "cluster-admin"), "carol");
    eventually("alice may bind", async || {
        (alice.json("POST", &bindings, &gift).await.code == 201).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_or_edits_has_no_secrets_of_the_federation_and_no_roles() {
    let federation = a_federation().await;
    let mut admin = two_namespaces(&federation).await;
    let review = async |raw: &mut Raw, user: &str, verb: &str, resource: &str| {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {
                "namespace": "a", "group": "types.kubefed.io", "verb": verb, "resource": resource,
            }},
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        raw.json("POST", path, &review).await.json()["status"]["allowed"] == true
    };
    for role in ["view", "edit"] {
        let binding = role_binding(role, ("ClusterRole", role), role);
        admin.create(&format!("{RBAC}/namespaces/a/rolebindings"), &binding).await;
        until_allowed(&federation, role, "/api/v1/namespaces/a/configmaps").await;
    }
    for (user, verb, resource, allowed) in [
        ("view", "get", "federateddeployments", true),
        ("view", "create", "federateddeployments", false),
        ("view", "get", "federatedsecrets", false),
        ("view", "list", "federatedclusterroles", false),
        ("edit", "create", "federateddeployments", true),
        ("edit", "patch", "federatedsecrets", true),
        ("edit", "create", "federatedclusterroles", false),
        ("edit", "create", "federatedtypeconfigs", false),
    ] {
        assert_eq!(
            review(&mut admin, user, verb, resource).await,
            allowed,
            "{user} {verb} {resource}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_headers_are_bounded() {
    let federation = a_federation().await;
    let mut admin = two_namespaces(&federation).await;
    let path = "/api/v1/namespaces/a/configmaps";
    let mut large = named("v1", "ConfigMap", "large");
    large["data"] = json!({"text": "x".repeat(3 * 1024 * 1024)});
    let answer = admin.json("POST", path, &large).await;
    assert_eq!(
        (answer.code, answer.json()["reason"].clone()),
        (413, json!("RequestEntityTooLarge"))
    );

    let mut admin = federation.raw_h2(ADMIN).await;
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 0..30 {
        let (this, before) =
            (("b".repeat(n + 1)), if n == 0 { "a".to_owned() } else { "b".repeat(n) });
        let many = vec![format!("*{before}"); 10].join(",");
        bomb += &format!("{this}: &{this} [{many}]\n");
    }
    for (kind, body) in [
        ("application/json", deep.clone()),
        ("application/yaml", deep),
        ("application/yaml", bomb),
        ("application/json", "\u{0}\u{1}".into()),
        (
            "application/json",
            "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":7}}".into(),
        ),
        ("application/json", "null".into()),
    ] {
        let begun = std::time::Instant::now();
        let answer = admin.send("POST", path, &[("content-type", kind)], body).await;
        assert!((400..500).contains(&answer.code), "{kind}: {} {}", answer.code, answer.json());
        assert!(begun.elapsed() < Duration::from_secs(10), "{kind}");
    }
    // More header than a server reads ends the connection at most, not the server.
    let mut stream = federation.stream(None, "http/1.1").await;
    let line = format!("x-filler: {}\r\n", "x".repeat(8000));
    let _cut_off = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n").await;
    for _ in 0..200 {
        if stream.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    let _cut_off = stream.write_all(b"\r\n").await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(federation.raw(None).await.get("/livez").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let federation = a_federation().await;
    let mut stream = federation.stream(ADMIN, "http/1.1").await;
    let head = "POST /api/v1/namespaces/default/configmaps?timeout=300ms HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = [0_u8; 12];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer))
        .await
        .expect("an answer in time")
        .expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 504");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_leaves_no_trace_in_the_metrics() {
    let federation = a_federation().await;
    let mut nobody = federation.raw(None).await;
    for n in 0..20 {
        nobody.get(&format!("/apis/probe{n}.io/v1/things{n}")).await;
        nobody.get(&format!("/api/v1/namespaces/x/secrets/y/probe{n}")).await;
    }
    assert_eq!(nobody.get("/metrics").await.code, 403);
    let mut admin = federation.raw(ADMIN).await;
    admin.get("/apis/probe.io/v1/things").await;
    admin.get("/api/v1/namespaces").await;
    let metrics = String::from_utf8(admin.get("/metrics").await.body.to_vec()).expect("text");
    assert!(metrics.contains("resource=\"namespaces\""), "{metrics}");
    assert!(!metrics.contains("probe"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_program_name_is_not_stored() {
    let federation = a_federation().await;
    let mut admin = federation.raw(ADMIN).await;
    let agent = "x".repeat(100_000);
    let headers = [("user-agent", agent.as_str()), ("content-type", "application/json")];
    let path = "/api/v1/namespaces/default/configmaps";
    let mut body = named("v1", "ConfigMap", "c");
    body["data"] = json!({"a": "b"});
    let answer = admin.send("POST", path, &headers, body.to_string()).await;
    assert_eq!(answer.code, 201);
    let manager = answer.json()["metadata"]["managedFields"][0]["manager"].clone();
    assert_eq!(manager.as_str().map(str::len), Some(128));
}

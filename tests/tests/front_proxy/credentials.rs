//! Tokens, certificates that end, and acting as somebody else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kubefed_apiserver::authn::tokens::{Grant, Reference, Tokens};

use super::*;

const BOT: &str = "system:serviceaccount:a:bot";

/// Only the host says which tokens are good.
pub(super) async fn tokens(scene: &Scene) {
    let admin = scene.host.admin();
    let account = admin.get("/api/v1/namespaces/a/serviceaccounts/bot").await.expect("it is there");
    let uid = account["metadata"]["uid"].as_str().expect("a uid");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let now = i64::try_from(now).expect("in range");
    // The host gives no token that ends within a test, so some are signed here, with its own key.
    let signed = |key: &(String, String), now: i64, lifetime: i64| {
        let registry = &scene.extension.server.registry;
        let tokens = Tokens::new(key.0.as_bytes(), key.1.as_bytes(), registry).expect("keys");
        let grant = Grant {
            namespace: "a",
            service_account: Reference { name: "bot".into(), uid: uid.into() },
            secret: None,
            audiences: Vec::new(),
            now,
            lifetime: Some(lifetime),
        };
        scene.secret(&tokens.issue(grant).expect("a token"))
    };
    let read =
        |name: &str| std::fs::read_to_string(scene.host.dir.path().join(name)).expect("a key");
    let host_key = (read("sa.key"), read("sa.pub"));
    let other_key = kubefed_certs::service_account_key().expect("a key");

    let real = scene.token(json!({})).await;
    let good = signed(&host_key, now, 600);
    let (head, rest) = real.split_once('.').expect("a JWT");
    let (claims, signature) = rest.split_once('.').expect("a JWT");
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64"));
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let forged = encode(&text.expect("text").replace(":bot", ":root"));
    let secret = |token: String| scene.secret(&token);
    let cases = [
        ("a real one", real.clone(), true),
        ("one by the host's key", good, true),
        ("one that has ended", signed(&host_key, now - 3600, 600), false),
        ("one that is to come", signed(&host_key, now + 3600, 600), false),
        ("one by another key", signed(&other_key, now, 600), false),
        ("one for another audience", scene.token(json!({"audiences": ["vault"]})).await, false),
        ("other claims", secret(format!("{head}.{forged}.{signature}")), false),
        ("no signature", secret(format!("{head}.{claims}.")), false),
        ("alg none", secret(format!("{}.{claims}.", encode(r#"{"alg":"none"}"#))), false),
        (
            "alg HS256",
            secret(format!("{}.{claims}.{signature}", encode(r#"{"alg":"HS256"}"#))),
            false,
        ),
        ("garbage", secret("sesame, and more of it".into()), false),
        ("a long one", secret("s".repeat(100_000)), false),
    ];
    let stranger = kubefed_certs::Authority::new("other").expect("an authority");
    let stranger = stranger.issue_client("front-proxy-client", &[]).expect("a certificate");
    let proxy = scene.of_front_proxy();
    for (by, shown) in
        [("nobody", None), ("a stranger", Some(&stranger)), ("the front proxy", Some(&proxy))]
    {
        for protocol in [HTTP1, HTTP2] {
            for (name, token, good) in &cases {
                let mut raw = scene.past(shown, protocol).await;
                let name = format!("{protocol}: a token by {by}: {name}");
                let bearer = format!("Bearer {token}");
                let mut headers = vec![("authorization", bearer.as_str()), ("audit-id", &name)];
                if shown.is_none() {
                    // Nobody's claim changes nothing.
                    headers
                        .extend([("x-remote-user", "root"), ("x-remote-group", "system:masters")]);
                }
                let answer = raw.send("GET", CLUSTERS, &headers, "").await;
                scene.check(&name, &answer);
                assert_eq!(answer.code, if *good { 403 } else { 401 }, "{name}: {}", answer.json());
                let seen = scene.recorded(&name).await["user"].clone();
                assert_eq!(
                    seen["username"],
                    if *good { json!(BOT) } else { Value::Null },
                    "{name}"
                );
            }
        }
    }
    for credential in ["Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "Negotiate abc", ""] {
        let name = format!("a credential: {credential:?}");
        let mut raw = scene.past(None, HTTP2).await;
        scene.expect(&mut raw, &name, &[("authorization", credential)], &Value::Null).await;
    }
    // A token of an account that is gone is none.
    admin.delete("/api/v1/namespaces/a/serviceaccounts/bot", &json!({})).await.expect("deleted");
    let bearer = format!("Bearer {real}");
    let mut raw = scene.past(None, HTTP2).await;
    eventually("the token is refused", async || {
        let answer = raw.send("GET", CLUSTERS, &[("authorization", &bearer)], "").await;
        assert!(matches!(answer.code, 401 | 403), "{}", answer.code);
        (answer.code == 401).then_some(())
    })
    .await;
    scene
        .create("/api/v1/namespaces/a/serviceaccounts", named("v1", "ServiceAccount", "bot"))
        .await;
}

/// Who may be somebody else, and whom.
pub(super) async fn impersonation(scene: &Scene) {
    let mut role = named("rbac.authorization.k8s.io/v1", "ClusterRole", "as-carol");
    role["rules"] = json!([
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["carol"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["ops"], "verbs": ["impersonate"]},
    ]);
    scene.create(&format!("{RBAC}/clusterroles"), role).await;
    let mut binding = named("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "as-carol");
    binding["roleRef"] =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "as-carol"});
    binding["subjects"] = json!([subject("dave")]);
    scene.create(&format!("{RBAC}/clusterrolebindings"), binding).await;

    let (dave, proxy) = (scene.of_host("dave", &[]), scene.of_front_proxy());
    let mut by_himself = scene.past(Some(&dave), HTTP1).await;
    let mut by_proxy = scene.past(Some(&proxy), HTTP2).await;
    let mut nobody = scene.past(None, HTTP1).await;
    let as_carol = [("impersonate-user", "carol"), ("impersonate-group", "ops")];
    eventually("the host knows the rights", async || {
        let answer = by_himself.send("GET", CLUSTERS, &as_carol, "").await;
        answer.json()["message"].as_str()?.contains("User \"carol\"").then_some(())
    })
    .await;
    let cases: &[(Lines<'_>, u16, &str)] = &[
        (&as_carol, 403, "User \"carol\" cannot list"),
        (&[("impersonate-user", "root")], 403, "cannot impersonate resource \"users\""),
        (&[("impersonate-user", BOT)], 403, "cannot impersonate resource \"serviceaccounts\""),
        (
            &[as_carol[0], ("impersonate-group", "system:masters")],
            403,
            "cannot impersonate resource \"groups\"",
        ),
        (
            &[as_carol[0], as_carol[1], ("impersonate-group", "system:masters")],
            403,
            "cannot impersonate resource \"groups\"",
        ),
        (&[as_carol[0], ("impersonate-uid", "0")], 403, "cannot impersonate resource \"uids\""),
        (
            &[as_carol[0], ("impersonate-extra-scopes", "all")],
            403,
            "cannot impersonate resource \"userextras/scopes\"",
        ),
        (&[("impersonate-group", "system:masters")], 400, "without impersonating a user"),
        (
            &[("impersonate-user", ""), ("impersonate-group", "system:masters")],
            400,
            "without impersonating a user",
        ),
        (&[("impersonate_user", "root")], 403, "User \"dave\" cannot list"),
    ];
    for (headers, code, words) in cases {
        let mut proxied = vec![("x-remote-user", "dave")];
        proxied.extend_from_slice(headers);
        let answers = [
            by_himself.send("GET", CLUSTERS, headers, "").await,
            by_proxy.send("GET", CLUSTERS, &proxied, "").await,
        ];
        for answer in answers {
            let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
            assert_eq!(answer.code, *code, "{headers:?}: {message}");
            assert!(message.contains(words), "{headers:?}: {message}");
        }
        let answer = nobody.send("GET", CLUSTERS, headers, "").await;
        assert!(matches!(answer.code, 400 | 403), "{headers:?}: {}", answer.code);
    }
}

/// A connection outlives its certificate, but what the certificate proved does not.
pub(super) async fn a_certificate_that_ends(scene: &Scene) {
    let until = SystemTime::now() + Duration::from_secs(4);
    let from = until - Duration::from_secs(3600);
    let pair = |authority: &kubefed_certs::Authority, user: &str, groups: &[&str]| {
        authority.issue_client_between(user, groups, from, until).expect("a certificate")
    };
    let client = pair(&scene.host.authority, "admin", &["system:masters"]);
    let proxy = pair(&scene.host.front_proxy, "front-proxy-client", &[]);
    let claim = [("x-remote-user", "root"), ("x-remote-group", "system:masters")];
    for (shown, headers) in [(&client, &[][..]), (&proxy, &claim)] {
        let mut raw = scene.past(Some(shown), HTTP2).await;
        eventually("the certificate ends", async || {
            let answer = raw.send("GET", CLUSTERS, headers, "").await;
            let is_over = SystemTime::now() > until + Duration::from_secs(1);
            match answer.code {
                200 => assert!(!is_over, "it is believed after its end"),
                code => assert_eq!(code, 401),
            }
            (answer.code == 401).then_some(())
        })
        .await;
    }
}

//! Whom a request claims to come from.

use std::time::{Duration, SystemTime};

use kubefed_certs::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const MASTER: Lines<'_> = &[("X-Remote-User", "root"), ("X-Remote-Group", "system:masters")];

fn user(name: &str, groups: &[&str]) -> Value {
    json!({"username": name, "groups": groups})
}

/// The same claim by everybody: only the front proxy is believed.
pub(super) async fn by_certificate(scene: &Scene) {
    let host = &scene.host;
    let client = |authority: &Authority| {
        Some(authority.issue_client("front-proxy-client", &[]).expect("a certificate"))
    };
    let another = |name: &str| client(&Authority::new(name).expect("an authority"));
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let between = |authority: &Authority, user: &str, from, until| {
        Some(authority.issue_client_between(user, &[], from, until).expect("a certificate"))
    };
    let proxy = |from, until| between(&host.front_proxy, "front-proxy-client", from, until);
    let server = host.front_proxy.issue_server("front-proxy-client", &["localhost"]);
    let itself = host.front_proxy.to_pem().expect("PEM");
    let cases = [
        ("no certificate", None, anonymous()),
        ("a certificate of another CA", another("other"), Value::Null),
        ("a certificate of another CA of the same name", another("front-proxy"), Value::Null),
        ("a certificate of our own serving CA", own(scene), Value::Null),
        (
            "a certificate of the host's client CA",
            Some(scene.of_host("alice", &["ops"])),
            user("alice", &["ops", AUTHENTICATED]),
        ),
        (
            "a certificate of the host's client CA in the front proxy's name",
            client(&host.authority),
            user("front-proxy-client", &[AUTHENTICATED]),
        ),
        (
            "a name that is not allowed",
            Some(host.front_proxy.issue_client("intruder", &[]).expect("a certificate")),
            Value::Null,
        ),
        (
            "an allowed name as the organization",
            Some(
                host.front_proxy
                    .issue_client("intruder", &["front-proxy-client"])
                    .expect("a certificate"),
            ),
            Value::Null,
        ),
        ("a certificate for servers", Some(server.expect("a certificate")), Value::Null),
        ("the CA's own certificate", Some(itself), Value::Null),
        ("a front proxy that has ended", proxy(now - 2 * hour, now - hour), Value::Null),
        ("a front proxy that is to come", proxy(now + hour, now + 2 * hour), Value::Null),
        (
            "a client that has ended",
            between(&host.authority, "alice", now - 2 * hour, now - hour),
            Value::Null,
        ),
        (
            "the front proxy",
            Some(scene.of_front_proxy()),
            user("root", &["system:masters", AUTHENTICATED]),
        ),
    ];
    for (name, shown, wanted) in &cases {
        for protocol in [HTTP1, HTTP2] {
            let mut raw = scene.past(shown.as_ref(), protocol).await;
            scene.expect(&mut raw, &format!("{protocol}: {name}"), MASTER, wanted).await;
        }
    }
}

fn own(scene: &Scene) -> Option<KeyPairPem> {
    let name = scene.extension.kubeconfig("own", "front-proxy-client", &[]);
    let read = |end: &str| std::fs::read_to_string(name.with_extension(end)).expect("a file");
    Some(KeyPairPem { cert_pem: read("crt"), key_pem: read("key") })
}

/// What the front proxy itself says, and what it would never say.
pub(super) async fn by_header(scene: &Scene) {
    let garbage = scene.secret("sesame-in-a-header");
    let garbage = format!("Bearer {garbage}");
    let good = format!("Bearer {}", scene.token(json!({})).await);
    let bob = |groups: &[&str]| user("bob", groups);
    let anybody = || bob(&[AUTHENTICATED]);
    let cases: &[(&str, Lines<'_>, Value)] = &[
        ("no header", &[], Value::Null),
        ("an empty user", &[("X-Remote-User", ""), MASTER[1]], Value::Null),
        ("a user of spaces", &[("X-Remote-User", "  "), MASTER[1]], Value::Null),
        ("a group and no user", &[MASTER[1]], Value::Null),
        ("a uid and no user", &[("X-Remote-Uid", "0")], Value::Null),
        ("extra and no user", &[("X-Remote-Extra-Scopes", "all")], Value::Null),
        ("underscores", &[("X_Remote_User", "root"), ("X_Remote_Group", "g")], Value::Null),
        ("an encoded name", &[("X%2DRemote%2DUser", "root")], Value::Null),
        (
            "headers of other proxies",
            &[("X-Forwarded-User", "root"), ("Remote-User", "root")],
            Value::Null,
        ),
        ("two users", &[("X-Remote-User", "bob"), ("X-Remote-User", "root")], Value::Null),
        ("the same user twice", &[("X-Remote-User", "bob"), ("X-Remote-User", "bob")], Value::Null),
        (
            "an empty user and another",
            &[("X-Remote-User", ""), ("X-Remote-User", "root")],
            Value::Null,
        ),
        (
            "two uids",
            &[("X-Remote-User", "bob"), ("X-Remote-Uid", "1"), ("X-Remote-Uid", "0")],
            Value::Null,
        ),
        (
            "users in one header",
            &[("X-Remote-User", "bob, root")],
            user("bob, root", &[AUTHENTICATED]),
        ),
        (
            "underscores beside the true name",
            &[("X-Remote-User", "bob"), ("X_Remote_Group", "system:masters")],
            anybody(),
        ),
        (
            "odd case",
            &[("x-REMOTE-uSER", "bob"), ("X-REMOTE-GROUP", "ops")],
            bob(&["ops", AUTHENTICATED]),
        ),
        (
            "groups",
            &[("X-Remote-User", "bob"), ("X-Remote-Group", "ops"), ("X-Remote-Group", "dev")],
            bob(&["ops", "dev", AUTHENTICATED]),
        ),
        (
            "groups in one header",
            &[("X-Remote-User", "bob"), ("X-Remote-Group", "ops,system:masters")],
            bob(&["ops,system:masters", AUTHENTICATED]),
        ),
        (
            "groups of another case",
            &[("X-Remote-User", "bob"), ("X-Remote-Group", "System:Masters")],
            bob(&["System:Masters", AUTHENTICATED]),
        ),
        ("an empty group", &[("X-Remote-User", "bob"), ("X-Remote-Group", "")], anybody()),
        (
            "an extra without a key",
            &[("X-Remote-User", "bob"), ("X-Remote-Extra-", "all")],
            anybody(),
        ),
        (
            "nobody",
            &[("X-Remote-User", "system:anonymous"), ("X-Remote-Group", "system:unauthenticated")],
            anonymous(),
        ),
        (
            "one of the unauthenticated",
            &[("X-Remote-User", "bob"), ("X-Remote-Group", "system:unauthenticated")],
            bob(&["system:unauthenticated"]),
        ),
        ("a bad token beside", &[("X-Remote-User", "bob"), ("Authorization", &garbage)], anybody()),
        ("a good token beside", &[("X-Remote-User", "bob"), ("Authorization", &good)], anybody()),
        ("a bad token and no user", &[MASTER[1], ("Authorization", &garbage)], Value::Null),
    ];
    let proxy = scene.of_front_proxy();
    for (name, headers, wanted) in cases {
        for protocol in [HTTP1, HTTP2] {
            let mut raw = scene.past(Some(&proxy), protocol).await;
            scene.expect(&mut raw, &format!("{protocol}: said: {name}"), headers, wanted).await;
        }
    }
    let all = [
        ("X-Remote-User", "bob"),
        ("X-Remote-Uid", "7"),
        ("X-Remote-Extra-Example.com%2FScopes", "read"),
        ("x-remote-extra-example.com%2fscopes", "write"),
    ];
    let mut wanted = anybody();
    wanted["uid"] = json!("7");
    wanted["extra"] = json!({"example.com/scopes": ["read", "write"]});
    let mut raw = scene.past(Some(&proxy), HTTP2).await;
    scene.expect(&mut raw, "said: uid and extra", &all, &wanted).await;
}

/// Who sends what, the code of the answer, and the user that is recorded; null where it does not get so far.
type Wire<'a> = (&'a str, Option<&'a KeyPairPem>, &'a [u8], u16, Value);

/// What no client library would send.
pub(super) async fn on_the_wire(scene: &Scene) {
    let proxy = scene.of_front_proxy();
    let trailers = "Transfer-Encoding: chunked\r\nTrailer: X-Remote-User\r\n\r\n0\r\nX-Remote-User: root\r\n\
                    X-Remote-Group: system:masters\r\n\r\n";
    let cases: &[Wire<'_>] = &[
        ("trailers of the front proxy", Some(&proxy), trailers.as_bytes(), 401, json!({})),
        ("trailers of nobody", None, trailers.as_bytes(), 403, anonymous()),
        (
            "a nominated header",
            Some(&proxy),
            b"X-Remote-User: bob\r\nConnection: X-Remote-User\r\n\r\n",
            403,
            user("bob", &[AUTHENTICATED]),
        ),
        ("a user that is no text", Some(&proxy), b"X-Remote-User: b\xffb\r\n\r\n", 401, json!({})),
        ("a folded line", Some(&proxy), b"X-Remote-User: bob\r\n root\r\n\r\n", 400, Value::Null),
        (
            "a space before the colon",
            Some(&proxy),
            b"X-Remote-User : bob\r\n\r\n",
            400,
            Value::Null,
        ),
        ("a NUL", Some(&proxy), b"X-Remote-User: bob\0root\r\n\r\n", 400, Value::Null),
        (
            "a bare CR",
            Some(&proxy),
            b"X-Remote-User: bob\rX-Remote-Group: g\r\n\r\n",
            400,
            Value::Null,
        ),
        ("a bare CR of nobody", None, b"A: b\rX-Remote-User: root\r\n\r\n", 400, Value::Null),
        (
            "two lengths",
            Some(&proxy),
            b"Content-Length: 0\r\nContent-Length: 5\r\nX-Remote-User: bob\r\n\r\n",
            400,
            Value::Null,
        ),
    ];
    for (name, shown, rest, code, wanted) in cases {
        let mut stream = scene.extension.stream_of(*shown, HTTP1).await;
        let head = format!(
            "POST {READABLE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAudit-ID: {name}\r\n"
        );
        stream.write_all(&[head.as_bytes(), rest].concat()).await.expect("sent");
        let mut answer = Vec::new();
        // A connection that is given up may end without TLS' farewell.
        let _end = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{name}: {answer}");
        scene.check_text(name, &answer);
        if !wanted.is_null() {
            assert_eq!(scene.recorded(name).await["user"], *wanted, "{name}");
        }
    }
}

/// Each request of a connection is judged by itself, one after the other and many at a time.
pub(super) async fn over_one_connection(scene: &Scene) {
    let proxy = scene.of_front_proxy();
    let (bob, carol) = (user("bob", &[AUTHENTICATED]), user("carol", &["ops", AUTHENTICATED]));
    let root = user("root", &["system:masters", AUTHENTICATED]);
    let requests: &[(Lines<'_>, &Value)] = &[
        (&[("X-Remote-User", "bob")], &bob),
        (&[], &Value::Null),
        (MASTER, &root),
        (&[MASTER[1]], &Value::Null),
        (&[("X-Remote-User", "carol"), ("X-Remote-Group", "ops")], &carol),
        (&[("X-Remote-User", "bob")], &bob),
        (&[], &Value::Null),
    ];
    for protocol in [HTTP1, HTTP2] {
        let mut raw = scene.past(Some(&proxy), protocol).await;
        for (at, (headers, wanted)) in requests.iter().enumerate() {
            scene.expect(&mut raw, &format!("{protocol}: reused {at}"), headers, wanted).await;
            if wanted.is_null() {
                // Who is refused keeps no connection.
                raw = scene.past(Some(&proxy), protocol).await;
            }
        }
    }
    let Raw::Http2(sender) = scene.past(Some(&proxy), HTTP2).await else { panic!("HTTP/2") };
    let asked = (0..50).map(|at| {
        let mut raw = Raw::Http2(sender.clone());
        tokio::spawn(async move {
            let name = format!("user-{at}");
            let headers = [("X-Remote-User", name.as_str()), MASTER[1]];
            // Each third is an administrator.
            let headers = if at % 3 == 0 { &headers[..] } else { &headers[..1] };
            (at, raw.send("GET", CLUSTERS, headers, "").await)
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        let (at, answer) = asked.await.expect("an answer");
        assert_eq!(answer.code, if at % 3 == 0 { 200 } else { 403 });
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(at % 3 == 0 || message.contains(&format!("User \"user-{at}\" ")), "{message}");
    }
}

/// The host says who asks, whatever they say themselves.
pub(super) async fn through_the_host(scene: &Scene) {
    scene.let_read("alice").await;
    scene.host.register(&scene.extension).await;
    let client = scene.host.client("alice", &["ops"]);
    eventually("the host leads to us", async || client.get(READABLE).await.ok()).await;
    let alice = scene.of_host("alice", &["ops"]);
    let cases: &[(&str, Lines<'_>)] = &[
        ("a claim", MASTER),
        (
            "a claim by odd names",
            &[("x_remote_user", "root"), ("X-REMOTE-GROUP", "system:masters")],
        ),
        ("nominated headers", &[("Connection", "X-Remote-User, X-Remote-Group, X-Remote-Uid")]),
        ("extra", &[("X-Remote-Extra-Scopes", "all"), ("X-Remote-Uid", "0")]),
    ];
    for protocol in [HTTP1, HTTP2] {
        for (name, headers) in cases {
            let name = format!("{protocol}: through the host: {name}");
            let mut raw = scene.host.raw(&alice, protocol).await;
            let mut headers = headers.to_vec();
            headers.push(("audit-id", &name));
            let answer = raw.send("GET", READABLE, &headers, "").await;
            scene.check(&name, &answer);
            assert_eq!(answer.code, 200, "{name}: {}", answer.json());
            let seen = scene.recorded(&name).await["user"].clone();
            assert_eq!(seen["username"], "alice", "{name}");
            assert_eq!(seen["groups"], json!(["ops", AUTHENTICATED]), "{name}");
            assert_eq!(seen["extra"]["scopes"], Value::Null, "{name}");
            assert_ne!(seen["uid"], "0", "{name}");
        }
    }
}

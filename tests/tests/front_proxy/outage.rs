//! Decisions of the host that change, and a host that does not answer.

use std::time::{Duration, Instant};

use super::*;

/// An answer is good for 10 s; the rest is for a machine that is busy with other tests.
const TAKEN_UP: Duration = Duration::from_secs(10 + 5);

/// What the host decides anew holds soon, and is asked for seldom enough.
pub(super) async fn decisions_change(scene: &Scene) {
    let alice = scene.of_host("alice", &[]);
    let mut raw = scene.past(Some(&alice), HTTP2).await;
    assert_eq!(raw.get(READABLE).await.code, 403);
    scene.let_read("alice").await;
    until(&mut raw, 200, &[403]).await;

    let admin = scene.host.admin();
    let binding = format!("{RBAC}/namespaces/a/rolebindings/alice");
    admin.delete(&binding, &json!({})).await.expect("deleted");
    scene.until_host_says("alice", false).await;
    until(&mut raw, 403, &[200]).await;
    scene.let_read("alice").await;
    until(&mut raw, 200, &[403]).await;
}

/// Waits until the answer has this code; until then it has one of `before`.
async fn until(raw: &mut Raw, code: u16, before: &[u16]) {
    let began = Instant::now();
    loop {
        let answer = raw.get(READABLE).await;
        if answer.code == code {
            return;
        }
        assert!(before.contains(&answer.code), "{}: {}", answer.code, answer.json());
        assert!(began.elapsed() < TAKEN_UP, "{} is still the answer", answer.code);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A host that keeps its connections and says nothing is not waited for without end, and lets nobody in.
pub(super) async fn the_host_hangs(scene: &Scene) {
    let mut dora = scene.past(Some(&scene.of_host("dora", &[])), HTTP2).await;
    let mut nobody = scene.past(None, HTTP2).await;
    let bearer = format!("Bearer {}", scene.token(json!({})).await);
    let credential = [("authorization", bearer.as_str())];
    scene.host.freeze(true);
    let (by_right, by_token) =
        tokio::join!(dora.get(READABLE), nobody.send("GET", READABLE, &credential, ""));
    scene.host.freeze(false);
    assert_eq!((by_right.code, by_token.code), (500, 401));
    scene.check("a token while the host hangs", &by_token);
    until(&mut dora, 403, &[500]).await;
    eventually("the token is believed", async || {
        (nobody.send("GET", READABLE, &credential, "").await.code == 403).then_some(())
    })
    .await;
}

/// Nobody is let in by a host that does not answer; when it is back, all is as before.
pub(super) async fn the_host_falls(scene: &mut Scene) {
    let shown = |user: &str| scene.of_host(user, &[]);
    let mut alice = scene.past(Some(&shown("alice")), HTTP2).await;
    let mut carol = scene.past(Some(&shown("carol")), HTTP2).await;
    let admin = scene.of_host("admin", &["system:masters"]);
    let mut admin = scene.past(Some(&admin), HTTP2).await;
    let mut proxy = scene.past(Some(&scene.of_front_proxy()), HTTP2).await;
    let mut nobody = scene.past(None, HTTP2).await;
    let bearer = |token: String| format!("Bearer {token}");
    let known = bearer(scene.token(json!({})).await);
    let unknown = bearer(scene.token(json!({"expirationSeconds": 1200})).await);
    let answer = nobody.send("GET", READABLE, &[("authorization", &known)], "").await;
    assert_eq!(answer.code, 403);
    assert_eq!(alice.get(READABLE).await.code, 200);

    scene.host.fall();
    let code_of = async |raw: &mut Raw, path: &str, headers: Lines<'_>| {
        let answer = raw.send("GET", path, headers, "").await;
        scene.check("while the host is down", &answer);
        answer.code
    };
    let mut down: Vec<(&str, u16)> = Vec::new();
    for _ in 0..2 {
        let is_erin = [("x-remote-user", "erin")];
        let as_alice = [("impersonate-user", "alice")];
        down.extend([
            ("a token", code_of(&mut nobody, READABLE, &[("authorization", &unknown)]).await),
            ("garbage", code_of(&mut nobody, READABLE, &[("authorization", "Bearer x")]).await),
            ("a user of the host", code_of(&mut carol, READABLE, &[]).await),
            ("a user by the front proxy", code_of(&mut proxy, READABLE, &is_erin).await),
            ("nobody", code_of(&mut nobody, READABLE, &[]).await),
            ("another by right", code_of(&mut carol, READABLE, &as_alice).await),
            (
                "an administrator, who needs no word of the host",
                code_of(&mut admin, READABLE, &[]).await,
            ),
            ("a probe", code_of(&mut nobody, "/livez", &[]).await),
        ]);
    }
    let wanted = [401, 401, 500, 500, 500, 500, 200, 200];
    for ((what, code), wanted) in down.iter().zip(wanted.iter().cycle()) {
        assert_eq!(code, wanted, "{what}");
    }
    // Not even an administrator writes into a namespace that the host does not vouch for.
    let mut cluster = named("core.kubefed.io/v1beta1", "KubeFedCluster", "one");
    cluster["spec"] =
        json!({"apiEndpoint": "https://one.example.com", "secretRef": {"name": "one"}});
    let path = "/apis/core.kubefed.io/v1beta1/namespaces/unknown/kubefedclusters";
    assert_eq!(admin.json("POST", path, &cluster).await.code, 500);

    // What was allowed a moment ago is not for long.
    until(&mut alice, 500, &[200]).await;
    let began = Instant::now();
    while nobody.send("GET", READABLE, &[("authorization", &known)], "").await.code != 401 {
        assert!(began.elapsed() < TAKEN_UP, "the token is still believed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(alice.get(READABLE).await.code, 500);

    scene.host.come_back().await;
    until(&mut alice, 200, &[500]).await;
    until(&mut carol, 403, &[500]).await;
    for token in [&known, &unknown] {
        eventually("the token is believed again", async || {
            let answer = nobody.send("GET", READABLE, &[("authorization", token)], "").await;
            (answer.code == 403).then_some(())
        })
        .await;
    }
    eventually("the namespace is known not to be there", async || {
        (admin.json("POST", path, &cluster).await.code == 404).then_some(())
    })
    .await;
}

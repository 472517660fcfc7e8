//! Decisions of the host that change, and a host that does not answer.

use std::time::{Duration, Instant};

use super::*;

/// An answer is good for 10 s, and one that fails takes 4 s; the rest is for a machine that is busy with other tests.
const TAKEN_UP: Duration = Duration::from_secs(10 + 4 + 6);

impl Scene {
    /// A request by the token alone, over a connection of its own: one that is refused is not kept.
    async fn by_token(&self, bearer: &str) -> Answer {
        let headers = [("authorization", bearer)];
        self.past(None, HTTP2).await.send("GET", READABLE, &headers, "").await
    }
}

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

/// A host that is not reached at first and then is: nobody who asks meanwhile is told.
pub(super) async fn the_host_is_away_for_a_moment(scene: &Scene) {
    let mut frank = scene.past(Some(&scene.of_host("frank", &[])), HTTP2).await;
    let bearer = format!("Bearer {}", scene.token(json!({})).await);
    scene.road.cut();
    let mended = async {
        eventually("they are turned away", async || (scene.road.turned_away() >= 4).then_some(()))
            .await;
        scene.road.mend();
    };
    let (by_right, by_token, ()) =
        tokio::join!(frank.get(READABLE), scene.by_token(&bearer), mended);
    assert_eq!((by_right.code, by_token.code), (403, 403), "{}", by_right.json());
}

/// A host that keeps its connections and says nothing is not waited for without end, and lets nobody in.
pub(super) async fn the_host_hangs(scene: &Scene) {
    let mut dora = scene.past(Some(&scene.of_host("dora", &[])), HTTP2).await;
    let bearer = format!("Bearer {}", scene.token(json!({})).await);
    scene.host.freeze(true);
    let began = Instant::now();
    let mut impatient = scene.past(Some(&scene.of_host("gina", &[])), HTTP2).await;
    let in_time = format!("{READABLE}?timeout=1s");
    let (by_right, by_token, by_deadline) =
        tokio::join!(dora.get(READABLE), scene.by_token(&bearer), async {
            let answer = impatient.get(&in_time).await;
            (answer.code, began.elapsed())
        });
    scene.host.freeze(false);
    // Whoever has less time than the host is given is not kept waiting.
    assert_eq!(by_deadline.0, 504);
    assert!(by_deadline.1 < Duration::from_secs(8), "{:?}", by_deadline.1);
    assert_eq!((by_right.code, by_token.code), (500, 401));
    scene.check("a token while the host hangs", &by_token);
    until(&mut dora, 403, &[500]).await;
    eventually("the token is believed", async || {
        (scene.by_token(&bearer).await.code == 403).then_some(())
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
    let bearer = |token: String| format!("Bearer {token}");
    let known = bearer(scene.token(json!({})).await);
    let unknown = bearer(scene.token(json!({"expirationSeconds": 1200})).await);
    assert_eq!(scene.by_token(&known).await.code, 403);
    assert_eq!(alice.get(READABLE).await.code, 200);

    scene.host.fall();
    let shown = |user: &str| scene.of_host(user, &[]);
    // All at a time: each is waited for until the host was asked as often as it is.
    let code_of = async |shown: Option<KeyPairPem>, path: &str, headers: Lines<'_>| {
        let answer = scene.past(shown.as_ref(), HTTP2).await.send("GET", path, headers, "").await;
        scene.check("while the host is down", &answer);
        answer.code
    };
    let token = [("authorization", unknown.as_str())];
    let garbage = [("authorization", "Bearer x")];
    let (as_erin, as_alice) = ([("x-remote-user", "erin")], [("impersonate-user", "alice")]);
    let down = tokio::join!(
        code_of(None, READABLE, &token),
        code_of(None, READABLE, &garbage),
        code_of(Some(shown("carol")), READABLE, &[]),
        code_of(Some(scene.of_front_proxy()), READABLE, &as_erin),
        code_of(None, READABLE, &[]),
        code_of(Some(shown("carol")), READABLE, &as_alice),
    );
    assert_eq!(
        down,
        (401, 401, 500, 500, 500, 500),
        "a token, garbage, a user of the host, one by the front proxy, nobody, another by right"
    );
    assert_eq!(admin.get(READABLE).await.code, 200, "who needs no word of the host");
    assert_eq!(code_of(None, "/livez", &[]).await, 200);
    // Not even an administrator writes into a namespace that the host does not vouch for.
    let mut cluster = named("core.kubefed.io/v1beta1", "KubeFedCluster", "one");
    cluster["spec"] =
        json!({"apiEndpoint": "https://one.example.com", "secretRef": {"name": "one"}});
    let path = "/apis/core.kubefed.io/v1beta1/namespaces/unknown/kubefedclusters";
    assert_eq!(admin.json("POST", path, &cluster).await.code, 500);

    // What was allowed a moment ago is not for long.
    until(&mut alice, 500, &[200]).await;
    let began = Instant::now();
    while scene.by_token(&known).await.code != 401 {
        assert!(began.elapsed() < TAKEN_UP, "the token is still believed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    scene.host.come_back().await;
    until(&mut alice, 200, &[500]).await;
    until(&mut carol, 403, &[500]).await;
    for token in [&known, &unknown] {
        eventually("the token is believed again", async || {
            (scene.by_token(token).await.code == 403).then_some(())
        })
        .await;
    }
    eventually("the namespace is known not to be there", async || {
        (admin.json("POST", path, &cluster).await.code == 404).then_some(())
    })
    .await;
}

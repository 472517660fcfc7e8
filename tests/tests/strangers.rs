//! Who proves nothing is answered, but keeps no connection by HTTP/2, where requests are cheap to send.

use std::time::Duration;

use kubefed_certs::ClientTls;
use kubefed_controllers::client::{Access, Client};
use kubefed_tests::raw::{ADMIN, Raw};
use kubefed_tests::{Cluster, a_federation, eventually};

const BAD: &[(&str, &str)] = &[("authorization", "Bearer open-sesame")];

async fn until_closed(raw: &Raw) {
    eventually("the connection ends", async || {
        let closed = match raw {
            Raw::Http1(sender) => sender.is_closed(),
            Raw::Http2(sender) => sender.is_closed(),
        };
        closed.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_http_2_nobody_keeps_a_connection_who_proves_nothing() {
    let federation = a_federation().await;
    for (headers, code) in [(&[][..], 200), (BAD, 401)] {
        let mut raw = federation.raw_h2(None).await;
        assert_eq!(raw.send("GET", "/version", headers, "").await.code, code);
        until_closed(&raw).await;
    }
    // One that is refused later goes then; until then it stays.
    let mut raw = federation.raw_h2(ADMIN).await;
    for _ in 0..20 {
        assert_eq!(raw.get("/version").await.code, 200);
    }
    let mut admin = federation.raw_h2(ADMIN).await;
    let missing = "/api/v1/namespaces/default/configmaps/missing";
    for _ in 0..3 {
        assert_eq!(admin.get(missing).await.code, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_http_1_a_connection_ends_with_a_refusal() {
    let federation = a_federation().await;
    let mut raw = federation.raw(None).await;
    for _ in 0..3 {
        let answer = raw.get("/version").await;
        assert_eq!(answer.code, 200);
        assert!(!answer.headers.contains_key("connection"), "{:?}", answer.headers);
        assert_eq!(raw.get("/api/v1/namespaces").await.code, 403);
    }
    let answer = raw.send("GET", "/version", BAD, "").await;
    assert_eq!(answer.code, 401);
    assert_eq!(answer.headers["connection"], "close");
    until_closed(&raw).await;
}

fn anonymous(federation: &Cluster) -> Client {
    let ca_pem = std::fs::read(federation.ca_file()).expect("the CA");
    let tls = ClientTls { ca_pem, ..ClientTls::default() };
    Client::new(Access { url: federation.url(), tls, ..Access::default() }).expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_proves_nothing_is_answered_each_time() {
    let federation = a_federation().await;
    let client = anonymous(&federation);
    for _ in 0..20 {
        // A connection may end just when a request is put on it: its client asks again then, as kubectl's does.
        let version = eventually("an answer", async || {
            client.text("/version", Duration::from_secs(20)).await.ok()
        })
        .await;
        assert!(version.contains("gitVersion"), "{version}");
    }
    // Requests that the server has when it says that it takes no more are answered as well.
    let mut raw = federation.raw_h2(None).await;
    let Raw::Http2(sender) = &mut raw else { panic!("HTTP/2") };
    let asked = (0..20).map(|_| {
        let request = http::Request::get("https://localhost/version").body(Default::default());
        sender.send_request(request.expect("a request"))
    });
    for answer in asked.collect::<Vec<_>>() {
        assert_eq!(answer.await.expect("an answer").status(), 200);
    }
    until_closed(&raw).await;
}

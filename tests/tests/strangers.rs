//! Who proves nothing is answered, but keeps no connection by HTTP/2, where requests are cheap to send.

use std::time::Duration;

use kubefed_certs::ClientTls;
use kubefed_controllers::client::{Access, Client};
use kubefed_tests::raw::{ADMIN, HTTP2, Raw};
use kubefed_tests::{Cluster, PATIENCE, a_federation, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

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
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;
/// `:method: GET`, `:scheme: https`, `:path: /version`, `:authority: localhost`, as RFC 7541 packs them.
const VERSION: &[u8] = b"\x82\x87\x04\x08/version\x01\x09localhost";
/// The first byte of the headers of an answer: `:status: 200` in the same way.
const OK: u8 = 0x88;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The first byte of each answer until the connection ends.
async fn answers(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let (mut answers, mut head) = (Vec::new(), [0; 9]);
    while stream.read_exact(&mut head).await.is_ok() {
        let [high, middle, low, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        stream.read_exact(&mut payload).await.expect("a whole frame");
        let reply = match kind {
            HEADERS => {
                answers.push(payload[0]);
                continue;
            }
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, &payload),
            _ => continue,
        };
        stream.write_all(&reply).await.expect("the server reads");
        stream.flush().await.expect("the server reads");
    }
    answers
}

/// A client of HTTP/2 sends no more once it is told to go, so these frames are written by hand: all at once, before the
/// server can have said anything of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_when_the_server_said_so_is_answered() {
    let federation = a_federation().await;
    let mut stream = federation.stream(None, HTTP2).await;
    let requests = (0..20).map(|n| frame(HEADERS, WHOLE, 2 * n + 1, VERSION));
    let requests: Vec<u8> = requests.flatten().collect();
    let sent = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &requests].concat();
    stream.write_all(&sent).await.expect("the server reads");
    stream.flush().await.expect("the server reads");
    let answers = tokio::time::timeout(PATIENCE, answers(&mut stream)).await;
    assert_eq!(answers.expect("the connection ends"), [OK; 20]);
}

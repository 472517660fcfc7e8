//! Large answers, compressed for who takes that.

use std::io::Read as _;

use flate2::read::GzDecoder;
use kubefed_tests::raw::{ADMIN, Answer};
use kubefed_tests::{Cluster, a_federation};
use serde_json::json;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Several hundred KiB, small beside their labels.
async fn many_configmaps(federation: &Cluster) {
    let mut admin = federation.raw_h2(ADMIN).await;
    for number in 0..60 {
        let text = format!("{number} ").repeat(2000);
        let configmap = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("c-{number}"), "annotations": {"text": text}},
            "data": {"text": text},
        });
        admin.create(CONFIGMAPS, &configmap).await;
    }
}

fn unpacked(answer: &Answer) -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(&answer.body[..]).read_to_end(&mut text).expect("gzip");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_is_compressed_for_who_takes_that_and_is_the_same() {
    let federation = a_federation().await;
    many_configmaps(&federation).await;
    let connections = [federation.raw(ADMIN).await, federation.raw_h2(ADMIN).await];
    for mut admin in connections {
        for (path, accept) in [
            (CONFIGMAPS, "application/json"),
            (CONFIGMAPS, "application/yaml"),
            (CONFIGMAPS, TABLE),
            (&format!("{CONFIGMAPS}?limit=20"), "application/json"),
            ("/openapi/v2", "application/json"),
        ] {
            let plain = admin.send("GET", path, &[("accept", accept)], "").await;
            assert_eq!(plain.code, 200, "{path}");
            assert!(plain.body.len() > 128 * 1024, "{path}: {}", plain.body.len());
            assert!(!plain.headers.contains_key("content-encoding"), "{path}");
            let both = [("accept", accept), ("accept-encoding", "gzip, deflate")];
            let packed = admin.send("GET", path, &both, "").await;
            assert_eq!(packed.headers["content-encoding"], "gzip", "{path}");
            assert_eq!(packed.headers["content-type"], plain.headers["content-type"]);
            for answer in [&plain, &packed] {
                let mut vary = answer.headers.get_all("vary").iter();
                assert!(vary.any(|vary| vary == "Accept-Encoding"), "{path}");
            }
            assert!(packed.body.len() < plain.body.len() / 3, "{path}: {}", packed.body.len());
            assert!(unpacked(&packed) == plain.body, "{path} is another when compressed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_small_and_a_watch_are_sent_as_they_are() {
    let federation = a_federation().await;
    many_configmaps(&federation).await;
    let mut admin = federation.raw_h2(ADMIN).await;
    for path in [
        "/api/v1/namespaces",
        &format!("{CONFIGMAPS}/c-1"),
        &format!("{CONFIGMAPS}?limit=2"),
        &format!("{CONFIGMAPS}?watch=1&timeoutSeconds=1"),
    ] {
        let answer = admin.send("GET", path, &[("accept-encoding", "gzip")], "").await;
        assert_eq!(answer.code, 200, "{path}");
        assert!(!answer.headers.contains_key("content-encoding"), "{path}");
        assert!(answer.body.starts_with(b"{"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_document_has_a_weak_tag_that_is_known_again() {
    let federation = a_federation().await;
    let mut admin = federation.raw_h2(ADMIN).await;
    let path = "/openapi/v2";
    let strong = admin.get(path).await.headers["etag"].clone();
    let gzip = ("accept-encoding", "gzip");
    let weak = admin.send("GET", path, &[gzip], "").await.headers["etag"].clone();
    let text = strong.to_str().expect("a tag");
    assert_eq!(weak, format!("W/{text}"));
    for tag in [text, weak.to_str().expect("a tag")] {
        let answer = admin.send("GET", path, &[gzip, ("if-none-match", tag)], "").await;
        assert_eq!((answer.code, answer.body.len()), (304, 0), "{tag}");
        assert_eq!(answer.headers["etag"], tag);
    }
    let other = admin.send("GET", path, &[gzip, ("if-none-match", "\"AB\"")], "").await;
    assert_eq!(other.code, 200);
}

//! The etcd backend against a real etcd.

use std::sync::Arc;
use std::time::Duration;

use kubefed_storage::{Commit, Entry, Error, EventKind, Op, Range, Store, Watch, etcd};
use kubefed_tests::etcd::{Etcd, an_etcd, an_etcd_of, an_etcd_with_tls};

/// Far longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn open() -> Option<(Arc<dyn Store>, Etcd)> {
    let etcd = an_etcd().await?;
    Some((etcd.store().await, etcd))
}

kubefed_storage::conformance!(open);

async fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    store.commit(Commit::put(key, None, value.to_owned())).await.expect("it is written")
}

/// The values of the next so many events.
async fn values(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        let next = tokio::time::timeout(PATIENCE, watch.next()).await.expect("a batch in time");
        let batch = next.expect("the watch goes on").expect("without an error");
        let events = batch.events.into_iter();
        values.extend(events.map(|event| String::from_utf8_lossy(&event.entry.value).into_owned()));
    }
    values
}

#[tokio::test]
async fn client_certificates_are_shown_and_checked() {
    let Some(etcd) = an_etcd_with_tls().await else { return };
    let store = etcd.store().await;
    let mut watch = store.watch("/", 0).await.expect("a watch");
    put(&*store, "/a", "over TLS").await;
    assert_eq!(values(&mut watch, 1).await, ["over TLS"]);

    let mut nobody = etcd.options();
    (nobody.cert, nobody.key) = (None, None);
    let refused = etcd::connect(nobody).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_prefix_stands_before_every_key() {
    let Some(etcd) = an_etcd().await else { return };
    let all = etcd.store().await;
    let mut options = etcd.options();
    options.prefix = "/kubefed".to_owned();
    let store = etcd::connect(options).await.expect("etcd can be reached");
    put(&*all, "/other", "other").await;
    let revision = put(&*store, "/a", "ours").await;
    let keys = |page: kubefed_storage::Page| -> Vec<String> {
        page.entries.iter().map(|entry| entry.key.to_string()).collect()
    };
    assert_eq!(keys(all.range(Range::all("")).await.expect("all")), ["/kubefed/a", "/other"]);
    assert_eq!(keys(store.range(Range::all("")).await.expect("ours")), ["/a"]);
    let mut watch = store.watch("", revision).await.expect("a watch");
    assert_eq!(values(&mut watch, 1).await, ["ours"]);
}

#[tokio::test]
async fn a_watch_outlives_a_restart_without_loss_or_repetition() {
    let Some(mut etcd) = an_etcd().await else { return };
    let store = etcd.store().await;
    let mut watch = store.watch("/", 0).await.expect("a watch");
    put(&*store, "/a", "1").await;
    assert_eq!(values(&mut watch, 1).await, ["1"]);
    for round in 1..4 {
        put(&*store, "/a", "unread").await;
        etcd.kill(0);
        etcd.restart(0).await;
        put(&*store, "/a", &format!("after {round}")).await;
        assert_eq!(values(&mut watch, 2).await, ["unread".to_owned(), format!("after {round}")]);
    }
}

#[tokio::test]
async fn another_member_takes_over_when_one_dies() {
    let Some(mut etcd) = an_etcd_of(3).await else { return };
    let store = etcd.store().await;
    let mut watch = store.watch("/", 0).await.expect("a watch");
    for member in 0..3 {
        put(&*store, "/a", &format!("with all {member}")).await;
        etcd.kill(member);
        // The write that meets the dead member, or the election of a leader,
        // may be lost: whoever reads again knows.
        let value = format!("without {member}");
        loop {
            match store.commit(Commit::put("/a", None, value.clone())).await {
                Ok(_) => break,
                Err(Error::UnknownOutcome(_) | Error::Unavailable(_)) => {
                    let entry = store.get("/a").await.expect("it can be read").0;
                    if entry.is_some_and(|entry| entry.value == value) {
                        break;
                    }
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        let expected = [format!("with all {member}"), value];
        assert_eq!(values(&mut watch, 2).await, expected);
        etcd.restart(member).await;
    }
}

#[tokio::test]
async fn a_dead_endpoint_does_no_harm() {
    let Some(etcd) = an_etcd().await else { return };
    let mut options = etcd.options();
    // A bound UDP port keeps the number; nobody listens there by TCP.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("an address");
    options.endpoints.insert(0, format!("http://{address}"));
    let store = etcd::connect(options).await.expect("one endpoint answers");
    for number in 0..20 {
        put(&*store, "/a", &number.to_string()).await;
    }
    let entry = store.get("/a").await.expect("it can be read").0;
    assert_eq!(entry.map(|entry| entry.value), Some("19".into()));
}

#[tokio::test]
async fn a_write_without_an_answer_has_an_unknown_outcome() {
    let Some(etcd) = an_etcd().await else { return };
    let store = etcd.store().await;
    let created = put(&*store, "/a", "before").await;
    etcd.freeze(0).await;
    let result = store.commit(Commit::update("/a", created, "after")).await;
    etcd.thaw(0);
    assert!(matches!(result, Err(Error::UnknownOutcome(_))), "{result:?}");
    let entry: Entry = store.get("/a").await.expect("it can be read").0.expect("it exists");
    assert!(entry.value == "before" || entry.value == "after", "{entry:?}");
}

#[tokio::test]
async fn no_member_at_all_is_unavailable() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("an address");
    let result = etcd::connect(etcd::Options::new([format!("http://{address}")])).await;
    assert!(matches!(result.map(|_| ()), Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn servers_of_one_etcd_compact_it_together() {
    let Some(etcd) = an_etcd().await else { return };
    let mut options = etcd.options();
    options.prefix = "/kubefed".to_owned();
    options.compaction_interval = Some(Duration::from_millis(100));
    let (one, two) = tokio::join!(etcd::connect(options.clone()), etcd::connect(options));
    let (one, two) = (one.expect("a store"), two.expect("a store"));
    let first = put(&*one, "/a", "1").await;
    // Each round writes the key, so the revision grows and is compacted by itself.
    let compacted = async {
        loop {
            let range = Range { revision: Some(first), ..Range::all("/") };
            match two.range(range).await {
                Err(Error::Compacted { .. }) => return,
                Err(error) => panic!("{error:?}"),
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, compacted).await.expect("the history ends");
    let key = etcd.store().await.get("compact_rev_key").await.expect("it can be read").0;
    let revision: u64 = key
        .and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok())
        .expect("the key of the protocol holds a revision");
    assert!(revision >= first, "{revision}");
}

#[tokio::test]
async fn keys_with_the_same_time_to_live_share_a_lease() {
    let Some(etcd) = an_etcd().await else { return };
    let store = etcd.store().await;
    let mut watch = store.watch("/", 0).await.expect("a watch");
    for number in 0..10 {
        let op = Op::Put { value: "x".into(), ttl: Some(Duration::from_secs(2)) };
        let commit = Commit { key: format!("/{number}"), expected: Some(0), op };
        store.commit(commit).await.expect("it is written");
    }
    let mut deletions = Vec::new();
    while deletions.len() < 10 {
        let next = tokio::time::timeout(PATIENCE, watch.next()).await.expect("a batch in time");
        let batch = next.expect("the watch goes on").expect("without an error");
        let deleted = batch.events.iter().filter(|event| event.kind == EventKind::Delete);
        deletions.extend(deleted.map(|event| event.entry.mod_revision));
    }
    deletions.dedup();
    // One revision ends all keys of a lease; a slow machine may need a second.
    assert!(deletions.len() < 5, "{deletions:?}");
}

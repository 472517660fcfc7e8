//! How the past ends: compaction, and keys with a time to live.

use std::time::Duration;

use super::{commit, create, delete, events, get, keys, put, revisions, soon, watch};
use crate::{Commit, Error, EventKind, Op, Range, Revision, Store};

/// etcd counts in seconds and takes at least two.
const TTL: Duration = Duration::from_secs(1);

async fn put_for(store: &dyn Store, key: &str, ttl: Duration) -> Revision {
    let op = Op::Put { value: "x".into(), ttl: Some(ttl) };
    commit(store, Commit { key: key.to_owned(), expected: None, op }).await
}

async fn compact(store: &dyn Store, revision: Revision) {
    store.compact(revision).await.expect("it can be compacted");
}

pub async fn compaction_keeps_what_is_current(store: &dyn Store) {
    let created = create(store, "/a/1", "one").await;
    create(store, "/a/2", "gone").await;
    let updated = put(store, "/a/1", "two").await;
    let last = delete(store, "/a/2").await;
    compact(store, last).await;
    let entry = get(store, "/a/1").await.expect("the key exists");
    assert_eq!((entry.create_revision, entry.mod_revision), (created, updated));
    assert_eq!(entry.value, "two");
    assert_eq!(keys(store, Range::all("/a/")).await, ["/a/1"]);
    assert_eq!(store.current_revision().await.expect("a revision"), last);
    let next = commit(store, Commit::update("/a/1", updated, "three")).await;
    assert_eq!(next, last + 1);
}

pub async fn the_compacted_revision_can_be_read_and_older_ones_can_not(store: &dyn Store) {
    create(store, "/a/1", "one").await;
    let compacted = put(store, "/a/1", "two").await;
    delete(store, "/a/1").await;
    compact(store, compacted).await;
    let at = |revision| Range { revision: Some(revision), ..Range::all("/a/") };
    let page = store.range(at(compacted)).await.expect("it can be read");
    assert_eq!(page.entries[0].value, "two");
    let older = store.range(at(compacted - 1)).await;
    assert!(matches!(older, Err(Error::Compacted { .. })), "{older:?}");
}

pub async fn a_watch_from_before_the_compaction_is_refused(store: &dyn Store) {
    let first = create(store, "/a/1", "one").await;
    let compacted = put(store, "/a/1", "two").await;
    let last = put(store, "/a/1", "three").await;
    compact(store, compacted).await;
    let error = match store.watch("/a/", first).await {
        Err(error) => error,
        Ok(mut watch) => {
            let error = soon(watch.next()).await.expect("an item").expect_err("no history");
            assert!(watch.next().await.is_none(), "nothing follows an error");
            error
        }
    };
    assert!(matches!(error, Error::Compacted { oldest } if oldest == compacted), "{error:?}");
    let mut after = watch(store, "/a/", last).await;
    assert_eq!(revisions(&events(&mut after, 1).await), [last]);
}

pub async fn a_watch_that_is_up_to_date_outlives_a_compaction(store: &dyn Store) {
    let mut watch = watch(store, "/a/", 0).await;
    create(store, "/a/1", "one").await;
    events(&mut watch, 1).await;
    let mut last = 0;
    for number in 0..10 {
        last = put(store, "/b/1", &number.to_string()).await;
    }
    // Where the watch is now, so that it is not caught while it catches up.
    store.request_progress().await.expect("progress can be asked for");
    while soon(watch.next()).await.expect("it goes on").expect("without an error").revision < last {
    }
    compact(store, last).await;
    let next = put(store, "/a/1", "two").await;
    assert_eq!(revisions(&events(&mut watch, 1).await), [next]);
}

pub async fn what_is_compacted_is_not_compacted_again(store: &dyn Store) {
    let first = create(store, "/a/1", "one").await;
    let second = put(store, "/a/1", "two").await;
    compact(store, second).await;
    for revision in [first, second] {
        let again = store.compact(revision).await;
        assert!(matches!(again, Err(Error::Compacted { oldest }) if oldest == second), "{again:?}");
    }
    assert_eq!(store.status().await.expect("a status").compacted, second);
}

pub async fn the_future_is_not_compacted(store: &dyn Store) {
    let current = create(store, "/a/1", "one").await;
    let result = store.compact(current + 1).await;
    assert!(
        matches!(result, Err(Error::FutureRevision { current: told }) if told == current),
        "{result:?}"
    );
}

pub async fn a_key_with_a_time_to_live_is_deleted_by_itself(store: &dyn Store) {
    let mut watch = watch(store, "/a/", 0).await;
    let begin = tokio::time::Instant::now();
    let written = put_for(store, "/a/1", TTL).await;
    let lasting = create(store, "/a/2", "lasting").await;
    let before = get(store, "/a/1").await;
    let events = events(&mut watch, 3).await;
    assert!(begin.elapsed() >= TTL, "it has lived for {:?} only", begin.elapsed());
    assert_eq!(revisions(&events[..2]), [written, lasting]);
    assert_eq!(events[2].kind, EventKind::Delete);
    assert_eq!(events[2].previous, before);
    assert_eq!(keys(store, Range::all("/a/")).await, ["/a/2"]);
}

pub async fn a_write_renews_or_ends_the_time_to_live(store: &dyn Store) {
    let mut watch = watch(store, "/a/", 0).await;
    put_for(store, "/a/for ever", TTL).await;
    put_for(store, "/a/for long", TTL).await;
    put(store, "/a/for ever", "x").await;
    put_for(store, "/a/for long", TTL * 1000).await;
    put_for(store, "/a/short", TTL).await;
    let last = events(&mut watch, 6).await.pop().expect("six events");
    assert_eq!((&*last.entry.key, last.kind), ("/a/short", EventKind::Delete));
    assert_eq!(keys(store, Range::all("/a/")).await, ["/a/for ever", "/a/for long"]);
}

pub async fn the_status_tells_the_backend_and_the_revision(store: &dyn Store) {
    let revision = create(store, "/a/1", &"x".repeat(100_000)).await;
    let status = store.status().await.expect("a status");
    assert_eq!((status.revision, status.compacted), (revision, 0));
    assert!(!status.backend.is_empty());
    assert!(status.size_in_use > 0 && status.size >= status.size_in_use, "{status:?}");
    assert!(status.reliable_progress);
}

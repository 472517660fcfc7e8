use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{Batch, EventKind, Op};

/// A store whose insides a test can look into.
fn store() -> Embedded {
    memory(&Options { compaction_interval: None })
}

crate::conformance!(|| async { Some((in_memory(), ())) });

#[tokio::test]
async fn compaction_frees_the_history() {
    let store = store();
    let mut revision = 0;
    for round in 0..50_u32 {
        let value = round.to_string();
        revision = store.commit(Commit::put("/a/one", None, value)).await.expect("a commit");
        store.commit(Commit::put("/a/gone", None, "x")).await.expect("a commit");
    }
    let gone = store.get("/a/gone").await.expect("a key").0.expect("an entry");
    let last = store.commit(Commit::delete("/a/gone", gone.mod_revision)).await.expect("a commit");
    store.compact(last).await.expect("a compaction");
    let snapshot = store.shared.snapshot().expect("a snapshot");
    // What is left: the value of /a/one, the last deletion and what it ended.
    assert_eq!(snapshot.log_length(), 3);
    let (one, _) = store.get("/a/one").await.expect("a key");
    assert_eq!(one.map(|entry| entry.mod_revision), Some(revision));
}

#[tokio::test]
async fn the_regular_compaction_forgets_what_was_old_an_interval_ago() {
    let store = memory(&Options { compaction_interval: Some(Duration::from_millis(20)) });
    let first = store.commit(Commit::create("/a", "1")).await.expect("a commit");
    store.commit(Commit::update("/a", first, "2")).await.expect("a commit");
    let mut signal = store.shared.signal.subscribe();
    while store.shared.snapshot().expect("a snapshot").compacted <= first {
        signal.changed().await.expect("an open store");
    }
    let watch = store.watch("/", first).await;
    assert!(matches!(watch, Err(Error::Compacted { oldest }) if oldest > first), "{watch:?}");
}

#[tokio::test]
async fn a_watch_far_behind_reads_the_log_in_batches_without_a_gap() {
    let store = store();
    for number in 0..3000_u32 {
        let commit = Commit::create(format!("/{}/{number}", number % 2), number.to_string());
        store.commit(commit).await.expect("a commit");
    }
    let mut watch = store.watch("/1/", 1).await.expect("a watch");
    let mut numbers = Vec::new();
    while numbers.len() < 1500 {
        let batch = watch.next().await.expect("a batch").expect("no error");
        numbers.extend(batch.events.iter().map(|event| event.entry.value.clone()));
    }
    let expected: Vec<_> = (0..1500).map(|half| Bytes::from((half * 2 + 1).to_string())).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let (first, second);
    {
        let store = open(directory.path()).await.expect("a new store");
        first = store.commit(Commit::create("/a", "1")).await.expect("a commit");
        second = store.commit(Commit::update("/a", first, "2")).await.expect("a commit");
    }
    let store = open(directory.path()).await.expect("the same store");
    assert_eq!(store.current_revision().await.expect("a revision"), second);
    let mut watch = store.watch("/", first).await.expect("the history");
    let Batch { events, revision } = watch.next().await.expect("a batch").expect("no error");
    assert_eq!((events.len(), revision), (2, second));
    assert_eq!(events[1].previous.as_ref(), Some(&events[0].entry));
}

#[tokio::test]
async fn a_time_to_live_begins_anew_after_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let op = Op::Put { value: "x".into(), ttl: Some(Duration::from_millis(300)) };
    let written = {
        let store = open(directory.path()).await.expect("a new store");
        let commit = Commit { key: "/a".to_owned(), expected: Some(0), op };
        store.commit(commit).await.expect("a commit")
    };
    let store = open(directory.path()).await.expect("the same store");
    let mut watch = store.watch("/", written + 1).await.expect("a watch");
    let batch = watch.next().await.expect("a batch").expect("no error");
    assert_eq!(batch.events[0].kind, EventKind::Delete);
}

#[tokio::test]
async fn a_second_process_can_not_open_the_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let _store = open(directory.path()).await.expect("a new store");
    let second = open(directory.path()).await.map(|_| ());
    assert!(matches!(second, Err(Error::Unavailable(_))), "{second:?}");
}

#[tokio::test]
async fn a_watch_ends_when_the_store_closes() {
    let store = in_memory();
    let mut watch = store.watch("/", 0).await.expect("a watch");
    drop(store);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn queued_commits_share_a_sync() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path()).await.expect("a new store");
    let commits = (0..2000_u32).map(|number| {
        let store: Arc<dyn Store> = store.clone();
        async move { store.commit(Commit::create(format!("/{number}"), "x")).await }
    });
    let mut revisions = futures::future::try_join_all(commits).await.expect("all are committed");
    revisions.sort_unstable();
    assert_eq!(revisions, (2..2002).collect::<Vec<_>>());
}

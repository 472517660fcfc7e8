//! What a watch delivers: every change once, in order, with what was before.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, future::join, stream};

use super::{commit, create, delete, events, get, put, revisions, soon, watch};
use crate::{Commit, Entry, Event, EventKind, Range, Revision, Store};

pub async fn a_watch_begins_in_the_past(store: &dyn Store) {
    let first = create(store, "/a/1", "one").await;
    let second = put(store, "/a/1", "two").await;
    let third = delete(store, "/a/1").await;
    let mut all = watch(store, "/a/", first).await;
    assert_eq!(revisions(&events(&mut all, 3).await), [first, second, third]);
    let mut some = watch(store, "/a/", second).await;
    let fourth = create(store, "/a/2", "three").await;
    assert_eq!(revisions(&events(&mut some, 3).await), [second, third, fourth]);
}

pub async fn a_watch_from_zero_begins_after_now(store: &dyn Store) {
    create(store, "/a/1", "one").await;
    let mut watch = watch(store, "/a/", 0).await;
    let later = put(store, "/a/1", "two").await;
    assert_eq!(revisions(&events(&mut watch, 1).await), [later]);
}

pub async fn a_watch_may_wait_for_a_revision_to_come(store: &dyn Store) {
    let now = create(store, "/a/1", "one").await;
    let mut watch = watch(store, "/a/", now + 3).await;
    for value in ["two", "three", "four", "five"] {
        put(store, "/a/1", value).await;
    }
    assert_eq!(revisions(&events(&mut watch, 2).await), [now + 3, now + 4]);
}

pub async fn a_watch_keeps_to_its_prefix(store: &dyn Store) {
    let mut watch = watch(store, "/a/", 0).await;
    let mut expected = Vec::new();
    for key in ["/a/1", "/b/1", "/a", "/a/2", "/a0", "/A/1", "/a/1/x"] {
        let revision = create(store, key, "x").await;
        if key.starts_with("/a/") {
            expected.push(revision);
        }
    }
    assert_eq!(revisions(&events(&mut watch, 3).await), expected);
}

pub async fn an_event_tells_what_was_before(store: &dyn Store) {
    let mut watch = watch(store, "/a/", 0).await;
    let created = create(store, "/a/1", "one").await;
    let first = get(store, "/a/1").await;
    let updated = put(store, "/a/1", "two").await;
    let second = get(store, "/a/1").await;
    delete(store, "/a/1").await;
    create(store, "/a/1", "three").await;
    let events = events(&mut watch, 4).await;
    let previous: Vec<Option<Entry>> = events.iter().map(|event| event.previous.clone()).collect();
    assert_eq!(previous, [None, first.clone(), second.clone(), None]);
    assert_eq!([Some(&events[0].entry), Some(&events[1].entry)], [first.as_ref(), second.as_ref()]);
    let put = events[1].clone();
    assert_eq!((put.entry.create_revision, put.entry.mod_revision), (created, updated));
}

pub async fn a_deletion_has_its_own_revision_and_no_value(store: &dyn Store) {
    let mut watch = watch(store, "/a/", 0).await;
    let created = create(store, "/a/1", "one").await;
    let deleted = delete(store, "/a/1").await;
    let expected = Event {
        kind: EventKind::Delete,
        entry: Entry {
            key: "/a/1".into(),
            value: Bytes::new(),
            create_revision: 0,
            mod_revision: deleted,
        },
        previous: Some(Entry {
            key: "/a/1".into(),
            value: "one".into(),
            create_revision: created,
            mod_revision: created,
        }),
    };
    assert_eq!(events(&mut watch, 2).await.pop(), Some(expected));
}

pub async fn a_watch_after_a_list_misses_nothing(store: &dyn Store) {
    const KEYS: u32 = 200;
    let write = stream::iter(0..KEYS).for_each_concurrent(16, |number| async move {
        let key = format!("/a/{}", number % 50);
        put(store, &key, &number.to_string()).await;
    });
    let follow = async {
        let page = store.range(Range::all("/a/")).await.expect("it can be read");
        let mut state: BTreeMap<_, _> =
            page.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let mut watch = watch(store, "/a/", page.revision + 1).await;
        let mut revision = page.revision;
        // An empty store has the revision 1, and every put takes one more.
        while revision <= Revision::from(KEYS) {
            let batch = soon(watch.next()).await.expect("it goes on").expect("without an error");
            revision = batch.revision;
            for event in batch.events {
                state.insert(event.entry.key.clone(), event.entry);
            }
        }
        state
    };
    let ((), state) = join(write, follow).await;
    let page = store.range(Range::all("/a/")).await.expect("it can be read");
    assert_eq!(state.into_values().collect::<Vec<_>>(), page.entries);
}

pub async fn events_of_many_writers_come_once_and_in_order(store: &dyn Store) {
    const WRITERS: u32 = 16;
    const WRITES: u32 = 25;
    let mut watch = watch(store, "/a/", 0).await;
    let write = stream::iter(0..WRITERS).map(|writer| async move {
        let key = format!("/a/{writer}");
        let mut written = Vec::new();
        for number in 0..WRITES {
            written.push(put(store, &key, &number.to_string()).await);
        }
        written
    });
    let write = write.buffer_unordered(WRITERS as usize).concat();
    let (mut written, events) = join(write, events(&mut watch, (WRITERS * WRITES) as usize)).await;
    written.sort_unstable();
    assert_eq!(revisions(&events), written);
    let mut next: BTreeMap<_, u32> = BTreeMap::new();
    for event in events {
        let number = next.entry(event.entry.key).or_default();
        assert_eq!(event.entry.value, number.to_string());
        *number += 1;
    }
}

pub async fn two_watches_see_the_same(store: &dyn Store) {
    let mut early = watch(store, "/a/", 0).await;
    let first = create(store, "/a/1", "one").await;
    for number in 0..50 {
        put(store, "/a/1", &number.to_string()).await;
    }
    let mut late = watch(store, "/a/", first).await;
    delete(store, "/a/1").await;
    assert_eq!(events(&mut early, 52).await, events(&mut late, 52).await);
}

pub async fn a_watch_of_large_values_is_whole(store: &dyn Store) {
    let value = Bytes::from(vec![7; 1 << 20]);
    let first = commit(store, Commit::create("/a/0", value.clone())).await;
    for number in 1..10 {
        commit(store, Commit::create(format!("/a/{number}"), value.clone())).await;
    }
    let mut watch = watch(store, "/a/", first).await;
    for event in events(&mut watch, 10).await {
        assert_eq!(event.entry.value, value);
    }
}

pub async fn a_slow_reader_loses_nothing(store: &dyn Store) {
    const WRITES: usize = 600;
    let value = Bytes::from(vec![7; 100 << 10]);
    let mut slow = watch(store, "/a/", 0).await;
    // Another watch is not held up by the one that nobody reads.
    let mut quick = watch(store, "/a/", 0).await;
    let mut written = Vec::new();
    for _ in 0..WRITES {
        let revision = commit(store, Commit::put("/a/1", None, value.clone())).await;
        written.push(revision);
        assert_eq!(revisions(&events(&mut quick, 1).await), [revision]);
    }
    assert_eq!(revisions(&events(&mut slow, WRITES).await), written);
}

pub async fn progress_reaches_an_idle_watch(store: &dyn Store) {
    let mut idle = watch(store, "/idle/", 0).await;
    for number in 0..3 {
        let current = put(store, "/busy/1", &number.to_string()).await;
        store.request_progress().await.expect("progress can be asked for");
        loop {
            let batch = soon(idle.next()).await.expect("it goes on").expect("without an error");
            assert!(batch.events.is_empty(), "nothing has happened there: {batch:?}");
            if batch.revision >= current {
                break;
            }
        }
    }
    // Also when there is nothing new.
    let current = store.current_revision().await.expect("a revision");
    store.request_progress().await.expect("progress can be asked for");
    let batch = soon(idle.next()).await.expect("it goes on").expect("without an error");
    assert!(batch.revision >= current, "{batch:?}");
}

pub async fn progress_never_overtakes_an_event(store: &dyn Store) {
    const WRITES: usize = 300;
    let mut watch = watch(store, "/a/", 0).await;
    let write = async {
        for number in 0..WRITES {
            put(store, "/a/1", &number.to_string()).await;
            store.request_progress().await.expect("progress can be asked for");
        }
    };
    // `events` checks that no revision comes after a batch that has passed it.
    join(write, events(&mut watch, WRITES)).await;
}

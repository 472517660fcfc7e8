//! What a read shows, now and of the past.

use futures::{StreamExt, stream};

use super::{create, delete, keys, put};
use crate::{Error, Range, Store};

pub async fn a_missing_key_is_none(store: &dyn Store) {
    let revision = create(store, "/a/10", "ten").await;
    let read = store.get("/a/1").await.expect("it can be read");
    assert_eq!(read, (None, revision));
}

pub async fn a_read_sees_the_commit_before_it(store: &dyn Store) {
    for number in 0..20 {
        let revision = put(store, "/a/1", &number.to_string()).await;
        let (entry, read_at) = store.get("/a/1").await.expect("it can be read");
        let entry = entry.expect("the key exists");
        assert_eq!((entry.mod_revision, read_at), (revision, revision));
        assert_eq!(store.current_revision().await.expect("a revision"), revision);
        let page = store.range(Range::all("/a/")).await.expect("it can be read");
        assert_eq!((page.revision, page.entries), (revision, vec![entry]));
    }
}

pub async fn a_range_is_sorted_and_keeps_to_its_prefix(store: &dyn Store) {
    for key in ["/b/1", "/a/2", "/a/10", "/a0", "/a/ä", "/a", "/a/1/x", "/a/1", "/A/1"] {
        create(store, key, key).await;
    }
    let found = keys(store, Range::all("/a/")).await;
    assert_eq!(found, ["/a/1", "/a/1/x", "/a/10", "/a/2", "/a/ä"]);
}

pub async fn a_range_of_nothing_is_empty(store: &dyn Store) {
    let revision = create(store, "/a/1", "one").await;
    let page = store.range(Range::all("/b/")).await.expect("it can be read");
    assert!(page.entries.is_empty() && !page.more);
    assert_eq!((page.revision, page.count), (revision, 0));
}

pub async fn a_range_begins_at_its_start(store: &dyn Store) {
    for key in ["/a/1", "/a/2", "/a/3", "/b/1"] {
        create(store, key, key).await;
    }
    let from = |start: &str| Range { start: Some(start.to_owned()), ..Range::all("/a/") };
    assert_eq!(keys(store, from("/a/2")).await, ["/a/2", "/a/3"]);
    // The usual continuation: the least key after the last one.
    assert_eq!(keys(store, from("/a/2\0")).await, ["/a/3"]);
    assert!(keys(store, from("/a/4")).await.is_empty());
}

pub async fn a_limit_cuts_a_range_and_counts_the_rest(store: &dyn Store) {
    for number in 0..5 {
        create(store, &format!("/a/{number}"), "x").await;
    }
    let range = |limit| Range { limit, start: Some("/a/1".to_owned()), ..Range::all("/a/") };
    for (limit, length, more) in
        [(0, 4, false), (1, 1, true), (3, 3, true), (4, 4, false), (9, 4, false)]
    {
        let page = store.range(range(limit)).await.expect("it can be read");
        assert_eq!((page.entries.len(), page.more, page.count), (length, more, 4), "limit {limit}");
    }
}

pub async fn pages_at_one_revision_fit_together(store: &dyn Store) {
    for number in 0..7 {
        create(store, &format!("/a/{number}"), "x").await;
    }
    let mut range = Range { limit: 2, ..Range::all("/a/") };
    let mut found = Vec::new();
    loop {
        let page = store.range(range.clone()).await.expect("it can be read");
        found.extend(page.entries.iter().map(|entry| entry.key.to_string()));
        if !page.more {
            break;
        }
        range.revision = Some(page.revision);
        range.start = found.last().map(|last| format!("{last}\0"));
        // What changes in between does not show.
        put(store, &format!("/a/{}x", found.len()), "new").await;
        delete(store, &format!("/a/{}", found.len())).await;
    }
    assert_eq!(found, (0..7).map(|number| format!("/a/{number}")).collect::<Vec<_>>());
}

pub async fn a_range_shows_a_past_revision(store: &dyn Store) {
    create(store, "/a/kept", "kept").await;
    create(store, "/a/changed", "before").await;
    create(store, "/a/deleted", "there").await;
    create(store, "/a/again", "first").await;
    let past = create(store, "/b/1", "other").await;
    let expected = store.range(Range::all("/a/")).await.expect("it can be read");
    put(store, "/a/changed", "after").await;
    put(store, "/a/changed", "after that").await;
    delete(store, "/a/deleted").await;
    delete(store, "/a/again").await;
    create(store, "/a/again", "second").await;
    create(store, "/a/new", "new").await;
    let range = Range { revision: Some(past), ..Range::all("/a/") };
    let page = store.range(range.clone()).await.expect("it can be read");
    assert_eq!(page, expected);
    let limited = store.range(Range { limit: 2, ..range }).await.expect("it can be read");
    assert_eq!(limited.entries, expected.entries[..2]);
    assert_eq!((limited.more, limited.count), (true, 4));
    let now = keys(store, Range::all("/a/")).await;
    assert_eq!(now, ["/a/again", "/a/changed", "/a/kept", "/a/new"]);
}

pub async fn a_range_of_the_future_is_refused(store: &dyn Store) {
    let current = create(store, "/a/1", "one").await;
    let result = store.range(Range { revision: Some(current + 1), ..Range::all("/a/") }).await;
    match result {
        Err(Error::FutureRevision { current: told }) => assert_eq!(told, current),
        other => panic!("{other:?}"),
    }
}

pub async fn a_long_range_is_complete(store: &dyn Store) {
    const LENGTH: usize = 2500;
    let value = "x".repeat(1000);
    stream::iter(0..LENGTH)
        .for_each_concurrent(64, |number| {
            let key = format!("/a/{number:05}");
            let value = value.as_str();
            async move {
                create(store, &key, value).await;
            }
        })
        .await;
    let page = store.range(Range::all("/a/")).await.expect("it can be read");
    assert_eq!((page.entries.len(), page.count, page.more), (LENGTH, LENGTH as u64, false));
    let sorted = page.entries.iter().enumerate();
    for (number, entry) in sorted {
        assert_eq!(*entry.key, format!("/a/{number:05}"));
    }
    let page = store.range(Range { limit: 1700, ..Range::all("/a/") }).await.expect("a page");
    assert_eq!((page.entries.len(), page.count, page.more), (1700, LENGTH as u64, true));
}

pub async fn the_empty_prefix_is_everything(store: &dyn Store) {
    create(store, "/b/1", "one").await;
    create(store, "a", "two").await;
    assert_eq!(keys(store, Range::all("")).await, ["/b/1", "a"]);
}

//! What a commit changes, and when it does not.

use bytes::Bytes;
use futures::future::join_all;

use super::{commit, create, delete, get, put};
use crate::{Commit, Entry, Error, MAX_VALUE_SIZE, Op, Revision, Store};

fn conflict(result: Result<Revision, Error>) -> Option<Entry> {
    match result {
        Err(Error::Conflict { current }) => current,
        other => panic!("not a conflict: {other:?}"),
    }
}

pub async fn a_created_key_has_the_revision_of_its_creation(store: &dyn Store) {
    let revision = create(store, "/a/1", "one").await;
    let expected = Entry {
        key: "/a/1".into(),
        value: "one".into(),
        create_revision: revision,
        mod_revision: revision,
    };
    assert_eq!(get(store, "/a/1").await, Some(expected));
}

pub async fn creating_what_exists_conflicts_and_tells_what_is_there(store: &dyn Store) {
    create(store, "/a/1", "one").await;
    let current = conflict(store.commit(Commit::create("/a/1", "two")).await);
    assert_eq!(current, get(store, "/a/1").await);
    assert_eq!(current.map(|entry| entry.value), Some("one".into()));
}

pub async fn an_update_replaces_the_value_and_keeps_the_create_revision(store: &dyn Store) {
    let created = create(store, "/a/1", "one").await;
    let updated = commit(store, Commit::update("/a/1", created, "two")).await;
    let entry = get(store, "/a/1").await.expect("the key exists");
    assert_eq!(entry.value, "two");
    assert_eq!((entry.create_revision, entry.mod_revision), (created, updated));
}

pub async fn an_update_with_an_old_revision_conflicts_and_tells_what_is_there(store: &dyn Store) {
    let created = create(store, "/a/1", "one").await;
    let updated = commit(store, Commit::update("/a/1", created, "two")).await;
    let current = conflict(store.commit(Commit::update("/a/1", created, "three")).await);
    let current = current.expect("the key exists");
    assert_eq!((current.value, current.mod_revision), ("two".into(), updated));
    // A revision of another key is no better.
    let other = create(store, "/a/2", "other").await;
    conflict(store.commit(Commit::update("/a/1", other, "three")).await);
}

pub async fn updating_what_does_not_exist_conflicts_with_nothing(store: &dyn Store) {
    let gone = create(store, "/a/1", "one").await;
    delete(store, "/a/1").await;
    assert_eq!(conflict(store.commit(Commit::update("/a/1", gone, "two")).await), None);
    assert_eq!(conflict(store.commit(Commit::update("/a/2", gone, "two")).await), None);
}

pub async fn a_put_without_a_condition_creates_and_replaces(store: &dyn Store) {
    let created = put(store, "/a/1", "one").await;
    put(store, "/a/1", "two").await;
    let entry = get(store, "/a/1").await.expect("the key exists");
    assert_eq!((entry.value, entry.create_revision), ("two".into(), created));
}

pub async fn a_delete_with_an_old_revision_conflicts_and_tells_what_is_there(store: &dyn Store) {
    let created = create(store, "/a/1", "one").await;
    let updated = commit(store, Commit::update("/a/1", created, "two")).await;
    let current = conflict(store.commit(Commit::delete("/a/1", created)).await);
    assert_eq!(current.map(|entry| entry.mod_revision), Some(updated));
    commit(store, Commit::delete("/a/1", updated)).await;
    assert_eq!(get(store, "/a/1").await, None);
}

pub async fn a_delete_without_a_condition_deletes_what_is_there(store: &dyn Store) {
    create(store, "/a/1", "one").await;
    delete(store, "/a/1").await;
    assert_eq!(get(store, "/a/1").await, None);
}

pub async fn deleting_what_does_not_exist_conflicts(store: &dyn Store) {
    for expected in [None, Some(0), Some(1)] {
        let commit = Commit { key: "/a/1".to_owned(), expected, op: Op::Delete };
        assert_eq!(conflict(store.commit(commit).await), None);
    }
    create(store, "/a/1", "one").await;
    let commit = Commit { key: "/a/1".to_owned(), expected: Some(0), op: Op::Delete };
    assert_eq!(conflict(store.commit(commit).await), get(store, "/a/1").await);
}

pub async fn a_recreated_key_has_a_new_create_revision(store: &dyn Store) {
    create(store, "/a/1", "one").await;
    delete(store, "/a/1").await;
    let again = create(store, "/a/1", "again").await;
    let entry = get(store, "/a/1").await.expect("the key exists");
    assert_eq!((entry.create_revision, entry.mod_revision), (again, again));
}

pub async fn a_conflict_takes_no_revision(store: &dyn Store) {
    let revision = create(store, "/a/1", "one").await;
    conflict(store.commit(Commit::create("/a/1", "two")).await);
    conflict(store.commit(Commit::delete("/a/2", 1)).await);
    assert_eq!(store.current_revision().await.expect("a revision"), revision);
}

pub async fn every_commit_takes_one_revision(store: &dyn Store) {
    let first = create(store, "/a/1", "same").await;
    assert!(first > 1, "0 and 1 are of the empty store");
    assert_eq!(create(store, "/b/1", "same").await, first + 1);
    assert_eq!(put(store, "/a/1", "same").await, first + 2);
    assert_eq!(delete(store, "/a/1").await, first + 3);
    assert_eq!(store.current_revision().await.expect("a revision"), first + 3);
}

pub async fn one_of_many_creators_wins(store: &dyn Store) {
    let attempts = (0..20).map(|number: u32| async move {
        let commit = Commit::create("/a/1", number.to_string());
        store.commit(commit).await.is_ok().then_some(number)
    });
    let winners: Vec<u32> = join_all(attempts).await.into_iter().flatten().collect();
    let [winner] = winners[..] else {
        panic!("more or less than one has created it: {winners:?}");
    };
    let value = get(store, "/a/1").await.map(|entry| entry.value);
    assert_eq!(value, Some(winner.to_string().into()));
}

pub async fn counting_up_by_many_writers_loses_no_step(store: &dyn Store) {
    create(store, "/a/count", "0").await;
    let count_up = || async {
        let mut current = get(store, "/a/count").await.expect("the key exists");
        loop {
            let count: u32 = std::str::from_utf8(&current.value)
                .ok()
                .and_then(|n| n.parse().ok())
                .expect("a number");
            let next = (count + 1).to_string();
            match store.commit(Commit::update("/a/count", current.mod_revision, next)).await {
                Ok(_) => return,
                Err(Error::Conflict { current: Some(newer) }) => current = newer,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    join_all((0..10).map(|_| count_up())).await;
    let value = get(store, "/a/count").await.map(|entry| entry.value);
    assert_eq!(value, Some("10".into()));
}

pub async fn a_value_may_be_empty_or_any_bytes(store: &dyn Store) {
    let all: Bytes = (0..=u8::MAX).collect();
    for (key, value) in [("/a/none", Bytes::new()), ("/a/all", all)] {
        commit(store, Commit::create(key, value.clone())).await;
        assert_eq!(get(store, key).await.map(|entry| entry.value), Some(value));
    }
}

pub async fn a_large_value_comes_back_whole(store: &dyn Store) {
    let value: Bytes = (0..MAX_VALUE_SIZE - 1024).map(|at| (at % 251) as u8).collect();
    commit(store, Commit::create("/a/1", value.clone())).await;
    assert_eq!(get(store, "/a/1").await.map(|entry| entry.value), Some(value.clone()));
    let current = conflict(store.commit(Commit::create("/a/1", "x")).await);
    assert_eq!(current.map(|entry| entry.value), Some(value));
}

pub async fn a_value_that_is_too_large_is_refused(store: &dyn Store) {
    for size in [MAX_VALUE_SIZE, MAX_VALUE_SIZE * 4] {
        let result = store.commit(Commit::create("/a/1", vec![0; size])).await;
        assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
    }
    assert_eq!(get(store, "/a/1").await, None);
}

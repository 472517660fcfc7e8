//! What every backend promises, as functions that test a fresh store.
//!
//! The macro [`conformance!`](crate::conformance!) makes a test of each. A
//! backend is one as soon as all of them pass.

mod commits;
mod history;
mod reads;
mod watches;

use std::{future::Future, time::Duration};

pub use self::{commits::*, history::*, reads::*, watches::*};
use crate::{Commit, Entry, Event, Op, Range, Revision, Store, Watch};

/// Makes one test of each behaviour.
///
/// The argument is a function that opens an empty store. Its future yields
/// `Some((store, guard))`, and the guard lives as long as the test; or `None`
/// when the backend can't be had here, and the test then passes as skipped.
#[macro_export]
macro_rules! conformance {
    ($open:expr) => {
        $crate::conformance! { $open =>
            a_created_key_has_the_revision_of_its_creation
            creating_what_exists_conflicts_and_tells_what_is_there
            an_update_replaces_the_value_and_keeps_the_create_revision
            an_update_with_an_old_revision_conflicts_and_tells_what_is_there
            updating_what_does_not_exist_conflicts_with_nothing
            a_put_without_a_condition_creates_and_replaces
            a_delete_with_an_old_revision_conflicts_and_tells_what_is_there
            a_delete_without_a_condition_deletes_what_is_there
            deleting_what_does_not_exist_conflicts
            a_recreated_key_has_a_new_create_revision
            a_conflict_takes_no_revision
            every_commit_takes_one_revision
            one_of_many_creators_wins
            counting_up_by_many_writers_loses_no_step
            a_value_may_be_empty_or_any_bytes
            a_large_value_comes_back_whole
            a_value_that_is_too_large_is_refused
            a_missing_key_is_none
            a_read_sees_the_commit_before_it
            a_range_is_sorted_and_keeps_to_its_prefix
            a_range_of_nothing_is_empty
            a_range_begins_at_its_start
            a_limit_cuts_a_range_and_counts_the_rest
            pages_at_one_revision_fit_together
            a_range_shows_a_past_revision
            a_range_of_the_future_is_refused
            a_long_range_is_complete
            the_empty_prefix_is_everything
            a_watch_begins_in_the_past
            a_watch_from_zero_begins_after_now
            a_watch_may_wait_for_a_revision_to_come
            a_watch_keeps_to_its_prefix
            an_event_tells_what_was_before
            a_deletion_has_its_own_revision_and_no_value
            a_watch_after_a_list_misses_nothing
            events_of_many_writers_come_once_and_in_order
            two_watches_see_the_same
            a_watch_of_large_values_is_whole
            a_slow_reader_loses_nothing
            progress_reaches_an_idle_watch
            progress_never_overtakes_an_event
            compaction_keeps_what_is_current
            the_compacted_revision_can_be_read_and_older_ones_can_not
            a_watch_from_before_the_compaction_is_refused
            a_watch_that_is_up_to_date_outlives_a_compaction
            what_is_compacted_is_not_compacted_again
            the_future_is_not_compacted
            a_key_with_a_time_to_live_is_deleted_by_itself
            a_write_renews_or_ends_the_time_to_live
            the_status_tells_the_backend_and_the_revision
        }
    };
    ($open:expr => $($behaviour:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                if let Some((store, _guard)) = ($open)().await {
                    $crate::conformance::$behaviour(&*store).await;
                }
            }
        )*
    };
}

/// Far longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes far too long")
}

async fn commit(store: &dyn Store, commit: Commit) -> Revision {
    store.commit(commit).await.expect("the commit is accepted")
}

async fn create(store: &dyn Store, key: &str, value: &str) -> Revision {
    commit(store, Commit::create(key, value.to_owned())).await
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    commit(store, Commit::put(key, None, value.to_owned())).await
}

async fn delete(store: &dyn Store, key: &str) -> Revision {
    commit(store, Commit { key: key.to_owned(), expected: None, op: Op::Delete }).await
}

async fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(key).await.expect("the key can be read").0
}

async fn keys(store: &dyn Store, range: Range) -> Vec<String> {
    let page = store.range(range).await.expect("the range can be read");
    page.entries.iter().map(|entry| entry.key.to_string()).collect()
}

async fn watch(store: &dyn Store, prefix: &str, from: Revision) -> Watch {
    store.watch(prefix, from).await.expect("the watch opens")
}

/// The next so many events of a watch; checks the revisions on the way.
async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut delivered = 0;
    while events.len() < count {
        let batch = soon(watch.next()).await.expect("the watch goes on").expect("without an error");
        for event in batch.events {
            let revision = event.entry.mod_revision;
            assert!(revision > delivered, "{revision} comes after {delivered}");
            assert!(revision <= batch.revision, "{revision} in a batch up to {}", batch.revision);
            delivered = revision;
            events.push(event);
        }
        delivered = delivered.max(batch.revision);
    }
    assert_eq!(events.len(), count, "no more events than there were changes: {events:?}");
    events
}

fn revisions(events: &[Event]) -> Vec<Revision> {
    events.iter().map(|event| event.entry.mod_revision).collect()
}

//! The cache over an in-memory store whose watches can be held up and broken.

use futures::future::join_all;
use futures::{FutureExt, StreamExt, stream};
use serde_json::json;
use tokio::time::Instant;

use super::ring::Limits;
use super::*;
use crate::{Batch, Commit, EventKind};

mod faulty;
mod model;

use faulty::Faulty;

const PREFIX: &str = "/registry/things/";

fn value(key: &str, round: u64, color: &str) -> Vec<u8> {
    let (namespace, name) = key.split_once('/').unwrap();
    let object = json!({
        "apiVersion": "v1", "kind": "Thing", "round": round,
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": {"color": color}},
    });
    serde_json::to_vec(&object).unwrap()
}

fn red() -> Filter {
    Arc::new(|object| object.index.label("color") == Some("red"))
}

fn round(object: &Object) -> u64 {
    object.value().unwrap()["round"].as_u64().unwrap()
}

fn everything(at: At) -> ListQuery {
    ListQuery { prefix: String::new(), start: None, at }
}

struct Fixture {
    store: Arc<Faulty>,
    cacher: Arc<Cacher>,
    token: CancellationToken,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

fn fixture() -> Fixture {
    fixture_with(Limits::default())
}

fn fixture_with(limits: Limits) -> Fixture {
    let store = Arc::new(Faulty::default());
    let token = CancellationToken::new();
    let options = Options { prefix: PREFIX.into(), ..Options::default() };
    let cacher = Cacher::start(
        Arc::clone(&store) as Arc<dyn Store>,
        options,
        token.clone(),
        &TaskTracker::new(),
    );
    cacher.ring.write().limits = limits;
    Fixture { store, cacher, token }
}

impl Fixture {
    async fn put(&self, key: &str, round: u64, color: &str) -> Revision {
        self.put_bytes(key, value(key, round, color)).await
    }

    async fn put_bytes(&self, key: &str, bytes: Vec<u8>) -> Revision {
        self.store.commit(Commit::put(format!("{PREFIX}{key}"), None, bytes)).await.unwrap()
    }

    async fn put_elsewhere(&self) -> Revision {
        self.store.commit(Commit::put("/registry/others/a", None, "x")).await.unwrap()
    }

    async fn delete(&self, key: &str) -> Option<Revision> {
        let commit =
            Commit { key: format!("{PREFIX}{key}"), expected: None, op: crate::Op::Delete };
        self.store.commit(commit).await.ok()
    }

    async fn keys(&self, at: At) -> Vec<String> {
        let list = self.cacher.list(everything(at)).await.unwrap();
        list.iter().map(|object| object.key.to_string()).collect()
    }

    async fn watch(&self, from: WatchFrom, filter: Option<Filter>) -> Result<Watcher, Error> {
        let query = WatchQuery {
            prefix: String::new(),
            from,
            filter,
            bookmarks: true,
            initial_events_end: matches!(from, WatchFrom::State(_)),
            deadline: Instant::now() + Duration::from_secs(600),
        };
        self.cacher.watch(query).await
    }
}

#[tokio::test]
async fn a_latest_read_sees_every_write_that_was_acknowledged() {
    let fixture = fixture();
    for count in 0..50 {
        fixture.put("ns/a", count, "red").await;
        fixture.put_elsewhere().await;
        let object = fixture.cacher.get("ns/a", At::Latest).await.unwrap().unwrap();
        assert_eq!(round(&object), count);
        let list = fixture.cacher.list(everything(At::Latest)).await.unwrap();
        assert_eq!(round(list.iter().next().unwrap()), count);
    }
}

#[tokio::test]
async fn an_exact_list_shows_the_past_from_memory() {
    let fixture = fixture();
    let first = fixture.put("ns/a", 1, "red").await;
    fixture.cacher.get("ns/a", At::NotOlderThan(first)).await.unwrap();
    let second = fixture.put("ns/b", 1, "red").await;
    fixture.put("ns/a", 2, "red").await;
    let last = fixture.delete("ns/a").await.unwrap();
    assert_eq!(fixture.keys(At::NotOlderThan(last)).await, ["ns/b"]);

    let built = fixture.cacher.objects_built();
    assert_eq!(fixture.keys(At::Exact(first)).await, ["ns/a"]);
    assert_eq!(fixture.keys(At::Exact(second)).await, ["ns/a", "ns/b"]);
    let past = fixture.cacher.get("ns/a", At::Exact(second)).await.unwrap().unwrap();
    assert_eq!((round(&past), past.revision), (1, first));
    assert_eq!(fixture.cacher.objects_built(), built);
}

#[tokio::test]
async fn an_exact_list_from_before_the_cache_comes_from_the_store() {
    let fixture = fixture();
    let first = fixture.put("ns/a", 1, "red").await;
    let last = fixture.delete("ns/a").await.unwrap();
    fixture.cacher.get("ns/a", At::NotOlderThan(last)).await.unwrap();
    fixture.cacher.ring.write().reset(last);
    assert_eq!(fixture.keys(At::Exact(first)).await, ["ns/a"]);
    fixture.store.compact(last).await.unwrap();
    let error = fixture.cacher.list(everything(At::Exact(first))).await.err().unwrap();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_does_not_come_is_refused_in_time() {
    let fixture = fixture();
    let revision = fixture.put("ns/a", 1, "red").await;
    let error = fixture.cacher.get("ns/a", At::NotOlderThan(revision + 1000)).await.unwrap_err();
    assert!(matches!(error, Error::TooLargeRevision { asked, .. } if asked == revision + 1000));
}

#[tokio::test(start_paused = true)]
async fn a_latest_list_asks_the_store_when_the_watch_lags_too_far() {
    let fixture = fixture();
    fixture.cacher.list(everything(At::Latest)).await.unwrap();
    fixture.store.hold(true);
    let revision = fixture.put("ns/a", 1, "red").await;
    let list = fixture.cacher.list(everything(At::Latest)).await.unwrap();
    assert_eq!((list.revision(), list.iter().count()), (revision, 1));
    assert_eq!(fixture.keys(At::Any).await, [""; 0]);
}

#[tokio::test]
async fn readers_who_come_together_share_their_questions() {
    let fixture = fixture();
    fixture.cacher.list(everything(At::Latest)).await.unwrap();
    fixture.store.hold(true);
    let revision = fixture.put_elsewhere().await;
    let (questions, requests) = fixture.store.asked();
    let readers = join_all((0..500).map(|_| fixture.cacher.list(everything(At::Latest))));
    let release = async {
        while fixture.store.asked().1 == requests {
            tokio::task::yield_now().await;
        }
        fixture.store.hold(false);
    };
    let (lists, ()) = tokio::join!(readers, release);
    assert!(lists.into_iter().all(|list| list.unwrap().revision() >= revision));
    let asked = fixture.store.asked();
    assert!(asked.0 - questions <= 3, "{} questions", asked.0 - questions);
    assert!(asked.1 - requests <= 3, "{} requests", asked.1 - requests);
}

#[tokio::test]
async fn an_object_that_leaves_a_selector_is_deleted_for_its_watcher() {
    let fixture = fixture();
    fixture.put("ns/a", 1, "red").await;
    let mut watcher = fixture.watch(WatchFrom::State(At::Latest), Some(red())).await.unwrap();
    fixture.put("ns/a", 2, "blue").await;
    fixture.put("ns/b", 1, "blue").await;
    fixture.put("ns/a", 3, "red").await;
    let last = fixture.delete("ns/a").await.unwrap();
    let mut seen = Vec::new();
    loop {
        let event = watcher.next().await.unwrap();
        seen.push((event.kind, event.object.as_deref().map(round)));
        if event.revision == last {
            break;
        }
    }
    assert_eq!(
        seen,
        [
            (EventType::Added, Some(1)),
            (EventType::Bookmark { initial_events_end: true }, None),
            (EventType::Deleted, Some(1)),
            (EventType::Added, Some(3)),
            (EventType::Deleted, Some(3)),
        ]
    );
}

#[tokio::test]
async fn bytes_that_are_no_object_hide_only_themselves() {
    let fixture = fixture();
    fixture.put("ns/a", 1, "red").await;
    fixture.put("ns/b", 1, "red").await;
    let mut watcher = fixture.watch(WatchFrom::State(At::Latest), None).await.unwrap();
    let broken = fixture.put_bytes("ns/a", b"{".to_vec()).await;
    let mut last = None;
    while last.as_ref().is_none_or(|event: &WatchEvent| event.revision < broken) {
        last = watcher.next().await;
    }
    let last = last.unwrap();
    assert_eq!((last.kind, last.object.as_deref().map(round)), (EventType::Deleted, Some(1)));
    assert_eq!(fixture.keys(At::Latest).await, ["ns/b"]);
    let mended = fixture.put("ns/a", 2, "red").await;
    assert_eq!(fixture.keys(At::Latest).await, ["ns/a", "ns/b"]);
    let event = watcher.next().await.unwrap();
    assert_eq!((event.kind, event.revision), (EventType::Added, mended));
}

#[tokio::test]
async fn a_watch_of_the_future_waits_for_it() {
    let fixture = fixture();
    let now = fixture.put("ns/a", 1, "red").await;
    let mut watcher = fixture.watch(WatchFrom::After(now + 2), None).await.unwrap();
    for count in 2..=4 {
        fixture.put("ns/a", count, "red").await;
    }
    let event = watcher.next().await.unwrap();
    assert_eq!((event.revision, event.object.as_deref().map(round)), (now + 3, Some(4)));
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_is_cut() {
    let fixture = fixture_with(Limits { most: 8, ..Limits::default() });
    let start = fixture.put("ns/a", 0, "red").await;
    let mut watcher = fixture.watch(WatchFrom::State(At::NotOlderThan(start)), None).await.unwrap();
    let mut last = start;
    for count in 1..20 {
        last = fixture.put("ns/a", count, "red").await;
    }
    fixture.cacher.get("ns/a", At::NotOlderThan(last)).await.unwrap();
    assert_eq!(watcher.next().await.unwrap().kind, EventType::Added);
    let bookmark = watcher.next().await.unwrap();
    assert_eq!(bookmark.kind, EventType::Bookmark { initial_events_end: true });
    assert!(watcher.next().await.is_none());
    let error = fixture.watch(WatchFrom::After(bookmark.revision), None).await.err().unwrap();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert!(fixture.watch(WatchFrom::After(last - 8), None).await.is_ok());
}

#[tokio::test]
async fn a_watch_from_before_the_cache_goes_on_from_the_stores_history() {
    let fixture = fixture();
    fixture.put("ns/gone", 1, "red").await;
    let seen = fixture.put("ns/a", 1, "red").await;
    fixture.put("ns/a", 2, "red").await;
    fixture.delete("ns/gone").await.unwrap();
    fixture.put_elsewhere().await;
    fixture.put("ns/b", 3, "blue").await;
    fixture.put("ns/a", 4, "blue").await;
    let last = fixture.put_elsewhere().await;
    fixture.cacher.get("ns/a", At::NotOlderThan(last)).await.unwrap();
    // As a server that has just been started.
    fixture.cacher.ring.write().reset(last);
    let mut all = fixture.watch(WatchFrom::After(seen), None).await.unwrap();
    let mut some = fixture.watch(WatchFrom::After(seen), Some(red())).await.unwrap();
    fixture.put("ns/a", 5, "red").await;
    let events = async |watcher: &mut Watcher, count: usize| {
        let mut seen = Vec::new();
        while seen.len() < count {
            let event = watcher.next().await.unwrap();
            let object = event.object.expect("no bookmark yet");
            seen.push((event.kind, object.key.to_string(), round(&object)));
        }
        seen
    };
    let told = |kind, key: &str, round| (kind, key.to_owned(), round);
    use EventType::{Added, Deleted, Modified};
    let wanted = [
        told(Modified, "ns/a", 2),
        told(Deleted, "ns/gone", 1),
        told(Added, "ns/b", 3),
        told(Modified, "ns/a", 4),
        told(Modified, "ns/a", 5),
    ];
    assert_eq!(events(&mut all, 5).await, wanted);
    let wanted = [
        told(Modified, "ns/a", 2),
        told(Deleted, "ns/gone", 1),
        told(Deleted, "ns/a", 2),
        told(Added, "ns/a", 5),
    ];
    assert_eq!(events(&mut some, 4).await, wanted);
    // The past can be listed from there too, and nobody has asked the store twice.
    assert_eq!(fixture.keys(At::Exact(seen)).await, ["ns/a", "ns/gone"]);
    assert!(fixture.watch(WatchFrom::After(seen), None).await.is_ok());
}

#[tokio::test]
async fn a_watch_from_before_the_cache_of_a_quiet_kind_goes_on() {
    let fixture = fixture();
    let seen = fixture.put("ns/a", 1, "red").await;
    let last = fixture.put_elsewhere().await;
    fixture.cacher.get("ns/a", At::NotOlderThan(last)).await.unwrap();
    fixture.cacher.ring.write().reset(last);
    let mut watcher = fixture.watch(WatchFrom::After(seen), None).await.unwrap();
    assert!(watcher.next().now_or_never().is_none());
    let next = fixture.put("ns/a", 2, "red").await;
    assert_eq!(watcher.next().await.unwrap().revision, next);
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_is_told_to_list_anew() {
    let fixture = fixture();
    let seen = fixture.put("ns/a", 1, "red").await;
    fixture.put("ns/a", 2, "red").await;
    let last = fixture.put("ns/a", 3, "red").await;
    fixture.cacher.get("ns/a", At::NotOlderThan(last)).await.unwrap();
    fixture.cacher.ring.write().reset(last);
    fixture.store.compact(last).await.unwrap();
    let error = fixture.watch(WatchFrom::After(seen), None).await.err().unwrap();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert!(fixture.watch(WatchFrom::After(last), None).await.is_ok());
}

#[tokio::test]
async fn a_change_is_not_told_if_a_compaction_took_what_was_there_before() {
    let fixture = fixture();
    let event = |kind, created, previous: bool| {
        let entry = |created, revision| crate::Entry {
            key: format!("{PREFIX}ns/a").into(),
            value: value("ns/a", 1, "red").into(),
            create_revision: created,
            mod_revision: revision,
        };
        let previous = previous.then(|| entry(1, 8));
        Batch {
            revision: 9,
            events: vec![crate::Event { kind, entry: entry(created, 9), previous }],
        }
    };
    let tells = |batch| history::History::default().take_in(&fixture.cacher, batch).is_some();
    assert!(!tells(event(EventKind::Put, 1, false)));
    assert!(!tells(event(EventKind::Delete, 0, false)));
    assert!(tells(event(EventKind::Put, 9, false)));
    assert!(tells(event(EventKind::Put, 1, true)));
    assert!(tells(event(EventKind::Delete, 0, true)));
}

#[tokio::test]
async fn a_gap_in_the_history_ends_every_watch() {
    let fixture = fixture();
    let start = fixture.put("ns/a", 1, "red").await;
    let mut watcher = fixture.watch(WatchFrom::State(At::NotOlderThan(start)), None).await.unwrap();
    fixture.store.hold(true);
    fixture.put("ns/a", 2, "red").await;
    let last = fixture.put("ns/a", 3, "red").await;
    fixture.store.compact(last).await.unwrap();
    fixture.store.break_watches();
    let mut rounds = Vec::new();
    while let Some(event) = watcher.next().await {
        rounds.extend(event.object.as_deref().map(round));
    }
    assert_eq!(rounds, [1]);
    let object = fixture.cacher.get("ns/a", At::NotOlderThan(last)).await.unwrap().unwrap();
    assert_eq!(round(&object), 3);
}

#[tokio::test]
async fn a_stopped_cache_ends_its_watches_and_takes_no_more() {
    let fixture = fixture();
    let mut watcher = fixture.watch(WatchFrom::Now, None).await.unwrap();
    let (end, ()) = tokio::join!(watcher.next(), async { fixture.cacher.stop() });
    assert!(end.is_none());
    let error = fixture.watch(WatchFrom::State(At::Any), None).await.err().unwrap();
    assert!(matches!(error, Error::NotReady), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_watcher_gets_bookmarks_and_ends_at_its_deadline() {
    let fixture = fixture();
    let revision = fixture.put("ns/a", 1, "red").await;
    let mut watcher =
        fixture.watch(WatchFrom::State(At::NotOlderThan(revision)), None).await.unwrap();
    let (begun, mut bookmarks) = (Instant::now(), 0);
    while let Some(event) = watcher.next().await {
        bookmarks += usize::from(event.kind == EventType::Bookmark { initial_events_end: false });
        assert!(event.revision >= revision);
    }
    assert!((9..=11).contains(&bookmarks), "{bookmarks}");
    assert!(begun.elapsed() <= Duration::from_secs(601));
}

#[tokio::test]
async fn a_bookmark_tells_of_changes_elsewhere() {
    let fixture = fixture();
    let mut watcher = fixture.watch(WatchFrom::Now, None).await.unwrap();
    assert!(watcher.next().now_or_never().is_none());
    let revision = fixture.put_elsewhere().await;
    fixture.cacher.list(everything(At::Latest)).await.unwrap();
    tokio::time::pause();
    let event = watcher.next().await.unwrap();
    assert_eq!(event.kind, EventType::Bookmark { initial_events_end: false });
    assert!(event.revision >= revision);
}

#[tokio::test]
async fn lists_and_a_thousand_watchers_parse_and_encode_nothing() {
    let fixture = fixture();
    let keys: Vec<String> = (0..10_000).map(|n| format!("ns/n{n}")).collect();
    let writes = keys.iter().map(|key| fixture.put(key, 0, "red"));
    stream::iter(writes).buffer_unordered(1000).for_each(|_| async {}).await;
    let mut watchers = Vec::new();
    for _ in 0..1000 {
        watchers.push(fixture.watch(WatchFrom::Now, None).await.unwrap());
    }
    let before = fixture.cacher.objects_built();
    for _ in 0..10 {
        assert_eq!(fixture.keys(At::Latest).await.len(), 10_000);
        fixture.cacher.get("ns/n1", At::Latest).await.unwrap().unwrap();
    }
    assert_eq!(fixture.cacher.objects_built(), before);

    fixture.put("ns/n1", 1, "red").await;
    fixture.delete("ns/n1").await.unwrap();
    for kind in [EventType::Modified, EventType::Deleted] {
        let mut first: Option<*const Object> = None;
        for watcher in &mut watchers {
            let event = watcher.next().await.unwrap();
            let object = event.object.unwrap();
            assert_eq!(event.kind, kind);
            assert_eq!(*first.get_or_insert(Arc::as_ptr(&object)), Arc::as_ptr(&object));
        }
    }
    assert_eq!(fixture.cacher.objects_built(), before + 1);
}

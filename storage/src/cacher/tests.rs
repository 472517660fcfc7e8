use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{Commit, embedded};

fn value(name: &str, round: u64, color: &str) -> Vec<u8> {
    let object = json!({
        "apiVersion": "v1", "kind": "Thing", "round": round,
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"color": color}},
    });
    serde_json::to_vec(&object).unwrap()
}

struct Fixture {
    store: Arc<dyn Store>,
    cacher: Arc<Cacher>,
    token: CancellationToken,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

async fn fixture() -> Fixture {
    let store = embedded::in_memory();
    let token = CancellationToken::new();
    let options = Options { prefix: "/registry/things/".into(), ..Options::default() };
    let cacher = Cacher::start(Arc::clone(&store), options, token.clone(), &TaskTracker::new());
    Fixture { store, cacher, token }
}

impl Fixture {
    async fn put(&self, name: &str, round: u64, color: &str) -> Revision {
        let key = format!("/registry/things/ns/{name}");
        self.store.commit(Commit::put(key, None, value(name, round, color))).await.unwrap()
    }

    async fn delete(&self, name: &str) -> Option<Revision> {
        let commit = Commit {
            key: format!("/registry/things/ns/{name}"),
            expected: None,
            op: crate::Op::Delete,
        };
        self.store.commit(commit).await.ok()
    }

    async fn names(&self, at: At) -> Vec<String> {
        let query = ListQuery { prefix: "ns/".into(), start: None, at };
        self.cacher
            .list(query)
            .await
            .unwrap()
            .iter()
            .map(|object| object.index.name.to_string())
            .collect()
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
    let fixture = fixture().await;
    for round in 0..50 {
        fixture.put("a", round, "red").await;
        fixture
            .store
            .commit(Commit::put(format!("/registry/other/{round}"), None, "x"))
            .await
            .unwrap();
        let object = fixture.cacher.get("ns/a", At::Latest).await.unwrap().unwrap();
        assert_eq!(object.value()["round"], round);
        let list = fixture
            .cacher
            .list(ListQuery { prefix: String::new(), start: None, at: At::Latest })
            .await
            .unwrap();
        assert_eq!(list.iter().next().unwrap().value()["round"], round);
    }
}

#[tokio::test]
async fn an_exact_list_shows_the_past() {
    let fixture = fixture().await;
    let one = fixture.put("a", 1, "red").await;
    let two = fixture.put("b", 1, "red").await;
    let three = fixture.delete("a").await.unwrap();
    assert_eq!(fixture.names(At::NotOlderThan(three)).await, ["b"]);
    assert_eq!(fixture.names(At::Exact(one)).await, ["a"]);
    assert_eq!(fixture.names(At::Exact(two)).await, ["a", "b"]);
    let error = fixture.cacher.get("ns/a", At::NotOlderThan(three + 1000)).await.unwrap_err();
    assert!(matches!(error, Error::TooLargeRevision { .. }), "{error}");
}

#[tokio::test]
async fn an_object_that_leaves_a_selector_is_deleted_for_its_watcher() {
    let fixture = fixture().await;
    fixture.put("a", 1, "red").await;
    let red: Filter = Arc::new(|object| object.index.label("color") == Some("red"));
    let mut watcher = fixture.watch(WatchFrom::State(At::Latest), Some(red)).await.unwrap();
    fixture.put("a", 2, "blue").await;
    fixture.put("b", 1, "blue").await;
    fixture.put("a", 3, "red").await;
    let last = fixture.delete("a").await.unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, revision, _)| *revision != last) {
        let event = watcher.next().await.unwrap();
        let round = event.object.map(|object| object.value()["round"].as_u64().unwrap());
        seen.push((event.kind, event.revision, round));
    }
    let kinds: Vec<_> = seen.iter().map(|(kind, _, round)| (*kind, *round)).collect();
    assert_eq!(
        kinds,
        [
            (EventType::Added, Some(1)),
            (EventType::Bookmark { initial_events_end: true }, None),
            (EventType::Deleted, Some(1)),
            (EventType::Added, Some(3)),
            (EventType::Deleted, Some(3)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_watcher_gets_bookmarks_and_ends_at_its_deadline() {
    let fixture = fixture().await;
    let revision = fixture.put("a", 1, "red").await;
    let mut watcher =
        fixture.watch(WatchFrom::State(At::NotOlderThan(revision)), None).await.unwrap();
    let mut bookmarks = 0;
    while let Some(event) = watcher.next().await {
        bookmarks += usize::from(event.kind == EventType::Bookmark { initial_events_end: false });
        assert!(event.revision >= revision);
    }
    assert!((9..=11).contains(&bookmarks), "{bookmarks}");
}

#[tokio::test]
async fn a_list_and_a_thousand_watchers_parse_and_encode_nothing() {
    let fixture = fixture().await;
    for n in 0..200 {
        fixture.put(&format!("n{n}"), 0, "red").await;
    }
    let mut watchers = Vec::new();
    for _ in 0..1000 {
        watchers.push(fixture.watch(WatchFrom::Now, None).await.unwrap());
    }
    fixture.names(At::Latest).await;
    let before = fixture.cacher.objects_built();
    for _ in 0..10 {
        assert_eq!(fixture.names(At::Latest).await.len(), 200);
        fixture.cacher.get("ns/n1", At::Latest).await.unwrap().unwrap();
    }
    assert_eq!(fixture.cacher.objects_built(), before);

    fixture.put("n1", 1, "red").await;
    let mut first: Option<*const Object> = None;
    for watcher in &mut watchers {
        let object = watcher.next().await.unwrap().object.unwrap();
        assert_eq!(*first.get_or_insert(Arc::as_ptr(&object)), Arc::as_ptr(&object));
    }
    assert_eq!(fixture.cacher.objects_built(), before + 1);
}

#[derive(Clone, Debug)]
enum Action {
    Put(usize, bool),
    Delete(usize),
    Reconnect,
    Compact,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => (0..6usize, any::<bool>()).prop_map(|(name, red)| Action::Put(name, red)),
        2 => (0..6usize).prop_map(Action::Delete),
        1 => Just(Action::Reconnect),
        1 => Just(Action::Compact),
    ]
}

/// What a client knows that lists once and then watches, as it resumes and lists anew where it must.
struct Client {
    objects: BTreeMap<String, u64>,
    seen: Revision,
    watcher: Watcher,
}

impl Client {
    async fn new(fixture: &Fixture) -> Client {
        let watcher = fixture.watch(WatchFrom::State(At::Any), Some(red())).await.unwrap();
        Client { objects: BTreeMap::new(), seen: 0, watcher }
    }

    fn take(&mut self, event: WatchEvent) {
        let Some(object) = event.object else { return };
        let (name, round) =
            (object.index.name.to_string(), object.value()["round"].as_u64().unwrap());
        match event.kind {
            EventType::Added => assert_eq!(self.objects.insert(name, round), None),
            EventType::Modified => assert!(self.objects.insert(name, round).is_some()),
            EventType::Deleted => assert!(self.objects.remove(&name).is_some()),
            EventType::Bookmark { .. } => {}
        }
        self.seen = event.revision;
    }

    async fn reconnect(&mut self, fixture: &Fixture) {
        let seen = self.seen;
        match fixture.watch(WatchFrom::After(seen), Some(red())).await {
            Ok(watcher) => self.watcher = watcher,
            Err(Error::Expired { .. }) => *self = Client::new(fixture).await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn red() -> Filter {
    Arc::new(|object| object.index.label("color") == Some("red"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_watching_client_always_ends_with_what_is_there(actions in proptest::collection::vec(action(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let fixture = fixture().await;
            let mut model: BTreeMap<String, (u64, bool)> = BTreeMap::new();
            let mut history: Vec<(Revision, Vec<String>)> = Vec::new();
            let mut client = Client::new(&fixture).await;
            let mut compacted = 0;
            for (round, action) in actions.into_iter().enumerate() {
                let round = round as u64;
                let revision = match action {
                    Action::Put(n, red) => {
                        let name = format!("n{n}");
                        let revision = fixture.put(&name, round, if red { "red" } else { "blue" }).await;
                        model.insert(name, (round, red));
                        Some(revision)
                    }
                    Action::Delete(n) => {
                        let revision = fixture.delete(&format!("n{n}")).await;
                        assert_eq!(model.remove(&format!("n{n}")).is_some(), revision.is_some());
                        revision
                    }
                    Action::Reconnect => {
                        while let Some(event) = client.watcher.try_next() {
                            client.take(event);
                        }
                        client.reconnect(&fixture).await;
                        None
                    }
                    Action::Compact => {
                        compacted = fixture.store.current_revision().await.unwrap();
                        // What is compacted already is refused, as by etcd.
                        let _again = fixture.store.compact(compacted).await;
                        None
                    }
                };
                if let Some(revision) = revision {
                    history.push((revision, model.keys().cloned().collect()));
                }
            }
            let last = fixture.store.current_revision().await.unwrap();
            let wanted: Vec<String> = model.keys().cloned().collect();
            assert_eq!(fixture.names(At::Latest).await, wanted);
            for (revision, names) in history.into_iter().filter(|(revision, _)| *revision >= compacted) {
                assert_eq!(fixture.names(At::Exact(revision)).await, names);
            }
            fixture.cacher.get("ns/x", At::NotOlderThan(last)).await.unwrap();
            while let Some(event) = client.watcher.try_next() {
                client.take(event);
            }
            let wanted: BTreeMap<String, u64> =
                model.iter().filter(|(_, (_, red))| *red).map(|(name, (round, _))| (name.clone(), *round)).collect();
            assert_eq!(client.objects, wanted);
        });
    }
}

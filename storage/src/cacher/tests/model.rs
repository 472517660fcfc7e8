//! Random writes, watches, reconnects, faults and compactions against a list of all that happened.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEYS: [&str; 8] =
    ["ns/a", "ns/a-b", "ns/b", "ns/c", "nsx/a", "other/a", "other/b", "other/c"];

#[derive(Clone, Debug)]
enum Action {
    Put {
        key: usize,
        red: bool,
    },
    Delete {
        key: usize,
    },
    PutElsewhere,
    /// A client takes so many of the events that are ready.
    Read {
        client: usize,
        events: usize,
    },
    /// A client's connection breaks: it goes on after what it saw last.
    Reconnect {
        client: usize,
    },
    /// The store's watch delivers nothing, or all again.
    Hold(bool),
    /// The store's watch breaks.
    Break,
    Compact,
    List {
        back: usize,
        prefix: usize,
        start: Option<usize>,
    },
    /// Time for bookmarks, and for the ring to forget.
    Minute,
}

fn action() -> impl Strategy<Value = Action> {
    let key = 0..KEYS.len();
    let client = 0..CLIENTS.len();
    prop_oneof![
        12 => (key.clone(), any::<bool>()).prop_map(|(key, red)| Action::Put { key, red }),
        5 => key.clone().prop_map(|key| Action::Delete { key }),
        2 => Just(Action::PutElsewhere),
        8 => (client.clone(), 1..20usize)
            .prop_map(|(client, events)| Action::Read { client, events }),
        3 => client.prop_map(|client| Action::Reconnect { client }),
        2 => any::<bool>().prop_map(Action::Hold),
        2 => Just(Action::Break),
        2 => Just(Action::Compact),
        4 => (0..40usize, 0..PREFIXES.len(), proptest::option::of(key))
            .prop_map(|(back, prefix, start)| Action::List { back, prefix, start }),
        1 => Just(Action::Minute),
    ]
}

/// One revision of one object, as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thing {
    revision: Revision,
    round: u64,
    red: bool,
}

/// All that happened.
#[derive(Default)]
struct Model {
    history: Vec<(Revision, &'static str, Option<Thing>)>,
    /// The newest revision of all.
    newest: Revision,
    /// Older history may be gone.
    compacted: Revision,
}

/// What a client has seen, in words that the model can say as well.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: EventType,
    revision: Revision,
    key: String,
    round: u64,
}

impl Model {
    fn state(&self, at: Revision) -> BTreeMap<&'static str, Thing> {
        let mut state = BTreeMap::new();
        for (_, key, thing) in self.history.iter().take_while(|(revision, ..)| *revision <= at) {
            match thing {
                Some(thing) => state.insert(*key, *thing),
                None => state.remove(key),
            };
        }
        state
    }

    /// The objects of a list: keys and revisions.
    fn list(&self, at: Revision, prefix: &str, start: &str) -> Vec<(String, Revision)> {
        let state = self.state(at);
        let wanted = state.iter().filter(|(key, _)| key.starts_with(prefix) && **key >= start);
        wanted.map(|(key, thing)| ((*key).to_owned(), thing.revision)).collect()
    }

    fn initial(&self, at: Revision, view: &View) -> Vec<Seen> {
        let state = self.state(at);
        let wanted = state.iter().filter(|(key, thing)| view.shows(key, thing));
        wanted
            .map(|(key, thing)| Seen {
                kind: EventType::Added,
                revision: thing.revision,
                key: (*key).to_owned(),
                round: thing.round,
            })
            .collect()
    }

    /// What a watcher sees of the changes after one revision up to another.
    fn changes(&self, after: Revision, to: Revision, view: &View) -> Vec<Seen> {
        let mut state = self.state(after);
        let mut seen = Vec::new();
        for &(revision, key, thing) in &self.history {
            if revision <= after || revision > to {
                continue;
            }
            let before = match thing {
                Some(thing) => state.insert(key, thing),
                None => state.remove(key),
            };
            let before = before.filter(|thing| view.shows(key, thing));
            let after = thing.filter(|thing| view.shows(key, thing));
            let (kind, shown) = match (before, after) {
                (None, None) => continue,
                (None, Some(after)) => (EventType::Added, after),
                (Some(_), Some(after)) => (EventType::Modified, after),
                (Some(before), None) => (EventType::Deleted, before),
            };
            seen.push(Seen { kind, revision, key: key.to_owned(), round: shown.round });
        }
        seen
    }
}

/// What a client wants to see, and how it begins.
struct View {
    prefix: &'static str,
    red: bool,
    from: WatchFrom,
}

impl View {
    fn shows(&self, key: &str, thing: &Thing) -> bool {
        key.starts_with(self.prefix) && (thing.red || !self.red)
    }
}

const PREFIXES: [&str; 3] = ["", "ns/", "other/"];
const CLIENTS: [View; 5] = [
    View { prefix: "", red: false, from: WatchFrom::State(At::Any) },
    View { prefix: "", red: true, from: WatchFrom::State(At::Any) },
    View { prefix: "ns/", red: false, from: WatchFrom::Now },
    View { prefix: "ns/", red: true, from: WatchFrom::State(At::NotOlderThan(1)) },
    View { prefix: "other/", red: true, from: WatchFrom::State(At::Any) },
];

struct Client {
    view: &'static View,
    watcher: Watcher,
    /// Its initial state, and since when it watches; not known before the initial events have ended.
    initial: Vec<Seen>,
    base: Option<Revision>,
    seen: Vec<Seen>,
    /// Where it would go on.
    last: Revision,
}

impl Client {
    async fn new(world: &World, view: &'static View) -> Client {
        // Only what the cache has is asked for while it can't go on.
        let from = match view.from {
            WatchFrom::Now if world.fixture.store.is_held() => {
                WatchFrom::After(world.fixture.cacher.state.load().revision)
            }
            from => from,
        };
        let watcher = Self::open(world, view, from).await.unwrap();
        let base = match from {
            WatchFrom::State(_) => None,
            WatchFrom::After(_) | WatchFrom::Now => Some(watcher.after),
        };
        let last = base.unwrap_or(0);
        Client { view, watcher, initial: Vec::new(), base, seen: Vec::new(), last }
    }

    async fn open(world: &World, view: &View, from: WatchFrom) -> Result<Watcher, Error> {
        let query = WatchQuery {
            prefix: view.prefix.to_owned(),
            from,
            filter: view.red.then(red),
            bookmarks: true,
            initial_events_end: matches!(from, WatchFrom::State(_)),
            deadline: Instant::now() + Duration::from_secs(600),
        };
        world.fixture.cacher.watch(query).await
    }

    fn take(&mut self, model: &Model, event: WatchEvent) {
        let Some(object) = event.object else {
            assert!(event.revision >= self.last, "a bookmark goes back");
            self.last = event.revision;
            if event.kind == (EventType::Bookmark { initial_events_end: true }) {
                assert_eq!(self.base, None, "the initial events end twice");
                self.base = Some(event.revision);
                assert_eq!(self.initial, model.initial(event.revision, self.view));
            }
            let base = self.base.expect("no bookmark comes before the initial events have ended");
            assert_eq!(self.seen, model.changes(base, event.revision, self.view));
            return;
        };
        let wire: serde_json::Value = serde_json::from_slice(&object.wire()).unwrap();
        assert_eq!(wire["metadata"]["resourceVersion"], event.revision.to_string());
        assert_eq!(object.revision, event.revision);
        let seen = Seen {
            kind: event.kind,
            revision: event.revision,
            key: object.key.to_string(),
            round: round(&object),
        };
        if let Some(base) = self.base {
            self.last = event.revision;
            self.seen.push(seen);
            assert_eq!(self.seen, model.changes(base, event.revision, self.view));
        } else {
            self.initial.push(seen);
        }
    }

    /// Goes on after what it saw last; begins anew if that is too old, or if the initial events had not ended.
    async fn reconnect(&mut self, world: &World) {
        // While the store is held it can't be asked what happened before the ring.
        let ring = world.fixture.cacher.ring.read().oldest();
        if self.base.is_some() && (ring <= self.last || !world.fixture.store.is_held()) {
            match Self::open(world, self.view, WatchFrom::After(self.last)).await {
                Ok(watcher) => {
                    self.watcher = watcher;
                    return;
                }
                Err(Error::Expired { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        *self = Client::new(world, self.view).await;
    }

    async fn read(&mut self, world: &World, events: usize) {
        for _ in 0..events {
            match self.watcher.next().now_or_never() {
                None => return,
                Some(Some(event)) => self.take(&world.model, event),
                Some(None) => return self.reconnect(world).await,
            }
        }
    }

    async fn read_until(&mut self, world: &World, revision: Revision) {
        while self.last < revision {
            match timeout(Duration::from_secs(30), self.watcher.next()).await.unwrap() {
                Some(event) => self.take(&world.model, event),
                None => self.reconnect(world).await,
            }
        }
    }
}

struct World {
    fixture: Fixture,
    model: Model,
}

impl World {
    async fn put(&mut self, key: &'static str, red: bool) -> Revision {
        let round = self.model.history.len() as u64;
        let revision = self.fixture.put(key, round, if red { "red" } else { "blue" }).await;
        self.model.history.push((revision, key, Some(Thing { revision, round, red })));
        self.model.newest = revision;
        revision
    }

    async fn delete(&mut self, key: &'static str) {
        let revision = self.fixture.delete(key).await;
        let was_there = self.model.state(Revision::MAX).contains_key(key);
        assert_eq!(revision.is_some(), was_there);
        if let Some(revision) = revision {
            self.model.history.push((revision, key, None));
            self.model.newest = revision;
        }
    }

    async fn compact(&mut self) {
        // What is compacted already is refused, as by etcd.
        if self.fixture.store.compact(self.model.newest).await.is_ok() {
            self.model.compacted = self.model.newest;
        }
    }

    async fn list(&self, back: usize, prefix: &str, start: Option<&str>) {
        let held = self.fixture.store.is_held();
        let cached = self.fixture.cacher.state.load().revision;
        let newest = if held { cached.min(self.model.newest) } else { self.model.newest };
        let exact = newest.saturating_sub(back as Revision).max(1);
        let mut ats = vec![At::Any, At::Exact(exact)];
        if !held {
            ats.extend([At::Latest, At::NotOlderThan(newest)]);
        }
        for at in ats {
            let query =
                ListQuery { prefix: prefix.to_owned(), start: start.map(str::to_owned), at };
            let list = match self.fixture.cacher.list(query).await {
                Ok(list) => list,
                Err(Error::Expired { .. }) => {
                    assert!(exact < self.model.compacted && at == At::Exact(exact));
                    continue;
                }
                Err(error) => panic!("{at:?}: {error}"),
            };
            match at {
                At::Any => {}
                At::Latest | At::NotOlderThan(_) => assert!(list.revision() >= newest),
                At::Exact(exact) => assert_eq!(list.revision(), exact),
            }
            let got: Vec<_> =
                list.iter().map(|object| (object.key.to_string(), object.revision)).collect();
            let wanted = self.model.list(list.revision(), prefix, start.unwrap_or(""));
            assert_eq!(got, wanted, "{at:?} at {}", list.revision());
        }
        for key in KEYS {
            let got = self.fixture.cacher.get(key, At::Latest).await.unwrap();
            let wanted = self.model.state(Revision::MAX).get(key).map(|thing| thing.round);
            assert_eq!(got.as_deref().map(round), wanted);
        }
    }
}

async fn run(actions: Vec<Action>) {
    let limits = Limits { least: 4, most: 24, ..Limits::default() };
    let mut world = World { fixture: fixture_with(limits), model: Model::default() };
    let mut clients = Vec::new();
    for view in &CLIENTS {
        clients.push(Client::new(&world, view).await);
    }
    for action in actions {
        match action {
            Action::Put { key, red } => drop(world.put(KEYS[key], red).await),
            Action::Delete { key } => world.delete(KEYS[key]).await,
            Action::PutElsewhere => world.model.newest = world.fixture.put_elsewhere().await,
            Action::Read { client, events } => clients[client].read(&world, events).await,
            Action::Reconnect { client } => clients[client].reconnect(&world).await,
            Action::Hold(held) => world.fixture.store.hold(held),
            Action::Break => world.fixture.store.break_watches(),
            Action::Compact => world.compact().await,
            Action::List { back, prefix, start } => {
                world.list(back, PREFIXES[prefix], start.map(|key| KEYS[key])).await;
            }
            Action::Minute => {
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(61)).await;
                tokio::time::resume();
            }
        }
    }
    world.fixture.store.hold(false);
    let mut last = 0;
    for key in KEYS {
        last = world.put(key, true).await;
        for client in &mut clients {
            if key.starts_with(client.view.prefix) {
                client.read_until(&world, last).await;
            }
        }
    }
    world.list(0, "", None).await;
    for client in &clients {
        let base = client.base.unwrap();
        assert_eq!(client.seen, world.model.changes(base, last, client.view));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_readers_and_watchers_see_is_what_happened(
        actions in proptest::collection::vec(action(), 1..120),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(actions));
    }
}

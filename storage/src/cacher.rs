//! The watch cache: all objects of one kind in memory, as bytes, with their recent changes.
//!
//! One task follows the store. Readers take an immutable snapshot and never wait for it; a watcher is a place in the
//! ring of changes, so that one who waits costs next to nothing and one who is too slow is cut off, not buffered for.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::object::Object;
use crate::{Range, Revision, Store};

mod follow;
mod ring;
mod watcher;

use ring::Ring;
pub use watcher::{EventType, Filter, WatchEvent, WatchFrom, WatchQuery, Watcher};

/// How long a reader waits for the cache to catch up, as in Kubernetes.
const FRESHNESS_WAIT: Duration = Duration::from_secs(3);
/// How often a waiting reader asks the store anew how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How many states are kept for lists that go on in pages. Each shares all but its changed nodes with the newest.
const PINNED: usize = 32;

type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// What a cacher follows.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The prefix of the kind's keys, with its slash.
    pub prefix: String,
    /// The fields that the kind can be selected by.
    pub selectable_fields: Vec<String>,
}

/// How new a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Whatever is at hand.
    Any,
    /// Not older than the moment of the call.
    Latest,
    /// Not older than this revision.
    NotOlderThan(Revision),
    /// Just as it was at this revision.
    Exact(Revision),
}

/// Which objects to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Keys that begin so: empty, or a namespace and a slash.
    pub prefix: String,
    /// The first key, inclusive.
    pub start: Option<String>,
    pub at: At,
}

/// Why a read is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The asked revision is no longer known.
    #[error("revision {asked} is too old, the oldest known is {oldest}")]
    Expired { asked: Revision, oldest: Revision },
    /// The asked revision is not there yet.
    #[error("revision {asked} has not happened, the newest is {current}")]
    TooLargeRevision { asked: Revision, current: Revision },
    /// The cache is being filled.
    #[error("the cache is not filled yet")]
    NotReady,
    /// The store was asked and did not answer well.
    #[error(transparent)]
    Store(#[from] crate::Error),
}

/// The objects of a kind at one revision.
pub struct Snapshot {
    revision: Revision,
    objects: Objects,
    prefix: String,
    start: String,
}

impl Snapshot {
    /// The revision at which the objects were so.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The objects from the start of the query, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects
            .range::<_, str>((Bound::Included(self.start.as_str()), Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(|object| object.key.starts_with(&self.prefix))
    }
}

/// The state that readers see.
#[derive(Default)]
struct State {
    /// Everything up to here is in `objects`.
    revision: Revision,
    objects: Objects,
}

/// The watch cache of one kind.
pub struct Cacher {
    store: Arc<dyn Store>,
    options: Options,
    state: ArcSwap<State>,
    ring: RwLock<Ring>,
    /// Tells the revision of the state, 0 while it is not filled.
    progress: watch::Sender<Revision>,
    pinned: Mutex<BTreeMap<Revision, Objects>>,
    question: tokio::sync::Mutex<(u64, Revision)>,
    tickets: AtomicU64,
    built: AtomicU64,
    token: CancellationToken,
}

impl Cacher {
    /// Follows the keys of a kind until `token` is cancelled or [`stop`](Self::stop) is called.
    pub fn start(
        store: Arc<dyn Store>,
        options: Options,
        token: CancellationToken,
        tracker: &TaskTracker,
    ) -> Arc<Cacher> {
        let cacher = Arc::new(Cacher {
            store,
            options,
            state: ArcSwap::default(),
            ring: RwLock::default(),
            progress: watch::Sender::new(0),
            pinned: Mutex::default(),
            question: tokio::sync::Mutex::default(),
            tickets: AtomicU64::new(1),
            built: AtomicU64::new(0),
            token: token.child_token(),
        });
        tracker.spawn(follow::follow(Arc::clone(&cacher)));
        cacher
    }

    /// Ends the cache and every watch on it.
    pub fn stop(&self) {
        self.token.cancel();
    }

    /// How many objects were made from stored bytes so far: once for each revision, whoever reads it.
    pub fn objects_built(&self) -> u64 {
        self.built.load(Ordering::Relaxed)
    }

    /// One object, by its key below the prefix.
    pub async fn get(&self, key: &str, at: At) -> Result<Option<Arc<Object>>, Error> {
        match at {
            At::Any => self.wait_filled().await?,
            At::NotOlderThan(revision) => self.wait_for(revision).await?,
            At::Latest => return self.get_latest(key).await,
            At::Exact(revision) => {
                let query =
                    ListQuery { prefix: key.to_owned(), start: None, at: At::Exact(revision) };
                return Ok(self
                    .list(query)
                    .await?
                    .iter()
                    .find(|object| &*object.key == key)
                    .cloned());
            }
        }
        Ok(self.state.load().objects.get(key).cloned())
    }

    /// The store knows what is newest. If it is what the cache has, the bytes are shared; else they are made once more,
    /// ahead of the cache.
    async fn get_latest(&self, key: &str) -> Result<Option<Arc<Object>>, Error> {
        let (entry, _) = self.store.get(&format!("{}{key}", self.options.prefix)).await?;
        let Some(entry) = entry else { return Ok(None) };
        let cached = self.state.load().objects.get(key).cloned();
        if let Some(cached) = cached.filter(|cached| cached.revision == entry.mod_revision) {
            return Ok(Some(cached));
        }
        Ok(Some(Arc::new(self.build(&entry)?)))
    }

    /// The objects of a kind, or of a namespace of it.
    pub async fn list(&self, query: ListQuery) -> Result<Snapshot, Error> {
        match query.at {
            At::Any => self.wait_filled().await?,
            At::Latest => {
                let revision = self.current_revision().await?;
                self.wait_for(revision).await?;
            }
            At::NotOlderThan(revision) => self.wait_for(revision).await?,
            At::Exact(revision) => return self.list_exact(query, revision).await,
        }
        let state = self.state.load_full();
        Ok(snapshot(query, state.revision, state.objects.clone()))
    }

    async fn list_exact(&self, query: ListQuery, revision: Revision) -> Result<Snapshot, Error> {
        self.wait_for(revision).await?;
        let state = self.state.load_full();
        if self.ring.read().newest() <= revision && state.revision >= revision {
            return Ok(snapshot(query, revision, state.objects.clone()));
        }
        if let Some(objects) = self.pinned.lock().get(&revision).cloned() {
            return Ok(snapshot(query, revision, objects));
        }
        let range = Range {
            prefix: format!("{}{}", self.options.prefix, query.prefix),
            revision: Some(revision),
            ..Range::default()
        };
        let page = match self.store.range(range).await {
            Err(crate::Error::Compacted { oldest }) => {
                return Err(Error::Expired { asked: revision, oldest });
            }
            page => page?,
        };
        let mut objects = Objects::new();
        for entry in &page.entries {
            let object = Arc::new(self.build(entry)?);
            objects.insert(Arc::clone(&object.key), object);
        }
        Ok(snapshot(query, revision, objects))
    }

    /// Keeps the state of a list for its next pages, so that they come from memory. The oldest is let go.
    pub fn pin(&self, snapshot: &Snapshot) {
        let mut pinned = self.pinned.lock();
        pinned.insert(snapshot.revision, snapshot.objects.clone());
        while pinned.len() > PINNED {
            pinned.pop_first();
        }
    }

    /// The store's newest revision as of now. Readers that come while the store is being asked share the next
    /// question; nobody gets an answer to a question that was asked before it came.
    async fn current_revision(&self) -> Result<Revision, Error> {
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
        let mut question = self.question.lock().await;
        let (asked, answer) = *question;
        if asked > ticket {
            return Ok(answer);
        }
        let asked = self.tickets.fetch_add(1, Ordering::SeqCst);
        let answer = self.store.current_revision().await?;
        *question = (asked, answer);
        Ok(answer)
    }

    async fn wait_filled(&self) -> Result<(), Error> {
        self.wait_for(1).await.map_err(|error| match error {
            Error::TooLargeRevision { .. } => Error::NotReady,
            error => error,
        })
    }

    /// Waits until the state is not older than `revision`.
    async fn wait_for(&self, revision: Revision) -> Result<(), Error> {
        let mut progress = self.progress.subscribe();
        if *progress.borrow_and_update() >= revision {
            return Ok(());
        }
        let deadline = tokio::time::sleep(FRESHNESS_WAIT);
        tokio::pin!(deadline);
        loop {
            if *progress.borrow() > 0 {
                // No change of this kind may be under way: the store is asked to say how far it is.
                self.store.request_progress().await?;
            }
            tokio::select! {
                reached = progress.wait_for(|reached| *reached >= revision) => {
                    return reached.map(drop).map_err(|_| Error::NotReady);
                }
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {}
                () = &mut deadline => {
                    let current = *self.progress.borrow();
                    if current == 0 {
                        return Err(Error::NotReady);
                    }
                    return Err(Error::TooLargeRevision { asked: revision, current });
                }
            }
        }
    }

    /// The object of an entry of the store, with its key below the prefix.
    fn build(&self, entry: &crate::Entry) -> Result<Object, crate::Error> {
        self.built.fetch_add(1, Ordering::Relaxed);
        let key = entry.key.strip_prefix(self.options.prefix.as_str()).unwrap_or(&entry.key);
        Object::from_entry(
            &crate::Entry { key: key.into(), ..entry.clone() },
            &self.options.selectable_fields,
        )
    }
}

fn snapshot(query: ListQuery, revision: Revision, objects: Objects) -> Snapshot {
    let start =
        query.start.filter(|start| *start > query.prefix).unwrap_or_else(|| query.prefix.clone());
    Snapshot { revision, objects, prefix: query.prefix, start }
}

#[cfg(test)]
mod tests;

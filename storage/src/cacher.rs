//! The watch cache: all objects of one kind in memory, as bytes, with their recent changes.
//!
//! One task follows the store. Readers take an immutable snapshot and never wait for it; a watcher is a place in the
//! ring of changes, so that one who waits costs next to nothing and one who is too slow is cut off, not buffered for.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::object::Object;
use crate::{Revision, Store};

mod follow;
mod history;
mod ring;
mod watcher;

use ring::Ring;
pub use watcher::{EventType, Filter, WatchEvent, WatchFrom, WatchQuery, Watcher};

/// How long a reader waits for the cache to catch up, as in Kubernetes.
const FRESHNESS_WAIT: Duration = Duration::from_secs(3);
/// How often the store is asked anew how far it is, while readers wait.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

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
    /// Wakes the watchers: the ring has changed.
    changed: watch::Sender<()>,
    /// Held while the history is read: who comes meanwhile most likely finds what it wants then.
    reaching_back: tokio::sync::Mutex<()>,
    /// The number of the last question for the current revision, and the answer.
    question: tokio::sync::Mutex<(u64, Revision)>,
    tickets: AtomicU64,
    /// The newest revision that the store has told.
    known: AtomicU64,
    /// When progress was last requested, and what was known then.
    requested: Mutex<Option<(Instant, Revision)>>,
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
            changed: watch::Sender::default(),
            reaching_back: tokio::sync::Mutex::default(),
            question: tokio::sync::Mutex::default(),
            tickets: AtomicU64::new(1),
            known: AtomicU64::new(0),
            requested: Mutex::default(),
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

    /// Whether the first state has come.
    pub fn is_filled(&self) -> bool {
        *self.progress.borrow() > 0
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
            At::NotOlderThan(revision) => self.wait_for(revision).await?,
            At::Exact(revision) => {
                self.wait_for(revision).await?;
                return match self.rewind(revision) {
                    Some(objects) => Ok(snapshot(query, revision, objects)),
                    None => self.list_from_store(query, Some(revision)).await,
                };
            }
            At::Latest => {
                let revision = self.current_revision().await?;
                match self.wait_for(revision).await {
                    // The watch lags far behind, or can't tell how far it is.
                    Err(Error::TooLargeRevision { .. } | Error::Store(_)) => {
                        return self.list_from_store(query, None).await;
                    }
                    outcome => outcome?,
                }
            }
        }
        let state = self.state.load_full();
        Ok(snapshot(query, state.revision, state.objects.clone()))
    }

    /// What has changed after one revision and up to another or later, also what is gone, with its last state; all
    /// objects where the changes are no longer known.
    pub async fn changed(
        &self,
        after: Revision,
        until: Revision,
    ) -> Result<Vec<Arc<Object>>, Error> {
        self.wait_for(until).await?;
        let state = self.state.load_full();
        let changes = self.ring.read().between(after, state.revision);
        Ok(match changes {
            Some(changes) => changes.iter().map(|change| Arc::clone(&change.object)).collect(),
            None => state.objects.values().cloned().collect(),
        })
    }

    /// The state as it was at `revision`: the newest without the changes since. `None` if they are no longer known.
    fn rewind(&self, revision: Revision) -> Option<Objects> {
        // The state first: the ring then has all that led to it, unless it says that it has not.
        let state = self.state.load_full();
        let changes = self.ring.read().between(revision, state.revision)?;
        let mut objects = state.objects.clone();
        for change in changes.iter().rev() {
            let key = &change.object.key;
            match &change.previous {
                Some(previous) => objects.insert(Arc::clone(key), Arc::clone(previous)),
                None => objects.remove(key),
            };
        }
        Some(objects)
    }

    async fn list_from_store(
        &self,
        query: ListQuery,
        revision: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        match follow::load(self, &query.prefix, revision).await {
            Ok((revision, objects)) => Ok(snapshot(query, revision, objects)),
            Err(crate::Error::Compacted { oldest }) => {
                Err(Error::Expired { asked: revision.unwrap_or(0), oldest })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The store's newest revision as of now. Readers that come while the store is being asked share the next
    /// question; nobody gets an answer to a question that was asked before it came.
    async fn current_revision(&self) -> Result<Revision, Error> {
        let ask = async {
            let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
            let mut question = self.question.lock().await;
            let (asked, answer) = *question;
            if asked > ticket {
                return Ok(answer);
            }
            let asked = self.tickets.fetch_add(1, Ordering::SeqCst);
            let answer = self.store.current_revision().await?;
            self.known.fetch_max(answer, Ordering::SeqCst);
            *question = (asked, answer);
            Ok(answer)
        };
        timeout(FRESHNESS_WAIT, ask)
            .await
            .unwrap_or_else(|elapsed| Err(crate::Error::Unavailable(elapsed.into()).into()))
    }

    async fn wait_filled(&self) -> Result<(), Error> {
        self.wait_for(1).await.map_err(|error| match error {
            Error::TooLargeRevision { .. } => Error::NotReady,
            error => error,
        })
    }

    /// Waits until the state is not older than `revision`.
    async fn wait_for(&self, revision: Revision) -> Result<(), Error> {
        if *self.progress.borrow() >= revision {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let reached = async {
            loop {
                if *progress.borrow() > 0 {
                    // Perhaps no change of this kind is under way: the store is asked to say how far it is.
                    self.request_progress().await?;
                }
                let reached = progress.wait_for(|reached| *reached >= revision);
                if let Ok(reached) = timeout(PROGRESS_INTERVAL, reached).await {
                    return reached.map(drop).map_err(|_| Error::NotReady);
                }
            }
        };
        tokio::select! {
            outcome = timeout(FRESHNESS_WAIT, reached) => outcome.unwrap_or_else(|_| {
                match *self.progress.borrow() {
                    0 => Err(Error::NotReady),
                    current => Err(Error::TooLargeRevision { asked: revision, current }),
                }
            }),
            () = self.token.cancelled() => Err(Error::NotReady),
        }
    }

    /// Asks the store how far it is, which costs every watch on it something. So readers share a request: it serves all
    /// who wait for a revision that was known when it was made.
    async fn request_progress(&self) -> Result<(), Error> {
        {
            let known = self.known.load(Ordering::SeqCst);
            let now = Instant::now();
            let mut requested = self.requested.lock();
            let serves = |(at, then): (Instant, Revision)| {
                then >= known && now.duration_since(at) < PROGRESS_INTERVAL
            };
            if requested.is_some_and(serves) {
                return Ok(());
            }
            *requested = Some((now, known));
        }
        Ok(self.store.request_progress().await?)
    }

    /// The object of an entry of the store, with its key below the prefix.
    fn build(&self, entry: &crate::Entry) -> Result<Object, crate::Error> {
        self.built.fetch_add(1, Ordering::Relaxed);
        let key = self.relative(&entry.key).into();
        Object::from_entry(&crate::Entry { key, ..entry.clone() }, &self.options.selectable_fields)
    }

    /// A key of the store below the kind's prefix.
    fn relative<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(self.options.prefix.as_str()).unwrap_or(key)
    }
}

fn snapshot(query: ListQuery, revision: Revision, objects: Objects) -> Snapshot {
    let start =
        query.start.filter(|start| *start > query.prefix).unwrap_or_else(|| query.prefix.clone());
    Snapshot { revision, objects, prefix: query.prefix, start }
}

#[cfg(test)]
mod tests;

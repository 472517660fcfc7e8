//! What the server asks of a database, and what the database may answer.
//!
//! The errors are split by what the caller can do about them, never by the
//! backend that they come from.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};

/// The number of a change. Revisions grow by every commit of any key; 0 stands
/// for "before everything". Keys whose time to live ends together may share one.
pub type Revision = u64;

/// The largest key and value, together, that a commit may carry.
///
/// It is what etcd accepts by default; a backend without such a limit keeps to
/// it as well, so that data can always move from one to the other.
pub const MAX_VALUE_SIZE: usize = 1536 * 1024;

/// What went wrong below, kept for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A key and its value at one revision.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: Arc<str>,
    /// The value, as it was written.
    pub value: Bytes,
    /// The revision that created the key, since it last did not exist.
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
}

impl fmt::Debug for Entry {
    /// Leaves out the value: it may hold a secret, and errors carry entries.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("size", &self.value.len())
            .field("create_revision", &self.create_revision)
            .field("mod_revision", &self.mod_revision)
            .finish_non_exhaustive()
    }
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or replaced.
    Put,
    /// It was deleted or its time to live ended.
    Delete,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key afterwards. For a deletion the value is empty, `mod_revision`
    /// is the revision of the deletion and `create_revision` is 0.
    pub entry: Entry,
    /// The key before, if it existed. A compaction may have removed it.
    pub previous: Option<Entry>,
}

/// Changes that a watch delivers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Everything up to and including this revision has now been delivered.
    pub revision: Revision,
    /// The changes by growing revision; those of one revision are never split
    /// over two batches. An empty batch only reports progress.
    pub events: Vec<Event>,
}

/// Which keys to read, and as of when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Only keys that start with this.
    pub prefix: String,
    /// Only keys from this one on, inclusive. It starts with the prefix.
    pub start: Option<String>,
    /// At most so many entries; 0 means all.
    pub limit: usize,
    /// As the keys were at this revision; `None` means now.
    pub revision: Option<Revision>,
}

impl Range {
    /// All keys with the prefix, as they are now.
    pub fn all(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, by key in byte order.
    pub entries: Vec<Entry>,
    /// Whether the limit has cut off further entries.
    pub more: bool,
    /// The revision at which all of them were read.
    pub revision: Revision,
    /// How many keys there are in the range, the limit aside.
    pub count: u64,
}

/// What to do with a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Create or replace it.
    Put {
        /// The new value.
        value: Bytes,
        /// Delete the key so long after this write, unless it is written again.
        /// It may live somewhat longer, never shorter.
        ttl: Option<Duration>,
    },
    /// Delete it.
    Delete,
}

impl fmt::Debug for Op {
    /// Leaves out the value, as [`Entry`] does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { value, ttl } => {
                f.debug_struct("Put").field("size", &value.len()).field("ttl", ttl).finish()
            }
            Self::Delete => f.write_str("Delete"),
        }
    }
}

/// A change of one key under a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The key.
    pub key: String,
    /// `Some(0)`: only if it does not exist. `Some(r)`: only if `r` wrote its
    /// value. `None`: in any case.
    pub expected: Option<Revision>,
    /// The change.
    pub op: Op,
}

impl Commit {
    /// Creates a key that must not exist yet.
    pub fn create(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self::put(key, Some(0), value)
    }

    /// Replaces the value that was written at the revision `expected`.
    pub fn update(key: impl Into<String>, expected: Revision, value: impl Into<Bytes>) -> Self {
        Self::put(key, Some(expected), value)
    }

    /// Deletes a key whose value was written at the revision `expected`.
    pub fn delete(key: impl Into<String>, expected: Revision) -> Self {
        Self { key: key.into(), expected: Some(expected), op: Op::Delete }
    }

    /// Writes a value under the condition `expected`.
    pub fn put(
        key: impl Into<String>,
        expected: Option<Revision>,
        value: impl Into<Bytes>,
    ) -> Self {
        Self { key: key.into(), expected, op: Op::Put { value: value.into(), ttl: None } }
    }

    /// Refuses what is larger than every backend accepts.
    pub fn check_size(&self) -> Result<(), Error> {
        let size = self.key.len()
            + match &self.op {
                Op::Put { value, .. } => value.len(),
                Op::Delete => 0,
            };
        if size > MAX_VALUE_SIZE {
            return Err(Error::TooLarge { size, limit: MAX_VALUE_SIZE });
        }
        Ok(())
    }
}

/// How a store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// Which backend, and its version: "etcd 3.6.8", "embedded 1".
    pub backend: String,
    /// The revision now.
    pub revision: Revision,
    /// The oldest revision that can still be read, as far as is known; 0 before any compaction.
    pub compacted: Revision,
    /// Bytes that the database occupies on disk or in memory.
    pub size: u64,
    /// Bytes of that which hold data; the rest is free for reuse.
    pub size_in_use: u64,
    /// Whether [`Store::request_progress`] may be relied on. Old releases of
    /// etcd report a progress that has not happened.
    pub reliable_progress: bool,
}

/// A database of many-versioned keys with one order of changes.
///
/// Reads are linearizable: they see every commit that was acknowledged before
/// they began. A revision is visible anywhere only once it is durable.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key, and the revision at which it was read.
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error>;

    /// Reads many keys at one revision.
    ///
    /// Fails with [`Error::Compacted`] or [`Error::FutureRevision`] when the
    /// revision asked for is gone or has not happened yet.
    async fn range(&self, range: Range) -> Result<Page, Error>;

    /// Changes one key if the condition holds, and tells the revision of the change.
    ///
    /// If it does not hold, [`Error::Conflict`] has the key as it is. Deleting
    /// what does not exist conflicts as well, whatever the condition, since it
    /// would have no revision. After [`Error::UnknownOutcome`] the change may
    /// or may not have happened: read again before a second attempt.
    async fn commit(&self, commit: Commit) -> Result<Revision, Error>;

    /// Watches the keys with a prefix, from the change with the revision `from` on.
    ///
    /// With 0 it begins after the current revision. Fails with
    /// [`Error::Compacted`], at once or as the first item of the watch, if
    /// `from` is older than the history.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error>;

    /// Makes every open watch soon deliver a batch, perhaps an empty one,
    /// whose revision is at least what is current now.
    async fn request_progress(&self) -> Result<(), Error>;

    /// The revision of the latest change.
    async fn current_revision(&self) -> Result<Revision, Error>;

    /// Forgets the history before a revision. What is current stays.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// How the store is doing.
    async fn status(&self) -> Result<StoreStatus, Error>;
}

/// An open watch.
///
/// It buffers little and resumes by itself: a reader that falls far behind gets
/// the changes later, from the history, and [`Error::Compacted`] only once that
/// is gone. After an error nothing follows. Dropping it ends the watch.
pub struct Watch {
    batches: BoxStream<'static, Result<Batch, Error>>,
    ended: bool,
}

impl Watch {
    /// A watch that delivers what a stream yields.
    pub fn new(batches: impl Stream<Item = Result<Batch, Error>> + Send + 'static) -> Self {
        Self { batches: batches.boxed(), ended: false }
    }

    /// Waits for the next batch; `None` when the store has closed or after an error.
    ///
    /// It is safe to drop the future and call again: no batch is lost.
    pub async fn next(&mut self) -> Option<Result<Batch, Error>> {
        StreamExt::next(self).await
    }
}

impl Stream for Watch {
    type Item = Result<Batch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(self.batches.poll_next_unpin(cx));
        self.ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The condition of a commit does not hold.
    #[error("the key is not as expected")]
    Conflict {
        /// The key as it is; `None` if it does not exist.
        current: Option<Entry>,
    },
    /// The history asked for has been compacted away: list again.
    #[error("the revision asked for has been compacted; the oldest is {oldest}")]
    Compacted {
        /// The oldest revision that is left; 0 if the backend did not say.
        oldest: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("the revision asked for is newer than {current}")]
    FutureRevision {
        /// The revision now.
        current: Revision,
    },
    /// The request is larger than the store accepts.
    #[error("request is too large: {size} bytes, {limit} are allowed")]
    TooLarge {
        /// How large it is.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The store can't be reached or is closed; a write has not happened.
    #[error("the store is unavailable")]
    Unavailable(#[source] BoxError),
    /// The store did not answer in time or the connection broke: a write may
    /// or may not have happened.
    #[error("the outcome of a write is unknown")]
    UnknownOutcome(#[source] BoxError),
    /// The store is broken or its data are.
    #[error("the store has failed")]
    Internal(#[source] BoxError),
}

impl Error {
    /// Whether the same request may succeed later, and a second attempt does no harm.
    ///
    /// Of [`Error::UnknownOutcome`] this is not true: look first.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

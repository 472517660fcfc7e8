//! A store inside the process: one file, safe against crashes, no server.
//!
//! It keeps the versions and the history of the keys as etcd does, so that
//! nobody above can tell the difference. One thread writes ([`writer`]), and
//! every reader has an immutable snapshot of the latest durable state, which it
//! finds without a lock ([`tables`]). A watch is a cursor into the history
//! ([`watch`]).

mod tables;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use redb::{Database, backends::InMemoryBackend};
use tokio::sync::{Semaphore, oneshot};

use self::{
    tables::Snapshot,
    writer::{Request, Writer},
};
use crate::{Commit, Entry, Error, Page, Range, Revision, Store, StoreStatus, Watch as StoreWatch};

/// The file inside the store's directory.
const FILE: &str = "store.redb";

/// Enough for the pages that a control plane works on; the system's own page
/// cache holds the rest.
const PAGE_CACHE: usize = 64 << 20;

/// How many requests may wait for the writer before callers have to.
const QUEUE: usize = 4096;

/// As of etcd in a Kubernetes cluster: the history is 5 to 10 minutes long.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How an embedded store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often what was old at the last time is compacted; `None` leaves it
    /// to [`Store::compact`].
    pub compaction_interval: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { compaction_interval: Some(COMPACTION_INTERVAL) }
    }
}

/// Opens the store in a directory, which is created if it is missing.
///
/// Only one process at a time can have it open.
pub async fn open(directory: &Path) -> Result<Arc<dyn Store>, Error> {
    open_with(directory, Options::default()).await
}

/// Opens the store in a directory with options of your own.
pub async fn open_with(directory: &Path, options: Options) -> Result<Arc<dyn Store>, Error> {
    let directory = directory.to_owned();
    blocking(move || {
        let file = directory.join(FILE);
        let db = open_file(&directory, &file)?;
        Ok(Arc::new(Embedded::start(db, Some(file), &options)?) as Arc<dyn Store>)
    })
    .await
}

/// A store that lives as long as the value: for tests.
pub fn in_memory() -> Arc<dyn Store> {
    Arc::new(memory(&Options::default()))
}

fn memory(options: &Options) -> Embedded {
    Database::builder()
        .set_cache_size(PAGE_CACHE)
        .create_with_backend(InMemoryBackend::new())
        .map_err(|error| Error::Internal(error.into()))
        .and_then(|db| Embedded::start(db, None, options))
        .expect("memory can be read and written")
}

fn open_file(directory: &Path, file: &Path) -> Result<Database, Error> {
    create_private(directory).map_err(|error| Error::Unavailable(error.into()))?;
    let db = Database::builder()
        .set_cache_size(PAGE_CACHE)
        .create(file)
        .map_err(|error| Error::Unavailable(error.into()))?;
    // A new file survives a power cut only once its directory entry does.
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::Unavailable(error.into()))?;
    Ok(db)
}

/// The store holds secrets: nobody else may look into its directory.
fn create_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Runs what waits for the disk where it blocks nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Internal(error.into())))
}

/// What the writer tells everybody else.
struct Shared {
    /// `None` once the store is closed.
    snapshot: ArcSwapOption<Snapshot>,
    /// Wakes the watchers at each commit. The number says how often progress
    /// was requested.
    signal: tokio::sync::watch::Sender<u64>,
}

impl Shared {
    fn snapshot(&self) -> Result<Arc<Snapshot>, Error> {
        self.snapshot.load_full().ok_or_else(closed)
    }

    fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.signal.send_modify(|_| ());
    }

    fn close(&self) {
        self.snapshot.store(None);
        self.signal.send_modify(|_| ());
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

struct Embedded {
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    permits: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
    file: Option<PathBuf>,
}

impl Embedded {
    fn start(db: Database, file: Option<PathBuf>, options: &Options) -> Result<Self, Error> {
        tables::prepare(&db)?;
        let shared = Arc::new(Shared {
            snapshot: ArcSwapOption::empty(),
            signal: tokio::sync::watch::Sender::default(),
        });
        let (requests, queue) = mpsc::channel();
        let writer = Writer::new(db, shared.clone(), queue, options.compaction_interval)?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| Error::Unavailable(error.into()))?;
        Ok(Self {
            shared,
            requests: Some(requests),
            permits: Arc::new(Semaphore::new(QUEUE)),
            thread: Some(thread),
            file,
        })
    }

    /// Queues a request and waits for the answer.
    async fn ask<T>(
        &self,
        request: impl FnOnce(
            oneshot::Sender<Result<T, Error>>,
            tokio::sync::OwnedSemaphorePermit,
        ) -> Request,
    ) -> Result<T, Error> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        requests.send(request(reply, permit)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|error| Err(Error::UnknownOutcome(error.into())))
    }
}

impl Drop for Embedded {
    /// Waits for the writer, so that the file can be opened again at once.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The writer has logged why, if it has failed.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        let snapshot = self.shared.snapshot()?;
        Ok((snapshot.get(key)?, snapshot.revision))
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        let snapshot = self.shared.snapshot()?;
        blocking(move || snapshot.range(&range)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, Error> {
        commit.check_size()?;
        self.ask(|reply, permit| Request::Commit { commit, reply, permit }).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<StoreWatch, Error> {
        watch::open(self.shared.clone(), prefix, from)
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.shared.signal.send_modify(|requested| *requested += 1);
        Ok(())
    }

    async fn current_revision(&self) -> Result<Revision, Error> {
        let snapshot = self.shared.snapshot.load();
        snapshot.as_ref().map(|snapshot| snapshot.revision).ok_or_else(closed)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.ask(|reply, permit| Request::Compact { revision, reply, permit }).await
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let snapshot = self.shared.snapshot()?;
        let file = self.file.clone();
        blocking(move || {
            let size_in_use = snapshot.size_in_use()?;
            let size = match file {
                Some(file) => {
                    file.metadata().map_err(|error| Error::Unavailable(error.into()))?.len()
                }
                None => size_in_use,
            };
            Ok(StoreStatus {
                backend: "embedded".to_owned(),
                revision: snapshot.revision,
                compacted: snapshot.compacted,
                size,
                size_in_use,
                reliable_progress: true,
            })
        })
        .await
    }
}

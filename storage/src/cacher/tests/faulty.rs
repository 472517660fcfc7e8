//! A store whose watches can be held up and broken, and which counts what it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream;
use tokio::sync::watch;

use crate::{Commit, Entry, Error, Page, Range, Revision, Store, StoreStatus, Watch, embedded};

#[derive(Clone, Copy, Default)]
struct Faults {
    held: bool,
    /// Watches that were opened at a lower count have ended.
    breaks: usize,
}

pub(super) struct Faulty {
    inner: Arc<dyn Store>,
    faults: watch::Sender<Faults>,
    questions: AtomicUsize,
    requests: AtomicUsize,
}

impl Default for Faulty {
    fn default() -> Self {
        Faulty {
            inner: embedded::in_memory(),
            faults: watch::Sender::default(),
            questions: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
        }
    }
}

impl Faulty {
    /// While held, watches deliver nothing.
    pub(super) fn hold(&self, held: bool) {
        self.faults.send_modify(|faults| faults.held = held);
    }

    pub(super) fn is_held(&self) -> bool {
        self.faults.borrow().held
    }

    /// Ends the open watches.
    pub(super) fn break_watches(&self) {
        self.faults.send_modify(|faults| faults.breaks += 1);
    }

    /// How often the current revision and progress were asked for.
    pub(super) fn asked(&self) -> (usize, usize) {
        (self.questions.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        self.inner.get(key).await
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        self.inner.range(range).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, Error> {
        self.inner.commit(commit).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        let inner = self.inner.watch(prefix, from).await?;
        let faults = self.faults.subscribe();
        let opened = faults.borrow().breaks;
        let state = (inner, faults);
        Ok(Watch::new(stream::unfold(state, move |(mut inner, mut faults)| async move {
            loop {
                let now = *faults.borrow_and_update();
                if now.breaks > opened {
                    return None;
                }
                tokio::select! {
                    biased;
                    changed = faults.changed() => changed.ok()?,
                    batch = inner.next(), if !now.held => return Some((batch?, (inner, faults))),
                }
            }
        })))
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.request_progress().await
    }

    async fn current_revision(&self) -> Result<Revision, Error> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        // As if it had to ask somebody.
        tokio::task::yield_now().await;
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        self.inner.status().await
    }
}

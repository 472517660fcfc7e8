//! What happened before the ring began, read from the store: whoever watched another server, or this one before it was
//! started anew, goes on from there and need not list everything.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{Instant, timeout, timeout_at};

use super::follow::object_after;
use super::ring::Change;
use super::{Cacher, FRESHNESS_WAIT, PROGRESS_INTERVAL};
use crate::object::Object;
use crate::{Batch, Error, EventKind, Revision};

impl Cacher {
    /// Lets the ring begin after `from` if it begins later and the store still knows what happened. If it does not, or
    /// that is too much, the ring stays as it is.
    pub(super) async fn reach_back(&self, from: Revision) -> Result<(), Error> {
        if self.ring.read().oldest() <= from {
            return Ok(());
        }
        let deadline = Instant::now() + FRESHNESS_WAIT;
        let _one_at_a_time = self.reaching_back.lock().await;
        if self.ring.read().oldest() <= from {
            return Ok(());
        }
        match timeout_at(deadline, self.read_history(from)).await {
            Ok(Err(Error::Compacted { .. })) | Err(_) => Ok(()),
            Ok(read) => read,
        }
    }

    async fn read_history(&self, from: Revision) -> Result<(), Error> {
        let epoch = self.ring.read().epoch();
        let mut batches = self.store.watch(&self.options.prefix, from + 1).await?;
        let mut history = History::default();
        loop {
            // Nothing may have happened to this kind between there and here, which has to be asked for.
            self.store.request_progress().await?;
            let Ok(batch) = timeout(PROGRESS_INTERVAL, batches.next()).await else { continue };
            let Some(batch) = batch.transpose()? else { return Ok(()) };
            let reached = batch.revision;
            if history.take_in(self, batch).is_none() {
                return Ok(());
            }
            let mut ring = self.ring.write();
            if ring.epoch() != epoch || !ring.has_room_for(history.changes.len(), history.bytes) {
                return Ok(());
            }
            if reached >= ring.oldest() {
                ring.prepend(from, history.changes, Instant::now());
                return Ok(());
            }
        }
    }
}

/// What a store's watch has told of a kind.
#[derive(Default)]
pub(super) struct History {
    changes: Vec<Arc<Change>>,
    bytes: usize,
    /// What the changes left of each object, to be shared with the next change of it.
    known: HashMap<Arc<str>, Option<Arc<Object>>>,
}

impl History {
    /// `None` if it can't be told what happened: a compaction has taken away what was there before.
    pub(super) fn take_in(&mut self, cacher: &Cacher, batch: Batch) -> Option<()> {
        for event in batch.events {
            let entry = &event.entry;
            let existed =
                event.kind == EventKind::Delete || entry.create_revision < entry.mod_revision;
            let previous = match (self.known.remove(&entry.key), &event.previous) {
                (Some(known), _) => known,
                (None, Some(previous)) => cacher.build(previous).ok().map(Arc::new),
                (None, None) if existed => return None,
                (None, None) => None,
            };
            let object = object_after(cacher, &event);
            self.known.insert(Arc::clone(&entry.key), object.clone());
            if let Some(change) = Change::of(object, previous, entry.mod_revision) {
                self.bytes += change.bytes();
                self.changes.push(change);
            }
        }
        Some(())
    }
}

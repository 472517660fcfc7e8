//! A watch as a cursor into the history.
//!
//! Nothing is queued for a watcher. It is woken by each commit and reads on
//! from where it was: from the recent events in memory, or from the log when it
//! is far behind. So a slow reader costs nothing, and loses its place only when
//! a compaction passes it.

use std::sync::Arc;

use futures::stream;
use tokio::sync::watch;

use super::{
    Shared,
    tables::{Limits, Snapshot},
};
use crate::{Batch, Error, Event, Revision, Watch};

/// Bounds the memory of one batch, and the time that reading it takes.
const BATCH: Limits = Limits { scanned: 1024, bytes: 4 << 20 };

struct Cursor {
    shared: Arc<Shared>,
    signal: watch::Receiver<u64>,
    prefix: Arc<str>,
    next: Revision,
    /// The last request for progress that has been answered.
    progress: u64,
}

pub(super) fn open(shared: Arc<Shared>, prefix: &str, from: Revision) -> Result<Watch, Error> {
    let snapshot = shared.snapshot()?;
    if from != 0 && from < snapshot.compacted {
        return Err(Error::Compacted { oldest: snapshot.compacted });
    }
    let signal = shared.signal.subscribe();
    let progress = *signal.borrow();
    let cursor = Cursor {
        progress,
        signal,
        prefix: Arc::from(prefix),
        next: if from == 0 { snapshot.revision + 1 } else { from },
        shared,
    };
    Ok(Watch::new(stream::unfold(cursor, |mut cursor| async {
        let item = cursor.advance().await?;
        Some((item, cursor))
    })))
}

impl Cursor {
    async fn advance(&mut self) -> Option<Result<Batch, Error>> {
        loop {
            // The signal first: the snapshot is then at least as new.
            let progress = *self.signal.borrow_and_update();
            let snapshot = self.shared.snapshot().ok()?;
            if self.next < snapshot.compacted {
                return Some(Err(Error::Compacted { oldest: snapshot.compacted }));
            }
            while self.next <= snapshot.revision {
                match self.read(&snapshot).await {
                    Ok((events, revision)) => {
                        self.next = revision + 1;
                        if !events.is_empty() {
                            return Some(Ok(Batch { revision, events }));
                        }
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            if self.progress != progress {
                self.progress = progress;
                // A watch may wait for a revision that is still to come.
                let revision = snapshot.revision.min(self.next - 1);
                return Some(Ok(Batch { revision, events: Vec::new() }));
            }
            drop(snapshot);
            self.signal.changed().await.ok()?;
        }
    }

    async fn read(&self, snapshot: &Arc<Snapshot>) -> Result<(Vec<Event>, Revision), Error> {
        // Every revision has one event, so the place of each is known.
        let first = snapshot.revision + 1 - snapshot.recent.len() as Revision;
        if let Some(skip) = self.next.checked_sub(first) {
            return Ok(recent(snapshot, skip as usize, &self.prefix));
        }
        let (snapshot, prefix, next) = (snapshot.clone(), self.prefix.clone(), self.next);
        super::blocking(move || Ok(snapshot.events(&prefix, next, &BATCH)?)).await
    }
}

fn recent(snapshot: &Snapshot, skip: usize, prefix: &str) -> (Vec<Event>, Revision) {
    // Not by `skip`, which would walk over all that the watcher has seen.
    let events = (skip..snapshot.recent.len()).filter_map(|at| snapshot.recent.get(at));
    let events = events.filter(|event| event.entry.key.starts_with(prefix)).cloned().collect();
    (events, snapshot.revision)
}

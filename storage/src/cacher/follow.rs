//! The task that keeps a cache the same as the store: one list, then one watch.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ring::Change;
use super::{Cacher, Objects, State};
use crate::{Batch, Error, EventKind, Range, Revision};

/// How many entries a page of the first list has.
const PAGE: usize = 1000;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

pub(super) async fn follow(cacher: Arc<Cacher>) {
    let token = cacher.token.clone();
    tokio::select! {
        () = token.cancelled() => {}
        () = follow_for_ever(&cacher) => {}
    }
}

async fn follow_for_ever(cacher: &Cacher) {
    let mut pause = FIRST_PAUSE;
    let mut revision = None;
    loop {
        let outcome = match revision {
            None => fill(cacher).await.map(|filled| revision = Some(filled)),
            Some(from) => match watch(cacher, from).await {
                // The history between is gone: what happened in it can't be told, so every watch ends.
                Err(Error::Compacted { .. }) => {
                    revision = None;
                    Ok(())
                }
                outcome => {
                    revision = Some(cacher.state.load().revision);
                    outcome
                }
            },
        };
        match outcome {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) => {
                tracing::warn!(prefix = cacher.options.prefix, %error, "the cache cannot follow the store");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// Lists everything, and begins the ring anew.
async fn fill(cacher: &Cacher) -> Result<Revision, Error> {
    let prefix = &cacher.options.prefix;
    let mut range = Range { prefix: prefix.clone(), limit: PAGE, ..Range::default() };
    let mut objects = Objects::new();
    loop {
        let page = cacher.store.range(range.clone()).await?;
        for entry in &page.entries {
            match cacher.build(entry) {
                Ok(object) => drop(objects.insert(Arc::clone(&object.key), Arc::new(object))),
                Err(error) => tracing::error!(key = %entry.key, %error, "passed over"),
            }
        }
        range.revision = Some(page.revision);
        match page.entries.last() {
            Some(last) if page.more => range.start = Some(format!("{}\0", last.key)),
            _ => break,
        }
    }
    let revision = range.revision.unwrap_or(1).max(1);
    cacher.ring.write().reset(revision);
    cacher.state.store(Arc::new(State { revision, objects }));
    cacher.pinned.lock().clear();
    cacher.progress.send_replace(revision);
    Ok(revision)
}

async fn watch(cacher: &Cacher, from: Revision) -> Result<(), Error> {
    let mut batches = cacher.store.watch(&cacher.options.prefix, from + 1).await?;
    while let Some(batch) = batches.next().await {
        take_in(cacher, batch?);
    }
    Ok(())
}

/// Takes a batch into ring and state, and wakes who waits.
fn take_in(cacher: &Cacher, batch: Batch) {
    let state = cacher.state.load_full();
    let mut objects = state.objects.clone();
    let mut changes = Vec::with_capacity(batch.events.len());
    for event in batch.events {
        let key = event
            .entry
            .key
            .strip_prefix(cacher.options.prefix.as_str())
            .unwrap_or(&event.entry.key);
        match event.kind {
            EventKind::Put => match cacher.build(&event.entry) {
                Ok(object) => {
                    let object = Arc::new(object);
                    let previous = objects.insert(Arc::clone(&object.key), Arc::clone(&object));
                    changes.push(Change::new(object, false, previous));
                }
                Err(error) => tracing::error!(key, %error, "passed over"),
            },
            EventKind::Delete => {
                if let Some(previous) = objects.remove(key) {
                    let object = Arc::new(previous.at(event.entry.mod_revision));
                    changes.push(Change::new(object, true, Some(previous)));
                }
            }
        }
    }
    if !changes.is_empty() {
        let now = Instant::now();
        let mut ring = cacher.ring.write();
        changes.into_iter().for_each(|change| ring.push(change, now));
    }
    // The ring first: a watcher that begins at a state finds all later changes in it.
    let revision = batch.revision.max(state.revision);
    cacher.state.store(Arc::new(State { revision, objects }));
    cacher.progress.send_replace(revision);
}

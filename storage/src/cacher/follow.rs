//! The task that keeps a cache the same as the store: one list, then one watch.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::ring::Change;
use super::{Cacher, Objects, State};
use crate::object::Object;
use crate::{Batch, Error, Event, EventKind, Range, Revision};

/// How many entries are read from the store at a time.
const PAGE: usize = 1000;
/// How often old changes are let go while no new ones come.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

pub(super) async fn follow(cacher: Arc<Cacher>) {
    let token = cacher.token.clone();
    tokio::select! {
        () = token.cancelled() => {}
        () = follow_for_ever(&cacher) => {}
    }
    cacher.ring.write().end();
    cacher.changed.send_replace(());
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
    let (revision, objects) = load(cacher, "", None).await?;
    let revision = revision.max(1);
    cacher.ring.write().reset(revision);
    cacher.state.store(Arc::new(State { revision, objects }));
    cacher.progress.send_replace(revision);
    cacher.changed.send_replace(());
    Ok(revision)
}

/// Reads the objects whose keys begin with `prefix` from the store, at one revision. Bytes that are no object are
/// passed over: one of them must not hide all others.
pub(super) async fn load(
    cacher: &Cacher,
    prefix: &str,
    revision: Option<Revision>,
) -> Result<(Revision, Objects), Error> {
    let prefix = format!("{}{prefix}", cacher.options.prefix);
    let mut range = Range { prefix, limit: PAGE, revision, start: None };
    let mut objects = Objects::new();
    loop {
        let page = cacher.store.range(range.clone()).await?;
        for entry in &page.entries {
            match cacher.build(entry) {
                Ok(object) => drop(objects.insert(Arc::clone(&object.key), Arc::new(object))),
                Err(error) => tracing::error!(key = %entry.key, %error, "passed over"),
            }
        }
        let revision = *range.revision.get_or_insert(page.revision);
        match page.entries.last() {
            Some(last) if page.more => range.start = Some(format!("{}\0", last.key)),
            _ => return Ok((revision, objects)),
        }
    }
}

async fn watch(cacher: &Cacher, from: Revision) -> Result<(), Error> {
    let mut batches = cacher.store.watch(&cacher.options.prefix, from + 1).await?;
    let mut trim = tokio::time::interval(TRIM_INTERVAL);
    trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both futures may be dropped half way: a watch loses no batch by it, an interval no tick.
        tokio::select! {
            batch = batches.next() => match batch {
                Some(batch) => take_in(cacher, batch?),
                None => return Ok(()),
            },
            now = trim.tick() => cacher.ring.write().trim(now),
        }
    }
}

/// The object that an event leaves. To readers one whose bytes can't be read is gone, now as after a restart.
pub(super) fn object_after(cacher: &Cacher, event: &Event) -> Option<Arc<Object>> {
    let read = match event.kind {
        EventKind::Delete => return None,
        EventKind::Put => cacher.build(&event.entry),
    };
    read.inspect_err(|error| tracing::error!(key = %event.entry.key, %error, "passed over"))
        .ok()
        .map(Arc::new)
}

/// Takes a batch into ring and state, and wakes who waits.
fn take_in(cacher: &Cacher, batch: Batch) {
    let state = cacher.state.load_full();
    let revision = batch.revision.max(state.revision);
    let mut objects = state.objects.clone();
    let mut changes = Vec::with_capacity(batch.events.len());
    for event in batch.events {
        let object = object_after(cacher, &event);
        let previous = match &object {
            Some(object) => objects.insert(Arc::clone(&object.key), Arc::clone(object)),
            None => objects.remove(cacher.relative(&event.entry.key)),
        };
        changes.extend(Change::of(object, previous, event.entry.mod_revision));
    }
    let changed = !changes.is_empty();
    if changed {
        let now = Instant::now();
        let mut ring = cacher.ring.write();
        changes.into_iter().for_each(|change| ring.push(change, now));
    }
    // The ring first: who has a state finds all later changes in it.
    cacher.state.store(Arc::new(State { revision, objects }));
    cacher.progress.send_replace(revision);
    if changed {
        cacher.changed.send_replace(());
    }
}

//! A watcher: a place in the ring, and what it wants to see.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::ring::Change;
use super::{At, Cacher, Error, ListQuery};
use crate::Revision;
use crate::object::Object;

/// How often a watcher that wants bookmarks gets one, and how long before its end.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// How many changes are taken from the ring at a time.
const CHUNK: usize = 64;

/// Says which objects a watcher sees.
pub type Filter = Arc<dyn Fn(&Object) -> bool + Send + Sync>;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With every object of a state as `Added`, then the changes.
    State(At),
    /// With the changes after this revision.
    After(Revision),
    /// With the changes from now on.
    Now,
}

/// What to watch.
pub struct WatchQuery {
    /// Keys that begin so: empty, or a namespace and a slash.
    pub prefix: String,
    pub from: WatchFrom,
    /// `None`: every object.
    pub filter: Option<Filter>,
    pub bookmarks: bool,
    /// Whether a bookmark says where the initial objects end.
    pub initial_events_end: bool,
    /// When the watch ends.
    pub deadline: Instant,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    /// Nothing: the watcher has seen everything up to here.
    Bookmark {
        initial_events_end: bool,
    },
}

/// One event of a watch. Bookmarks have no object.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: EventType,
    pub revision: Revision,
    pub object: Option<Arc<Object>>,
}

/// An open watch.
pub struct Watcher {
    cacher: Arc<Cacher>,
    progress: watch::Receiver<Revision>,
    query: WatchQuery,
    initial: VecDeque<Arc<Object>>,
    ends_initial: bool,
    ready: VecDeque<Arc<Change>>,
    /// The number of the next change to take from the ring.
    next: u64,
    epoch: u64,
    /// Everything up to here was seen.
    seen: Revision,
    bookmark_at: Instant,
}

impl Cacher {
    /// Begins a watch.
    ///
    /// # Errors
    /// [`Error::Expired`] if it is to begin where the ring no longer reaches.
    pub async fn watch(self: &Arc<Self>, query: WatchQuery) -> Result<Watcher, Error> {
        let (initial, seen) = match query.from {
            WatchFrom::State(at) => {
                let list = ListQuery { prefix: query.prefix.clone(), start: None, at };
                let snapshot = self.list(list).await?;
                let wanted = |object: &&Arc<Object>| {
                    query.filter.as_ref().is_none_or(|filter| filter(object))
                };
                (snapshot.iter().filter(wanted).cloned().collect(), snapshot.revision())
            }
            WatchFrom::After(revision) => {
                self.wait_filled().await?;
                (VecDeque::new(), revision)
            }
            WatchFrom::Now => {
                let revision = self.current_revision().await?;
                self.wait_for(revision).await?;
                (VecDeque::new(), revision)
            }
        };
        let ring = self.ring.read();
        let next = ring
            .after(seen)
            .ok_or_else(|| Error::Expired { asked: seen, oldest: ring.oldest() })?;
        Ok(Watcher {
            cacher: Arc::clone(self),
            progress: self.progress.subscribe(),
            ends_initial: query.initial_events_end,
            initial,
            ready: VecDeque::new(),
            next,
            epoch: ring.epoch,
            seen,
            bookmark_at: bookmark_time(&query),
            query,
        })
    }
}

fn bookmark_time(query: &WatchQuery) -> Instant {
    let next = Instant::now() + BOOKMARK_INTERVAL;
    let last = query.deadline - BOOKMARK_BEFORE_END;
    if next > last && last > Instant::now() { last } else { next }
}

impl Watcher {
    /// The next event; `None` when the watch has ended: by its deadline, because it was too slow, or because the cache
    /// had to begin anew. It can go on after the last revision that it saw.
    ///
    /// It is safe to drop the future and call again.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            self.progress.borrow_and_update();
            match self.step() {
                Step::Event(event) => return Some(event),
                Step::Ended => return None,
                Step::Idle => {}
            }
            let token = self.cacher.token.clone();
            let wake = if self.query.bookmarks {
                self.bookmark_at.min(self.query.deadline)
            } else {
                self.query.deadline
            };
            tokio::select! {
                changed = self.progress.changed() => changed.ok()?,
                () = token.cancelled() => return None,
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.query.deadline {
                        return None;
                    }
                    self.bookmark_at = bookmark_time(&self.query);
                    return Some(self.bookmark(false));
                }
            }
        }
    }

    /// The next event if one is there already.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        match self.step() {
            Step::Event(event) => Some(event),
            Step::Ended | Step::Idle => None,
        }
    }

    fn step(&mut self) -> Step {
        if let Some(object) = self.initial.pop_front() {
            return Step::Event(WatchEvent {
                kind: EventType::Added,
                revision: object.revision,
                object: Some(object),
            });
        }
        if std::mem::take(&mut self.ends_initial) {
            return Step::Event(self.bookmark(true));
        }
        loop {
            while let Some(change) = self.ready.pop_front() {
                self.seen = change.revision;
                if let Some(event) = self.see(&change) {
                    return Step::Event(event);
                }
            }
            // What the state has reached is read before the ring: the ring has at least all of that.
            let reached = *self.cacher.progress.borrow();
            let ring = self.cacher.ring.read();
            if ring.epoch != self.epoch {
                return Step::Ended;
            }
            let Some(changes) = ring.read(self.next, CHUNK) else { return Step::Ended };
            self.ready.extend(changes.cloned());
            if self.ready.is_empty() {
                self.seen = self.seen.max(reached);
                return Step::Idle;
            }
            self.next += self.ready.len() as u64;
        }
    }

    /// What a change is to this watcher: an object that its selector lets in is added, one that it leaves is deleted.
    fn see(&self, change: &Change) -> Option<WatchEvent> {
        if !change.object.key.starts_with(&self.query.prefix) {
            return None;
        }
        let wanted =
            |object: &Object| self.query.filter.as_ref().is_none_or(|filter| filter(object));
        let before = change.previous.as_deref().is_some_and(wanted);
        let after = !change.deleted && wanted(&change.object);
        let (kind, object) = match (before, after) {
            (false, false) => return None,
            (false, true) => (EventType::Added, Arc::clone(&change.object)),
            (true, true) => (EventType::Modified, Arc::clone(&change.object)),
            (true, false) if change.deleted => (EventType::Deleted, Arc::clone(&change.object)),
            (true, false) => (EventType::Deleted, change.left()?),
        };
        Some(WatchEvent { kind, revision: change.revision, object: Some(object) })
    }

    fn bookmark(&self, initial_events_end: bool) -> WatchEvent {
        WatchEvent {
            kind: EventType::Bookmark { initial_events_end },
            revision: self.seen,
            object: None,
        }
    }
}

enum Step {
    Event(WatchEvent),
    Idle,
    Ended,
}

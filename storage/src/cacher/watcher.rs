//! A watcher: a place in the ring, and what it wants to see.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

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
    changed: watch::Receiver<()>,
    query: WatchQuery,
    initial: VecDeque<Arc<Object>>,
    ends_initial: bool,
    ready: VecDeque<Arc<Change>>,
    /// The number of the next change to take from the ring.
    next: u64,
    epoch: u64,
    /// Changes up to here are not for this watcher, though they may still be to come.
    pub(super) after: Revision,
    /// Everything up to here was seen.
    seen: Revision,
    bookmark_at: Instant,
    /// For the next bookmark or the deadline. It stays registered while events come and go.
    timer: Pin<Box<Sleep>>,
}

impl Cacher {
    /// Begins a watch.
    ///
    /// # Errors
    /// [`Error::Expired`] if it is to begin where neither the ring nor the store's history reaches.
    pub async fn watch(self: &Arc<Self>, query: WatchQuery) -> Result<Watcher, Error> {
        let mut reached_back = false;
        loop {
            let (initial, seen) = self.beginning(&query).await?;
            if let WatchFrom::After(_) = query.from
                && !std::mem::replace(&mut reached_back, true)
            {
                self.reach_back(seen).await?;
            }
            let ring = self.ring.read();
            let Some(epoch) = ring.epoch() else { return Err(Error::NotReady) };
            if let Some(next) = ring.after(seen) {
                let bookmark_at = bookmark_time(&query);
                return Ok(Watcher {
                    cacher: Arc::clone(self),
                    changed: self.changed.subscribe(),
                    initial,
                    ends_initial: query.initial_events_end,
                    ready: VecDeque::new(),
                    next,
                    epoch,
                    after: seen,
                    seen,
                    bookmark_at,
                    timer: Box::pin(tokio::time::sleep_until(wake_time(&query, bookmark_at))),
                    query,
                });
            }
            // A state that has just been replaced by a new list is no fault of the caller's.
            if let WatchFrom::After(_) | WatchFrom::State(At::Exact(_)) = query.from {
                return Err(Error::Expired { asked: seen, oldest: ring.oldest() });
            }
        }
    }

    /// The objects that a watch begins with, and the revision that they stand for.
    async fn beginning(
        &self,
        query: &WatchQuery,
    ) -> Result<(VecDeque<Arc<Object>>, Revision), Error> {
        match query.from {
            WatchFrom::State(at) => {
                let list = ListQuery { prefix: query.prefix.clone(), start: None, at };
                let snapshot = self.list(list).await?;
                let initial = snapshot.iter().filter(|object| query.wants(object)).cloned();
                Ok((initial.collect(), snapshot.revision()))
            }
            WatchFrom::After(revision) => {
                self.wait_filled().await?;
                Ok((VecDeque::new(), revision))
            }
            WatchFrom::Now => {
                let revision = self.current_revision().await?;
                self.wait_for(revision).await?;
                Ok((VecDeque::new(), revision))
            }
        }
    }
}

impl WatchQuery {
    fn wants(&self, object: &Object) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter(object))
    }
}

fn bookmark_time(query: &WatchQuery) -> Instant {
    let now = Instant::now();
    let next = now + BOOKMARK_INTERVAL;
    let last = query.deadline - BOOKMARK_BEFORE_END;
    if next > last && last > now { last } else { next }
}

fn wake_time(query: &WatchQuery, bookmark_at: Instant) -> Instant {
    if query.bookmarks { bookmark_at.min(query.deadline) } else { query.deadline }
}

impl Watcher {
    /// The next event; `None` when the watch has ended: by its deadline, because it was too slow, or because the cache
    /// had to begin anew. It can go on after the last revision that it saw.
    ///
    /// It is safe to drop the future and call again.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            self.changed.borrow_and_update();
            let now = Instant::now();
            if now >= self.query.deadline {
                return None;
            }
            match self.step() {
                Step::Event(event) => return Some(event),
                Step::Ended => return None,
                Step::Idle => {}
            }
            if self.query.bookmarks && now >= self.bookmark_at {
                self.bookmark_at = bookmark_time(&self.query);
                self.timer.as_mut().reset(wake_time(&self.query, self.bookmark_at));
                return Some(self.bookmark(false));
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = self.timer.as_mut() => {}
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
        // Its room is as large as the list was, and a watch is long.
        self.initial = VecDeque::new();
        if std::mem::take(&mut self.ends_initial) {
            return Step::Event(self.bookmark(true));
        }
        loop {
            while let Some(change) = self.ready.pop_front() {
                if change.revision <= self.after {
                    continue;
                }
                self.seen = change.revision;
                if let Some(event) = self.see(&change) {
                    return Step::Event(event);
                }
            }
            // What the state has reached is read before the ring: the ring has at least all of that.
            let reached = *self.cacher.progress.borrow();
            let ring = self.cacher.ring.read();
            let Some(changes) = ring.read(self.epoch, self.next, CHUNK) else { return Step::Ended };
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
        let before = change.previous.as_deref().is_some_and(|object| self.query.wants(object));
        let after = !change.deleted && self.query.wants(&change.object);
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

//! The recent changes of a kind, by revision.
//!
//! Watchers read from it, and past states are told from it. What a change replaced is held only here, so it is let go
//! when it is old or when it is much.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::Revision;
use crate::object::Object;

/// What the ring holds at least and at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Changes of this age are kept: watchers of the last minute may come back for them.
    pub(super) fresh: Duration,
    /// So many are kept however old they are.
    pub(super) least: usize,
    /// No more are kept, however fresh.
    pub(super) most: usize,
    /// Nor more than so many bytes of states that were replaced or deleted.
    pub(super) bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // As in Kubernetes: a bookmark's minute and some.
            fresh: Duration::from_secs(75),
            least: 128,
            most: 100 * 1024,
            // A fraction of the state's own size for kinds that are large, and no matter for the rest.
            bytes: 64 << 20,
        }
    }
}

/// One change of one object.
pub(super) struct Change {
    pub(super) revision: Revision,
    /// The object after it, or its last state with the revision of its deletion.
    pub(super) object: Arc<Object>,
    pub(super) deleted: bool,
    pub(super) previous: Option<Arc<Object>>,
    /// For watchers whose selector the object leaves with this change; made when the first one needs it.
    left: OnceLock<Arc<Object>>,
}

impl Change {
    /// What an event is to readers: the object after it and the one before, as far as they can be read. `None` if it is
    /// nothing to them.
    pub(super) fn of(
        object: Option<Arc<Object>>,
        previous: Option<Arc<Object>>,
        revision: Revision,
    ) -> Option<Arc<Self>> {
        match (object, previous) {
            (Some(object), previous) => Some(Change::put(object, previous)),
            (None, Some(previous)) => Some(Change::delete(previous, revision)),
            (None, None) => None,
        }
    }

    /// The object was created or replaced.
    pub(super) fn put(object: Arc<Object>, previous: Option<Arc<Object>>) -> Arc<Self> {
        Arc::new(Change {
            revision: object.revision,
            object,
            deleted: false,
            previous,
            left: OnceLock::new(),
        })
    }

    /// The object was deleted.
    pub(super) fn delete(previous: Arc<Object>, revision: Revision) -> Arc<Self> {
        Arc::new(Change {
            revision,
            object: Arc::new(previous.at(revision)),
            deleted: true,
            previous: Some(previous),
            left: OnceLock::new(),
        })
    }

    /// The previous state with this change's revision.
    pub(super) fn left(&self) -> Option<Arc<Object>> {
        let previous = self.previous.as_ref()?;
        Some(Arc::clone(self.left.get_or_init(|| Arc::new(previous.at(self.revision)))))
    }

    /// The bytes that are no part of the newest state.
    pub(super) fn bytes(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |previous| previous.size());
        if self.deleted { previous + self.object.size() } else { previous }
    }
}

#[derive(Default)]
pub(super) struct Ring {
    pub(super) limits: Limits,
    changes: VecDeque<(Instant, Arc<Change>)>,
    bytes: usize,
    /// The number of the first change in the ring; changes are numbered as they come.
    first: u64,
    /// Watches can begin after this revision or later.
    oldest: Revision,
    /// Grows when the ring begins anew or ends; watchers of an earlier one end.
    epoch: u64,
    ended: bool,
}

impl Ring {
    /// Begins anew after a list at `revision`.
    pub(super) fn reset(&mut self, revision: Revision) {
        // With numbers left for the history before it.
        self.first += (self.changes.len() + self.limits.most) as u64;
        self.changes.clear();
        self.bytes = 0;
        self.oldest = revision;
        self.epoch += 1;
    }

    /// Nothing comes any more.
    pub(super) fn end(&mut self) {
        self.epoch += 1;
        self.ended = true;
    }

    pub(super) fn push(&mut self, change: Arc<Change>, now: Instant) {
        self.bytes += change.bytes();
        self.changes.push_back((now, change));
        self.trim(now);
    }

    /// Lets go what need not be kept.
    pub(super) fn trim(&mut self, now: Instant) {
        let Limits { fresh, least, most, bytes } = self.limits;
        while let Some((came, change)) = self.changes.front() {
            let much = self.changes.len() > most || self.bytes > bytes;
            let old = self.changes.len() > least && now.duration_since(*came) >= fresh;
            if !much && !old {
                break;
            }
            self.bytes -= change.bytes();
            self.oldest = change.revision;
            self.first += 1;
            self.changes.pop_front();
        }
        let needed = self.changes.len().max(least);
        if self.changes.capacity() > 4 * needed {
            self.changes.shrink_to(2 * needed);
        }
    }

    /// Whether so many changes and bytes of the history have room before the first one. Half of the ring is for what is
    /// to come, which would drive them out again.
    pub(super) fn has_room_for(&self, changes: usize, bytes: usize) -> bool {
        let Limits { most, bytes: most_bytes, .. } = self.limits;
        self.changes.len() + changes <= most / 2 && self.bytes + bytes <= most_bytes / 2
    }

    /// Puts all changes after the revision `from` before the first one.
    pub(super) fn prepend(&mut self, from: Revision, history: Vec<Arc<Change>>, now: Instant) {
        for change in history.into_iter().rev().filter(|change| change.revision <= self.oldest) {
            self.bytes += change.bytes();
            self.first -= 1;
            self.changes.push_front((now, change));
        }
        self.oldest = from;
    }

    /// The revision after which watches can begin.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// Tells this ring from those before; `None` if it has ended.
    pub(super) fn epoch(&self) -> Option<u64> {
        (!self.ended).then_some(self.epoch)
    }

    /// The number of the first change after `revision`; `None` if that is no longer known.
    pub(super) fn after(&self, revision: Revision) -> Option<u64> {
        Some(self.first + self.position(revision)? as u64)
    }

    fn position(&self, revision: Revision) -> Option<usize> {
        (revision >= self.oldest)
            .then(|| self.changes.partition_point(|(_, change)| change.revision <= revision))
    }

    /// The changes after `from` up to `to`; `None` if they are no longer known.
    pub(super) fn between(&self, from: Revision, to: Revision) -> Option<Vec<Arc<Change>>> {
        let start = self.position(from)?;
        let changes = self.changes.range(start..).map(|(_, change)| change);
        Some(changes.take_while(|change| change.revision <= to).cloned().collect())
    }

    /// Up to `count` changes from number `from` on; `None` if that is no longer here, or `epoch` is over.
    pub(super) fn read(
        &self,
        epoch: u64,
        from: u64,
        count: usize,
    ) -> Option<impl Iterator<Item = &Arc<Change>>> {
        let start = usize::try_from(from.checked_sub(self.first)?).ok()?;
        let end = self.changes.len().min(start.checked_add(count)?);
        let here = epoch == self.epoch && start <= end;
        here.then(|| self.changes.range(start..end).map(|(_, change)| change))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Entry;

    fn object(revision: Revision, padding: usize) -> Arc<Object> {
        let pad = "x".repeat(padding);
        let value =
            format!(r#"{{"apiVersion":"v1","metadata":{{"name":"a","uid":"u"}},"pad":"{pad}"}}"#);
        let entry = Entry {
            key: "a".into(),
            value: Bytes::from(value),
            create_revision: 1,
            mod_revision: revision,
        };
        Arc::new(Object::from_entry(&entry, &[]).unwrap())
    }

    fn ring(limits: Limits) -> Ring {
        let mut ring = Ring { limits, ..Ring::default() };
        ring.reset(0);
        ring
    }

    #[test]
    fn fresh_changes_are_kept_and_old_ones_only_if_they_are_few() {
        let mut ring = ring(Limits { least: 2, ..Limits::default() });
        let start = Instant::now();
        for revision in 1..=10 {
            ring.push(Change::put(object(revision, 0), None), start);
        }
        assert_eq!(ring.oldest(), 0);
        ring.trim(start + Duration::from_secs(74));
        assert_eq!(ring.oldest(), 0);
        ring.trim(start + Duration::from_secs(75));
        assert_eq!(ring.oldest(), 8);
        assert!(ring.between(7, 10).is_none());
        assert_eq!(ring.between(8, 9).unwrap().len(), 1);
    }

    #[test]
    fn neither_number_nor_bytes_grow_without_bound() {
        let start = Instant::now();
        let mut many = ring(Limits { most: 3, ..Limits::default() });
        let mut large = ring(Limits { bytes: 4000, ..Limits::default() });
        for revision in 1..=10 {
            many.push(Change::put(object(revision, 0), None), start);
            large.push(Change::put(object(revision + 1, 0), Some(object(revision, 1000))), start);
        }
        assert_eq!((many.changes.len(), many.oldest()), (3, 7));
        assert_eq!((large.changes.len(), large.oldest()), (3, 8));
        let left: usize = large.changes.iter().map(|(_, change)| change.bytes()).sum();
        assert_eq!(large.bytes, left);
    }

    #[test]
    fn a_reader_whose_place_is_gone_is_told_so() {
        let mut ring = ring(Limits { most: 3, ..Limits::default() });
        let epoch = ring.epoch().unwrap();
        let place = ring.after(0).unwrap();
        for revision in 1..=4 {
            ring.push(Change::put(object(revision, 0), None), Instant::now());
        }
        assert!(ring.read(epoch, place, 10).is_none());
        let place = ring.after(2).unwrap();
        assert_eq!(ring.read(epoch, place, 10).unwrap().count(), 2);
        assert_eq!(ring.read(epoch, place + 2, 10).unwrap().count(), 0);
        ring.end();
        assert!(ring.read(epoch, place, 10).is_none());
        assert_eq!(ring.epoch(), None);
    }
}

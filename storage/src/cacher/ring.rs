//! The recent changes of a kind, by revision.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::Revision;
use crate::object::Object;

/// The ring holds what watchers of the last minute may come back for, as in Kubernetes: a bookmark's minute and some.
const FRESH: Duration = Duration::from_secs(75);
const MIN_CAPACITY: usize = 128;
/// The bound of the ring, reached only if so many changes come within [`FRESH`].
const MAX_CAPACITY: usize = 100 * 1024;

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
    pub(super) fn new(
        object: Arc<Object>,
        deleted: bool,
        previous: Option<Arc<Object>>,
    ) -> Arc<Self> {
        Arc::new(Change {
            revision: object.revision,
            object,
            deleted,
            previous,
            left: OnceLock::new(),
        })
    }

    /// The previous state with this change's revision.
    pub(super) fn left(&self) -> Option<Arc<Object>> {
        let previous = self.previous.as_ref()?;
        Some(Arc::clone(self.left.get_or_init(|| Arc::new(previous.at(self.revision)))))
    }
}

pub(super) struct Ring {
    changes: VecDeque<(Instant, Arc<Change>)>,
    /// The number of the first change in the ring; changes are numbered as they come.
    first: u64,
    /// Watches can begin after this revision or later.
    oldest: Revision,
    capacity: usize,
    /// Grows when the ring begins anew; watchers of an earlier one end.
    pub(super) epoch: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Ring { changes: VecDeque::new(), first: 0, oldest: 0, capacity: MIN_CAPACITY, epoch: 0 }
    }
}

impl Ring {
    /// Begins anew after a list at `revision`.
    pub(super) fn reset(&mut self, revision: Revision) {
        self.first += self.changes.len() as u64;
        self.changes.clear();
        self.oldest = revision;
        self.epoch += 1;
    }

    pub(super) fn push(&mut self, change: Arc<Change>, now: Instant) {
        if self.changes.len() >= self.capacity {
            let fresh =
                self.changes.front().is_some_and(|(came, _)| now.duration_since(*came) < FRESH);
            if fresh && self.capacity < MAX_CAPACITY {
                self.capacity *= 2;
            } else if let Some((_, gone)) = self.changes.pop_front() {
                self.oldest = gone.revision;
                self.first += 1;
            }
        }
        self.changes.push_back((now, change));
    }

    /// The revision of the newest change.
    pub(super) fn newest(&self) -> Revision {
        self.changes.back().map_or(self.oldest, |(_, change)| change.revision)
    }

    /// The revision after which watches can begin.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// The number of the first change after `revision`; `None` if that is no longer known.
    pub(super) fn after(&self, revision: Revision) -> Option<u64> {
        if revision < self.oldest {
            return None;
        }
        let at = self.changes.partition_point(|(_, change)| change.revision <= revision);
        Some(self.first + at as u64)
    }

    /// Up to `count` changes from number `from` on; `None` if that is no longer here.
    pub(super) fn read(
        &self,
        from: u64,
        count: usize,
    ) -> Option<impl Iterator<Item = &Arc<Change>>> {
        let at = usize::try_from(from.checked_sub(self.first)?).ok()?;
        Some(self.changes.iter().skip(at).take(count).map(|(_, change)| change))
    }
}

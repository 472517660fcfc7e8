//! The one thread that changes the embedded store.
//!
//! It takes what is queued, applies all of it in one transaction, makes that
//! durable with a single sync, and only then publishes the new revision and
//! answers. While it syncs, the next commits gather: the slower the disk, the
//! larger the groups.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use imbl::Vector;
use redb::{Database, ReadableTable};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Shared,
    tables::{COMPACTED, Record, SWEPT, Snapshot, Tables, entry_at, last_revision, meta},
};
use crate::{Commit, Entry, Error, Event, EventKind, Op, Revision};

/// Bounds the time until the first of a group is answered.
const GROUP_REQUESTS: usize = 512;
const GROUP_BYTES: usize = 8 << 20;

/// Bounds the memory of the events that watchers find without reading the log.
const RECENT_EVENTS: usize = 1024;
const RECENT_BYTES: usize = 16 << 20;

/// How many revisions are cleaned up between two groups of commits.
const SWEEP: Revision = 1000;

/// After a failure, expiry and compaction wait so long before they try again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the thread is asked to do, and where it answers.
pub(super) enum Request {
    Commit { commit: Commit, reply: Reply<Revision>, permit: OwnedSemaphorePermit },
    Compact { revision: Revision, reply: Reply<()>, permit: OwnedSemaphorePermit },
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

impl Request {
    fn size(&self) -> usize {
        match self {
            Self::Commit { commit: Commit { op: Op::Put { value, .. }, .. }, .. } => value.len(),
            _ => 0,
        }
    }
}

/// A key that ends at some time, unless another revision has written it.
type Expiry = Reverse<(Instant, Revision, Arc<str>)>;

pub(super) struct Writer {
    db: Database,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    recent: Vector<Event>,
    recent_bytes: usize,
    expiries: BinaryHeap<Expiry>,
    /// Up to where the history is compacted and how far that is cleaned up.
    compacted: Revision,
    swept: Revision,
    /// Who waits until the cleaning has come to a revision.
    sweep_waiters: Vec<(Revision, Reply<()>)>,
    compaction: Option<Compaction>,
    paused_until: Option<Instant>,
}

/// The regular compaction: it forgets what was already old one interval ago.
struct Compaction {
    interval: Duration,
    due: Instant,
    remembered: Revision,
}

/// What one transaction has done, to be told once it is durable.
#[derive(Default)]
struct Turn {
    events: Vec<Event>,
    expiries: Vec<Expiry>,
    replies: Vec<(Reply<Revision>, Result<Revision, Error>)>,
    compactions: Vec<(Revision, Reply<()>)>,
    refused: Vec<(Reply<()>, Error)>,
    revision: Revision,
    compacted: Revision,
    swept: Revision,
    changed: bool,
}

impl Writer {
    pub(super) fn new(
        db: Database,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        compaction_interval: Option<Duration>,
    ) -> Result<Self, redb::Error> {
        let now = Instant::now();
        let txn = db.begin_write()?;
        let (revision, compacted, swept, expiries) = {
            let tables = Tables::open(&txn)?;
            // How long the process was down is not known without trusting the
            // wall clock, so each time to live begins anew, as in etcd.
            let mut expiries = BinaryHeap::new();
            for item in tables.leases.iter()? {
                let (key, ttl) = item?;
                if let Some(revision) = tables.live.get(key.value())? {
                    let due = now.checked_add(Duration::from_millis(ttl.value()));
                    expiries.extend(
                        due.map(|due| Reverse((due, revision.value(), Arc::from(key.value())))),
                    );
                }
            }
            let compacted = meta(&tables.meta, COMPACTED)?;
            (last_revision(&tables.log)?, compacted, meta(&tables.meta, SWEPT)?, expiries)
        };
        txn.abort()?;
        let compaction = compaction_interval.map(|interval| Compaction {
            interval,
            due: now + interval,
            remembered: revision,
        });
        let writer = Self {
            db,
            shared,
            requests,
            recent: Vector::new(),
            recent_bytes: 0,
            expiries,
            compacted,
            swept,
            sweep_waiters: Vec::new(),
            compaction,
            paused_until: None,
        };
        writer.publish()?;
        Ok(writer)
    }

    /// Works until the store is dropped.
    pub(super) fn run(mut self) {
        loop {
            let wait = self.next_due().map(|due| due.saturating_duration_since(Instant::now()));
            let first = match wait {
                None => self.requests.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(wait) => self.requests.recv_timeout(wait),
            };
            let group = match first {
                Ok(first) => self.gather(first),
                Err(mpsc::RecvTimeoutError::Timeout) => Vec::new(),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            self.work(group);
        }
    }

    /// When there is something to do without being asked.
    fn next_due(&self) -> Option<Instant> {
        let sweep = (self.swept < self.compacted).then(Instant::now);
        let expiry = self.expiries.peek().map(|Reverse((due, ..))| *due);
        let compaction = self.compaction.as_ref().map(|compaction| compaction.due);
        let due = [sweep, expiry, compaction].into_iter().flatten().min()?;
        Some(self.paused_until.map_or(due, |paused| due.max(paused)))
    }

    fn gather(&self, first: Request) -> Vec<Request> {
        let mut bytes = first.size();
        let mut group = vec![first];
        while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            bytes += request.size();
            group.push(request);
        }
        group
    }

    fn work(&mut self, group: Vec<Request>) {
        let now = Instant::now();
        let mut turn = Turn { compacted: self.compacted, swept: self.swept, ..Turn::default() };
        // Kept apart: whoever waits is answered even if the transaction fails half way.
        let mut queue = group.into_iter();
        match self.transact(&mut turn, &mut queue, now) {
            Ok(()) => {
                self.paused_until = None;
                self.settle(turn, now);
            }
            Err(failure) => {
                tracing::error!(error = %failure.error(), "The embedded store can't write");
                self.paused_until = Some(now + PAUSE);
                failure.answer(turn, queue);
            }
        }
    }

    /// Applies the requests and what is due, and makes it durable.
    fn transact(
        &self,
        turn: &mut Turn,
        queue: &mut impl Iterator<Item = Request>,
        now: Instant,
    ) -> Result<(), Failure> {
        let txn = self.db.begin_write().map_err(Failure::before)?;
        {
            let mut tables = Tables::open(&txn).map_err(Failure::Before)?;
            turn.revision = last_revision(&tables.log).map_err(Failure::Before)?;
            for request in queue.by_ref() {
                turn.apply(&mut tables, request, now).map_err(Failure::Before)?;
            }
            if self.expiries.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
                turn.expire(&mut tables, &self.expiries, now).map_err(Failure::Before)?;
            }
            if let Some(compaction) = &self.compaction
                && compaction.due <= now
                && compaction.remembered > turn.compacted
            {
                turn.compact(&mut tables, compaction.remembered).map_err(Failure::Before)?;
            }
            turn.sweep(&mut tables).map_err(Failure::Before)?;
        }
        if turn.changed {
            txn.commit().map_err(Failure::during)
        } else {
            txn.abort().map_err(Failure::before)
        }
    }

    /// Publishes what has become durable, then answers.
    fn settle(&mut self, turn: Turn, now: Instant) {
        while self.expiries.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            self.expiries.pop();
        }
        self.expiries.extend(turn.expiries);
        if let Some(compaction) = &mut self.compaction
            && compaction.due <= now
        {
            compaction.due = now + compaction.interval;
            compaction.remembered = turn.revision;
        }
        self.compacted = turn.compacted;
        self.swept = turn.swept;
        self.sweep_waiters.extend(turn.compactions);
        self.remember(turn.events);
        if turn.changed
            && let Err(error) = self.publish()
        {
            // Durable but not visible: the next group tries again, and the
            // watchers then find in the log what is missing in memory.
            tracing::error!(%error, "The embedded store can't read");
            self.recent.clear();
            self.recent_bytes = 0;
        }
        for (reply, result) in turn.replies {
            let _ = reply.send(result);
        }
        for (reply, error) in turn.refused {
            let _ = reply.send(Err(error));
        }
        let swept = self.swept;
        for (_, reply) in self.sweep_waiters.extract_if(.., |(revision, _)| *revision <= swept) {
            let _ = reply.send(Ok(()));
        }
    }

    fn publish(&self) -> Result<(), redb::Error> {
        let snapshot = Snapshot::take(&self.db, self.recent.clone())?;
        self.shared.publish(snapshot);
        Ok(())
    }

    fn remember(&mut self, events: Vec<Event>) {
        for event in events {
            self.recent_bytes += event_size(&event);
            self.recent.push_back(event);
        }
        while self.recent.len() > RECENT_EVENTS || self.recent_bytes > RECENT_BYTES {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= event_size(&oldest);
        }
    }
}

impl Drop for Writer {
    /// Whatever ended it, nobody shall wait for a store that no longer moves.
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn event_size(event: &Event) -> usize {
    event.entry.value.len() + event.previous.as_ref().map_or(0, |entry| entry.value.len())
}

impl Turn {
    fn apply(
        &mut self,
        tables: &mut Tables<'_>,
        request: Request,
        now: Instant,
    ) -> Result<(), redb::Error> {
        match request {
            Request::Commit { commit, reply, permit: _permit } => {
                let current = match tables.live.get(commit.key.as_str())? {
                    Some(revision) => Some(entry_at(&tables.log, revision.value())?),
                    None => None,
                };
                let result = if holds(&commit, current.as_ref()) {
                    Ok(self.change(tables, &commit.key, commit.op, current, now)?)
                } else {
                    Err(Error::Conflict { current })
                };
                self.replies.push((reply, result));
            }
            Request::Compact { revision, reply, permit: _permit } => {
                if revision > self.revision {
                    let error = Error::FutureRevision { current: self.revision };
                    self.refused.push((reply, error));
                } else if revision <= self.compacted {
                    let error = Error::Compacted { oldest: self.compacted };
                    self.refused.push((reply, error));
                } else {
                    self.compact(tables, revision)?;
                    self.compactions.push((revision, reply));
                }
            }
        }
        Ok(())
    }

    /// Writes the next revision.
    fn change(
        &mut self,
        tables: &mut Tables<'_>,
        key: &str,
        op: Op,
        previous: Option<Entry>,
        now: Instant,
    ) -> Result<Revision, redb::Error> {
        self.revision += 1;
        self.changed = true;
        let revision = self.revision;
        let shared_key =
            previous.as_ref().map_or_else(|| Arc::from(key), |entry| entry.key.clone());
        let mut entry = Entry {
            key: shared_key,
            value: bytes::Bytes::new(),
            create_revision: 0,
            mod_revision: revision,
        };
        let kind = match op {
            Op::Put { value, ttl } => {
                entry.value = value;
                entry.create_revision =
                    previous.as_ref().map_or(revision, |entry| entry.create_revision);
                tables.live.insert(key, revision)?;
                match ttl {
                    Some(ttl) => {
                        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                        tables.leases.insert(key, millis)?;
                        // Who asks for longer than the clock can count asks for ever.
                        if let Some(due) = now.checked_add(ttl) {
                            self.expiries.push(Reverse((due, revision, entry.key.clone())));
                        }
                    }
                    None => {
                        tables.leases.remove(key)?;
                    }
                }
                EventKind::Put
            }
            Op::Delete => {
                tables.live.remove(key)?;
                tables.leases.remove(key)?;
                EventKind::Delete
            }
        };
        let record = Record {
            kind,
            create_revision: entry.create_revision,
            previous: previous.as_ref().map_or(0, |entry| entry.mod_revision),
            key,
            value: &entry.value,
        };
        tables.log.insert(revision, record.encode().as_slice())?;
        if let Some(previous) = &previous {
            tables.past.insert((key, previous.mod_revision), revision)?;
        }
        self.events.push(Event { kind, entry, previous });
        Ok(revision)
    }

    /// Deletes the keys whose time has come.
    fn expire(
        &mut self,
        tables: &mut Tables<'_>,
        expiries: &BinaryHeap<Expiry>,
        now: Instant,
    ) -> Result<(), redb::Error> {
        for Reverse((_, revision, key)) in expiries.iter().filter(|Reverse((due, ..))| *due <= now)
        {
            let written = tables.live.get(&**key)?.map(|written| written.value());
            if written == Some(*revision) {
                let current = entry_at(&tables.log, *revision)?;
                self.change(tables, key, Op::Delete, Some(current), now)?;
            }
        }
        Ok(())
    }

    fn compact(&mut self, tables: &mut Tables<'_>, revision: Revision) -> Result<(), redb::Error> {
        tables.meta.insert(COMPACTED, revision)?;
        self.compacted = revision;
        self.changed = true;
        Ok(())
    }

    /// Cleans up some of what was compacted: a change before the compacted
    /// revision takes with it the value that it ended.
    ///
    /// The values that the events from there on have ended stay, so those
    /// events still tell what was before.
    fn sweep(&mut self, tables: &mut Tables<'_>) -> Result<(), redb::Error> {
        if self.swept >= self.compacted {
            return Ok(());
        }
        let end = self.compacted.min(self.swept + SWEEP);
        let mut ended = Vec::new();
        for item in tables.log.range(self.swept..end)? {
            let (revision, record) = item?;
            let record = Record::decode(record.value())?;
            ended.push((revision.value(), record.kind, record.previous, record.key.to_owned()));
        }
        for (revision, kind, previous, key) in ended {
            if previous != 0 {
                tables.past.remove((key.as_str(), previous))?;
                tables.log.remove(previous)?;
            }
            if kind == EventKind::Delete {
                tables.log.remove(revision)?;
            }
        }
        tables.meta.insert(SWEPT, end)?;
        self.swept = end;
        self.changed = true;
        Ok(())
    }
}

fn holds(commit: &Commit, current: Option<&Entry>) -> bool {
    if commit.op == Op::Delete && current.is_none() {
        return false;
    }
    match commit.expected {
        None => true,
        Some(expected) => current.map_or(0, |entry| entry.mod_revision) == expected,
    }
}

/// Why a transaction did not go through, by what is known of it.
enum Failure {
    /// Nothing of it has happened.
    Before(redb::Error),
    /// It may or may not be durable.
    During(redb::Error),
}

impl Failure {
    fn before(error: impl Into<redb::Error>) -> Self {
        Self::Before(error.into())
    }

    fn during(error: impl Into<redb::Error>) -> Self {
        Self::During(error.into())
    }

    fn error(&self) -> &redb::Error {
        match self {
            Self::Before(error) | Self::During(error) => error,
        }
    }

    fn to_error(&self) -> Error {
        let text = self.error().to_string().into();
        match self {
            Self::Before(_) => Error::Unavailable(text),
            Self::During(_) => Error::UnknownOutcome(text),
        }
    }

    fn answer(&self, turn: Turn, queue: impl Iterator<Item = Request>) {
        for (reply, _) in turn.replies {
            let _ = reply.send(Err(self.to_error()));
        }
        let compactions = turn.compactions.into_iter().map(|(_, reply)| reply);
        for reply in compactions.chain(turn.refused.into_iter().map(|(reply, _)| reply)) {
            let _ = reply.send(Err(self.to_error()));
        }
        for request in queue {
            match request {
                Request::Commit { reply, .. } => drop(reply.send(Err(self.to_error()))),
                Request::Compact { reply, .. } => drop(reply.send(Err(self.to_error()))),
            }
        }
    }
}

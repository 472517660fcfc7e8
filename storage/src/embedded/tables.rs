//! The tables of the embedded store, and how one state of them is read.
//!
//! Every revision is one record in the log, and a value is stored nowhere else:
//! - `LOG`: revision → what happened, with the new value and the revision of the old one;
//! - `LIVE`: key → the revision that wrote its value, for the keys that exist;
//! - `PAST`: (key, revision that wrote a former value) → the revision that ended it;
//! - `LEASES`: key → its time to live in milliseconds, if it has one;
//! - `META`: how far the history is compacted, and how far that is cleaned up.

use std::{iter::Peekable, sync::Arc};

use bytes::Bytes;
use imbl::Vector;
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};

use crate::{Entry, Error, Event, EventKind, Page, Range, Revision};

pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
pub(super) const LIVE: TableDefinition<'_, &str, u64> = TableDefinition::new("live");
pub(super) const PAST: TableDefinition<'_, (&str, u64), u64> = TableDefinition::new("past");
pub(super) const LEASES: TableDefinition<'_, &str, u64> = TableDefinition::new("leases");
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of this layout.
pub(super) const FORMAT: &str = "format";
/// Revisions before this one can't be read any more.
pub(super) const COMPACTED: &str = "compacted";
/// Revisions before this one are cleaned up.
pub(super) const SWEPT: &str = "swept";

const FORMAT_VERSION: u64 = 1;

/// The revision of an empty store, as in etcd: 0 has a meaning of its own.
const FIRST_REVISION: Revision = 1;

/// kind, create revision, previous revision, length of the key.
const HEADER: usize = 1 + 8 + 8 + 4;
const PUT: u8 = 0;
const DELETE: u8 = 1;

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Self {
        Self::Internal(Box::new(error))
    }
}

/// Creates the tables of a new store, and refuses one with an unknown layout.
pub(super) fn prepare(db: &Database) -> Result<(), Error> {
    let version = prepare_tables(db)?;
    if version != FORMAT_VERSION {
        let text = format!("the data have the format {version}, not {FORMAT_VERSION}");
        return Err(Error::Internal(text.into()));
    }
    Ok(())
}

fn prepare_tables(db: &Database) -> Result<u64, redb::Error> {
    let txn = db.begin_write()?;
    let version = {
        txn.open_table(LOG)?;
        txn.open_table(LIVE)?;
        txn.open_table(PAST)?;
        txn.open_table(LEASES)?;
        let mut meta = txn.open_table(META)?;
        let found = meta.get(FORMAT)?.map(|version| version.value());
        if found.is_none() {
            meta.insert(FORMAT, FORMAT_VERSION)?;
        }
        found.unwrap_or(FORMAT_VERSION)
    };
    txn.commit()?;
    Ok(version)
}

/// One record of the log, still in its bytes.
pub(super) struct Record<'a> {
    pub(super) kind: EventKind,
    pub(super) create_revision: Revision,
    /// The revision of the value before; 0 if the key did not exist.
    pub(super) previous: Revision,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.key.len() + self.value.len());
        bytes.push(match self.kind {
            EventKind::Put => PUT,
            EventKind::Delete => DELETE,
        });
        bytes.extend_from_slice(&self.create_revision.to_le_bytes());
        bytes.extend_from_slice(&self.previous.to_le_bytes());
        // No key comes near 4 GiB: MAX_VALUE_SIZE holds for the sum of both.
        bytes.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(self.value);
        bytes
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, redb::Error> {
        Self::parse(bytes)
            .ok_or_else(|| redb::Error::Corrupted("a record of the log is malformed".to_owned()))
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (create_revision, rest) = rest.split_first_chunk()?;
        let (previous, rest) = rest.split_first_chunk()?;
        let (key_length, rest) = rest.split_first_chunk()?;
        let (key, value) = rest.split_at_checked(u32::from_le_bytes(*key_length) as usize)?;
        Some(Self {
            kind: match *kind {
                PUT => EventKind::Put,
                DELETE => EventKind::Delete,
                _ => return None,
            },
            create_revision: u64::from_le_bytes(*create_revision),
            previous: u64::from_le_bytes(*previous),
            key: std::str::from_utf8(key).ok()?,
            value,
        })
    }

    fn entry(&self, revision: Revision) -> Entry {
        Entry {
            key: Arc::from(self.key),
            value: Bytes::copy_from_slice(self.value),
            create_revision: self.create_revision,
            mod_revision: revision,
        }
    }
}

/// The entry that a revision wrote.
pub(super) fn entry_at(
    log: &impl ReadableTable<u64, &'static [u8]>,
    revision: Revision,
) -> Result<Entry, redb::Error> {
    let bytes = log.get(revision)?.ok_or_else(|| {
        redb::Error::Corrupted(format!("the log has no record of revision {revision}"))
    })?;
    Ok(Record::decode(bytes.value())?.entry(revision))
}

/// The latest revision of a log.
pub(super) fn last_revision(
    log: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<Revision, redb::Error> {
    Ok(log.last()?.map_or(FIRST_REVISION, |(revision, _)| revision.value()))
}

/// A number among the metadata; 0 if it was never written.
pub(super) fn meta(
    table: &impl ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<u64, redb::Error> {
    Ok(table.get(name)?.map_or(0, |value| value.value()))
}

/// Those of a transaction's tables that a commit changes.
pub(super) struct Tables<'txn> {
    pub(super) log: redb::Table<'txn, u64, &'static [u8]>,
    pub(super) live: redb::Table<'txn, &'static str, u64>,
    pub(super) past: redb::Table<'txn, (&'static str, u64), u64>,
    pub(super) leases: redb::Table<'txn, &'static str, u64>,
    pub(super) meta: redb::Table<'txn, &'static str, u64>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            log: txn.open_table(LOG)?,
            live: txn.open_table(LIVE)?,
            past: txn.open_table(PAST)?,
            leases: txn.open_table(LEASES)?,
            meta: txn.open_table(META)?,
        })
    }
}

/// The store as it was after one revision, for any number of readers.
///
/// It pins the pages of the database that it reads, so nobody keeps one for long.
pub(super) struct Snapshot {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// The latest events without a gap, the last of them that of `revision`.
    pub(super) recent: Vector<Event>,
    log: ReadOnlyTable<u64, &'static [u8]>,
    live: ReadOnlyTable<&'static str, u64>,
    past: ReadOnlyTable<(&'static str, u64), u64>,
}

impl Snapshot {
    /// The state of the database now.
    pub(super) fn take(db: &Database, recent: Vector<Event>) -> Result<Self, redb::Error> {
        let txn = db.begin_read()?;
        let log = txn.open_table(LOG)?;
        Ok(Self {
            revision: last_revision(&log)?,
            compacted: meta(&txn.open_table(META)?, COMPACTED)?,
            recent,
            log,
            live: txn.open_table(LIVE)?,
            past: txn.open_table(PAST)?,
        })
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>, redb::Error> {
        let Some(revision) = self.live.get(key)? else {
            return Ok(None);
        };
        entry_at(&self.log, revision.value()).map(Some)
    }

    pub(super) fn range(&self, range: &Range) -> Result<Page, Error> {
        let revision = range.revision.filter(|&asked| asked != 0).unwrap_or(self.revision);
        if revision > self.revision {
            return Err(Error::FutureRevision { current: self.revision });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { oldest: self.compacted });
        }
        Ok(self.page(range, revision)?)
    }

    fn page(&self, range: &Range, revision: Revision) -> Result<Page, redb::Error> {
        let mut page = Page { entries: Vec::new(), more: false, revision, count: 0 };
        let start = range.start.as_deref().unwrap_or(&range.prefix).max(&range.prefix);
        let live = self
            .live
            .range(start..)?
            .map(|item| item.map(|(key, written)| (key.value().to_owned(), written.value())));
        let live = live.take_while(within(&range.prefix));
        let mut add = |written: Revision| -> Result<(), redb::Error> {
            page.count += 1;
            if range.limit == 0 || page.entries.len() < range.limit {
                page.entries.push(entry_at(&self.log, written)?);
            } else {
                page.more = true;
            }
            Ok(())
        };
        if revision == self.revision {
            for item in live {
                add(item?.1)?;
            }
            return Ok(page);
        }
        let past = self.past.range((start, 0)..)?.map(|item| {
            item.map(|(key, ended)| {
                let (key, written) = key.value();
                (key.to_owned(), written, ended.value())
            })
        });
        let past = past
            .filter(|item| match item {
                Ok((_, written, ended)) => *written <= revision && revision < *ended,
                Err(_) => true,
            })
            .map(|item| item.map(|(key, written, _)| (key, written)))
            .take_while(within(&range.prefix));
        let live =
            live.filter(|item| item.as_ref().map_or(true, |(_, written)| *written <= revision));
        for item in (Merge { left: live.peekable(), right: past.peekable() }) {
            add(item?.1)?;
        }
        Ok(page)
    }

    /// The events of a prefix from a revision on, and up to where they go:
    /// at most to this snapshot, less if that would be too much at once.
    pub(super) fn events(
        &self,
        prefix: &str,
        from: Revision,
        limits: &Limits,
    ) -> Result<(Vec<Event>, Revision), redb::Error> {
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut upto = from - 1;
        for item in self.log.range(from..)?.take(limits.scanned) {
            let (revision, record) = item?;
            let revision = revision.value();
            let record = Record::decode(record.value())?;
            if record.key.starts_with(prefix) {
                bytes += record.value.len();
                if !events.is_empty() && bytes > limits.bytes {
                    return Ok((events, upto));
                }
                events.push(self.event(&record, revision)?);
            }
            upto = revision;
        }
        Ok((events, upto))
    }

    fn event(&self, record: &Record<'_>, revision: Revision) -> Result<Event, redb::Error> {
        let previous = match record.previous {
            0 => None,
            previous => Some(entry_at(&self.log, previous)?),
        };
        Ok(Event { kind: record.kind, entry: record.entry(revision), previous })
    }

    /// The bytes that the tables occupy. It walks all of them.
    pub(super) fn size_in_use(&self) -> Result<u64, redb::Error> {
        let stats = [self.log.stats()?, self.live.stats()?, self.past.stats()?];
        Ok(stats
            .iter()
            .map(|table| table.stored_bytes() + table.metadata_bytes() + table.fragmented_bytes())
            .sum())
    }

    /// How many records the log has.
    #[cfg(test)]
    pub(super) fn log_length(&self) -> u64 {
        self.log.len().expect("a readable log")
    }
}

/// How much of the history is read at once.
pub(super) struct Limits {
    /// Records looked at, of any key.
    pub(super) scanned: usize,
    /// Bytes of values; a single larger one passes.
    pub(super) bytes: usize,
}

type KeyRevision = Result<(String, Revision), redb::StorageError>;

fn within(prefix: &str) -> impl Fn(&KeyRevision) -> bool + '_ {
    move |item| item.as_ref().map_or(true, |(key, _)| key.starts_with(prefix))
}

/// Merges two sequences that are sorted by key. No key is in both: at any one
/// revision it has a single value.
struct Merge<L: Iterator, R: Iterator> {
    left: Peekable<L>,
    right: Peekable<R>,
}

impl<L, R> Iterator for Merge<L, R>
where
    L: Iterator<Item = KeyRevision>,
    R: Iterator<Item = KeyRevision>,
{
    type Item = KeyRevision;

    fn next(&mut self) -> Option<KeyRevision> {
        match (self.left.peek(), self.right.peek()) {
            (Some(Ok((left, _))), Some(Ok((right, _)))) if left > right => self.right.next(),
            (Some(_), _) => self.left.next(),
            (None, _) => self.right.next(),
        }
    }
}

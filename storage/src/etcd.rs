//! The store in an etcd cluster.
//!
//! `etcd_client` is gRPC and nothing more. What a client must do beyond that is
//! here: another member when one fails ([`pool`]), a write without an answer is
//! told from one that did not happen, watches resume ([`watch`]), leases are
//! shared ([`lease`]), and the history is compacted by the protocol of
//! Kubernetes ([`compaction`]).

mod compaction;
mod lease;
mod pool;
mod watch;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, GetOptions, Identity, KeyValue, PutOptions,
    ResponseHeader, TlsOptions, Txn, TxnOp, TxnOpResponse,
};
use futures::future::join_all;
use tokio::time::timeout;

use self::{
    lease::Leases,
    pool::{Failure, Pool},
    watch::Progress,
};
use crate::{Commit, Entry, Error, Op, Page, Range, Revision, Store, StoreStatus, Watch};

/// The largest answer: what gRPC can carry. Requests are limited by etcd.
const MESSAGE: usize = i32::MAX as usize;

/// How many entries are asked for at once; a longer range takes several calls
/// at one revision.
const CHUNK: usize = 1000;

const STATUS: Duration = Duration::from_secs(3);

/// As of the API servers of Kubernetes: the history is 5 to 10 minutes long.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How to reach an etcd cluster, and what to do there.
#[derive(Clone, Debug)]
pub struct Options {
    /// The client URLs of the members.
    pub endpoints: Vec<String>,
    /// Stands before every key, and is not part of the keys seen outside.
    pub prefix: String,
    /// A PEM file with the CA of the members; without one, those of the system.
    pub ca: Option<PathBuf>,
    /// A PEM file with a client certificate.
    pub cert: Option<PathBuf>,
    /// The PEM file with the key of the client certificate.
    pub key: Option<PathBuf>,
    /// How often the history is compacted; `None` leaves it to others.
    pub compaction_interval: Option<Duration>,
}

impl Options {
    /// Options for members without TLS, or with a certificate that the system trusts.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: String::new(),
            ca: None,
            cert: None,
            key: None,
            compaction_interval: Some(COMPACTION_INTERVAL),
        }
    }
}

/// Connects to an etcd cluster, at least one member of which must answer.
pub async fn connect(options: Options) -> Result<Arc<dyn Store>, Error> {
    let tls = tls(&options).await?;
    let pool = Arc::new(Pool::new(&options.endpoints, tls.as_ref()).await?);
    let members = join_all(pool.members().iter().cloned().map(version)).await;
    let mut version = None;
    let mut failure = None;
    for member in members {
        match member {
            // The oldest one decides what all of them can do.
            Ok(found) => version = version.into_iter().chain([found]).min(),
            Err(error) => failure = Some(error),
        }
    }
    let Some(version) = version else {
        let source = failure.unwrap_or_else(|| "no member has answered".into());
        return Err(Error::Unavailable(source));
    };
    if !version.reports_reliable_progress() {
        tracing::warn!(%version, "This etcd is too old to tell how far a watch is: it will be slow");
    }
    let store = Arc::new(Etcd {
        pool,
        keys: Keys { prefix: options.prefix.into() },
        version,
        leases: Leases::default(),
        progress: tokio::sync::watch::Sender::default(),
        compacted: AtomicU64::new(0),
    });
    if let Some(interval) = options.compaction_interval {
        // It ends by itself when the store is dropped.
        tokio::spawn(compaction::run(Arc::downgrade(&store), interval));
    }
    Ok(store)
}

async fn tls(options: &Options) -> Result<Option<TlsOptions>, Error> {
    let read = async |path: &PathBuf| {
        tokio::fs::read(path).await.map_err(|error| {
            let text = format!("can't read {}: {error}", path.display());
            Error::Internal(text.into())
        })
    };
    if !options.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
        return Ok(None);
    }
    let mut tls = TlsOptions::new();
    if let Some(ca) = &options.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca).await?));
    } else {
        tls = tls.with_enabled_roots();
    }
    match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            tls = tls.identity(Identity::from_pem(read(cert).await?, read(key).await?));
        }
        (None, None) => {}
        _ => {
            let text = "a client certificate needs its key, and a key its certificate";
            return Err(Error::Internal(text.into()));
        }
    }
    Ok(Some(tls))
}

async fn version(mut client: Client) -> Result<Version, crate::BoxError> {
    let status = timeout(STATUS, client.status()).await??;
    Version::parse(status.version())
        .ok_or_else(|| format!("etcd has an unknown version: {}", status.version()).into())
}

/// The release of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(|number| number.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??, numbers.next()??))
    }

    /// Before these releases a watch could report a revision that it had not
    /// delivered yet.
    fn reports_reliable_progress(self) -> bool {
        match self {
            Self(3, 4, patch) => patch >= 31,
            Self(3, 5, patch) => patch >= 13,
            later => later >= Self(3, 6, 0),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Turns our keys into etcd's and back.
#[derive(Clone)]
struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    fn full(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// The keys with a prefix, from a key on, as etcd's half-open range.
    fn bounds(&self, prefix: &str, start: Option<&str>) -> (Vec<u8>, Vec<u8>) {
        let mut end = self.full(prefix);
        let mut start = self.full(start.unwrap_or(prefix).max(prefix));
        if start.is_empty() {
            start.push(0);
        }
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return (start, end);
            }
        }
        // etcd's word for "to the end".
        (start, vec![0])
    }

    fn strip(&self, key: &[u8]) -> Result<Arc<str>, Error> {
        key.strip_prefix(self.prefix.as_bytes())
            .and_then(|key| std::str::from_utf8(key).ok())
            .map(Arc::from)
            .ok_or_else(|| Error::Internal("etcd has a key that is none of ours".into()))
    }

    fn entry(&self, entry: KeyValue) -> Result<Entry, Error> {
        let (create_revision, mod_revision) = (entry.create_revision(), entry.mod_revision());
        let (key, value) = entry.into_key_value();
        Ok(Entry {
            key: self.strip(&key)?,
            value: Bytes::from(value),
            create_revision: create_revision as Revision,
            mod_revision: mod_revision as Revision,
        })
    }
}

/// The revision of the whole store when it answered.
fn revision(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision() as Revision)
}

struct Etcd {
    pool: Arc<Pool>,
    keys: Keys,
    version: Version,
    leases: Leases,
    progress: tokio::sync::watch::Sender<Progress>,
    /// The last compaction that this process knows of; etcd has no question for it.
    compacted: AtomicU64,
}

impl Etcd {
    /// A range at one revision, or now, of at most so many entries.
    async fn chunk(
        &self,
        bounds: &(Vec<u8>, Vec<u8>),
        limit: usize,
        at: Revision,
    ) -> Result<etcd_client::GetResponse, Error> {
        let options = GetOptions::new()
            .with_range(bounds.1.clone())
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .with_revision(at as i64);
        let get = |client: Client| {
            let (start, options) = (bounds.0.clone(), options.clone());
            let mut client = client.kv_client().max_decoding_message_size(MESSAGE);
            async move { client.get(start, Some(options)).await }
        };
        match self.pool.read(get).await {
            Err(Error::FutureRevision { .. }) => {
                Err(Error::FutureRevision { current: self.current_revision().await? })
            }
            Err(Error::Compacted { .. }) => {
                Err(Error::Compacted { oldest: self.compacted.load(Ordering::Relaxed) })
            }
            other => other,
        }
    }

    /// Tries a commit once, with a lease for a value that ends.
    async fn attempt(&self, commit: &Commit, lease: Option<i64>) -> Result<TxnAnswer, Failure> {
        let txn = transaction(&self.keys.full(&commit.key), commit, lease);
        let call = |mut client: Client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        };
        let response = self.pool.write(call).await?;
        if response.succeeded() {
            return Ok(TxnAnswer::Done(revision(response.header())));
        }
        let current = response.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
            _ => None,
        });
        Ok(TxnAnswer::Conflict(current))
    }

    async fn lease(&self, op: &Op) -> Result<Option<i64>, Error> {
        match op {
            // Nothing but the lease may exist by now, which is as good as nothing.
            Op::Put { ttl: Some(ttl), .. } => match self.leases.get(&self.pool, *ttl).await {
                Ok(lease) => Ok(Some(lease)),
                Err(Failure::Lost(source)) => Err(Error::Unavailable(source)),
                Err(failure) => Err(failure.into()),
            },
            _ => Ok(None),
        }
    }
}

enum TxnAnswer {
    Done(Revision),
    Conflict(Option<KeyValue>),
}

fn transaction(key: &[u8], commit: &Commit, lease: Option<i64>) -> Txn {
    let exists = || Compare::mod_revision(key, CompareOp::Greater, 0);
    let written = |revision: Revision| {
        Compare::mod_revision(key, CompareOp::Equal, i64::try_from(revision).unwrap_or(i64::MAX))
    };
    let mut compares = Vec::new();
    compares.extend(commit.expected.map(written));
    let op = match &commit.op {
        Op::Put { value, .. } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease));
            TxnOp::put(key, value.to_vec(), options)
        }
        Op::Delete => {
            compares.push(exists());
            TxnOp::delete(key, None)
        }
    };
    Txn::new().when(compares).and_then([op]).or_else([TxnOp::get(key, None)])
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        let key = self.keys.full(key);
        let get = |mut client: Client| {
            let key = key.clone();
            async move { client.get(key, None).await }
        };
        let mut response = self.pool.read(get).await?;
        let entry = response.take_kvs().pop().map(|entry| self.keys.entry(entry)).transpose()?;
        Ok((entry, revision(response.header())))
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        let mut bounds = self.keys.bounds(&range.prefix, range.start.as_deref());
        let mut page = Page {
            entries: Vec::new(),
            more: false,
            revision: range.revision.unwrap_or(0),
            count: 0,
        };
        loop {
            let left = match range.limit {
                0 => CHUNK,
                limit => CHUNK.min(limit - page.entries.len()),
            };
            let mut response = self.chunk(&bounds, left, page.revision).await?;
            if page.entries.is_empty() {
                page.count = response.count() as u64;
            }
            if page.revision == 0 {
                page.revision = revision(response.header());
            }
            page.more = response.more();
            let entries = response.take_kvs();
            if let Some(last) = entries.last() {
                // The least key after it.
                bounds.0 = [last.key(), &[0]].concat();
            }
            for entry in entries {
                page.entries.push(self.keys.entry(entry)?);
            }
            if !page.more || page.entries.len() == range.limit {
                return Ok(page);
            }
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, Error> {
        commit.check_size()?;
        let lease = self.lease(&commit.op).await?;
        let answer = match self.attempt(&commit, lease).await {
            // Shared with others, it may have been revoked: the next one is new.
            Err(Failure::LeaseNotFound(_)) => {
                lease.into_iter().for_each(|lease| self.leases.forget(lease));
                let lease = self.lease(&commit.op).await?;
                self.attempt(&commit, lease).await
            }
            other => other,
        };
        match answer? {
            TxnAnswer::Done(revision) => Ok(revision),
            TxnAnswer::Conflict(current) => {
                let current = current.map(|entry| self.keys.entry(entry)).transpose()?;
                Err(Error::Conflict { current })
            }
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Error> {
        // The first revision must be known, or a watch that breaks before its
        // first event could not resume.
        let from = match from {
            0 => self.current_revision().await? + 1,
            from => from,
        };
        Ok(watch::open(
            self.pool.clone(),
            self.keys.clone(),
            prefix,
            from,
            self.progress.subscribe(),
            self.version.reports_reliable_progress(),
        ))
    }

    async fn request_progress(&self) -> Result<(), Error> {
        if !self.version.reports_reliable_progress() {
            let text = format!("the progress that etcd {} reports can't be trusted", self.version);
            return Err(Error::Internal(text.into()));
        }
        let revision = self.current_revision().await?;
        self.progress.send_modify(|progress| {
            progress.number += 1;
            progress.revision = progress.revision.max(revision);
        });
        Ok(())
    }

    async fn current_revision(&self) -> Result<Revision, Error> {
        // A quorum read of no key: etcd has no cheaper linearizable question.
        let key = self.keys.full("");
        let get = |mut client: Client| {
            let key = if key.is_empty() { vec![0] } else { key.clone() };
            async move { client.get(key, Some(GetOptions::new().with_count_only())).await }
        };
        Ok(revision(self.pool.read(get).await?.header()))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let compact = |mut client: Client| async move {
            client.compact(i64::try_from(revision).unwrap_or(i64::MAX), None).await
        };
        match self.pool.write(compact).await {
            Ok(_) => {
                self.compacted.fetch_max(revision, Ordering::Relaxed);
                Ok(())
            }
            Err(Failure::Compacted(_)) => {
                let oldest = self.compacted.fetch_max(revision, Ordering::Relaxed);
                Err(Error::Compacted { oldest: oldest.max(revision) })
            }
            Err(Failure::Future(_)) => {
                Err(Error::FutureRevision { current: self.current_revision().await? })
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let status = |mut client: Client| async move { client.status().await };
        let status = self.pool.read(status).await?;
        Ok(StoreStatus {
            backend: format!("etcd {}", status.version()),
            revision: self.current_revision().await?,
            compacted: self.compacted.load(Ordering::Relaxed),
            size: u64::try_from(status.db_size()).unwrap_or(0),
            size_in_use: u64::try_from(status.raft_used_db_size()).unwrap_or(0),
            reliable_progress: self.version.reports_reliable_progress(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_releases_are_not_believed_about_progress() {
        let reliable = |text| Version::parse(text).map(Version::reports_reliable_progress);
        for old in ["3.3.9", "3.4.30", "3.5.12"] {
            assert_eq!(reliable(old), Some(false), "{old}");
        }
        for new in ["3.4.31", "3.5.13", "3.6.0", "3.6.8-rc.1+git", "4.0.0"] {
            assert_eq!(reliable(new), Some(true), "{new}");
        }
        assert_eq!(reliable("three"), None);
    }

    #[test]
    fn a_prefix_becomes_a_half_open_range() {
        let keys = Keys { prefix: "/r".into() };
        assert_eq!(keys.bounds("/a/", None), (b"/r/a/".to_vec(), b"/r/a0".to_vec()));
        assert_eq!(keys.bounds("/a/", Some("/a/x")), (b"/r/a/x".to_vec(), b"/r/a0".to_vec()));
        let all = Keys { prefix: "".into() };
        assert_eq!(all.bounds("", None), (vec![0], vec![0]));
        assert_eq!(keys.strip(b"/r/a/x").expect("our key").as_ref(), "/a/x");
        assert!(keys.strip(b"/other").is_err());
    }
}

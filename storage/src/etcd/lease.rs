//! Leases that are shared by the keys with the same time to live.
//!
//! A lease costs etcd far more than a key. So those written within a small
//! part of their time to live hang on one, which lives that much longer.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::pool::{Failure, Pool};

/// All keys of a lease are deleted in one transaction, whose size etcd limits.
const KEYS: usize = 1000;
/// How much longer than asked for a key may live.
const LONGEST_SHARING: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Leases {
    /// By time to live.
    open: Mutex<HashMap<Duration, Lease>>,
}

struct Lease {
    id: i64,
    until: Instant,
    keys: usize,
}

impl Leases {
    /// A lease with at least this time to live.
    pub(super) async fn get(&self, pool: &Pool, ttl: Duration) -> Result<i64, Failure> {
        let now = Instant::now();
        if let Some(id) = self.reuse(ttl, now) {
            return Ok(id);
        }
        let sharing = (ttl / 20).clamp(Duration::from_secs(1), LONGEST_SHARING);
        let seconds = ttl.saturating_add(sharing).as_secs().saturating_add(1);
        // etcd's own limit; nobody will wait for it.
        let seconds = seconds.min(9_000_000_000) as i64;
        let grant = |mut client: etcd_client::Client| async move {
            client.lease_grant(seconds, None).await
        };
        let id = pool.write(grant).await?.id();
        // Two callers at once make two leases, and the later one is shared.
        self.open.lock().insert(ttl, Lease { id, until: now + sharing, keys: 1 });
        Ok(id)
    }

    fn reuse(&self, ttl: Duration, now: Instant) -> Option<i64> {
        let mut open = self.open.lock();
        open.retain(|_, lease| lease.until > now && lease.keys < KEYS);
        let lease = open.get_mut(&ttl)?;
        lease.keys += 1;
        Some(lease.id)
    }

    /// Forgets a lease that etcd no longer knows.
    pub(super) fn forget(&self, id: i64) {
        self.open.lock().retain(|_, lease| lease.id != id);
    }
}

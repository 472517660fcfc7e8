//! The regular compaction, agreed on among all API servers of one etcd.
//!
//! Each of them tries to be the one that writes `compact_rev_key`, the key that
//! Kubernetes uses too: its version counts the rounds, and its value is the
//! revision that was current. Who wins compacts what it remembers from the last
//! round; who loses learns the round and the revision from the answer. So the
//! history is one to two intervals long, however many servers there are.

use std::{sync::Weak, time::Duration};

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use super::Etcd;
use crate::{Error, Revision, Store};

/// Outside of every prefix: it belongs to the whole etcd.
const KEY: &str = "compact_rev_key";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    number: i64,
    revision: Revision,
}

/// Compacts every interval for as long as the store is in use.
pub(super) async fn run(store: Weak<Etcd>, interval: Duration) {
    let mut round = Round::default();
    loop {
        tokio::time::sleep(interval).await;
        let Some(store) = store.upgrade() else {
            return;
        };
        match compete(&store, round).await {
            Ok(next) => round = next,
            Err(error) => tracing::warn!(%error, "Can't compact etcd, will try again"),
        }
    }
}

async fn compete(store: &Etcd, last: Round) -> Result<Round, Error> {
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, last.number)])
        .and_then([TxnOp::put(KEY, last.revision.to_string(), None)])
        .or_else([TxnOp::get(KEY, None)]);
    let attempt = |mut client: etcd_client::Client| {
        let txn = txn.clone();
        async move { client.txn(txn).await }
    };
    let response = store.pool.write(attempt).await?;
    let revision = super::revision(response.header());
    if !response.succeeded() {
        let number = response.op_responses().iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(etcd_client::KeyValue::version),
            _ => None,
        });
        return Ok(Round { number: number.unwrap_or(0), revision });
    }
    if last.revision != 0 {
        match store.compact(last.revision).await {
            // Somebody else has compacted more: as good.
            Ok(()) | Err(Error::Compacted { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Round { number: last.number + 1, revision })
}

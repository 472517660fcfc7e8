//! Leader election on a Lease, after client-go: whoever holds it writes, nobody else.
//!
//! A holder's time is measured by our own clock from when we saw it renew; clocks of two machines are never compared.

use std::time::Duration;

use jiff::Timestamp;
use kubefed_api::kubefedconfig::LeaderElection;
use kubefed_apimachinery::time;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Error};

/// The lock of the controller managers, as KubeFed calls it.
const NAME: &str = "kubefed-controller-manager";

pub(crate) struct Lease {
    client: Client,
    path: String,
    identity: String,
    timing: LeaderElection,
    observed: Option<(Value, Instant)>,
}

impl Lease {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        identity: String,
        timing: LeaderElection,
    ) -> Self {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        Lease { client, path, identity, timing, observed: None }
    }

    /// Waits until this process leads.
    pub(crate) async fn acquire(&mut self) {
        loop {
            match self.try_hold().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the lease cannot be asked for"),
            }
            tokio::time::sleep(self.timing.retry.mul_f64(jitter())).await;
        }
    }

    /// Renews until `token` is cancelled, then releases; or cancels it when the lease is lost. Every writer obeys the
    /// token, and the lease outlasts the last try by more than a request takes.
    pub(crate) async fn hold(&mut self, token: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                () = tokio::time::sleep(self.timing.retry) => {}
            }
            let left = self.timing.renew.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_hold()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::error!("leader election lost: another holds the lease");
                    token.cancel();
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
                Err(_) => {}
            }
            if renewed.elapsed() >= self.timing.renew {
                tracing::error!("leader election lost: the lease could not be renewed");
                token.cancel();
                return;
            }
        }
    }

    /// Lets the next one lead at once. Called when every writer has ended.
    pub(crate) async fn release(&mut self) {
        let Some((mut lease, _)) = self.observed.take() else { return };
        if lease["spec"]["holderIdentity"] == self.identity.as_str() {
            lease["spec"]["holderIdentity"] = json!("");
            lease["spec"]["leaseDurationSeconds"] = json!(1);
            let _best_effort = self.client.replace(&format!("{}/{NAME}", self.path), &lease).await;
        }
    }

    /// One try to take or renew; false if somebody else holds it.
    async fn try_hold(&mut self) -> Result<bool, Error> {
        let known = match self.client.get(&format!("{}/{NAME}", self.path)).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let now = time::rfc3339_micro(Timestamp::now());
        let seconds = self.timing.lease.as_secs().max(1);
        let Some(mut lease) = known else {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME},
                "spec": {
                    "holderIdentity": self.identity, "leaseDurationSeconds": seconds, "acquireTime": now,
                    "renewTime": now, "leaseTransitions": 0,
                },
            });
            return self.written(self.client.create(&self.path, &lease).await);
        };
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or("").to_owned();
        if holder != self.identity {
            let since = match &self.observed {
                Some((seen, since)) if seen["spec"] == lease["spec"] => *since,
                _ => Instant::now(),
            };
            self.observed = Some((lease.clone(), since));
            let duration = Duration::from_secs(
                lease["spec"]["leaseDurationSeconds"].as_u64().unwrap_or(seconds),
            );
            if !holder.is_empty() && since.elapsed() < duration {
                return Ok(false);
            }
            let transitions = lease["spec"]["leaseTransitions"].as_u64().unwrap_or(0);
            lease["spec"]["leaseTransitions"] = json!(transitions + 1);
            lease["spec"]["acquireTime"] = json!(now);
            lease["spec"]["holderIdentity"] = json!(self.identity);
        }
        lease["spec"]["leaseDurationSeconds"] = json!(seconds);
        lease["spec"]["renewTime"] = json!(now);
        self.written(self.client.replace(&format!("{}/{NAME}", self.path), &lease).await)
    }

    fn written(&mut self, outcome: Result<Value, Error>) -> Result<bool, Error> {
        match outcome {
            Ok(lease) => {
                self.observed = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Between 1 and 1.2, so that candidates do not try in step.
fn jitter() -> f64 {
    1.0 + f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 1280.0
}

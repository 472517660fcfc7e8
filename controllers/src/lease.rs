//! Leader election on a Lease, after client-go: whoever holds it writes, nobody else.
//!
//! A holder's time is measured by our own clock from when we saw it renew; clocks of two machines are never compared.
//! Our own time is measured from before we asked: an answer that comes late does not prolong it.

use std::time::Duration;

use jiff::Timestamp;
use kubefed_api::SCOPE_ANNOTATION;
use kubefed_api::kubefedconfig::LeaderElection;
use kubefed_apimachinery::time;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Error, JSON};

/// The lock of the controller managers, as KubeFed calls it.
const NAME: &str = "kubefed-controller-manager";
/// The end of a process does not wait longer than this for the federation to take its lease back.
const RELEASE: Duration = Duration::from_secs(2);
/// The pause after a try that failed: a server that was killed has a successor at once, and the deadline is near.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the Lease is kept.
pub(crate) trait Keeper: Send + Sync {
    fn get(&self) -> impl Future<Output = Result<Value, Error>> + Send;
    fn create(&self, lease: &Value) -> impl Future<Output = Result<Value, Error>> + Send;
    fn replace(&self, lease: &Value) -> impl Future<Output = Result<Value, Error>> + Send;
    /// Waits until somebody has written since `seen`; for ever if that cannot be followed.
    fn changed(&self, seen: &Value) -> impl Future<Output = ()> + Send;
}

/// The host's API server as the keeper.
pub(crate) struct InHost {
    client: Client,
    path: String,
}

impl InHost {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        InHost { client, path }
    }
}

impl Keeper for InHost {
    async fn get(&self) -> Result<Value, Error> {
        self.client.get(&format!("{}/{NAME}", self.path)).await
    }

    async fn create(&self, lease: &Value) -> Result<Value, Error> {
        self.client.create(&self.path, lease).await
    }

    async fn replace(&self, lease: &Value) -> Result<Value, Error> {
        self.client.replace(&format!("{}/{NAME}", self.path), lease).await
    }

    async fn changed(&self, seen: &Value) {
        let version = seen["metadata"]["resourceVersion"].as_str().unwrap_or("");
        // By name: our rights are for this one.
        let query = format!("&fieldSelector=metadata.name%3D{NAME}");
        if let Ok(mut watch) = self.client.watch(&self.path, &query, JSON, version).await {
            while let Some(Ok(event)) = watch.next().await {
                if matches!(event["type"].as_str(), Some("ADDED" | "MODIFIED" | "DELETED")) {
                    return;
                }
            }
        }
        std::future::pending().await
    }
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    ByUs,
    ByAnother,
    /// Somebody wrote between our reading and our writing.
    Unknown,
}

pub(crate) struct Lease<K> {
    keeper: K,
    identity: String,
    timing: LeaderElection,
    /// What those who join clusters are to know; said with each renewal.
    scope: &'static str,
    /// The Lease as we wrote it last.
    ours: Option<Value>,
    /// Another's Lease, and since when its spec has been so.
    observed: Option<(Value, Instant)>,
    /// When we asked for what we hold.
    renewed: Instant,
}

impl<K: Keeper> Lease<K> {
    pub(crate) fn new(keeper: K, identity: String, timing: LeaderElection) -> Self {
        let renewed = Instant::now();
        Lease { keeper, identity, timing, scope: "Cluster", ours: None, observed: None, renewed }
    }

    /// Says with the Lease from the next renewal on which namespaces its holder serves.
    pub(crate) fn tell_scope(&mut self, is_namespaced: bool) {
        self.scope = if is_namespaced { "Namespaced" } else { "Cluster" };
    }

    /// Waits until this process leads.
    pub(crate) async fn acquire(&mut self) {
        loop {
            let asked = Instant::now();
            let pause = match self.try_hold().await {
                Ok(Held::ByUs) if asked.elapsed() < self.timing.renew => {
                    self.renewed = asked;
                    return;
                }
                Ok(Held::ByAnother) => self.timing.retry.mul_f64(jitter()).min(self.lasts_for()),
                Ok(_) => self.again(),
                Err(error) => {
                    tracing::warn!(%error, "the lease cannot be asked for");
                    self.again()
                }
            };
            // Who follows it knows at once of a renewal, from which its time counts anew, and of a release.
            let changed = async {
                match &self.observed {
                    Some((lease, _)) => self.keeper.changed(lease).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How long another's Lease lasts if it is not renewed.
    fn lasts_for(&self) -> Duration {
        let Some((lease, since)) = &self.observed else { return self.timing.lease };
        self.duration_of(lease).saturating_sub(since.elapsed())
    }

    fn duration_of(&self, lease: &Value) -> Duration {
        let seconds = lease["spec"]["leaseDurationSeconds"].as_u64();
        seconds.map_or(self.timing.lease, Duration::from_secs)
    }

    /// The pause after a try that failed.
    fn again(&self) -> Duration {
        self.timing.retry.min(AGAIN).mul_f64(jitter())
    }

    /// Renews until `token` is cancelled; cancels it when the lease is lost. Every writer obeys the token, and what we
    /// asked for outlasts the renewal deadline by what a last write may take.
    pub(crate) async fn hold(&mut self, token: &CancellationToken) {
        let mut pause = self.timing.retry;
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(pause.min(self.left())) => {}
            }
            // A try that hangs, as one that an etcd without a leader has, must leave time for another.
            let (asked, limit) = (Instant::now(), self.left() / 2);
            let tried = tokio::select! {
                () = token.cancelled() => return,
                tried = tokio::time::timeout(limit, self.try_hold()) => tried,
            };
            pause = self.again();
            match tried {
                Ok(Ok(Held::ByUs)) => (self.renewed, pause) = (asked, self.timing.retry),
                Ok(Ok(Held::ByAnother)) => {
                    tracing::error!("leader election lost: another holds the lease");
                    token.cancel();
                    return;
                }
                Ok(Ok(Held::Unknown)) | Err(_) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
            }
            if self.left().is_zero() {
                tracing::error!("leader election lost: the lease could not be renewed");
                token.cancel();
                return;
            }
        }
    }

    /// How long we lead if no renewal succeeds.
    fn left(&self) -> Duration {
        self.timing.renew.saturating_sub(self.renewed.elapsed())
    }

    /// Lets the next one lead at once. Called when every writer has ended.
    pub(crate) async fn release(&mut self) {
        let released = async {
            // A last renewal may have been written without our hearing of it.
            let mut lease = self.keeper.get().await?;
            if lease["spec"]["holderIdentity"] == self.identity.as_str() {
                lease["spec"]["holderIdentity"] = json!("");
                lease["spec"]["leaseDurationSeconds"] = json!(1);
                self.keeper.replace(&lease).await?;
            }
            Ok::<_, Error>(())
        };
        if !matches!(tokio::time::timeout(RELEASE, released).await, Ok(Ok(()))) {
            tracing::warn!("the lease was not given back: it runs out by itself");
        }
        self.ours = None;
    }

    /// One try to take or renew.
    async fn try_hold(&mut self) -> Result<Held, Error> {
        // What we wrote last is most likely what is there still: one request instead of two.
        if let Some(ours) = self.ours.clone() {
            let renewal = self.ours_now(ours);
            match self.written(self.keeper.replace(&renewal).await) {
                Ok(Held::Unknown) => {}
                Err(error) if error.is_not_found() => self.ours = None,
                outcome => return outcome,
            }
        }
        let lease = match self.keeper.get().await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME},
                    "spec": {"leaseTransitions": 0},
                });
                let lease = self.ours_now(lease);
                return self.written(self.keeper.create(&lease).await);
            }
            Err(error) => return Err(error),
        };
        if lease["spec"]["holderIdentity"] != self.identity.as_str() && !self.may_take(&lease) {
            self.ours = None;
            return Ok(Held::ByAnother);
        }
        let lease = self.ours_now(lease);
        self.written(self.keeper.replace(&lease).await)
    }

    /// Whether another's Lease was given back, or has run out while we watched.
    fn may_take(&mut self, lease: &Value) -> bool {
        let since = match &self.observed {
            Some((seen, since)) if seen["spec"] == lease["spec"] => *since,
            _ => Instant::now(),
        };
        self.observed = Some((lease.clone(), since));
        let is_free = lease["spec"]["holderIdentity"].as_str().is_none_or(str::is_empty);
        is_free || since.elapsed() >= self.duration_of(lease)
    }

    /// The Lease with us as its holder.
    fn ours_now(&self, mut lease: Value) -> Value {
        let now = json!(time::rfc3339_micro(Timestamp::now()));
        let spec = &mut lease["spec"];
        let before = spec["holderIdentity"].as_str().unwrap_or("");
        if before != self.identity {
            let transitions = spec["leaseTransitions"].as_u64().unwrap_or(0);
            let first = spec["acquireTime"].is_null();
            spec["leaseTransitions"] = json!(if first { 0 } else { transitions + 1 });
            spec["acquireTime"] = now.clone();
            spec["holderIdentity"] = json!(self.identity);
        }
        // Whole seconds on the wire, rounded up: others must not think that it runs out before we do.
        spec["leaseDurationSeconds"] = json!(self.timing.lease.as_millis().div_ceil(1000).max(1));
        spec["renewTime"] = now;
        lease["metadata"]["annotations"][SCOPE_ANNOTATION] = json!(self.scope);
        lease
    }

    fn written(&mut self, outcome: Result<Value, Error>) -> Result<Held, Error> {
        match outcome {
            Ok(lease) => {
                self.ours = Some(lease);
                Ok(Held::ByUs)
            }
            Err(error) if error.is_conflict() => {
                self.ours = None;
                Ok(Held::Unknown)
            }
            Err(error) => Err(error),
        }
    }
}

/// Between 1 and 1.2, so that candidates do not try in step.
fn jitter() -> f64 {
    1.0 + f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 1280.0
}

#[cfg(test)]
mod tests;

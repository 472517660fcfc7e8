//! A lane: one kind in one member.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use kubefed_api::status::{self, ClusterStatus};
use kubefed_api::template;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::collection::Collection;
use super::plan::{self, Action, Observed};
use super::{Learned, Planned, Sync};
use crate::cache::{Cache, Key, Source};
use crate::client::{Client, Error};
use crate::control::{Member, Readiness, ours, path};
use crate::queue::Queue;

mod breaker;
pub(super) mod handover;
mod requests;
mod steps;

use breaker::Breaker;

/// Objects of one kind that are worked on at a time in one member, unless more are asked for: KubeFed's default of one
/// counts for all members together, and is what makes it slow.
pub(super) const WORKERS: usize = 16;
/// However many are asked for. A connection carries hardly more requests at a time.
pub(super) const MOST_WORKERS: usize = 256;
/// A member that has not listed the kind after this long cannot: it has no such kind, or hides it from us.
const LISTING: Duration = Duration::from_secs(10);
/// A member is hostile input: what it says is cut to a readable length.
const MAX_MESSAGE: usize = 300;

pub(super) struct Lane {
    member: Arc<Member>,
    sync: Weak<Sync>,
    /// What is marked as ours in the member.
    observed: Cache<Observed>,
    queue: Queue<Key>,
    /// What is recorded of the member was looked at.
    begun: Once,
    /// The list of the member was waited for in vain.
    unlisted: AtomicBool,
    breaker: Mutex<Breaker>,
    /// Told when a pause begins, or something is parked in one.
    paused: Notify,
    collects_status: bool,
    workers: usize,
    token: CancellationToken,
}

/// One object at work.
struct Task<'a> {
    sync: &'a Sync,
    client: &'a Client,
    key: &'a Key,
    planned: Option<&'a Arc<Planned>>,
    observed: Option<&'a Observed>,
    /// We have written it there, or may have.
    recorded: bool,
}

impl Lane {
    pub(super) fn start(sync: &Arc<Sync>, member: &Arc<Member>) -> Arc<Self> {
        let collects_status = sync.collection != Collection::Nowhere;
        let lane = Arc::new(Lane {
            member: Arc::clone(member),
            sync: Arc::downgrade(sync),
            observed: Cache::default(),
            queue: Queue::default(),
            begun: Once::new(),
            unlisted: AtomicBool::new(false),
            breaker: Mutex::default(),
            paused: Notify::new(),
            collects_status,
            workers: sync.settings.workers,
            token: sync.token.child_token(),
        });
        let (work, token) = (Arc::clone(&lane), lane.token.clone());
        sync.tasks.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = work.work() => {}
            }
        });
        lane
    }

    pub(super) fn stop(&self) {
        self.token.cancel();
        if let Some(sync) = self.sync.upgrade() {
            sync.control.metrics.forget_lane(&self.member.name, &sync.name);
        }
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    pub(super) fn add(&self, key: Key) {
        self.queue.add(key);
    }

    /// Whether the member has the object, marked as ours.
    pub(super) fn has(&self, sync: &Sync, key: &Key) -> bool {
        self.observed.get(&sync.key_there(key)).is_some()
    }

    async fn work(&self) {
        let workers =
            futures::future::join_all((0..self.workers).map(|_| self.reconcile_for_ever()));
        tokio::join!(
            workers,
            self.follow_for_ever(),
            self.take_up_what_was_not_listed(),
            self.end_pauses_for_ever()
        );
    }

    fn add_all(&self) {
        if let Some(sync) = self.sync.upgrade() {
            let keys = sync.keys_of(&self.member.name);
            keys.into_iter().for_each(|key| self.queue.add(key));
        }
    }

    async fn take_up_what_was_not_listed(&self) {
        self.observed.wait_filled().await;
        if self.unlisted.swap(false, Ordering::AcqRel) {
            self.add_all();
        }
    }

    /// Follows the metadata of what is ours in the member, while it is ready. A change there is looked at at once.
    async fn follow_for_ever(&self) {
        let mut ready = self.member.ready.subscribe();
        let Some(sync) = self.sync.upgrade() else { return };
        let (target, control) = (&sync.config.target, &sync.control);
        let source = Source {
            path: path(&target.api_version(), control.within(), &target.plural_name),
            query: ours(),
            metadata: !self.collects_status,
        };
        drop(sync);
        let changed = |key: &Key| {
            if let Some(sync) = self.sync.upgrade() {
                self.queue.add(sync.key_here(key));
            }
        };
        loop {
            let readiness = ready.borrow_and_update().clone();
            if !matches!(readiness, Readiness::Unknown) {
                self.go_on();
                // What could not be done before, or is to be said to be away.
                self.add_all();
            }
            let follow = async {
                match readiness {
                    Readiness::Ready(client) => {
                        self.observed
                            .follow(&client, &source, Observed::of, changed, &self.token)
                            .await;
                    }
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = follow => return,
                changed = ready.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn reconcile_for_ever(&self) {
        let Some(sync) = self.sync.upgrade() else { return };
        // Before that an object that is not there could not be told from one that is gone.
        sync.federated.objects.wait_filled().await;
        let mut ready = self.member.ready.subscribe();
        if ready.wait_for(|ready| !matches!(ready, Readiness::Unknown)).await.is_err() {
            return;
        }
        drop(sync);
        loop {
            let key = self.queue.next().await;
            let Some(sync) = self.sync.upgrade() else { return };
            match self.reconcile(&sync, &key).await {
                Ok(()) => self.queue.done(&key),
                Err(()) if self.breaker.lock().parks(&key) => self.queue.done(&key),
                Err(()) => self.queue.failed(&key),
            }
            // If it asked nothing of the member, another one has to show whether the pause can end.
            if self.breaker.lock().is_over(tokio::time::Instant::now()) {
                self.paused.notify_one();
            }
        }
    }

    /// Brings back some of what is parked whenever a pause is over; one of them is let through.
    async fn end_pauses_for_ever(&self) {
        loop {
            let Some(until) = self.breaker.lock().paused_until() else {
                self.paused.notified().await;
                continue;
            };
            tokio::time::sleep_until(until).await;
            let some = self.breaker.lock().some(WORKERS);
            if some.is_empty() {
                self.paused.notified().await;
                continue;
            }
            some.into_iter().for_each(|key| self.queue.add(key));
            self.paused.notified().await;
        }
    }

    /// Whether something may be asked of the member for an object; if not, that is told, and the object waits.
    fn may_ask(&self, task: &Task<'_>) -> bool {
        let trouble = {
            let mut breaker = self.breaker.lock();
            if breaker.admits(task.key, tokio::time::Instant::now()) {
                return true;
            }
            breaker.trouble()
        };
        self.paused.notify_one();
        let outcome = outcome(status::PENDING, &trouble);
        task.sync.done(task.key, &self.member.name, task.planned, Some(outcome), Learned::Nothing);
        false
    }

    /// Takes note of how the member has answered.
    fn note(&self, sync: &Sync, error: Option<&Error>) {
        let Some(error) = error.filter(|error| error.is_outage()) else {
            return self.go_on();
        };
        let (why, now) = (error.to_string(), tokio::time::Instant::now());
        let begins = self.breaker.lock().failed(&why, error.retry_after(), now);
        if begins {
            tracing::warn!(cluster = self.member.name, kind = sync.name, why, "pauses");
            sync.control.metrics.lane_paused(&self.member.name, &sync.name);
            self.paused.notify_one();
        }
    }

    /// Ends the pause, if there is one.
    fn go_on(&self) {
        let (was_paused, parked) = {
            let mut breaker = self.breaker.lock();
            (breaker.is_open(), breaker.succeeded())
        };
        if was_paused && let Some(sync) = self.sync.upgrade() {
            tracing::info!(cluster = self.member.name, kind = sync.name, "goes on");
            sync.control.metrics.lane_goes_on(&self.member.name, &sync.name);
        }
        parked.into_iter().for_each(|key| self.queue.add(key));
    }

    /// Brings one object in the member to what is planned. An error is worth another try.
    async fn reconcile(&self, sync: &Sync, key: &Key) -> Result<(), ()> {
        let cluster = self.member.name.as_str();
        let ready = self.member.ready.borrow().clone();
        if matches!(ready, Readiness::Ready(_)) {
            self.begun
                .call_once(|| sync.doubt_versions(cluster, *self.member.believed_since.lock()));
        }
        let (planned, recorded) = {
            let work = sync.work.lock();
            let work = work.get(key);
            let planned = work.and_then(|work| work.planned.clone());
            (planned, work.and_then(|work| work.versions.clusters.get(cluster).cloned()))
        };
        let planned = planned.as_ref();
        if planned.is_none() && sync.federated.objects.get(key).is_some() {
            // The planner comes to it and back to us.
            return Ok(());
        }
        let wanted = planned.is_some_and(|planned| planned.plan.selected.contains(cluster));
        let Readiness::Ready(client) = ready else {
            let involved = wanted || recorded.is_some();
            if involved {
                let text = format!("cluster {cluster:?} is not ready");
                tell(sync, planned, status::CLUSTER_NOT_READY, &text);
            }
            let outcome =
                involved.then(|| outcome(status::CLUSTER_NOT_READY, "the cluster is not ready"));
            sync.done(key, cluster, planned, outcome, Learned::Nothing);
            return Ok(());
        };
        if !self.is_listed().await {
            let text = "the objects of this kind in the cluster cannot be listed";
            let outcome = outcome(status::CACHED_RETRIEVAL_FAILED, text);
            sync.done(key, cluster, planned, Some(outcome), Learned::Nothing);
            return Ok(());
        }
        let observed = self.observed.get(&sync.key_there(key));
        let observed = observed.as_deref();
        let metadata = || {
            let mut desired = self.desired(sync, planned?, None).ok()?;
            Some(desired["metadata"].take())
        };
        let plan = planned.map(|planned| &planned.plan);
        let action = plan::decide(plan, cluster, observed, recorded.as_deref(), metadata);
        let recorded = recorded.is_some();
        let task = Task { sync, client: &client, key, planned, observed, recorded };
        match action {
            Action::Nothing => {
                let is_well = wanted && plan.is_some_and(|plan| !plan.deleting);
                let outcome = is_well.then(|| well(observed.and_then(|o| o.remote.clone())));
                let gone = observed.is_none() && !wanted;
                let learned = if gone { Learned::IsGone } else { Learned::Nothing };
                sync.done(key, cluster, planned, outcome, learned);
                Ok(())
            }
            Action::Wait if sync.config.is_namespaces() && plan.is_some_and(|p| p.deleting) => {
                self.wait_for_namespace(&task).await
            }
            Action::Wait => {
                if plan.is_some_and(|plan| plan.deleting) {
                    self.say(&task, "WaitForRemovalInCluster", "Waiting for the removal of");
                }
                let outcome = outcome(status::WAITING_FOR_REMOVAL, "");
                sync.done(key, cluster, planned, Some(outcome), Learned::Nothing);
                Ok(())
            }
            Action::Apply => match planned {
                Some(planned) => self.apply(&task, planned).await,
                None => Ok(()),
            },
            // It is planned for the cluster as it was before it was joined or got other labels: the planner comes to it
            // and back to us. What a cluster brings along that joins anew would be deleted else.
            Action::Delete
                if plan.is_some_and(|plan| {
                    !plan.deleting && !plan.saw(cluster, &sync.control.placeable())
                }) =>
            {
                Ok(())
            }
            _ if !self.may_ask(&task) => Ok(()),
            Action::Delete => self.delete(&task).await,
            Action::Unmark => self.unmark(&task).await,
        }
    }

    /// Whether what the member has is known. Only the first objects wait for that.
    async fn is_listed(&self) -> bool {
        if self.observed.is_filled() {
            return true;
        }
        if !self.unlisted.load(Ordering::Acquire)
            && tokio::time::timeout(LISTING, self.observed.wait_filled()).await.is_ok()
        {
            return true;
        }
        self.unlisted.store(true, Ordering::Release);
        // Asked once more: whoever waits for the list looks at the mark only when it comes.
        self.observed.is_filled()
    }

    fn desired(
        &self,
        sync: &Sync,
        planned: &Planned,
        there: Option<&Value>,
    ) -> Result<Value, String> {
        template::desired(&planned.object, &sync.config, &self.member.name, there)
    }

    fn target_path(&self, sync: &Sync, key: &Key, api_version: &str) -> String {
        let target = &sync.config.target;
        let namespace = if target.is_namespaced() { key.namespace.as_str() } else { "" };
        format!("{}/{}", path(api_version, namespace, &target.plural_name), key.name)
    }
}

/// Tells something of a federated object; of one that is gone there is nobody to tell it.
fn tell(sync: &Sync, planned: Option<&Arc<Planned>>, reason: &str, message: &str) {
    if let Some(planned) = planned {
        sync.control.events.warn(&planned.object, &sync.component(), reason, message);
    }
}

fn well(remote: Option<Value>) -> ClusterStatus {
    ClusterStatus { remote, ..ClusterStatus::default() }
}

fn outcome(state: &'static str, message: &str) -> ClusterStatus {
    ClusterStatus { state, message: message.chars().take(MAX_MESSAGE).collect(), remote: None }
}

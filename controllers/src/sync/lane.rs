//! A lane: one kind in one member.

use std::sync::{Arc, Weak};
use std::time::Duration;

use kubefed_api::status::{self, ClusterStatus};
use kubefed_api::{MANAGED_LABEL, kubefedconfig, template, versions};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Sync;
use super::plan::{self, Action, Observed, Plan};
use crate::cache::{Cache, Key, Source};
use crate::client::{Client, Error};
use crate::control::{Member, path};
use crate::queue::Queue;

/// Objects of one kind that are worked on at a time in one member.
const WORKERS: usize = 16;
/// A member that is about to be ready is waited for this long before its objects are said not to be there.
const GRACE: Duration = Duration::from_millis(50);

pub(super) struct Lane {
    member: Arc<Member>,
    sync: Weak<Sync>,
    observed: Cache<Observed>,
    queue: Queue<Key>,
    token: CancellationToken,
}

impl Lane {
    pub(super) fn start(sync: &Arc<Sync>, member: &Arc<Member>) -> Arc<Self> {
        let lane = Arc::new(Lane {
            member: Arc::clone(member),
            sync: Arc::downgrade(sync),
            observed: Cache::default(),
            queue: Queue::default(),
            token: sync.token.child_token(),
        });
        let (work, token) = (Arc::clone(&lane), lane.token.clone());
        sync.control.tracker.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = work.work() => {}
            }
        });
        lane
    }

    pub(super) fn stop(&self) {
        self.token.cancel();
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    pub(super) fn add(&self, key: Key) {
        self.queue.add(key);
    }

    /// Whether the member has the object, marked as ours.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.observed.get(key).is_some()
    }

    async fn work(&self) {
        let workers = futures::future::join_all((0..WORKERS).map(|_| self.reconcile_for_ever()));
        tokio::join!(workers, self.follow_for_ever());
    }

    /// Follows the metadata of what is ours in the member, while it is ready. A change there is looked at at once.
    async fn follow_for_ever(&self) {
        let mut ready = self.member.ready.subscribe();
        let Some(target) = self.sync.upgrade().map(|sync| sync.config.target.clone()) else {
            return;
        };
        let source = Source {
            path: path(&target.api_version(), "", &target.plural_name),
            query: format!("&labelSelector={}%3Dtrue", MANAGED_LABEL.replace('/', "%2F")),
            metadata: true,
        };
        loop {
            let client = ready.borrow_and_update().clone();
            if let Some(sync) = self.sync.upgrade() {
                // What could not be done before, or need not be said to be away any longer.
                sync.federated.keys().into_iter().for_each(|key| sync.plans.add(key));
            }
            let Some(client) = client else {
                if ready.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let token = self.token.child_token();
            let follow = self.observed.follow(
                &client,
                &source,
                |object| Observed::of(&object),
                |key| self.queue.add(key.clone()),
                &token,
            );
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
        loop {
            let key = self.queue.next().await;
            let Some(sync) = self.sync.upgrade() else { return };
            match self.reconcile(&sync, &key).await {
                Ok(()) => self.queue.done(&key),
                Err(()) => self.queue.failed(&key),
            }
        }
    }

    /// Brings one object in the member to what is planned. An error is worth another try.
    async fn reconcile(&self, sync: &Sync, key: &Key) -> Result<(), ()> {
        let cluster = &self.member.name;
        let object = sync.federated.get(key);
        let (plan, recorded) = {
            let work = sync.work.lock();
            let work = work.get(key);
            let plan = work.and_then(|work| work.plan.clone());
            (plan, work.and_then(|work| work.versions.clusters.get(cluster).cloned()))
        };
        if object.is_some() && plan.is_none() {
            // The planner comes to it and back to us.
            return Ok(());
        }
        let wanted = plan.as_ref().is_some_and(|plan| plan.selected.contains(cluster));
        let Some(client) = self.ready_client(wanted).await else {
            let involved = wanted || recorded.is_some();
            let outcome =
                involved.then(|| outcome(status::CLUSTER_NOT_READY, "the cluster is not ready"));
            sync.done(key, cluster, outcome, None);
            return Ok(());
        };
        self.observed.wait_filled().await;
        let observed = self.observed.get(key);
        let desired =
            || object.as_deref().map(|object| template::desired(object, &sync.config, cluster));
        let labels = || match desired() {
            Some(Ok(desired)) => Some(desired["metadata"]["labels"].clone()),
            _ => None,
        };
        let plan_now = object.as_ref().and(plan.as_deref());
        let action =
            plan::decide(plan_now, cluster, observed.as_deref(), recorded.as_deref(), labels);
        match action {
            Action::Nothing => {
                let outcome = wanted
                    .then(ClusterStatus::default)
                    .filter(|_| plan_now.is_some_and(|plan| !plan.deleting));
                let gone = observed.is_none() && !wanted;
                sync.done(key, cluster, outcome, gone.then_some(None));
                Ok(())
            }
            Action::Wait => {
                sync.done(key, cluster, Some(outcome(status::WAITING_FOR_REMOVAL, "")), None);
                Ok(())
            }
            Action::Apply => {
                let Some(desired) = desired() else { return Ok(()) };
                let is_new = observed.is_none() && recorded.is_none();
                self.apply(sync, &client, key, desired, is_new, object.as_deref()).await
            }
            Action::Delete => self.delete(sync, &client, key, plan_now, object.as_deref()).await,
            Action::Unmark => self.unmark(sync, &client, key, object.as_deref()).await,
        }
    }

    async fn ready_client(&self, wanted: bool) -> Option<Client> {
        if let Some(client) = self.member.ready.borrow().clone() {
            return Some(client);
        }
        if wanted {
            let mut ready = self.member.ready.subscribe();
            let _came_or_not = tokio::time::timeout(GRACE, ready.wait_for(Option::is_some)).await;
        }
        self.member.ready.borrow().clone()
    }

    fn target_path(&self, sync: &Sync, key: &Key) -> String {
        let target = &sync.config.target;
        let namespace = if target.is_namespaced() { key.namespace.as_str() } else { "" };
        format!("{}/{}", path(&target.api_version(), namespace, &target.plural_name), key.name)
    }

    async fn apply(
        &self,
        sync: &Sync,
        client: &Client,
        key: &Key,
        desired: Result<Value, String>,
        is_new: bool,
        object: Option<&Value>,
    ) -> Result<(), ()> {
        let cluster = &self.member.name;
        let mut desired = match desired {
            Ok(desired) => desired,
            Err(why) => {
                self.tell(
                    sync,
                    object,
                    "ApplyOverridesFailed",
                    &format!("{why} in cluster {cluster:?}"),
                );
                sync.done(key, cluster, Some(outcome(status::APPLY_OVERRIDES_FAILED, &why)), None);
                return Ok(());
            }
        };
        let target = self.target_path(sync, key);
        if !is_new && object.is_some_and(template::retains_replicas) {
            self.retain_replicas(client, &target, &mut desired).await;
        }
        let written = self.write(sync, client, &target, &desired, is_new, object).await;
        match written {
            Ok(written) => {
                let version = versions::object_version(
                    meta::generation(&written),
                    meta::resource_version(&written),
                );
                sync.done(key, cluster, Some(ClusterStatus::default()), Some(Some(version)));
                Ok(())
            }
            Err(Refused::For(state, why)) => {
                self.tell(sync, object, state, &format!("{why} in cluster {cluster:?}"));
                sync.done(key, cluster, Some(outcome(state, &why)), None);
                Ok(())
            }
            Err(Refused::By(error)) => {
                let (state, reason) = if is_new {
                    (status::CREATION_FAILED, "CreateInClusterFailed")
                } else {
                    (status::UPDATE_FAILED, "UpdateInClusterFailed")
                };
                let text = format!(
                    "Failed to apply {} {:?} in cluster {cluster:?}: {error}",
                    sync.config.target.kind, key.name
                );
                // A namespace that comes just after its objects is no failure to tell of.
                if !error.is_not_found() {
                    self.tell(sync, object, reason, &text);
                }
                sync.done(key, cluster, Some(outcome(state, &error.to_string())), None);
                Err(())
            }
        }
    }

    /// Who scales in the member keeps what he set. It is said again rather than left out: a field that we no longer
    /// apply would fall back to its default.
    async fn retain_replicas(&self, client: &Client, target: &str, desired: &mut Value) {
        if let Ok(there) = client.get(target).await
            && there["spec"]["replicas"].is_i64()
            && desired["spec"].is_object()
        {
            desired["spec"]["replicas"] = there["spec"]["replicas"].clone();
        }
    }

    /// Writes the object. One that was there before us is taken over only if that is wanted and it does not refuse.
    async fn write(
        &self,
        sync: &Sync,
        client: &Client,
        target: &str,
        desired: &Value,
        is_new: bool,
        object: Option<&Value>,
    ) -> Result<Value, Refused> {
        if !is_new {
            return client.apply(target, desired, true).await.map_err(Refused::By);
        }
        let adopts = kubefedconfig::adopts(&sync.control.config.borrow());
        if adopts {
            // Without force a field that somebody else set is a conflict: then the object was there before us.
            match client.apply(target, desired, false).await {
                Err(error) if error.is_conflict() => {}
                written => return written.map_err(Refused::By),
            }
        }
        match client.get(target).await {
            Ok(there) if plan::refuses(&there) => {
                let why = format!("the object has the label {MANAGED_LABEL}=false");
                return Err(Refused::For(status::MANAGED_LABEL_FALSE, why));
            }
            Ok(_) if !adopts => {
                return Err(Refused::For(
                    status::ALREADY_EXISTS,
                    "the object was there before, and adoption is disabled".into(),
                ));
            }
            Ok(_) => {
                let text = format!(
                    "the object was there before in cluster {:?} and is taken over",
                    self.member.name
                );
                self.tell(sync, object, "AdoptedInCluster", &text);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(Refused::By(error)),
        }
        client.apply(target, desired, true).await.map_err(Refused::By)
    }

    async fn delete(
        &self,
        sync: &Sync,
        client: &Client,
        key: &Key,
        plan: Option<&Plan>,
        object: Option<&Value>,
    ) -> Result<(), ()> {
        let cluster = &self.member.name;
        // The options of the annotation are for the deletion of the federated object alone.
        let options = match plan {
            Some(plan) if plan.deleting => plan.delete_options.clone(),
            _ => json!({"apiVersion": "v1", "kind": "DeleteOptions"}),
        };
        match client.delete(&self.target_path(sync, key), &options).await {
            Ok(answer) if answer["kind"] == "Status" => {
                sync.done(key, cluster, None, Some(None));
                Ok(())
            }
            Ok(_) => {
                sync.done(key, cluster, Some(outcome(status::WAITING_FOR_REMOVAL, "")), None);
                Ok(())
            }
            Err(error) if error.is_not_found() => {
                sync.done(key, cluster, None, Some(None));
                Ok(())
            }
            Err(error) => {
                let text = format!(
                    "Failed to delete {} {:?} in cluster {cluster:?}: {error}",
                    sync.config.target.kind, key.name
                );
                self.tell(sync, object, "DeleteInClusterFailed", &text);
                sync.done(
                    key,
                    cluster,
                    Some(outcome(status::DELETION_FAILED, &error.to_string())),
                    None,
                );
                Err(())
            }
        }
    }

    async fn unmark(
        &self,
        sync: &Sync,
        client: &Client,
        key: &Key,
        object: Option<&Value>,
    ) -> Result<(), ()> {
        let cluster = &self.member.name;
        let patch = json!({"metadata": {"labels": {MANAGED_LABEL: null}}});
        match client.merge(&self.target_path(sync, key), &patch).await {
            Err(error) if !error.is_not_found() => {
                let text = format!(
                    "Failed to let go of {} {:?} in cluster {cluster:?}: {error}",
                    sync.config.target.kind, key.name
                );
                self.tell(sync, object, "RemoveManagedLabelFromInClusterFailed", &text);
                sync.done(
                    key,
                    cluster,
                    Some(outcome(status::LABEL_REMOVAL_FAILED, &error.to_string())),
                    None,
                );
                Err(())
            }
            _ => {
                sync.done(key, cluster, None, Some(None));
                Ok(())
            }
        }
    }

    fn tell(&self, sync: &Sync, object: Option<&Value>, reason: &str, message: &str) {
        if let Some(object) = object {
            let component = format!("{}-controller", sync.config.federated.kind.to_lowercase());
            sync.control.events.warn(object, &component, reason, message);
        }
    }
}

enum Refused {
    /// With the state, and why.
    For(&'static str, String),
    By(Error),
}

fn outcome(state: &'static str, message: &str) -> ClusterStatus {
    // A member is hostile input: what it says is cut to a readable length.
    ClusterStatus { state, message: message.chars().take(300).collect(), remote: None }
}

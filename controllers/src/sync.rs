//! Keeps the objects of one federated kind in the members.
//!
//! A change of a federated object is planned once ([`plan`]) and handed to the lanes ([`lane`]), one for each member,
//! each with its own queue and workers: what one member does not answer delays no other. What the lanes did is gathered
//! here, and told by one write of the status and one of the record ([`report`]) when the last lane is done.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kubefed_api::SYNC_FINALIZER;
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_api::propagatedversion::Versions;
use kubefed_api::status::ClusterStatus;
use kubefed_apimachinery::meta;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Key, Source};
use crate::client::Error;
use crate::control::{Control, path};
use crate::queue::Queue;

mod lane;
mod plan;
mod report;

use lane::Lane;
use plan::Plan;

/// Objects that are planned at a time, and statuses that are written at a time.
const WORKERS: usize = 16;
/// A status is told although a lane is not done yet, after this long.
const IMPATIENCE: Duration = Duration::from_millis(1000);

/// The sync of one kind.
pub(crate) struct Sync {
    control: Arc<Control>,
    config: FederatedTypeConfig,
    federated: Cache<Value>,
    lanes: RwLock<HashMap<String, Arc<Lane>>>,
    work: Mutex<HashMap<Key, Work>>,
    plans: Queue<Key>,
    reports: Queue<Key>,
    token: CancellationToken,
}

/// What is known of one federated object beyond the object itself.
#[derive(Default)]
struct Work {
    plan: Option<Arc<Plan>>,
    /// Lanes that have yet to do their part.
    pending: std::collections::BTreeSet<String>,
    outcomes: BTreeMap<String, ClusterStatus>,
    /// The versions of the objects in the members, for the plan's template and overrides.
    versions: Versions,
    /// The record as it is stored.
    recorded: Option<Versions>,
}

/// Runs until the kind is no longer synced.
pub(crate) async fn run(
    control: Arc<Control>,
    config: FederatedTypeConfig,
    token: CancellationToken,
) {
    let sync = Arc::new(Sync {
        control,
        config,
        federated: Cache::default(),
        lanes: RwLock::default(),
        work: Mutex::default(),
        plans: Queue::default(),
        reports: Queue::default(),
        token,
    });
    tracing::info!(kind = sync.config.federated.kind, "syncing");
    let stop = sync.token.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = sync.clone().work() => {}
    }
    sync.lanes.write().clear();
    if sync.config.is_namespaces() {
        *sync.control.namespaces_federated.write() = false;
    }
}

impl Sync {
    async fn work(self: Arc<Self>) {
        self.load_records().await;
        let source = Source {
            path: path(
                &self.config.federated.api_version(),
                "",
                &self.config.federated.plural_name,
            ),
            ..Source::default()
        };
        let host = self.control.host.clone();
        let follow = self.federated.follow(
            &host,
            &source,
            |object| object,
            |key| self.plans.add(key.clone()),
            &self.token,
        );
        let planners = futures::future::join_all((0..WORKERS).map(|_| self.plan_for_ever()));
        let reporters = futures::future::join_all((0..WORKERS).map(|_| self.report_for_ever()));
        let namespaces = self.follow_namespaces();
        let placements = self.follow_placements();
        let lanes = self.follow_members();
        tokio::join!(follow, planners, reporters, namespaces, placements, lanes);
    }

    /// The records of an earlier process: what they say need not be written again.
    async fn load_records(&self) {
        let plural = self.record_plural();
        let prefix = format!("{}-", self.config.target.kind.to_lowercase());
        loop {
            let mut found = Vec::new();
            let listed = self
                .control
                .host
                .list(
                    &path("core.kubefed.io/v1alpha1", "", plural),
                    "",
                    "application/json",
                    |record| found.push(record),
                )
                .await;
            if let Err(error) = listed {
                tracing::warn!(%error, "the records cannot be read yet");
                tokio::time::sleep(IMPATIENCE).await;
                continue;
            }
            let mut work = self.work.lock();
            for record in found {
                let Some(name) = meta::name(&record).strip_prefix(&prefix) else { continue };
                let key = Key { namespace: meta::namespace(&record).into(), name: name.into() };
                let versions = Versions::of(&record);
                work.insert(
                    key,
                    Work {
                        versions: versions.clone(),
                        recorded: Some(versions),
                        ..Work::default()
                    },
                );
            }
            return;
        }
    }

    fn record_plural(&self) -> &'static str {
        if self.config.federated_is_namespaced() {
            "propagatedversions"
        } else {
            "clusterpropagatedversions"
        }
    }

    /// The sync of namespaces shares what it sees: other kinds are placed where their namespace is.
    async fn follow_namespaces(&self) {
        if !self.config.is_namespaces() {
            return;
        }
        *self.control.namespaces_federated.write() = true;
        let source = Source {
            path: path(
                &self.config.federated.api_version(),
                "",
                &self.config.federated.plural_name,
            ),
            ..Source::default()
        };
        let changed = |key: &Key| {
            let _nobody_listens_yet = self.control.placements.send(Some(key.namespace.clone()));
        };
        self.control
            .namespaces
            .follow(&self.control.host, &source, |object| object, changed, &self.token)
            .await;
    }

    /// Plans anew when clusters or namespaces changed.
    async fn follow_placements(&self) {
        use tokio::sync::broadcast::error::RecvError;
        let mut placements = self.control.placements.subscribe();
        loop {
            let namespace = match placements.recv().await {
                Ok(namespace) => namespace,
                // Some were missed: any may have changed.
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return,
            };
            for key in self.federated.keys() {
                if namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace) {
                    self.plans.add(key);
                }
            }
        }
    }

    /// Keeps a lane for each member.
    async fn follow_members(self: &Arc<Self>) {
        let mut members = self.control.members.subscribe();
        loop {
            let current = members.borrow_and_update().clone();
            {
                let mut lanes = self.lanes.write();
                lanes.retain(|name, lane| {
                    let stays =
                        current.get(name).is_some_and(|member| Arc::ptr_eq(member, lane.member()));
                    if !stays {
                        lane.stop();
                    }
                    stays
                });
                for (name, member) in current.iter() {
                    lanes.entry(name.clone()).or_insert_with(|| Lane::start(self, member));
                }
            }
            for key in self.federated.keys() {
                self.plans.add(key);
            }
            if members.changed().await.is_err() {
                return;
            }
        }
    }

    async fn plan_for_ever(&self) {
        self.federated.wait_filled().await;
        self.control.clusters.wait_filled().await;
        loop {
            let key = self.plans.next().await;
            match self.plan(&key).await {
                Ok(()) => self.plans.done(&key),
                Err(error) => {
                    // After a conflict the newer object is on its way to us.
                    if !error.is_conflict() {
                        tracing::warn!(?key, %error, "a federated object cannot be planned now");
                    }
                    self.plans.failed(&key);
                }
            }
        }
    }

    /// Plans one object and hands it to the lanes.
    async fn plan(&self, key: &Key) -> Result<(), Error> {
        let Some(object) = self.federated.get(key) else {
            self.work.lock().remove(key);
            // Whatever is still marked as ours there has no owner any longer: it is left, without the mark.
            self.lanes
                .read()
                .values()
                .filter(|lane| lane.has(key))
                .for_each(|lane| lane.add(key.clone()));
            return Ok(());
        };
        if *self.control.namespaces_federated.read() {
            self.control.namespaces.wait_filled().await;
        }
        let held = meta::finalizers(&object).any(|finalizer| finalizer == SYNC_FINALIZER);
        let deleting = meta::deletion_timestamp(&object).is_some();
        if deleting && !held {
            return Ok(());
        }
        if !deleting && !held {
            self.hold(&object).await?;
        }
        let plan = Arc::new(plan::plan(&self.control, &self.config, &object));
        let lanes: Vec<Arc<Lane>> = self.lanes.read().values().cloned().collect();
        let involved: Vec<Arc<Lane>> = {
            let mut work = self.work.lock();
            let work = work.entry(key.clone()).or_default();
            if work.versions.template != plan.template_hash
                || work.versions.overrides != plan.overrides_hash
            {
                work.versions.template.clone_from(&plan.template_hash);
                work.versions.overrides.clone_from(&plan.overrides_hash);
                // The members have older versions: each is written once, and known to be there until then.
                work.versions.clusters.values_mut().for_each(String::clear);
            }
            let concerns = |lane: &&Arc<Lane>| {
                let name = &lane.member().name;
                plan.selected.contains(name)
                    || lane.has(key)
                    || work.versions.clusters.contains_key(name)
            };
            let involved: Vec<Arc<Lane>> = lanes.iter().filter(concerns).cloned().collect();
            work.outcomes.retain(|name, _| involved.iter().any(|lane| lane.member().name == *name));
            work.versions
                .clusters
                .retain(|name, _| lanes.iter().any(|lane| lane.member().name == *name));
            work.pending = involved.iter().map(|lane| lane.member().name.clone()).collect();
            work.plan = Some(plan);
            involved
        };
        if involved.is_empty() {
            self.reports.add(key.clone());
        } else {
            self.reports.add_after(key.clone(), IMPATIENCE);
            involved.iter().for_each(|lane| lane.add(key.clone()));
        }
        Ok(())
    }

    /// Puts our finalizer on an object before anything of it is in a member.
    async fn hold(&self, object: &Value) -> Result<(), Error> {
        let finalizers: Vec<&str> = meta::finalizers(object).chain([SYNC_FINALIZER]).collect();
        self.set_finalizers(object, &finalizers).await
    }

    /// Lets an object go.
    async fn release(&self, object: &Value) -> Result<(), Error> {
        let finalizers: Vec<&str> =
            meta::finalizers(object).filter(|f| *f != SYNC_FINALIZER).collect();
        self.set_finalizers(object, &finalizers).await
    }

    async fn set_finalizers(&self, object: &Value, finalizers: &[&str]) -> Result<(), Error> {
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            "resourceVersion": meta::resource_version(object),
        }});
        match self.control.host.merge(&self.object_path(object), &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    fn object_path(&self, object: &Value) -> String {
        let federated = &self.config.federated;
        let collection =
            path(&federated.api_version(), meta::namespace(object), &federated.plural_name);
        format!("{collection}/{}", meta::name(object))
    }

    /// A lane has done its part. `version`: what the member has now, if the lane knows.
    fn done(
        &self,
        key: &Key,
        cluster: &str,
        outcome: Option<ClusterStatus>,
        version: Option<Option<String>>,
    ) {
        let mut all = self.work.lock();
        let Some(work) = all.get_mut(key) else { return };
        let mut changed = work.pending.remove(cluster);
        match outcome {
            Some(outcome) => {
                changed |= work.outcomes.insert(cluster.to_owned(), outcome.clone()).as_ref()
                    != Some(&outcome)
            }
            None => changed |= work.outcomes.remove(cluster).is_some(),
        }
        match version {
            Some(Some(version)) => {
                changed |=
                    work.versions.clusters.insert(cluster.to_owned(), version.clone()).as_ref()
                        != Some(&version);
            }
            Some(None) => changed |= work.versions.clusters.remove(cluster).is_some(),
            None => {}
        }
        if changed && work.pending.is_empty() {
            drop(all);
            self.reports.add(key.clone());
        }
    }
}

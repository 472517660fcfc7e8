//! Keeps the objects of one federated kind in the members.
//!
//! A change of a federated object is planned once ([`plan`]) and handed to the lanes ([`lane`]), one for each member,
//! each with its own queue and workers: what one member does not answer delays no other. What the lanes did is gathered
//! here, and told when the last lane is done ([`report`]): by one write of the status and one of the record
//! ([`records`]).
//!
//! A lane works on the plan that it found, and says with its result which one that was: a result for an older plan never
//! counts as one for the newer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_api::propagatedversion::Versions;
use kubefed_api::status::ClusterStatus;
use kubefed_api::{SYNC_FINALIZER, kubefedconfig, template};
use kubefed_apimachinery::meta;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Key, Source, without_managed_fields};
use crate::client::Error;
use crate::control::{Control, path};
use crate::queue::Queue;

mod collection;
mod federated;
mod lane;
mod plan;
mod records;
mod report;

use collection::Collection;
pub(crate) use collection::is_apart;
pub(crate) use federated::Federated;
use lane::Lane;
use plan::Plan;

/// Objects that are planned at a time, and statuses that are written at a time.
const WORKERS: usize = 16;
/// A status is told although a lane is not done yet, after this long.
const IMPATIENCE: Duration = Duration::from_millis(1000);

/// What the KubeFedConfig says that a sync begins with: it is begun anew for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether the status of members is collected where a type asks for that.
    collects_status: bool,
    /// Whether objects that were in a member before are taken over.
    adopts: bool,
    /// Objects that are worked on at a time in one member.
    workers: usize,
}

impl Settings {
    pub(crate) fn of(config: &Value) -> Self {
        let workers = usize::try_from(kubefedconfig::sync_workers(config)).unwrap_or(usize::MAX);
        Settings {
            collects_status: kubefedconfig::gate(config, "RawResourceStatusCollection"),
            adopts: kubefedconfig::adopts(config),
            workers: workers.clamp(lane::WORKERS, lane::MOST_WORKERS),
        }
    }
}

/// The sync of one kind.
pub(crate) struct Sync {
    control: Arc<Control>,
    config: FederatedTypeConfig,
    settings: Settings,
    collection: Collection,
    /// The federated kind in lower case: the name of this controller in metrics.
    name: String,
    federated: Arc<Federated>,
    lanes: RwLock<HashMap<String, Arc<Lane>>>,
    work: Mutex<HashMap<Key, Work>>,
    plans: Queue<Key>,
    reports: Queue<Key>,
    token: CancellationToken,
    /// The lanes at work.
    tasks: TaskTracker,
}

/// A federated object, and what is to become of it.
struct Planned {
    object: Arc<Value>,
    plan: Plan,
}

/// What is known of one federated object beyond the object itself.
#[derive(Default)]
struct Work {
    /// The uid of the object that this is about; empty if the record does not say.
    owner: String,
    planned: Option<Arc<Planned>>,
    /// Lanes that have yet to do their part.
    pending: BTreeSet<String>,
    outcomes: BTreeMap<String, ClusterStatus>,
    /// The versions of the objects in the members, for the plan's template and overrides. Empty, also in the record: it
    /// is there, but as an older plan wanted it, or it may be there.
    versions: Versions,
    /// The record as it is stored.
    recorded: Option<Versions>,
    /// When the record was made, if that was before this process looked.
    recorded_at: Option<Timestamp>,
    /// What was last told of the members' status apart from the object.
    told_apart: Option<Value>,
}

/// What a lane knows now of the object in its member.
enum Learned {
    /// No more than before.
    Nothing,
    /// There is nothing of ours.
    IsGone,
    /// It has this version, as planned.
    Has(String),
}

/// Runs until the kind is no longer synced; at its end nothing writes for it any longer.
pub(crate) async fn run(
    control: Arc<Control>,
    federated: Arc<Federated>,
    settings: Settings,
    token: CancellationToken,
) {
    let config = federated.config.clone();
    let sync = Arc::new(Sync {
        control,
        name: config.federated.kind.to_lowercase(),
        collection: Collection::of(&config, settings),
        config,
        settings,
        federated,
        lanes: RwLock::default(),
        work: Mutex::default(),
        plans: Queue::default(),
        reports: Queue::default(),
        token,
        tasks: TaskTracker::new(),
    });
    tracing::info!(kind = sync.config.federated.kind, "syncing");
    let stop = sync.token.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = sync.clone().work() => {}
    }
    sync.lanes.write().drain().for_each(|(_, lane)| lane.stop());
    sync.tasks.close();
    sync.tasks.wait().await;
}

impl Sync {
    async fn work(self: Arc<Self>) {
        self.load_records().await;
        let federated = &self.config.federated;
        let source = Source {
            path: path(&federated.api_version(), self.control.within(), &federated.plural_name),
            ..Source::default()
        };
        let follow = self.federated.objects.follow(
            &self.control.federation,
            &source,
            without_managed_fields,
            |key| {
                self.plans.add(key.clone());
                self.federated.changed(key);
            },
            &self.token,
        );
        let planners = futures::future::join_all((0..WORKERS).map(|_| self.plan_for_ever()));
        let reporters = futures::future::join_all((0..WORKERS).map(|_| self.report_for_ever()));
        let placements = self.follow_placements();
        let lanes = self.follow_members();
        tokio::join!(follow, planners, reporters, placements, lanes);
    }

    /// What it is called in events.
    fn component(&self) -> String {
        format!("{}-controller", self.name)
    }

    /// Plans anew when clusters or namespaces changed.
    async fn follow_placements(&self) {
        use tokio::sync::broadcast::error::RecvError;
        let mut placements = self.control.placements.subscribe();
        loop {
            let keys = match placements.recv().await {
                Ok(Some(_)) if !self.is_placed_by_namespace() => continue,
                Ok(Some(namespace)) => self.federated.objects.keys_in(&namespace),
                // Some were missed: any may have changed.
                Ok(None) | Err(RecvError::Lagged(_)) => self.federated.objects.keys(),
                Err(RecvError::Closed) => return,
            };
            keys.into_iter().for_each(|key| self.plans.add(key));
        }
    }

    /// Keeps a lane for each member. A lane looks by itself at what concerns it.
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
            if members.changed().await.is_err() {
                return;
            }
        }
    }

    /// The objects that a cluster has to do with.
    fn keys_of(&self, cluster: &str) -> Vec<Key> {
        let concerns = |work: &Work| {
            work.planned.as_ref().is_some_and(|planned| planned.plan.selected.contains(cluster))
                || work.versions.clusters.contains_key(cluster)
                || work.outcomes.contains_key(cluster)
        };
        let work = self.work.lock();
        work.iter().filter(|(_, work)| concerns(work)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the objects can only be where their namespace is.
    fn is_placed_by_namespace(&self) -> bool {
        self.config.target.is_namespaced() && !self.config.is_namespaces()
    }

    /// The key in members of what is federated here.
    fn key_there(&self, key: &Key) -> Key {
        if self.config.target.is_namespaced() {
            key.clone()
        } else {
            Key { namespace: String::new(), name: key.name.clone() }
        }
    }

    /// The key here of what is in a member. A federated namespace lives in the namespace that it federates.
    fn key_here(&self, key: &Key) -> Key {
        if self.config.is_namespaces() {
            Key { namespace: key.name.clone(), name: key.name.clone() }
        } else {
            key.clone()
        }
    }

    async fn plan_for_ever(&self) {
        self.federated.objects.wait_filled().await;
        let mut placeable = self.control.placeable.subscribe();
        // The sender lives as long as we.
        let _known = placeable.wait_for(Option::is_some).await.is_ok();
        loop {
            let key = self.plans.next().await;
            let began = Instant::now();
            let planned = self.plan(&key).await;
            self.control.metrics.reconciled(&self.name, planned.is_ok(), began.elapsed());
            match planned {
                Ok(()) => self.plans.done(&key),
                Err(error) => {
                    tracing::warn!(?key, %error, "a federated object cannot be planned now");
                    self.plans.failed(&key);
                }
            }
        }
    }

    /// Plans one object and hands it to the lanes.
    async fn plan(&self, key: &Key) -> Result<(), Error> {
        let Some(object) = self.federated.objects.get(key) else {
            self.work.lock().remove(key);
            // Whatever is still marked as ours there has no owner any longer: it is left, without the mark.
            self.lanes
                .read()
                .values()
                .filter(|lane| lane.has(self, key))
                .for_each(|lane| lane.add(key.clone()));
            return Ok(());
        };
        if self.is_placed_by_namespace() {
            if self.control.namespaces_federated.load(Ordering::Acquire) {
                self.control.namespaces.wait_filled().await;
            } else if !self.control.is_namespaced {
                // Where the namespace is cannot be known any longer: this sync is about to be stopped.
                return Ok(());
            }
        }
        let plan = plan::plan(&self.control, &self.config, key, &object);
        let held = meta::finalizers(&object).any(|finalizer| finalizer == SYNC_FINALIZER);
        if plan.deleting && !held {
            return Ok(());
        }
        if !plan.deleting && !plan.ignored {
            for (reason, text) in template::not_propagated(&object) {
                self.control.events.warn(&object, &self.component(), reason, &text);
            }
        }
        if !plan.deleting && !held && !plan.ignored {
            match self.hold(&object).await {
                // A newer object is on its way to us.
                Err(error) if error.is_conflict() => return Ok(()),
                Err(error) => {
                    let text = format!("Nothing is propagated without a finalizer: {error}");
                    let component = self.component();
                    self.control.events.warn(&object, &component, "EnsureFinalizerError", &text);
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        let lanes = self.take_up(key, Arc::new(Planned { object, plan }));
        lanes.iter().for_each(|lane| lane.add(key.clone()));
        Ok(())
    }

    /// Makes a plan the current one; returns the lanes that have to do something for it.
    fn take_up(&self, key: &Key, planned: Arc<Planned>) -> Vec<Arc<Lane>> {
        let plan = &planned.plan;
        let mut all = self.work.lock();
        // After the work is locked: a lane that is not among these looks at the work when it begins.
        let lanes = self.lanes.read();
        let work = all.entry(key.clone()).or_default();
        let owner = meta::uid(&planned.object);
        if !work.owner.is_empty() && work.owner != owner {
            // What an object of the same name has put somewhere is nothing that this one may take away.
            *work = Work::default();
        }
        owner.clone_into(&mut work.owner);
        if work.versions.template != plan.template_hash
            || work.versions.overrides != plan.overrides_hash
        {
            work.versions.template.clone_from(&plan.template_hash);
            work.versions.overrides.clone_from(&plan.overrides_hash);
            // The members have older versions: each is written once, and known to be there until then.
            work.versions.clusters.values_mut().for_each(String::clear);
        }
        let mut involved: BTreeSet<String> = match &work.planned {
            // An event that changed nothing for the members, such as a status of our own.
            Some(before) if before.plan.asks_the_same(plan) => {
                let before = &before.plan;
                let mut names: BTreeSet<String> =
                    plan.selected.symmetric_difference(&before.selected).cloned().collect();
                if !Arc::ptr_eq(&before.clusters, &plan.clusters) {
                    // What such a lane was to delete has waited for this plan.
                    let anew = lanes.iter().filter(|(name, lane)| {
                        !before.saw(name, &plan.clusters)
                            && (lane.has(self, key) || work.versions.clusters.contains_key(*name))
                    });
                    names.extend(anew.map(|(name, _)| name.clone()));
                }
                names
            }
            before => {
                let known = work.versions.clusters.keys().chain(work.outcomes.keys());
                let mut names: BTreeSet<String> =
                    plan.selected.iter().chain(known).cloned().collect();
                if before.is_none() {
                    let having = lanes.iter().filter(|(_, lane)| lane.has(self, key));
                    names.extend(having.map(|(name, _)| name.clone()));
                }
                names
            }
        };
        let joined = |name: &String| self.control.is_joined(name);
        if plan.ignored {
            involved.clear();
        }
        involved.retain(joined);
        work.outcomes.retain(|name, _| joined(name));
        work.versions.clusters.retain(|name, _| joined(name));
        work.pending.retain(joined);
        work.pending.extend(involved.iter().cloned());
        if work.pending.is_empty() {
            self.reports.add(key.clone());
        } else {
            self.reports.add_after(key.clone(), IMPATIENCE);
        }
        work.planned = Some(planned);
        involved.iter().filter_map(|name| lanes.get(name).cloned()).collect()
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
        match self.control.federation.merge(&self.object_path(object), &patch).await {
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

    /// A lane is about to write an object: whatever it hears of that, the object may be there from now on.
    fn may_be_there(&self, key: &Key, cluster: &str, planned: &Planned) {
        if let Some(work) = self.work.lock().get_mut(key)
            && work.owner == meta::uid(&planned.object)
        {
            work.versions.clusters.entry(cluster.to_owned()).or_default();
        }
    }

    /// A lane has done its part of a plan. No outcome: the object is not to be there, and is not.
    fn done(
        &self,
        key: &Key,
        cluster: &str,
        planned: Option<&Arc<Planned>>,
        outcome: Option<ClusterStatus>,
        learned: Learned,
    ) {
        let mut all = self.work.lock();
        let Some(work) = all.get_mut(key) else { return };
        let (Some(now), Some(then)) = (&work.planned, planned) else { return };
        let current = Arc::ptr_eq(now, then)
            || now.plan.asks_the_same(&then.plan)
                && now.plan.selected.contains(cluster) == then.plan.selected.contains(cluster);
        if !current {
            // The lane has been told of the newer plan and comes to it next. It must know that there is something.
            if matches!(learned, Learned::Has(_)) && work.owner == meta::uid(&then.object) {
                work.versions.clusters.insert(cluster.to_owned(), String::new());
            }
            return;
        }
        let mut changed = work.pending.remove(cluster);
        match outcome {
            Some(outcome) => {
                if work.outcomes.get(cluster) != Some(&outcome) {
                    work.outcomes.insert(cluster.to_owned(), outcome);
                    changed = true;
                }
            }
            None => changed |= work.outcomes.remove(cluster).is_some(),
        }
        match learned {
            Learned::Has(version) => {
                if work.versions.clusters.get(cluster) != Some(&version) {
                    work.versions.clusters.insert(cluster.to_owned(), version);
                    changed = true;
                }
            }
            Learned::IsGone => changed |= work.versions.clusters.remove(cluster).is_some(),
            Learned::Nothing => {}
        }
        if changed && work.pending.is_empty() {
            self.reports.add(key.clone());
        }
    }
}

//! ReplicaSchedulingPreferences: how many replicas each member has of a federated workload.
//!
//! What is to be is worked out from the preference, the clusters that count ([`standing`]) and what runs in them
//! ([`members`]), and written into the federated object of the same name: where it is placed, and an override of its
//! replicas for each cluster ([`plan`]). The sync of its kind does the rest. Whatever cannot be told leaves the object as it
//! is, with an event that says why.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubefed_api::scheduling::TARGETS;
use kubefed_api::scheduling::planner::{self, Candidate, Preference};
use kubefed_api::scheduling::strategy::{self, Strategy};
use kubefed_api::{kubefedcluster, kubefedconfig};
use kubefed_apimachinery::meta;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::cache::{Cache, Key, Source, without_managed_fields};
use crate::control::{Control, path};
use crate::queue::Queue;
use crate::sync::Federated;

mod members;
mod plan;
mod standing;

use members::Workloads;
use plan::{Notice, Pods};
use standing::Standings;

const GROUP_VERSION: &str = "scheduling.kubefed.io/v1alpha1";
const GATE: &str = "SchedulerPreferences";
const COMPONENT: &str = "replicaschedulingpreference-controller";
/// Preferences that are worked on at a time: each may have to ask members for pods.
const WORKERS: usize = 4;
/// A member that has not listed its workloads after this long is told of.
const LISTING: Duration = Duration::from_secs(10);

/// The clusters that count, by name.
type Clusters = BTreeMap<String, Arc<Value>>;

struct Scheduler {
    control: Arc<Control>,
    preferences: Cache<Value>,
    strategies: Cache<Value>,
    /// None before they are known.
    clusters: watch::Sender<Option<Arc<Clusters>>>,
    /// The federated kinds that some preference is for.
    wanted: watch::Sender<BTreeSet<String>>,
    workloads: Workloads,
    queue: Queue<Key>,
    /// What was last told of each preference.
    told: Mutex<HashMap<Key, Notice>>,
}

/// How the work on a preference has ended.
enum Outcome {
    Done,
    /// Not as it says, or not at all: for that a user has to do something.
    Told(Notice),
    /// It is not known yet what the members have.
    Early,
}

/// Runs while the feature is on.
pub(crate) async fn run(control: Arc<Control>) {
    let mut configs = control.config.clone();
    let work = async {
        while configs.wait_for(|config| kubefedconfig::gate(config, GATE)).await.is_ok() {
            tracing::info!("scheduling replicas");
            let scheduler = Scheduler {
                control: Arc::clone(&control),
                preferences: Cache::default(),
                strategies: Cache::default(),
                clusters: watch::Sender::default(),
                wanted: watch::Sender::default(),
                workloads: Workloads::default(),
                queue: Queue::default(),
                told: Mutex::default(),
            };
            tokio::select! {
                () = scheduler.work() => {}
                _ = configs.wait_for(|config| !kubefedconfig::gate(config, GATE)) => {}
            }
        }
    };
    tokio::select! {
        () = control.token.cancelled() => {}
        () = work => {}
    }
}

impl Scheduler {
    async fn work(&self) {
        let within = self.control.within();
        let of = |namespace: &str, plural: &str| Source {
            path: path(GROUP_VERSION, namespace, plural),
            ..Source::default()
        };
        let (host, token) = (&self.control.federation, &self.control.token);
        let source = of(within, "replicaschedulingpreferences");
        let changed = |key: &Key| self.queue.add(key.clone());
        let preferences =
            self.preferences.follow(host, &source, without_managed_fields, changed, token);
        let source = of("", "replicaschedulingstrategies");
        let changed = |key: &Key| {
            self.add_all(|preference| preference["spec"]["strategyName"] == key.name.as_str());
        };
        let strategies =
            self.strategies.follow(host, &source, without_managed_fields, changed, token);
        let kinds = futures::future::join_all(TARGETS.iter().map(|kind| self.follow_kind(kind)));
        let workers = futures::future::join_all((0..WORKERS).map(|_| self.schedule_for_ever()));
        tokio::join!(
            preferences,
            strategies,
            self.follow_clusters(),
            self.follow_namespaces(),
            kinds,
            workers
        );
    }

    /// Whether an object of this kind has a preference.
    fn is_preferred(&self, kind: &str, key: &Key) -> bool {
        self.preferences.get(key).is_some_and(|preference| preference["spec"]["targetKind"] == kind)
    }

    fn add_all(&self, which: impl Fn(&Value) -> bool) {
        let all = self.preferences.values();
        all.iter().filter(|p| which(p)).for_each(|p| self.queue.add(Key::of(p)));
    }

    fn add_all_of(&self, kind: &str) {
        self.add_all(|preference| preference["spec"]["targetKind"] == kind);
    }

    /// Keeps the clusters that count.
    async fn follow_clusters(&self) {
        let mut seen = self.control.clusters_seen.subscribe();
        let mut configs = self.control.config.clone();
        let mut standings = Standings::default();
        self.control.clusters.wait_filled().await;
        loop {
            let delays = kubefedconfig::cluster_delays(&configs.borrow_and_update());
            seen.borrow_and_update();
            let all = self.control.clusters.values();
            let ready = |cluster: &Value| {
                let told =
                    cluster["status"]["conditions"].as_array().is_some_and(|c| !c.is_empty());
                told.then(|| kubefedcluster::is_ready(cluster))
            };
            let known: Vec<(String, Option<bool>)> =
                all.iter().map(|c| (meta::name(c).to_owned(), ready(c))).collect();
            let (counting, again) = standings.take(&known, delays, tokio::time::Instant::now());
            let clusters =
                all.into_iter().map(|cluster| (meta::name(&cluster).to_owned(), cluster));
            let clusters = clusters.filter(|(name, _)| counting.contains(name)).collect();
            self.take_up(clusters);
            let pause = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                changed = seen.changed() => if changed.is_err() { return },
                Ok(()) = configs.changed() => {}
            }
        }
    }

    /// Divides all anew if other clusters count now, or they are elsewhere.
    fn take_up(&self, clusters: Clusters) {
        let facts = |clusters: &Clusters| -> Vec<[Value; 4]> {
            let of = |cluster: &Arc<Value>| {
                let (metadata, status) = (&cluster["metadata"], &cluster["status"]);
                [&metadata["name"], &metadata["labels"], &status["region"], &status["zones"][0]]
                    .map(Value::clone)
            };
            clusters.values().map(of).collect()
        };
        let before = self.clusters.send_replace(Some(Arc::new(clusters)));
        let now = self.clusters.borrow().clone();
        if before.as_deref().map(facts) != now.as_deref().map(facts) {
            self.add_all(|_| true);
        }
    }

    /// Where a namespace is matters to those that are placed by it.
    async fn follow_namespaces(&self) {
        let mut placements = self.control.placements.subscribe();
        loop {
            match placements.recv().await {
                Ok(Some(namespace)) => {
                    self.preferences
                        .keys_in(&namespace)
                        .into_iter()
                        .for_each(|k| self.queue.add(k));
                }
                // Clusters are followed by themselves.
                Ok(None) => {}
                Err(RecvError::Lagged(_)) => self.add_all(|_| true),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Follows one federated kind, here and in the members, while it is synced.
    async fn follow_kind(&self, kind: &str) {
        let mut syncs = self.control.syncs.subscribe();
        loop {
            let federated = syncs.borrow_and_update().get(kind).cloned();
            self.add_all_of(kind);
            let follow = async {
                if let Some(federated) = &federated {
                    tokio::join!(self.follow_objects(federated), self.follow_members(federated));
                }
                std::future::pending::<()>().await;
            };
            let is_other = |syncs: &Arc<HashMap<String, Arc<Federated>>>| {
                syncs.get(kind).map(Arc::as_ptr) != federated.as_ref().map(Arc::as_ptr)
            };
            tokio::select! {
                () = follow => {}
                changed = syncs.wait_for(is_other) => if changed.is_err() { return },
            }
        }
    }

    async fn follow_objects(&self, federated: &Federated) {
        let kind = &federated.config.federated.kind;
        let mut changes = federated.changes.subscribe();
        loop {
            match changes.recv().await {
                Ok(key) if self.is_preferred(kind, &key) => self.queue.add(key),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.add_all_of(kind),
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn schedule_for_ever(&self) {
        self.preferences.wait_filled().await;
        self.strategies.wait_filled().await;
        // The sender lives as long as we.
        let _known = self.clusters.subscribe().wait_for(Option::is_some).await.is_ok();
        loop {
            let key = self.queue.next().await;
            let began = Instant::now();
            let Some(object) = self.preferences.get(&key) else {
                self.told.lock().remove(&key);
                self.note_wanted(None);
                self.queue.done(&key);
                continue;
            };
            let outcome = self.schedule(&key, &Preference::of(&object)).await;
            let name = "replicaschedulingpreference";
            self.control.metrics.reconciled(name, outcome.is_ok(), began.elapsed());
            let notice = match &outcome {
                Ok(Outcome::Done) => None,
                Ok(Outcome::Told(notice)) => Some(notice.clone()),
                Ok(Outcome::Early) => self.told.lock().get(&key).cloned(),
                Err(why) => Some(Notice::new("SchedulingFailed", why)),
            };
            self.tell(&key, &object, notice);
            match outcome {
                Ok(_) => self.queue.done(&key),
                Err(_) => self.queue.failed(&key),
            }
        }
    }

    /// Says what is to be said of a preference, if it was not said last.
    fn tell(&self, key: &Key, object: &Value, notice: Option<Notice>) {
        let mut told = self.told.lock();
        if told.get(key) == notice.as_ref() {
            return;
        }
        match notice {
            Some(notice) => {
                tracing::info!(?key, notice.reason, notice.message, "a preference");
                self.control.events.warn(object, COMPONENT, notice.reason, &notice.message);
                told.insert(key.clone(), notice);
            }
            None => {
                told.remove(key);
            }
        }
    }

    /// Takes note of the kinds that preferences are for: the members are watched for no others.
    fn note_wanted(&self, kind: Option<&str>) {
        self.wanted.send_if_modified(|wanted| {
            let before = wanted.len();
            let Some(kind) = kind else {
                wanted.retain(|kind| {
                    self.preferences
                        .values()
                        .iter()
                        .any(|p| p["spec"]["targetKind"] == kind.as_str())
                });
                return wanted.len() != before;
            };
            !wanted.contains(kind) && wanted.insert(kind.to_owned())
        });
    }

    /// Brings the object of a preference to what it says. An error is worth another try.
    async fn schedule(&self, key: &Key, preference: &Preference) -> Result<Outcome, String> {
        let kind = preference.target.as_str();
        let told = |reason, text: String| Ok(Outcome::Told(Notice::new(reason, text)));
        let Some(federated) = self.control.syncs.borrow().get(kind).cloned() else {
            let text = format!("{kind} is not propagated: enable its FederatedTypeConfig");
            return told("TypeNotEnabled", text);
        };
        self.note_wanted(Some(kind));
        federated.objects.wait_filled().await;
        let Some(object) = federated.objects.get(key) else {
            let text = format!("there is no {kind} {}/{}: create it", key.namespace, key.name);
            return told("TargetNotFound", text);
        };
        if meta::deletion_timestamp(&object).is_some() {
            return Ok(Outcome::Done);
        }
        let strategy = match &preference.strategy {
            None => None,
            Some(name) => {
                let key = Key { namespace: String::new(), name: name.clone() };
                let Some(strategy) = self.strategies.get(&key) else {
                    let text = format!(
                        "there is no ReplicaSchedulingStrategy {name}: create it, or correct spec.strategyName; replicas stay where they are"
                    );
                    return told("StrategyNotFound", text);
                };
                Some(Strategy::of(&strategy))
            }
        };
        let clusters = match self.clusters_for(key, preference, &object).await {
            Ok(clusters) => clusters,
            Err(notice) => return Ok(Outcome::Told(notice)),
        };
        let mut candidates = BTreeMap::new();
        for cluster in clusters.keys() {
            match self.candidate(kind, key, cluster).await? {
                Some(candidate) => candidates.insert(cluster.clone(), candidate),
                None => return Ok(self.unlisted(kind, key, cluster)),
            };
        }
        let name = format!("{}/{}", key.namespace, key.name);
        let plan = match &strategy {
            None => planner::plan(preference, &candidates, &name),
            Some(strategy) => {
                let cluster = |name: &str| clusters.get(name).map(|cluster| &**cluster);
                strategy::plan(strategy, preference, &candidates, cluster, &name)
            }
        };
        if let Some(patch) = plan::rewrite(&object, &plan.wanted()) {
            let kind = &federated.config.federated;
            let collection = path(&kind.api_version(), &key.namespace, &kind.plural_name);
            match self.control.federation.merge(&format!("{collection}/{}", key.name), &patch).await
            {
                // A newer object is on its way to us, or none.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                written => drop(written.map_err(|error| error.to_string())?),
            }
        }
        Ok(plan::shortfall(preference, &plan).map_or(Outcome::Done, Outcome::Told))
    }

    /// The clusters that may have replicas of an object.
    async fn clusters_for(
        &self,
        key: &Key,
        preference: &Preference,
        object: &Value,
    ) -> Result<Clusters, Notice> {
        let mut clusters = self.clusters.borrow().as_deref().cloned().unwrap_or_default();
        if clusters.is_empty() {
            let text = "no cluster is ready: replicas stay where they are";
            return Err(Notice::new("NoClusters", text));
        }
        if !preference.intersects {
            return Ok(clusters);
        }
        let namespace = if self.control.is_namespaced {
            None
        } else {
            // Followed while any namespaced kind is synced, as ours is.
            self.control.namespaces.wait_filled().await;
            let of = Key { namespace: key.namespace.clone(), name: key.namespace.clone() };
            let missing = || {
                let text = format!("there is no FederatedNamespace {0}/{0}: create it", of.name);
                Notice::new("NamespaceNotFederated", text)
            };
            Some(self.control.namespaces.get(&of).ok_or_else(missing)?)
        };
        let all: Vec<Arc<Value>> = clusters.values().cloned().collect();
        let selected = plan::intersection(object, namespace.as_deref(), &all)?;
        clusters.retain(|name, _| selected.contains(name));
        Ok(clusters)
    }

    /// What is known of a cluster; none if it has not told yet.
    async fn candidate(
        &self,
        kind: &str,
        key: &Key,
        cluster: &str,
    ) -> Result<Option<Candidate>, String> {
        let watched = self.workloads.of(kind, cluster);
        let Some(watched) = watched.filter(|watched| watched.workloads.is_filled()) else {
            return Ok(None);
        };
        let Some(workload) = watched.workloads.get(key) else {
            return Ok(Some(Candidate::default()));
        };
        let pods = if workload.is_settled() {
            Pods::default()
        } else {
            let pods = self.pods(key, &watched, &workload).await;
            pods.map_err(|why| format!("cluster {cluster:?}: {why}; replicas stay where they are"))?
        };
        if let Some(again) = pods.again {
            self.queue.add_after(key.clone(), again);
        }
        Ok(Some(workload.candidate(&pods)))
    }

    /// A member that lists its workloads brings the preference back; one that does not is told of after a while.
    fn unlisted(&self, kind: &str, key: &Key, cluster: &str) -> Outcome {
        let since = self.workloads.of(kind, cluster).map(|watched| watched.since);
        if since.is_some_and(|since| since.elapsed() >= LISTING) {
            let text = format!(
                "cluster {cluster:?} does not list its workloads: give the controllers rights there, or unjoin it; replicas stay where they are"
            );
            return Outcome::Told(Notice::new("ClusterNotListed", text));
        }
        self.queue.add_after(key.clone(), LISTING);
        Outcome::Early
    }
}

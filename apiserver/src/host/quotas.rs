//! The host's ResourceQuotas: what is created here is charged to them.
//!
//! A charge is an update of a quota's `status.used` with its resource version, so that several servers together pass no
//! limit. The creates that wait in a namespace are charged by one update, one batch after the other. If an object that
//! was charged is not created after all, the host's quota controller counts anew some time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kubefed_apimachinery::status::Status;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use super::not_followed;
use crate::admission::{Operation, Review, quota};
use crate::registry::{Part, Route};

/// How long a create waits for its charge; as Kubernetes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a quota that is new may take to be counted by the host.
const COUNTING: Duration = Duration::from_secs(3);
/// How long one request to the host may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a batch is charged anew after somebody else was faster.
const ATTEMPTS: usize = 8;
/// Creates that wait for their turn; more than requests are answered at a time.
const QUEUE: usize = 1024;

/// One create that waits.
struct Waiter {
    namespace: String,
    key: String,
    dry_run: bool,
    answer: oneshot::Sender<Result<(), Refusal>>,
}

#[derive(Clone)]
enum Refusal {
    Forbidden(String),
    /// The host could not be asked.
    Failed(String),
}

#[derive(Default)]
struct Seen {
    /// By namespace and name.
    quotas: HashMap<String, BTreeMap<String, ResourceQuota>>,
    /// The kinds, plurals by group, that any of them limits.
    limited: HashMap<String, HashSet<String>>,
}

/// The quotas as they were last seen, and who charges them.
pub(crate) struct Quotas {
    host: kube::Client,
    seen: RwLock<Seen>,
    /// Tells of each change; whether they were read at all.
    read: watch::Sender<bool>,
    waiters: mpsc::Sender<Waiter>,
    receiver: Mutex<Option<mpsc::Receiver<Waiter>>>,
}

impl Quotas {
    pub(crate) fn new(host: kube::Client) -> Self {
        let (waiters, receiver) = mpsc::channel(QUEUE);
        Quotas {
            host,
            seen: RwLock::default(),
            read: watch::Sender::new(false),
            waiters,
            receiver: Mutex::new(Some(receiver)),
        }
    }

    /// Whether the quotas of the host are known.
    pub(crate) fn is_ready(&self) -> bool {
        *self.read.borrow()
    }

    /// Whether a quota limits such writes somewhere.
    pub(crate) fn concerns(&self, route: &Route, part: Part, operation: Operation) -> bool {
        let definition = &route.resource.definition;
        let limits = |seen: &Seen| {
            let plurals = seen.limited.get(&definition.group);
            plurals.is_some_and(|plurals| plurals.contains(&definition.plural))
        };
        operation == Operation::Create
            && part == Part::Main
            && definition.namespaced
            && (!self.is_ready() || limits(&self.seen.read()))
    }

    /// Charges a new object to the quotas of its namespace.
    ///
    /// # Errors
    /// 403 if there may be no more, or 500 if the host can't be asked.
    pub(crate) async fn charge(&self, review: &Review<'_>) -> Result<(), Status> {
        if !self.concerns(review.route, review.part, review.operation) {
            return Ok(());
        }
        let charging = tokio::time::timeout(PATIENCE, async {
            let mut read = self.read.subscribe();
            drop(read.wait_for(|read| *read).await.ok()?);
            let key = quota::key(&review.route.resource.group_resource());
            if !self.of(review.namespace).iter().any(|quota| quota::limits(quota, &key)) {
                return Some(Ok(()));
            }
            let (answer, answered) = oneshot::channel();
            let namespace = review.namespace.to_owned();
            let waiter = Waiter { namespace, key, dry_run: review.dry_run, answer };
            self.waiters.send(waiter).await.ok()?;
            answered.await.ok()
        });
        match charging.await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(Refusal::Forbidden(why)))) => Err(review.forbidden(why)),
            Ok(Some(Err(Refusal::Failed(why)))) => {
                tracing::error!(
                    namespace = review.namespace,
                    error = why,
                    "the host's quota cannot be charged"
                );
                Err(Status::internal("the host's quota cannot be charged; try again"))
            }
            Ok(None) | Err(_) => Err(Status::internal("resource quota evaluation timed out")),
        }
    }

    /// Follows the quotas, and charges them.
    pub(super) async fn follow(&self) {
        let Some(waiters) = self.receiver.lock().take() else { return };
        tokio::join!(self.watch(), self.serve(waiters));
    }

    async fn watch(&self) {
        let api: Api<ResourceQuota> = Api::all(self.host.clone());
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listed: HashMap<String, BTreeMap<String, ResourceQuota>> = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(quota)) => {
                    let (namespace, name) = place(&quota);
                    listed.entry(namespace).or_default().insert(name, quota);
                }
                Ok(watcher::Event::InitDone) => {
                    self.seen.write().quotas = std::mem::take(&mut listed);
                    self.changed();
                }
                Ok(watcher::Event::Apply(quota)) => self.take_up(quota),
                Ok(watcher::Event::Delete(quota)) => {
                    let (namespace, name) = place(&quota);
                    self.forget(&namespace, &name);
                }
                Err(error) => not_followed::<ResourceQuota>(
                    &error,
                    self.is_ready(),
                    "nothing is created in a namespace",
                ),
            }
        }
    }

    /// A quota that was seen, unless what is known is newer: what was charged comes back by the watch.
    fn take_up(&self, quota: ResourceQuota) {
        let (namespace, name) = place(&quota);
        {
            let seen = &mut self.seen.write().quotas;
            let known = seen.entry(namespace).or_default();
            if known.get(&name).is_some_and(|known| revision(known) > revision(&quota)) {
                return;
            }
            known.insert(name, quota);
        }
        self.changed();
    }

    fn forget(&self, namespace: &str, name: &str) {
        {
            let seen = &mut self.seen.write().quotas;
            let Some(known) = seen.get_mut(namespace) else { return };
            known.remove(name);
            if known.is_empty() {
                seen.remove(namespace);
            }
        }
        self.changed();
    }

    fn changed(&self) {
        {
            let mut seen = self.seen.write();
            let specs =
                seen.quotas.values().flat_map(BTreeMap::values).filter_map(|it| it.spec.as_ref());
            let keys = specs.flat_map(|spec| spec.hard.iter().flat_map(BTreeMap::keys));
            let mut limited: HashMap<String, HashSet<String>> = HashMap::new();
            for (group, plural) in keys.filter_map(|key| quota::counted(key)) {
                limited.entry(group.to_owned()).or_default().insert(plural.to_owned());
            }
            seen.limited = limited;
        }
        self.read.send_replace(true);
    }

    fn of(&self, namespace: &str) -> Vec<ResourceQuota> {
        let seen = self.seen.read();
        seen.quotas.get(namespace).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// One batch at a time in each namespace; who comes meanwhile is in the next one.
    async fn serve(&self, mut waiters: mpsc::Receiver<Waiter>) {
        let mut next: HashMap<String, Vec<Waiter>> = HashMap::new();
        let mut running = FuturesUnordered::new();
        loop {
            // Both are cancel-safe.
            tokio::select! {
                Some(waiter) = waiters.recv() => match next.get_mut(&waiter.namespace) {
                    Some(batch) => batch.push(waiter),
                    None => {
                        next.insert(waiter.namespace.clone(), Vec::new());
                        running.push(self.settle(waiter.namespace.clone(), vec![waiter]));
                    }
                },
                Some(namespace) = running.next() => match next.remove(&namespace) {
                    Some(batch) if !batch.is_empty() => {
                        next.insert(namespace.clone(), Vec::new());
                        running.push(self.settle(namespace, batch));
                    }
                    _ => {}
                },
                else => return,
            }
        }
    }

    /// Answers all of a batch. Returns its namespace, which is free for the next one.
    async fn settle(&self, namespace: String, batch: Vec<Waiter>) -> String {
        // Who went meanwhile takes nothing.
        let mut open: Vec<Waiter> =
            batch.into_iter().filter(|waiter| !waiter.answer.is_closed()).collect();
        let mut quotas = self.counted(&namespace, &open).await;
        for _ in 0..ATTEMPTS {
            let before = quotas.clone();
            open = decide(&mut quotas, open);
            let mut faster = Vec::new();
            for (before, quota) in before.iter().zip(&quotas) {
                if before == quota {
                    continue;
                }
                match self.write(&namespace, quota).await {
                    Ok(true) => {}
                    Ok(false) => faster.push(place(quota).1),
                    Err(why) => return fail(namespace, open, &why),
                }
            }
            if faster.is_empty() {
                for waiter in open {
                    let _it_went = waiter.answer.send(Ok(()));
                }
                return namespace;
            }
            // The others are charged already.
            quotas.clear();
            for name in faster {
                match self.newest(&namespace, &name).await {
                    Ok(quota) => quotas.extend(quota),
                    Err(why) => return fail(namespace, open, &why),
                }
            }
        }
        fail(namespace, open, "others were faster each time")
    }

    /// The quotas of a namespace, once the host has counted what they limit of this, or should have.
    async fn counted(&self, namespace: &str, batch: &[Waiter]) -> Vec<ResourceQuota> {
        let mut changes = self.read.subscribe();
        let counting = async {
            loop {
                changes.mark_unchanged();
                let quotas = self.of(namespace);
                let open = |quota: &ResourceQuota, key: &str| {
                    quota::limits(quota, key) && !quota::is_counted(quota, key)
                };
                if !batch.iter().any(|it| quotas.iter().any(|quota| open(quota, &it.key)))
                    || changes.changed().await.is_err()
                {
                    return quotas;
                }
            }
        };
        let counted = tokio::time::timeout(COUNTING, counting).await;
        counted.unwrap_or_else(|_| self.of(namespace))
    }

    /// Writes what a quota's use is now; false if it is not any more what it was made of.
    async fn write(&self, namespace: &str, quota: &ResourceQuota) -> Result<bool, String> {
        let api: Api<ResourceQuota> = Api::namespaced(self.host.clone(), namespace);
        let (_, name) = place(quota);
        let params = PostParams::default();
        match tokio::time::timeout(TIMEOUT, api.replace_status(&name, &params, quota)).await {
            Ok(Ok(written)) => {
                self.take_up(written);
                Ok(true)
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(false),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {TIMEOUT:?}")),
        }
    }

    /// A quota as it is now, if it is still there.
    async fn newest(&self, namespace: &str, name: &str) -> Result<Option<ResourceQuota>, String> {
        let api: Api<ResourceQuota> = Api::namespaced(self.host.clone(), namespace);
        let asked = tokio::time::timeout(TIMEOUT, api.get_opt(name)).await;
        let found = asked.map_err(|_| format!("no answer in {TIMEOUT:?}"))?;
        let found = found.map_err(|error| error.to_string())?;
        match &found {
            Some(quota) => self.take_up(quota.clone()),
            None => self.forget(namespace, name),
        }
        Ok(found)
    }
}

/// Charges a batch in the order in which it came. Answers those whom that settles; returns the others, whose charges
/// are to be written.
fn decide(quotas: &mut Vec<ResourceQuota>, batch: Vec<Waiter>) -> Vec<Waiter> {
    let mut charged = Vec::new();
    for waiter in batch {
        let before = waiter.dry_run.then(|| quotas.clone());
        let outcome = quota::charge(quotas, &waiter.key);
        if let Some(before) = before {
            *quotas = before;
        }
        match outcome {
            Ok(true) if !waiter.dry_run => charged.push(waiter),
            outcome => {
                let answer = outcome.map(drop).map_err(Refusal::Forbidden);
                let _it_went = waiter.answer.send(answer);
            }
        }
    }
    charged
}

fn fail(namespace: String, batch: Vec<Waiter>, why: &str) -> String {
    for waiter in batch {
        let _it_went = waiter.answer.send(Err(Refusal::Failed(why.to_owned())));
    }
    namespace
}

fn place(quota: &ResourceQuota) -> (String, String) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&quota.metadata.namespace), text(&quota.metadata.name))
}

/// Revisions of one kind in one etcd can be compared.
fn revision(quota: &ResourceQuota) -> u64 {
    let revision = quota.metadata.resource_version.as_deref();
    revision.and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;

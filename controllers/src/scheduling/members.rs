//! What the members have of the objects that are scheduled: the workloads, followed only while a preference is for their
//! kind, and their pods, asked for only while not all replicas of one are ready.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kubefed_apimachinery::labels::Selector;
use parking_lot::RwLock;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::Scheduler;
use super::plan::{Pods, Workload};
use crate::cache::{Cache, Key, Source};
use crate::client::JSON;
use crate::control::{Member, Members, Readiness, are_same, ours, path};
use crate::sync::Federated;

/// Changes of a workload are looked at together after this long: while pods start, its status changes with each.
const TOGETHER: Duration = Duration::from_millis(500);

/// The workloads of one kind in one member.
pub(super) struct Watched {
    member: Arc<Member>,
    pub(super) workloads: Cache<Workload>,
    pub(super) since: Instant,
}

/// By federated kind and cluster.
#[derive(Default)]
pub(super) struct Workloads(RwLock<HashMap<(String, String), Arc<Watched>>>);

impl Workloads {
    pub(super) fn of(&self, kind: &str, cluster: &str) -> Option<Arc<Watched>> {
        self.0.read().get(&(kind.to_owned(), cluster.to_owned())).cloned()
    }

    /// Keeps those of the members, each its own.
    fn keep(&self, kind: &str, members: &Members) -> Vec<Arc<Watched>> {
        let mut all = self.0.write();
        all.retain(|(of, cluster), watched| {
            let same = members.get(cluster).is_some_and(|m| Arc::ptr_eq(m, &watched.member));
            of != kind || same
        });
        let watched = members.iter().map(|(cluster, member)| {
            let (member, since) = (Arc::clone(member), Instant::now());
            let new = || Arc::new(Watched { member, workloads: Cache::default(), since });
            Arc::clone(all.entry((kind.to_owned(), cluster.clone())).or_insert_with(new))
        });
        watched.collect()
    }
}

impl Scheduler {
    /// Follows the workloads of a kind in all members, while a preference is for it.
    pub(super) async fn follow_members(&self, federated: &Federated) {
        let kind = federated.config.federated.kind.as_str();
        let mut members = self.control.members.subscribe();
        let (mut wanted, mut unwanted) = (self.wanted.subscribe(), self.wanted.subscribe());
        loop {
            // The sender lives as long as we.
            let _wanted = wanted.wait_for(|wanted| wanted.contains(kind)).await.is_ok();
            let current = members.borrow_and_update().clone();
            let watched = self.workloads.keep(kind, &current);
            let follow = watched.iter().map(|watched| self.follow_member(federated, watched));
            tokio::select! {
                _ = futures::future::join_all(follow), if !watched.is_empty() => {}
                changed = members.wait_for(|members| !are_same(members, &current)) => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = unwanted.wait_for(|wanted| !wanted.contains(kind)) => {
                    self.workloads.keep(kind, &Members::default());
                }
            }
        }
    }

    async fn follow_member(&self, federated: &Federated, watched: &Watched) {
        let (target, control) = (&federated.config.target, &self.control);
        let within = control.within();
        let source = Source {
            path: path(&target.api_version(), within, &target.plural_name),
            query: ours(),
            metadata: false,
        };
        let changed = |key: &Key| {
            if self.is_preferred(&federated.config.federated.kind, key) {
                self.queue.add_after(key.clone(), TOGETHER);
            }
        };
        let mut ready = watched.member.ready.subscribe();
        let listed = async {
            watched.workloads.wait_filled().await;
            self.add_all_of(&federated.config.federated.kind);
            std::future::pending::<()>().await;
        };
        let follow = async {
            loop {
                let readiness = ready.borrow_and_update().clone();
                let follow = async {
                    if let Readiness::Ready(client) = readiness {
                        let token = &watched.member.token;
                        watched
                            .workloads
                            .follow(&client, &source, Workload::of, changed, token)
                            .await;
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = follow => {}
                    changed = ready.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                }
            }
        };
        tokio::join!(listed, follow);
    }

    /// Asks a member for the pods of a workload.
    pub(super) async fn pods(
        &self,
        key: &Key,
        watched: &Watched,
        workload: &Workload,
    ) -> Result<Pods, String> {
        let Readiness::Ready(client) = watched.member.ready.borrow().clone() else {
            return Err("it cannot be reached now".into());
        };
        let selector = Selector::from_label_selector(&workload.selector)?;
        if selector.is_everything() {
            return Err("spec.selector selects no labels".into());
        }
        let selector = selector.to_string();
        let query = format!("&labelSelector={}", utf8_percent_encode(&selector, NON_ALPHANUMERIC));
        let (mut pods, now) = (Pods::default(), self.control.now());
        client
            .list(&path("v1", &key.namespace, "pods"), &query, JSON, |pod| {
                pods.take(&pod, now);
            })
            .await
            .map_err(|error| format!("its pods cannot be listed: {error}"))?;
        Ok(pods)
    }
}

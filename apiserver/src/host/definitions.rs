//! The host's CustomResourceDefinitions in our groups. The host leads these groups to us as a whole, so that nobody
//! else serves their kinds: KubeFed's own tools write definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tokio::sync::watch;

/// Some hosts have a thousand definitions of a hundred kilobytes: so many are held at a time.
const PAGE: u32 = 20;

/// Definitions by name.
pub(crate) type Seen = BTreeMap<String, Arc<Value>>;

/// The definitions of some groups as they were last seen.
pub(crate) struct Definitions {
    host: Api<DynamicObject>,
    groups: watch::Sender<BTreeSet<String>>,
    seen: watch::Sender<Option<Seen>>,
}

impl Definitions {
    pub(super) fn new(host: kube::Client) -> Self {
        // As they are written: a schema says more than this version of the type knows.
        let definitions = ApiResource::erase::<CustomResourceDefinition>(&());
        Definitions {
            host: Api::all_with(host, &definitions),
            groups: watch::Sender::default(),
            seen: watch::Sender::default(),
        }
    }

    /// What was seen; `None` as long as the host has not told.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.seen.borrow().clone()
    }

    /// Tells when something else is seen.
    pub(crate) fn changes(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.subscribe()
    }

    /// Looks at these groups from now on, and at those that were named before.
    pub(crate) fn look_at(&self, groups: &BTreeSet<String>) {
        self.groups.send_if_modified(|known| {
            let is_new = !known.is_superset(groups);
            known.extend(groups.iter().cloned());
            is_new
        });
    }

    pub(super) async fn follow(&self) {
        let mut groups = self.groups.subscribe();
        loop {
            // What was passed over before is listed again when its group is asked for.
            let wanted = groups.borrow_and_update().clone();
            tokio::select! {
                () = self.follow_groups(&wanted), if !wanted.is_empty() => return,
                changed = groups.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn follow_groups(&self, groups: &BTreeSet<String>) {
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = watcher(self.host.clone(), config).default_backoff().boxed();
        let mut listed = Seen::new();
        let change = |change: &dyn Fn(&mut Seen)| {
            self.seen.send_modify(|seen| change(seen.get_or_insert_default()));
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(crd)) => listed.extend(read(crd, groups)),
                Ok(watcher::Event::InitDone) => {
                    self.seen.send_replace(Some(std::mem::take(&mut listed)));
                }
                Ok(watcher::Event::Apply(crd)) => {
                    if let Some((name, crd)) = read(crd, groups) {
                        change(&|seen| drop(seen.insert(name.clone(), Arc::clone(&crd))));
                    }
                }
                Ok(watcher::Event::Delete(crd)) => {
                    if let Some((name, _)) = read(crd, groups) {
                        change(&|seen| drop(seen.remove(&name)));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the host's CustomResourceDefinitions are not followed at the moment");
                }
            }
        }
    }
}

/// A definition in one of these groups, with its name.
fn read(mut crd: DynamicObject, groups: &BTreeSet<String>) -> Option<(String, Arc<Value>)> {
    if !groups.contains(crd.data["spec"]["group"].as_str()?) {
        return None;
    }
    crd.metadata.managed_fields = None;
    Some((crd.metadata.name.clone()?, Arc::new(serde_json::to_value(crd).ok()?)))
}

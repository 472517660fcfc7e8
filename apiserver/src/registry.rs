//! Which kinds are served, and where their objects are.
//!
//! The set of kinds is an immutable [`Catalog`] behind an `ArcSwap`: a request takes one snapshot and sees one
//! consistent world. It changes at run time, when a FederatedTypeConfig or a CustomResourceDefinition comes or goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use kubefed_apimachinery::definition::Definition;
use kubefed_apimachinery::gvk::GroupResource;
use kubefed_storage::Store;
use kubefed_storage::cacher::{self, Cacher};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::virtuals::Virtual;

mod catalog;
mod delete;
mod prepare;
mod resource;
pub(crate) mod scale;
mod served;
mod update;

pub use catalog::{Catalog, Route};
pub use delete::Deleted;
pub use resource::Resource;
pub(crate) use served::{Kind, Served};
pub use update::{Part, Tracking, Write};

/// The kinds that are served now, and what is needed to serve another.
pub struct Registry {
    store: Arc<dyn Store>,
    prefix: String,
    virtuals: &'static [Virtual],
    catalog: ArcSwap<Catalog>,
    changed: watch::Sender<()>,
    writer: Mutex<()>,
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Registry {
    /// A registry over `store` that keeps its objects below `prefix` (`/registry`).
    pub fn new(
        store: Arc<dyn Store>,
        prefix: &str,
        virtuals: &'static [Virtual],
        token: CancellationToken,
        tracker: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Registry {
            store,
            prefix: prefix.trim_end_matches('/').to_owned(),
            virtuals,
            catalog: ArcSwap::default(),
            changed: watch::Sender::default(),
            writer: Mutex::new(()),
            token,
            tracker,
        })
    }

    /// The kinds as they are now. A request takes this once.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Tells when the set of kinds has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The resource of a stored kind, by the group and plural of its definition.
    pub fn resource(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.catalog.load().resource(group, plural).cloned()
    }

    /// Serves `definitions`, each in the place of an earlier one of the same group and plural.
    /// The cache of a kind goes on when only its schema or names have changed.
    pub fn install(&self, definitions: Vec<Definition>) {
        let _one_at_a_time = self.writer.lock();
        let mut resources = self.catalog.load().resources().clone();
        for definition in definitions {
            let key = GroupResource {
                group: definition.group.clone(),
                resource: definition.plural.clone(),
            };
            let cacher = resources.get(&key).and_then(|old| {
                let same = old.definition.selectable_fields == definition.selectable_fields;
                if !same {
                    old.cacher.stop();
                }
                same.then(|| Arc::clone(&old.cacher))
            });
            let resource = self.resource_of(definition, cacher);
            resources.insert(key, Arc::new(resource));
        }
        self.publish(resources);
    }

    /// Serves a kind no longer. Its objects stay in the store: they are back when the kind is.
    pub fn remove(&self, group: &str, plural: &str) {
        let _one_at_a_time = self.writer.lock();
        let mut resources = self.catalog.load().resources().clone();
        let key = GroupResource { group: group.into(), resource: plural.into() };
        if let Some(resource) = resources.remove(&key) {
            resource.cacher.stop();
            self.publish(resources);
        }
    }

    fn publish(&self, resources: BTreeMap<GroupResource, Arc<Resource>>) {
        self.catalog.store(Arc::new(Catalog::new(resources, self.virtuals)));
        self.changed.send_replace(());
    }

    fn resource_of(&self, definition: Definition, cacher: Option<Arc<Cacher>>) -> Resource {
        let group = if definition.group.is_empty() { "core" } else { &definition.group };
        let prefix = format!("{}/{group}/{}/", self.prefix, definition.plural);
        let cacher = cacher.unwrap_or_else(|| {
            let options = cacher::Options {
                prefix: prefix.clone(),
                selectable_fields: definition.selectable_fields.clone(),
            };
            Cacher::start(Arc::clone(&self.store), options, self.token.clone(), &self.tracker)
        });
        Resource { definition, prefix, store: Arc::clone(&self.store), cacher }
    }
}

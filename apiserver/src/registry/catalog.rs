//! One immutable set of served kinds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use kubefed_apimachinery::definition::Version;
use kubefed_apimachinery::gvk::{GroupResource, GroupVersion};

use super::Resource;
use crate::discovery::Documents;
use crate::openapi::OpenApi;
use crate::virtuals::Virtual;

/// One kind at one of its served versions.
#[derive(Clone)]
pub struct Route {
    pub resource: Arc<Resource>,
    pub version: usize,
}

impl Route {
    /// A kind at the version that the store holds, for writes of the server itself.
    pub fn stored(resource: Arc<Resource>) -> Self {
        let definition = &resource.definition;
        let stored = |version: &Version| version.group_version == definition.storage;
        let version = definition.versions.iter().position(stored).unwrap_or(0);
        Route { resource, version }
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.resource.definition.versions[self.version]
    }

    /// The name of the resource in errors: in the group in which it was asked for.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.version().group_version.group.clone(),
            resource: self.resource.definition.plural.clone(),
        }
    }
}

/// The kinds served at one moment, and the documents that describe them (made at first use).
#[derive(Default)]
pub struct Catalog {
    resources: BTreeMap<GroupResource, Arc<Resource>>,
    routes: HashMap<GroupVersion, BTreeMap<String, Route>>,
    virtuals: &'static [Virtual],
    discovery: OnceLock<Documents>,
    openapi: OnceLock<OpenApi>,
}

impl Catalog {
    pub(super) fn new(
        resources: BTreeMap<GroupResource, Arc<Resource>>,
        virtuals: &'static [Virtual],
    ) -> Self {
        let mut routes: HashMap<GroupVersion, BTreeMap<String, Route>> = HashMap::new();
        for resource in resources.values() {
            let versions = resource.definition.versions.iter().enumerate();
            for (version, served) in versions.filter(|(_, version)| version.served) {
                routes.entry(served.group_version.clone()).or_default().insert(
                    resource.definition.plural.clone(),
                    Route { resource: Arc::clone(resource), version },
                );
            }
        }
        Catalog {
            resources,
            routes,
            virtuals,
            discovery: OnceLock::new(),
            openapi: OnceLock::new(),
        }
    }

    pub(super) fn resources(&self) -> &BTreeMap<GroupResource, Arc<Resource>> {
        &self.resources
    }

    /// Every stored kind.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// A stored kind by the group and plural of its definition.
    pub fn resource(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&GroupResource { group: group.into(), resource: plural.into() })
    }

    /// The kind that a request's path names.
    pub fn route(&self, group: &str, version: &str, plural: &str) -> Option<&Route> {
        self.routes.get(&GroupVersion { group: group.into(), version: version.into() })?.get(plural)
    }

    /// A kind by its name in a group version, as owner references have it.
    pub fn kind(&self, group_version: &GroupVersion, kind: &str) -> Option<&Route> {
        self.routes
            .get(group_version)?
            .values()
            .find(|route| route.resource.definition.kind == kind)
    }

    /// The kinds that are asked and not stored.
    pub fn virtuals(&self) -> &'static [Virtual] {
        self.virtuals
    }

    /// A kind that is asked and not stored.
    pub fn review(&self, group: &str, version: &str, plural: &str) -> Option<&'static Virtual> {
        self.virtuals
            .iter()
            .find(|v| v.group == group && v.version == version && v.plural == plural)
    }

    /// The served group versions with their kinds by plural.
    pub fn group_versions(
        &self,
    ) -> impl Iterator<Item = (&GroupVersion, &BTreeMap<String, Route>)> {
        self.routes.iter()
    }

    /// The discovery documents of this set.
    pub fn discovery(&self) -> &Documents {
        self.discovery.get_or_init(|| Documents::new(self))
    }

    /// The OpenAPI documents of this set.
    pub fn openapi(&self) -> &OpenApi {
        self.openapi.get_or_init(|| OpenApi::new(self))
    }
}

//! The federation's kinds, and what follows from their objects: placement, overrides, versions, status. All pure.

use std::collections::{BTreeMap, BTreeSet};

use kubefed_apimachinery::definition::{Definition, Strategy, Subresources, Version};
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::schema::Schemas;
use kubefed_apimachinery::table::Column;
use serde_json::Value;

pub mod deletion;
pub mod dns;
pub mod federated;
pub mod federatedtypeconfig;
pub mod kubefedcluster;
pub mod kubefedconfig;
pub mod overrides;
pub mod placement;
pub mod propagatedversion;
pub mod scheduling;
pub mod status;
pub mod template;
pub mod versions;

/// The namespace of a control plane, unless it was given another.
pub const SYSTEM_NAMESPACE: &str = "kube-federation-system";
/// On every object in a member: `true` if this control plane keeps it, `false` if it must not touch it.
pub const MANAGED_LABEL: &str = "kubefed.io/managed";
/// On a federated object: `true` leaves the members' objects alone when it is deleted.
pub const ORPHAN_ANNOTATION: &str = "kubefed.io/orphan";
/// On a federated object: the `DeleteOptions` for the members' objects, as JSON.
pub const DELETE_OPTIONS_ANNOTATION: &str = "kubefed.io/deleteoption";
/// On the Lease of the controller managers: the scope that holds, `Cluster` or `Namespaced`, as its holder knows it.
pub const SCOPE_ANNOTATION: &str = "kubefed.io/scope";
/// Holds a federated object until its objects in the members are gone.
pub const SYNC_FINALIZER: &str = "kubefed.io/sync-controller";

pub const CORE_GROUP: &str = "core.kubefed.io";
pub const TYPES_GROUP: &str = "types.kubefed.io";
pub const SCHEDULING_GROUP: &str = "scheduling.kubefed.io";
pub const DNS_GROUP: &str = "multiclusterdns.kubefed.io";

/// Every kind of the federation but the federated ones, which FederatedTypeConfigs make.
pub fn kinds() -> Vec<Definition> {
    let mut kinds = vec![
        kubefedconfig::definition(),
        kubefedcluster::definition(),
        federatedtypeconfig::definition(),
        propagatedversion::definition(false),
        propagatedversion::definition(true),
        propagatedversion::federated_service_status(),
    ];
    kinds.extend(scheduling::definitions());
    kinds.extend(dns::definitions());
    kinds
}

/// The groups of these kinds with their versions, each once: what a host leads to us.
pub fn group_versions() -> BTreeSet<GroupVersion> {
    let kinds = kinds();
    let versions = kinds.iter().flat_map(|kind| &kind.versions);
    versions.map(|version| version.group_version.clone()).collect()
}

/// The parts in which our kinds differ.
struct Kind {
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    namespaced: bool,
    status: bool,
    /// The first is preferred and stored.
    versions: &'static [(&'static str, &'static str)],
    columns: Vec<Column>,
    schema: Value,
    strategy: Strategy,
}

impl Kind {
    fn define(self) -> Definition {
        let name_of = |(group, version): &(&str, &str)| {
            let mut package: Vec<&str> = group.split('.').collect();
            package.reverse();
            format!("{}.{version}.{}", package.join("."), self.kind)
        };
        let names: Vec<String> = self.versions.iter().map(name_of).collect();
        let documents: BTreeMap<String, Value> =
            names.iter().map(|name| (name.clone(), self.schema.clone())).collect();
        let schemas = Schemas::new(documents);
        let group_version = |(group, version): &(&str, &str)| GroupVersion {
            group: (*group).into(),
            version: (*version).into(),
        };
        let versions = self.versions.iter().zip(names).map(|(version, schema_name)| Version {
            group_version: group_version(version),
            schema: schemas.get(&schema_name).expect("the document was just put in"),
            schema_name,
            columns: self.columns.clone(),
            served: true,
        });
        Definition {
            group: self.versions[0].0.into(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.into(),
            singular: self.kind.to_lowercase(),
            short_names: self.short_names.iter().map(|&name| name.into()).collect(),
            categories: Vec::new(),
            namespaced: self.namespaced,
            versions: versions.collect(),
            storage: group_version(&self.versions[0]),
            subresources: Subresources { status: self.status, scale: None },
            selectable_fields: Vec::new(),
            strategic_patch: false,
            terminating: false,
            strategy: self.strategy,
        }
    }
}

/// A warning for an object that has effect only in the control plane's namespace.
fn outside_of_system_namespace(object: &Value) -> Vec<String> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
    if namespace == SYSTEM_NAMESPACE {
        return Vec::new();
    }
    let kind = object["kind"].as_str().unwrap_or("");
    vec![format!(
        "a {kind} has effect only in the namespace of the control plane ({SYSTEM_NAMESPACE}), not in {namespace}"
    )]
}

#[cfg(test)]
mod tests;

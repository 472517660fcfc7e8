//! Everything that a server must know of a kind, as data.

use serde_json::Value;

use crate::field;
use crate::gvk::GroupVersion;
use crate::schema::Schema;
use crate::table::Column;

/// A kind that is served.
#[derive(Clone)]
pub struct Definition {
    /// The group that it is stored under; a version may be served in another.
    pub group: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// At least the stored one. They differ in `apiVersion` alone: a conversion is a new head before the same tail.
    pub versions: Vec<Version>,
    /// The version that the store holds.
    pub storage: GroupVersion,
    pub subresources: Subresources,
    /// Fields beside name and namespace that clients can select by, dotted.
    pub selectable_fields: Vec<String>,
    /// Whether the schema says how lists merge, so that strategic merge patches have a meaning.
    pub strategic_patch: bool,
    /// Whether the kind is about to go: no object of it is created any more.
    pub terminating: bool,
    pub strategy: Strategy,
}

/// A version of a kind.
#[derive(Clone)]
pub struct Version {
    pub group_version: GroupVersion,
    pub schema: Schema,
    /// The schema's name in OpenAPI.
    pub schema_name: String,
    /// What `kubectl get` shows after the name.
    pub columns: Vec<Column>,
    /// Whether clients reach it. One that they do not may still be the stored one.
    pub served: bool,
}

/// The parts of an object that have an address of their own.
#[derive(Clone, Debug, Default)]
pub struct Subresources {
    pub status: bool,
    pub scale: Option<Scale>,
}

/// Where the replicas of a kind are, as dotted paths.
#[derive(Clone, Debug)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

/// What a kind does beyond its schema. Every hook works on the storage form and is pure.
#[derive(Clone, Copy)]
pub struct Strategy {
    /// Fills in what was left out, on every write.
    pub defaults: fn(&mut Value),
    /// Sets what the server decides when an object is created.
    pub prepare_create: fn(&mut Value),
    /// Validates an object that its schema accepts.
    pub validate: fn(&Value) -> Vec<field::Error>,
    /// Validates a change: new, then old.
    pub validate_update: fn(&Value, &Value) -> Vec<field::Error>,
    /// Validates a write of the status: new, then old.
    pub validate_status: fn(&Value, &Value) -> Vec<field::Error>,
    /// What the client should know although the write is fine.
    pub warnings: fn(&Value) -> Vec<String>,
    /// What holds an object from the moment it is to be deleted, until the server has done its part.
    pub finalizer: Option<&'static str>,
}

impl Strategy {
    /// Nothing beyond the schema.
    pub const NONE: Strategy = Strategy {
        defaults: |_| {},
        prepare_create: |_| {},
        validate: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        validate_status: |_, _| Vec::new(),
        warnings: |_| Vec::new(),
        finalizer: None,
    };
}

impl Default for Strategy {
    fn default() -> Self {
        Strategy::NONE
    }
}

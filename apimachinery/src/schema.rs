//! Schemas of kinds: OpenAPI v3 documents, compiled once, walked for every write.
//!
//! [`Schemas`] is an immutable set of named documents that refer to each other by `#/components/schemas/NAME`. A
//! [`Schema`] is a kind's root in it, where `apiVersion`, `kind` and `metadata` are as for every object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::field::{self, Path};

mod compile;
mod validate;
mod walk;

pub(crate) use validate::wrong_type;
pub(crate) use walk::{ListKind, Node, Ref};

/// The prefix of references between documents.
pub const REFERENCE: &str = "#/components/schemas/";

/// An extension of ours: no default goes into the marked part of an object, which others hash as it was written.
pub const AS_GIVEN: &str = "x-kubefed-as-given";

/// Named documents, as given and compiled.
pub struct Schemas {
    documents: BTreeMap<String, Value>,
    nodes: Vec<Node>,
    roots: BTreeMap<String, usize>,
}

impl Schemas {
    /// Compiles `documents`. A reference to a document that is not there accepts anything.
    pub fn new(documents: BTreeMap<String, Value>) -> Arc<Self> {
        let (nodes, roots) = compile::compile(&documents, false);
        Arc::new(Schemas { documents, nodes, roots })
    }

    /// Compiles documents that are structural, as those of custom resources: an object has the fields that are named
    /// and no others, unless its document says so.
    pub fn structural(documents: BTreeMap<String, Value>) -> Arc<Self> {
        let (nodes, roots) = compile::compile(&documents, true);
        Arc::new(Schemas { documents, nodes, roots })
    }

    /// The schema of the kind whose document is called `name`.
    pub fn get(self: &Arc<Self>, name: &str) -> Option<Schema> {
        let root = *self.roots.get(name)?;
        Some(Schema { schemas: Arc::clone(self), root })
    }

    /// A document as it was given.
    pub fn raw(&self, name: &str) -> Option<&Value> {
        self.documents.get(name)
    }

    /// The names of a document and of all that it refers to, however far.
    pub fn closure(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut todo = vec![name.to_owned()];
        while let Some(name) = todo.pop() {
            if let Some(document) = self.documents.get(&name)
                && found.insert(name)
            {
                references(document, &mut todo);
            }
        }
        found
    }
}

/// Whether a schema's `pattern` can be used.
///
/// # Errors
/// Where it can't be understood, or that it is too large.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    regex::Regex::new(pattern).map(drop).map_err(|error| error.to_string())
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) =
                map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE))
            {
                found.push(name.to_owned());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// The schema of one kind. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    schemas: Arc<Schemas>,
    root: usize,
}

impl Schema {
    /// The set that this schema is part of.
    pub fn schemas(&self) -> &Arc<Schemas> {
        &self.schemas
    }

    pub(crate) fn root(&self) -> Ref<'_> {
        Ref::new(&self.schemas.nodes, self.root)
    }

    /// Everything that is wrong with `object`, by the schema alone.
    pub fn validate(&self, object: &Value) -> Vec<field::Error> {
        let mut errors = Vec::new();
        validate::validate(self.root(), object, &Path::default(), &mut errors);
        errors
    }

    /// Fills in defaults where their parent is there.
    pub fn default(&self, object: &mut Value) {
        default(self.root(), object);
    }

    /// Takes out the fields that the schema does not know, and nulls where null means nothing. Returns the paths of
    /// the unknown fields (`spec.containers[0].imag`).
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune(self.root(), object, &mut String::new(), &mut unknown);
        unknown
    }
}

fn default(schema: Ref<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties() {
                if let Some(default) =
                    property.node().default.as_ref().filter(|_| !map.contains_key(name))
                {
                    map.insert(name.to_owned(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(child) = schema.child(name).filter(|child| child.node().has_defaults) {
                    default(child, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = schema.items().filter(|child| child.node().has_defaults) {
                items.iter_mut().for_each(|item| default(child, item));
            }
        }
        _ => {}
    }
}

fn prune(schema: Ref<'_>, value: &mut Value, path: &mut String, unknown: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(map) => {
            let node = schema.node();
            let mut kept = Map::new();
            for (name, mut value) in std::mem::take(map) {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(&name);
                match schema.child(&name) {
                    Some(child) if value.is_null() && !child.node().nullable => {}
                    Some(child) => {
                        prune(child, &mut value, path, unknown);
                        kept.insert(name, value);
                    }
                    None if node.open => {
                        kept.insert(name, value);
                    }
                    None => unknown.push(path.clone()),
                }
                path.truncate(length);
            }
            *map = kept;
        }
        Value::Array(items) => {
            let Some(child) = schema.items() else { return };
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                prune(child, item, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;

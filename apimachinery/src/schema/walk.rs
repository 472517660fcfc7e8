//! A compiled schema as a walker sees it.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// The JSON types that a value may have, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Types(pub(super) u8);

impl Types {
    pub(super) const OBJECT: u8 = 1;
    pub(super) const ARRAY: u8 = 2;
    pub(super) const STRING: u8 = 4;
    pub(super) const INTEGER: u8 = 8;
    pub(super) const NUMBER: u8 = 16;
    pub(super) const BOOLEAN: u8 = 32;
}

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListKind<'a> {
    Atomic,
    Set,
    Map(&'a [String]),
}

/// One compiled place of a document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(super) types: Types,
    pub(super) nullable: bool,
    pub(super) properties: BTreeMap<String, usize>,
    pub(super) additional: Option<usize>,
    pub(super) items: Option<usize>,
    pub(super) required: Vec<String>,
    pub(super) allowed: Vec<Value>,
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
    /// Whether the bounds themselves are out of bounds.
    pub(super) exclusive_minimum: bool,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) pattern: Option<Regex>,
    /// What must hold besides: all of these, one of these at least, just one of these, and not that.
    pub(super) all_of: Vec<usize>,
    pub(super) any_of: Vec<usize>,
    pub(super) one_of: Vec<usize>,
    pub(super) not: Option<usize>,
    pub(super) format: Option<String>,
    pub(super) default: Option<Value>,
    /// Whether a default is anywhere below (or might be, where documents refer to themselves).
    pub(super) has_defaults: bool,
    /// Whether what stands here is kept just as a client wrote it: no default goes in.
    pub(super) as_given: bool,
    /// Fields without a schema are kept.
    pub(super) open: bool,
    pub(super) set: bool,
    pub(super) keys: Vec<String>,
    pub(super) atomic: bool,
    pub(super) merge_key: Option<String>,
    pub(super) patch_strategy: String,
}

/// A node with the arena that its children are in.
#[derive(Clone, Copy)]
pub(crate) struct Ref<'a> {
    nodes: &'a [Node],
    index: usize,
}

impl<'a> Ref<'a> {
    pub(super) fn new(nodes: &'a [Node], index: usize) -> Self {
        Ref { nodes, index }
    }

    pub(super) fn node(self) -> &'a Node {
        &self.nodes[self.index]
    }

    pub(super) fn at(self, index: usize) -> Self {
        Ref { nodes: self.nodes, index }
    }

    pub(super) fn properties(self) -> impl Iterator<Item = (&'a str, Ref<'a>)> {
        self.node().properties.iter().map(move |(name, &index)| (name.as_str(), self.at(index)))
    }

    /// The schema of a field: the property of that name, else that of all other fields.
    pub(crate) fn child(self, name: &str) -> Option<Ref<'a>> {
        let node = self.node();
        node.properties.get(name).or(node.additional.as_ref()).map(|&index| self.at(index))
    }

    /// Whether `name` is a field of its own, rather than a key of a map.
    pub(crate) fn has_property(self, name: &str) -> bool {
        self.node().properties.contains_key(name)
    }

    /// Whether fields without a schema are kept.
    pub(crate) fn is_open(self) -> bool {
        self.node().open
    }

    pub(crate) fn items(self) -> Option<Ref<'a>> {
        self.node().items.map(|index| self.at(index))
    }

    pub(crate) fn list_kind(self) -> ListKind<'a> {
        let node = self.node();
        if !node.keys.is_empty() {
            ListKind::Map(&node.keys)
        } else if node.set {
            ListKind::Set
        } else {
            ListKind::Atomic
        }
    }

    /// Whether one manager owns the object as a whole.
    pub(crate) fn is_atomic(self) -> bool {
        self.node().atomic
    }

    /// The default of a field, for keys of list elements that leave it out.
    pub(crate) fn default_of(self, field: &str) -> Option<&'a Value> {
        self.child(field)?.node().default.as_ref()
    }

    /// The key by which a strategic merge patch merges this list.
    pub(crate) fn merge_key(self) -> Option<&'a str> {
        self.node().merge_key.as_deref()
    }

    /// Whether a strategic merge patch does `strategy` here.
    pub(crate) fn patches_by(self, strategy: &str) -> bool {
        self.node().patch_strategy.split(',').any(|s| s == strategy)
    }
}

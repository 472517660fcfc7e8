//! Sets of field paths, and their `FieldsV1` form.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::schema::{ListKind, Ref, Schema, wrong_type};

/// One step of a path. Keys and values are held as their compact JSON, which sorts as `structured-merge-diff` sorts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Field(String),
    /// An element of a list that is a map, by its keys.
    Key(String),
    /// An element of a list that is a set.
    Value(String),
    Index(usize),
}

impl Step {
    fn encode(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Key(json) => format!("k:{json}"),
            Step::Value(json) => format!("v:{json}"),
            Step::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let canonical =
            |json: &str| serde_json::from_str::<Value>(json).ok().map(|value| value.to_string());
        let (kind, rest) = text.split_at_checked(2)?;
        match kind {
            "f:" => Some(Step::Field(rest.to_owned())),
            "k:" => canonical(rest).map(Step::Key),
            "v:" => canonical(rest).map(Step::Value),
            "i:" => rest.parse().ok().map(Step::Index),
            _ => None,
        }
    }

    /// As in conflict messages: `.spec`, `[name="nginx"]`, `[="v"]`, `[0]`.
    fn display(&self) -> String {
        match self {
            Step::Field(name) => format!(".{name}"),
            Step::Key(json) => {
                let keys: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let keys: Vec<String> =
                    keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", keys.join(","))
            }
            Step::Value(json) => format!("[={json}]"),
            Step::Index(index) => format!("[{index}]"),
        }
    }
}

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub(super) members: BTreeSet<Step>,
    pub(super) children: BTreeMap<Step, FieldSet>,
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    fn put_child(&mut self, step: Step, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(step, child);
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &FieldSet) -> FieldSet {
        let mut union = self.clone();
        union.members.extend(other.members.iter().cloned());
        for (step, child) in &other.children {
            let merged =
                union.children.get(step).map_or_else(|| child.clone(), |known| known.union(child));
            union.children.insert(step.clone(), merged);
        }
        union
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut rest = FieldSet {
            members: self.members.difference(&other.members).cloned().collect(),
            children: BTreeMap::new(),
        };
        for (step, child) in &self.children {
            let child = other
                .children
                .get(step)
                .map_or_else(|| child.clone(), |gone| child.difference(gone));
            rest.put_child(step.clone(), child);
        }
        rest
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut both = FieldSet {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: BTreeMap::new(),
        };
        for (step, child) in &self.children {
            if let Some(other) = other.children.get(step) {
                both.put_child(step.clone(), child.intersection(other));
            }
        }
        both
    }

    /// This set with every named field on the way to a member. Keys of maps and elements of lists are not named fields.
    pub(super) fn with_named_fields(&self, schema: Option<Ref<'_>>) -> FieldSet {
        let mut set = FieldSet { members: self.members.clone(), children: BTreeMap::new() };
        for (step, child) in &self.children {
            let below = match step {
                Step::Field(name) => {
                    if is_named(schema, name) {
                        set.members.insert(step.clone());
                    }
                    schema.and_then(|schema| schema.child(name))
                }
                _ => schema.and_then(Ref::items),
            };
            set.children.insert(step.clone(), child.with_named_fields(below));
        }
        set
    }

    /// Every member's path in the form of messages, sorted.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, above: &str, paths: &mut Vec<String>) {
        paths.extend(self.members.iter().map(|step| format!("{above}{}", step.display())));
        for (step, child) in &self.children {
            child.collect(&format!("{above}{}", step.display()), paths);
        }
    }

    /// The `FieldsV1` form.
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        for (step, child) in &self.children {
            let mut value = child.to_fields_v1();
            if self.members.contains(step) {
                value["."] = json!({});
            }
            map.insert(step.encode(), value);
        }
        for step in self.members.iter().filter(|step| !self.children.contains_key(step)) {
            map.insert(step.encode(), json!({}));
        }
        Value::Object(map)
    }

    /// Reads the `FieldsV1` form; `None` if it is none. Steps of a kind not known are passed over.
    pub fn from_fields_v1(value: &Value) -> Option<FieldSet> {
        let mut set = FieldSet::default();
        for (key, value) in value.as_object()? {
            let Some(step) = Step::decode(key) else { continue };
            let below = value.as_object()?;
            if below.is_empty() || below.contains_key(".") {
                set.members.insert(step.clone());
            }
            set.put_child(step, FieldSet::from_fields_v1(value)?);
        }
        Some(set)
    }
}

/// What nobody owns: the identity of the object and what the server writes.
const UNOWNED: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// A set without what nobody owns.
pub(super) fn owned(mut set: FieldSet) -> FieldSet {
    let field = |name: &str| Step::Field(name.to_owned());
    for name in ["apiVersion", "kind", "metadata"] {
        set.members.remove(&field(name));
    }
    set.children.remove(&field("apiVersion"));
    if let Some(metadata) = set.children.get_mut(&field("metadata")) {
        for name in UNOWNED {
            metadata.members.remove(&field(name));
            metadata.children.remove(&field(name));
        }
        if metadata.is_empty() {
            set.children.remove(&field("metadata"));
        }
    }
    set
}

/// The fields that an object has.
pub(super) fn of(schema: &Schema, object: &Value) -> FieldSet {
    owned(collect(Some(schema.root()), object))
}

fn collect(schema: Option<Ref<'_>>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match value {
        Value::Object(map) if !is_atomic(schema) => {
            for (name, value) in map {
                let child = schema.and_then(|schema| schema.child(name));
                let step = Step::Field(name.clone());
                if is_leaf(child, value) || !is_named(schema, name) {
                    set.members.insert(step.clone());
                }
                set.put_child(step, collect(child, value));
            }
        }
        Value::Array(items) => {
            for item in items {
                let Some(step) = step_of(schema, item) else { return FieldSet::default() };
                set.members.insert(step.clone());
                set.put_child(step, collect(schema.and_then(Ref::items), item));
            }
        }
        _ => {}
    }
    set
}

/// Whether a value is owned as a whole.
fn is_leaf(schema: Option<Ref<'_>>, value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty() || is_atomic(schema),
        // (In Kubernetes an empty list of elements has no owner, so that applying one twice takes it out and puts it in.)
        Value::Array(items) => {
            items.is_empty()
                || schema.is_none_or(|schema| schema.list_kind() == ListKind::Atomic)
                || items.iter().any(|item| step_of(schema, item).is_none())
        }
        _ => true,
    }
}

/// Whether `name` is a field that the schema names, rather than a key of a map.
pub(super) fn is_named(schema: Option<Ref<'_>>, name: &str) -> bool {
    schema.is_some_and(|schema| schema.has_property(name))
}

pub(super) fn is_atomic(schema: Option<Ref<'_>>) -> bool {
    schema.is_some_and(Ref::is_atomic)
}

/// How an element of a list is named, or `None` in a list that is owned as a whole.
pub(super) fn step_of(list: Option<Ref<'_>>, item: &Value) -> Option<Step> {
    match list?.list_kind() {
        ListKind::Atomic => None,
        ListKind::Set => Some(Step::Value(item.to_string())),
        ListKind::Map(keys) => {
            let element = list?.items();
            let found: Map<String, Value> = keys
                .iter()
                .filter_map(|key| {
                    let value = item.get(key).or_else(|| element?.default_of(key))?;
                    Some((key.clone(), value.clone()))
                })
                .collect();
            if found.is_empty() {
                return None;
            }
            Some(Step::Key(Value::Object(found).to_string()))
        }
    }
}

/// Everything for which a configuration can't be merged: fields that the schema does not know, values of another type,
/// and elements that can't be told apart.
pub(super) fn problems(schema: &Schema, config: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    find_problems(schema.root(), config, &mut String::new(), &mut problems);
    problems
}

fn find_problems(schema: Ref<'_>, value: &Value, path: &mut String, problems: &mut Vec<String>) {
    let length = path.len();
    if let Some(problem) = wrong_type(schema, value) {
        problems.push(format!("{path}: {problem}"));
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                match schema.child(name) {
                    Some(child) => find_problems(child, value, path, problems),
                    None if schema.is_open() => {}
                    None => problems.push(format!("{path}: field not declared in schema")),
                }
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let step = match (schema.list_kind(), step_of(Some(schema), item)) {
                    (ListKind::Map(keys), None) => {
                        let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
                        problems.push(format!(
                            "{path}: element {index}: associative list with keys has an element that omits all key \
                             fields [{}] (and doesn't have default values for any key fields)",
                            keys.join(" "),
                        ));
                        continue;
                    }
                    (_, Some(step)) => step,
                    (_, None) => Step::Index(index),
                };
                let name = step.display();
                if !seen.insert(step) {
                    problems.push(format!("{path}: duplicate entries for key {name}"));
                }
                path.push_str(&name);
                if let Some(child) = schema.items() {
                    find_problems(child, item, path, problems);
                }
                path.truncate(length);
            }
        }
        _ => {}
    }
}

//! What differs between two versions of an object, as sets of fields.

use std::collections::BTreeMap;

use serde_json::Value;

use super::set::{FieldSet, Step, is_atomic, owned, step_of};
use crate::schema::{Ref, Schema};

#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

pub(super) fn compare(schema: &Schema, old: &Value, new: &Value) -> Difference {
    let difference = walk(Some(schema.root()), old, new);
    Difference {
        added: owned(difference.added),
        modified: owned(difference.modified),
        removed: owned(difference.removed),
    }
}

fn walk(schema: Option<Ref<'_>>, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    for (step, (old, new)) in pairs(schema, old, new) {
        let child = match &step {
            Step::Field(name) => schema.and_then(|schema| schema.child(name)),
            _ => schema.and_then(Ref::items),
        };
        if old == new {
            continue;
        }
        let nothing = &Value::Null;
        let below = if descends(child, old) || descends(child, new) {
            walk(child, old.unwrap_or(nothing), new.unwrap_or(nothing))
        } else {
            Difference::default()
        };
        match (old, new) {
            (None, _) => drop(difference.added.members.insert(step.clone())),
            (_, None) => drop(difference.removed.members.insert(step.clone())),
            (Some(old), Some(new)) => {
                if !(descends(child, Some(old)) && descends(child, Some(new))) {
                    difference.modified.members.insert(step.clone());
                }
            }
        }
        for (set, below) in [
            (&mut difference.added, below.added),
            (&mut difference.modified, below.modified),
            (&mut difference.removed, below.removed),
        ] {
            if !below.is_empty() {
                set.children.insert(step.clone(), below);
            }
        }
    }
    difference
}

/// Whether the parts of a value are owned one by one.
fn descends(schema: Option<Ref<'_>>, value: Option<&Value>) -> bool {
    match value {
        Some(Value::Object(_)) => !is_atomic(schema),
        Some(Value::Array(items)) => {
            schema.is_some_and(|schema| schema.list_kind() != crate::schema::ListKind::Atomic)
                && items.iter().all(|item| step_of(schema, item).is_some())
        }
        _ => false,
    }
}

type Pair<'a> = (Option<&'a Value>, Option<&'a Value>);

/// The parts of both values under their steps.
fn pairs<'a>(schema: Option<Ref<'_>>, old: &'a Value, new: &'a Value) -> BTreeMap<Step, Pair<'a>> {
    let mut pairs: BTreeMap<Step, Pair<'a>> = BTreeMap::new();
    for (step, value) in parts(schema, old) {
        pairs.entry(step).or_default().0.get_or_insert(value);
    }
    for (step, value) in parts(schema, new) {
        pairs.entry(step).or_default().1.get_or_insert(value);
    }
    pairs
}

fn parts<'a>(schema: Option<Ref<'_>>, value: &'a Value) -> Vec<(Step, &'a Value)> {
    match value {
        Value::Object(map) => {
            map.iter().map(|(name, value)| (Step::Field(name.clone()), value)).collect()
        }
        Value::Array(items) => {
            items.iter().filter_map(|item| Some((step_of(schema, item)?, item))).collect()
        }
        _ => Vec::new(),
    }
}

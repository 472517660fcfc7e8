//! Merging a configuration into an object, and taking out what it no longer names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::set::{FieldSet, Step, is_atomic, is_named, step_of};
use crate::schema::{ListKind, Ref};

/// `live` with `config` on top.
pub(super) fn merge(schema: Ref<'_>, live: &Value, config: &Value) -> Value {
    merge_at(Some(schema), live, config)
}

fn merge_at(schema: Option<Ref<'_>>, live: &Value, config: &Value) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !is_atomic(schema) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let child = schema.and_then(|schema| schema.child(name));
                let value = match live.get(name) {
                    Some(live) => merge_at(child, live, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(config)) => match schema {
            Some(list) if list.list_kind() != ListKind::Atomic => merge_lists(list, live, config),
            _ => Value::from(config.as_slice()),
        },
        _ => config.clone(),
    }
}

/// Elements of both lists once each. What both have is in the order of the configuration; what only the live list has
/// stays before what followed it there.
fn merge_lists(list: Ref<'_>, live: &[Value], config: &[Value]) -> Value {
    let steps = |items: &[Value]| -> Option<Vec<Step>> {
        items.iter().map(|item| step_of(Some(list), item)).collect()
    };
    let (Some(live_steps), Some(config_steps)) = (steps(live), steps(config)) else {
        // Elements that can't be told apart can't be merged.
        return Value::from(config);
    };
    let mut live_by_step: BTreeMap<&Step, &Value> = BTreeMap::new();
    for (step, item) in live_steps.iter().zip(live) {
        live_by_step.entry(step).or_insert(item);
    }
    let in_config: BTreeSet<&Step> = config_steps.iter().collect();
    let mut shared = config_steps.iter().filter(|step| live_by_step.contains_key(step)).peekable();
    let mut left = live_steps.iter().zip(live).peekable();
    let mut right = config_steps.iter().zip(config).peekable();
    let mut merged = Vec::with_capacity(live.len() + config.len());
    loop {
        match left.peek().copied() {
            Some((step, item)) if !in_config.contains(step) => {
                merged.push(item.clone());
                left.next();
                continue;
            }
            // Shared, but its turn was before or comes later: it goes where the configuration has it.
            Some((step, _)) if shared.peek() != Some(&step) => {
                left.next();
                continue;
            }
            _ => {}
        }
        let Some((step, item)) = right.next() else { break };
        merged.push(match live_by_step.get(step) {
            Some(live) => merge_at(list.items(), live, item),
            None => item.clone(),
        });
        shared.next_if_eq(&step);
    }
    Value::Array(merged)
}

/// Takes the fields in `gone` out of the object, but for those that another manager owns. A named field stays too if
/// another manager owns something below it; an element or a key goes with all that is in it.
pub(super) fn prune(schema: Ref<'_>, object: &mut Value, gone: &FieldSet, others: &FieldSet) {
    prune_at(Some(schema), object, gone, others);
}

fn prune_at(schema: Option<Ref<'_>>, value: &mut Value, gone: &FieldSet, others: &FieldSet) {
    let nothing = FieldSet::default();
    let keeps = |step: &Step, child: Option<Ref<'_>>, named: bool, value: &mut Value| {
        let is_owned =
            others.members.contains(step) || (named && others.children.contains_key(step));
        if gone.members.contains(step) && !is_owned {
            return false;
        }
        if let Some(below) = gone.children.get(step) {
            prune_at(child, value, below, others.children.get(step).unwrap_or(&nothing));
        }
        true
    };
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let child = schema.and_then(|schema| schema.child(name));
            keeps(&Step::Field(name.clone()), child, is_named(schema, name), value)
        }),
        Value::Array(items) => items.retain_mut(|item| match step_of(schema, item) {
            Some(step) => keeps(&step, schema.and_then(Ref::items), false, item),
            None => true,
        }),
        _ => {}
    }
}

//! Merging a configuration into an object, and taking out what it no longer names.

use serde_json::{Map, Value};

use super::set::{FieldSet, Step, is_atomic, step_of};
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
        (Value::Array(live), Value::Array(config))
            if schema.is_some_and(|schema| schema.list_kind() != ListKind::Atomic) =>
        {
            merge_lists(schema, live, config)
        }
        _ => config.clone(),
    }
}

/// Elements of both lists once each. What both have is in the order of the configuration; what only the live list has
/// stays before what followed it there.
fn merge_lists(schema: Option<Ref<'_>>, live: &[Value], config: &[Value]) -> Value {
    let steps = |items: &[Value]| -> Vec<Option<Step>> {
        items.iter().map(|item| step_of(schema, item)).collect()
    };
    let (live_steps, config_steps) = (steps(live), steps(config));
    let child = schema.and_then(Ref::items);
    let in_live = |step: &Option<Step>| live_steps.iter().position(|known| known == step);
    let mut merged = Vec::new();
    let mut rest = live_steps.iter().zip(live).peekable();
    for (step, item) in config_steps.iter().zip(config) {
        let known = in_live(step);
        while let Some((live_step, live_item)) = rest.peek() {
            if config_steps.contains(live_step) {
                // Shared: it comes at its place in the configuration.
                if known.is_some() && *live_step == step {
                    rest.next();
                }
                break;
            }
            merged.push((*live_item).clone());
            rest.next();
        }
        merged.push(match known {
            Some(at) => merge_at(child, &live[at], item),
            None => item.clone(),
        });
        while rest.peek().is_some_and(|(live_step, _)| {
            config_steps
                .iter()
                .position(|s| s == *live_step)
                .is_some_and(|at| config_steps.iter().position(|s| s == step) >= Some(at))
        }) {
            rest.next();
        }
    }
    merged.extend(
        rest.filter(|(step, _)| !config_steps.contains(step)).map(|(_, item)| item.clone()),
    );
    Value::Array(merged)
}

/// Takes the fields in `gone` out of the object, but for those that another manager owns or owns something below.
pub(super) fn prune(schema: Ref<'_>, object: &mut Value, gone: &FieldSet, others: &FieldSet) {
    prune_at(Some(schema), object, gone, others);
}

fn prune_at(schema: Option<Ref<'_>>, value: &mut Value, gone: &FieldSet, others: &FieldSet) {
    let is_owned =
        |step: &Step| others.members.contains(step) || others.children.contains_key(step);
    let nothing = FieldSet::default();
    match value {
        Value::Object(map) => {
            let mut kept = Map::new();
            for (name, mut value) in std::mem::take(map) {
                let step = Step::Field(name.clone());
                if gone.members.contains(&step) && !is_owned(&step) {
                    continue;
                }
                if let Some(below) = gone.children.get(&step) {
                    let others = others.children.get(&step).unwrap_or(&nothing);
                    prune_at(
                        schema.and_then(|schema| schema.child(&name)),
                        &mut value,
                        below,
                        others,
                    );
                }
                kept.insert(name, value);
            }
            *map = kept;
        }
        Value::Array(items) => {
            items.retain_mut(|item| {
                let Some(step) = step_of(schema, item) else { return true };
                if gone.members.contains(&step) && !is_owned(&step) {
                    return false;
                }
                if let Some(below) = gone.children.get(&step) {
                    let others = others.children.get(&step).unwrap_or(&nothing);
                    prune_at(schema.and_then(Ref::items), item, below, others);
                }
                true
            });
        }
        _ => {}
    }
}

//! Server-side apply: who owns which field, and what follows from it (KEP-555; `structured-merge-diff`).
//!
//! [`apply()`] merges a manager's configuration into the live object; [`update`] records what any other write changed.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::schema::Schema;
use crate::status::{Cause, Status};
use crate::{meta, time};

mod compare;
mod managers;
mod merge;
mod set;

pub use set::FieldSet;

use managers::Managers;

/// The kinds of writes that `managedFields` tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// Who writes, and when.
#[derive(Clone, Debug)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    pub time: Timestamp,
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Records in `new.metadata.managedFields` what a write that is no apply changed of `live`. Never fails: a write does
/// not fail because its bookkeeping would.
pub fn update(live: Option<&Value>, new: &mut Value, manager: &Manager, schema: &Schema) {
    let live_managers = live.map(Managers::of).unwrap_or_default();
    let mut managers = match new["metadata"].get("managedFields") {
        None | Some(Value::Null) => live_managers,
        Some(given) if managers::is_reset(given) => Managers::default(),
        Some(given) => Managers::parse(given).unwrap_or(live_managers),
    };
    // An object that was never tracked and exists already is not tracked from here on either.
    if managers.is_empty()
        && live.is_some_and(|live| live["metadata"].get("managedFields").is_none())
    {
        managers::write(new, &managers);
        return;
    }
    let nothing = Value::Null;
    let difference = compare::compare(schema, live.unwrap_or(&nothing), new);
    let changed = difference.modified.union(&difference.added);
    managers.take(manager, &changed, &difference.removed);
    let own = managers.fields(manager).unwrap_or_default();
    let kept = own.difference(&difference.removed).union(&changed);
    managers.set(manager, kept, !changed.is_empty());
    managers.cap();
    managers::write(new, &managers);
}

/// The object that comes of applying `config` to `live`, with its `managedFields`.
///
/// # Errors
/// 409 with every conflict, unless `force` takes the fields over; 400 with the paths for a configuration that the schema
/// does not know. (Kubernetes answers that with a 500, as if the fault were its own.)
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    manager: &Manager,
    schema: &Schema,
    force: bool,
) -> Result<Value, Status> {
    check(schema, config)?;
    // A null says that nothing is set: it is not owned and does not get into the object.
    let mut pruned = config.clone();
    schema.prune(&mut pruned);
    let nothing = json!({"apiVersion": config["apiVersion"], "kind": config["kind"]});
    let live = live.unwrap_or(&nothing);
    let mut managers = Managers::of(live);
    if managers.is_empty() && !meta::uid(live).is_empty() {
        managers.before_first_apply(manager, set::of(schema, live));
    }
    let applied = set::of(schema, &pruned);
    let last = managers.fields(manager).unwrap_or_default();
    let others = managers.others(manager);

    let mut object = merge::merge(schema.root(), live, &pruned);
    let named = |set: &FieldSet| set.with_named_fields(Some(schema.root()));
    let gone = named(&last).difference(&named(&applied));
    if !gone.is_empty() {
        merge::prune(schema.root(), &mut object, &gone, &others);
    }

    let difference = compare::compare(schema, live, &object);
    let changed = difference.modified.union(&difference.added);
    let conflicts = managers.conflicts(manager, &changed);
    if !conflicts.is_empty() && !force && !left_by_kubectl(live, manager, schema, &conflicts) {
        return Err(conflict(&conflicts));
    }
    managers.take(manager, &changed, &difference.removed);
    managers.set(manager, applied, true);
    if manager.name == "kubectl" && meta::annotation(&object, LAST_APPLIED).is_some() {
        object["metadata"]["annotations"][LAST_APPLIED] = json!(format!("{config}\n"));
    }
    managers::write(&mut object, &managers);
    Ok(object)
}

/// Whether two versions of an object are the same but for the times in their `managedFields`, so that there is
/// nothing to write. The `resourceVersion` is no part of an object's state.
pub fn equal_but_for_times(a: &Value, b: &Value) -> bool {
    let same_entry = |a: &Value, b: &Value| same_but_for(a, b, "time", &|_, _| true);
    let same_entries = |a: &Value, b: &Value| match (a.as_array(), b.as_array()) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_entry(a, b)),
        _ => a == b,
    };
    let same_metadata = |a: &Value, b: &Value| {
        same_but_for(a, b, "managedFields", &|a, b| match (a, b) {
            (Some(a), Some(b)) => same_entries(a, b),
            _ => a == b,
        })
    };
    same_but_for(a, b, "metadata", &|a, b| match (a, b) {
        (Some(a), Some(b)) => same_metadata(a, b),
        _ => a == b,
    })
}

/// Whether two objects have the same fields, where `special` is compared by `same` and `resourceVersion` not at all.
fn same_but_for(
    a: &Value,
    b: &Value,
    special: &str,
    same: &dyn Fn(Option<&Value>, Option<&Value>) -> bool,
) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let rest = |map: &'_ Map<String, Value>| {
        map.keys().filter(|name| *name != special && *name != "resourceVersion").count()
    };
    rest(a) == rest(b)
        && same(a.get(special), b.get(special))
        && a.iter().all(|(name, value)| {
            name == special || name == "resourceVersion" || b.get(name) == Some(value)
        })
}

/// A configuration has only fields that the schema knows, and list elements that can be told apart.
fn check(schema: &Schema, config: &Value) -> Result<(), Status> {
    let problems = set::problems(schema, config);
    let problem = match problems.as_slice() {
        [] => return Ok(()),
        [problem] => problem.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    };
    let (namespace, name) = (meta::namespace(config), meta::name(config));
    let place = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let text = |field: &str| config[field].as_str().unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    Err(Status::bad_request(format!(
        "failed to create typed patch object ({place}; {version}, Kind={kind}): {problem}"
    )))
}

/// One conflict: a manager and the fields of its that would change.
struct Conflict {
    manager: String,
    fields: Vec<String>,
    set: FieldSet,
}

fn conflict(conflicts: &[Conflict]) -> Status {
    let count: usize = conflicts.iter().map(|conflict| conflict.fields.len()).sum();
    let message = if let ([only], 1) = (conflicts, count) {
        format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.fields[0])
    } else {
        let mut message = format!("Apply failed with {count} conflicts:");
        for conflict in conflicts {
            message += &format!(" conflicts with {}:", conflict.manager);
            for field in &conflict.fields {
                message += &format!("\n- {field}");
            }
            message += "\n";
        }
        message.trim_end().replace("\n conflicts", "\nconflicts")
    };
    let causes = conflicts
        .iter()
        .flat_map(|conflict| {
            conflict.fields.iter().map(|field| Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {}", conflict.manager),
                field: field.clone(),
            })
        })
        .collect();
    Status::apply_conflict(message, causes)
}

/// Whether the conflicts are about what kubectl itself applied on the client's side before: then the object moves to
/// server-side apply without `--force-conflicts`.
fn left_by_kubectl(
    live: &Value,
    manager: &Manager,
    schema: &Schema,
    conflicts: &[Conflict],
) -> bool {
    if manager.name != "kubectl" {
        return false;
    }
    let Some(last) = meta::annotation(live, LAST_APPLIED)
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
    else {
        return false;
    };
    let difference = compare::compare(schema, &last, live);
    let untouched =
        set::of(schema, &last).difference(&difference.modified).difference(&difference.removed);
    conflicts.iter().all(|conflict| conflict.set.difference(&untouched).is_empty())
}

fn stamp(time: Timestamp) -> String {
    time::rfc3339(time)
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

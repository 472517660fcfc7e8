//! The entries of `metadata.managedFields`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::set::FieldSet;
use super::{Conflict, Manager, Operation, stamp};

/// More updating managers than this are put together into one.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    operation: Operation,
    api_version: String,
    subresource: String,
    time: String,
    fields: FieldSet,
}

impl Entry {
    /// An applier is one whatever version it applies; an updater is one for each version.
    fn is_of(&self, manager: &Manager) -> bool {
        self.name == manager.name
            && self.operation == manager.operation
            && self.subresource == manager.subresource
            && (self.operation == Operation::Apply || self.api_version == manager.api_version)
    }

    /// As conflict messages name it.
    fn display(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
            if !self.time.is_empty() {
                text += &format!(" at {}", self.time);
            }
        }
        text
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Managers {
    entries: Vec<Entry>,
}

/// A client that sends `[]` or `[{}]` wants tracking to start anew.
pub(super) fn is_reset(given: &Value) -> bool {
    given.as_array().is_some_and(|entries| entries.iter().all(|entry| entry == &json!({})))
}

impl Managers {
    /// The managers of an object; an entry that can't be read is passed over.
    pub(super) fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array();
        Managers { entries: entries.into_iter().flatten().filter_map(entry).collect() }
    }

    /// The managers that a client sent, or `None` if one of them can't be read.
    pub(super) fn parse(given: &Value) -> Option<Self> {
        Some(Managers { entries: given.as_array()?.iter().map(entry).collect::<Option<_>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn fields(&self, manager: &Manager) -> Option<FieldSet> {
        self.entries.iter().find(|entry| entry.is_of(manager)).map(|entry| entry.fields.clone())
    }

    /// What all managers but one own together.
    pub(super) fn others(&self, manager: &Manager) -> FieldSet {
        let others = self.entries.iter().filter(|entry| !entry.is_of(manager));
        others.fold(FieldSet::default(), |all, entry| all.union(&entry.fields))
    }

    pub(super) fn before_first_apply(&mut self, manager: &Manager, fields: FieldSet) {
        self.entries.push(Entry {
            name: BEFORE_FIRST_APPLY.into(),
            operation: Operation::Update,
            api_version: manager.api_version.clone(),
            subresource: String::new(),
            time: stamp(manager.time),
            fields,
        });
    }

    /// Whom a change of `changed` by `manager` would overrule.
    pub(super) fn conflicts(&self, manager: &Manager, changed: &FieldSet) -> Vec<Conflict> {
        let others = self.entries.iter().filter(|entry| !entry.is_of(manager));
        others
            .filter_map(|entry| {
                let set = entry.fields.intersection(changed);
                (!set.is_empty()).then(|| Conflict {
                    manager: entry.display(),
                    fields: set.paths(),
                    set,
                })
            })
            .collect()
    }

    /// Takes what changed and what is gone from all managers but one.
    pub(super) fn take(&mut self, manager: &Manager, changed: &FieldSet, removed: &FieldSet) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.is_of(manager)) {
            entry.fields = entry.fields.difference(changed).difference(removed);
        }
        self.entries.retain(|entry| !entry.fields.is_empty());
    }

    /// Sets what `manager` owns; `touched` stamps the time.
    pub(super) fn set(&mut self, manager: &Manager, fields: FieldSet, touched: bool) {
        let at = self.entries.iter().position(|entry| entry.is_of(manager));
        let time = match at {
            Some(at) if !touched => self.entries[at].time.clone(),
            _ => stamp(manager.time),
        };
        if let Some(at) = at {
            self.entries.remove(at);
        }
        if !fields.is_empty() {
            self.entries.push(Entry {
                name: manager.name.clone(),
                operation: manager.operation,
                api_version: manager.api_version.clone(),
                subresource: manager.subresource.clone(),
                time,
                fields,
            });
        }
    }

    /// Puts the oldest updating managers together when there are too many, those of each version by themselves.
    pub(super) fn cap(&mut self) {
        let (mut updaters, rest): (Vec<Entry>, Vec<Entry>) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| entry.operation == Operation::Update);
        let mut excess = updaters.len().saturating_sub(MAX_UPDATERS);
        if excess > 0 {
            // What was put together before is the oldest, whatever the second says.
            let age =
                |entry: &Entry| (entry.name != ANCIENT, entry.time.clone(), entry.name.clone());
            updaters.sort_by_cached_key(age);
        }
        let mut kept: Vec<Entry> = Vec::with_capacity(updaters.len());
        for entry in updaters {
            let same = |known: &&mut Entry| known.api_version == entry.api_version;
            match kept.iter_mut().find(same).filter(|_| excess > 0) {
                Some(ancient) => {
                    ancient.fields = ancient.fields.union(&entry.fields);
                    ancient.name = ANCIENT.into();
                    ancient.subresource = String::new();
                    ancient.time = entry.time;
                    excess -= 1;
                }
                None => kept.push(entry),
            }
        }
        self.entries = rest;
        self.entries.append(&mut kept);
    }
}

fn entry(value: &Value) -> Option<Entry> {
    let text = |field: &str| value[field].as_str().unwrap_or("").to_owned();
    let operation = match value["operation"].as_str()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    if value["fieldsType"] != "FieldsV1" || text("apiVersion").is_empty() {
        return None;
    }
    let time = text("time");
    if !time.is_empty() && time.parse::<Timestamp>().is_err() {
        return None;
    }
    Some(Entry {
        name: text("manager"),
        operation,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
        time,
        fields: FieldSet::from_fields_v1(&value["fieldsV1"])?,
    })
}

/// Writes the entries into an object, sorted as Kubernetes sorts them.
pub(super) fn write(object: &mut Value, managers: &Managers) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if managers.is_empty() {
        metadata.remove("managedFields");
        return;
    }
    let mut entries: Vec<&Entry> = managers.entries.iter().collect();
    entries.sort_by_key(|entry| {
        (entry.operation, &entry.time, &entry.name, &entry.api_version, &entry.subresource)
    });
    let values: Vec<Value> = entries
        .into_iter()
        .map(|entry| {
            let mut value = json!({
                "manager": entry.name,
                "operation": format!("{:?}", entry.operation),
                "apiVersion": entry.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": entry.fields.to_fields_v1(),
            });
            if !entry.time.is_empty() {
                value["time"] = json!(entry.time);
            }
            if !entry.subresource.is_empty() {
                value["subresource"] = json!(entry.subresource);
            }
            value
        })
        .collect();
    metadata.insert("managedFields".into(), Value::Array(values));
}

//! What KubeFed has set becomes ours with our first write. KubeFed replaced whole objects, so it owns fields by
//! updates: were they left to it, one that the template no longer mentions would stay for ever.

use kubefed_api::MANAGED_LABEL;
use serde_json::{Map, Value, json};

use crate::client::FIELD_MANAGER;

/// Whether KubeFed has written the object and we have not.
pub(in super::super) fn is_due(managed_fields: &Value) -> bool {
    kubefed(managed_fields).is_some()
}

/// The managed fields as they are to be: those of KubeFed are what we have applied.
pub(super) fn handed_over(managed_fields: &Value) -> Option<Value> {
    let kubefed = kubefed(managed_fields)?;
    let (theirs, mut fields): (Vec<&Value>, Vec<&Value>) = managed_fields
        .as_array()?
        .iter()
        .partition(|entry| is_update(entry) && entry["manager"] == kubefed);
    let mut ours = (*theirs.iter().max_by_key(|entry| entry["time"].as_str())?).clone();
    ours["manager"] = json!(FIELD_MANAGER);
    ours["operation"] = json!("Apply");
    for entry in theirs {
        unite(&mut ours["fieldsV1"], &entry["fieldsV1"]);
    }
    fields.push(&ours);
    Some(json!(fields))
}

/// The name by which KubeFed wrote: its binary's, which is not the same everywhere, but none other sets the mark.
fn kubefed(managed_fields: &Value) -> Option<&str> {
    let entries = || managed_fields.as_array().into_iter().flatten();
    if entries().any(|entry| entry["operation"] == "Apply" && entry["manager"] == FIELD_MANAGER) {
        return None;
    }
    let mark = format!("f:{MANAGED_LABEL}");
    let has_set = |entry: &&Value| !entry["fieldsV1"]["f:metadata"]["f:labels"][&mark].is_null();
    entries().filter(|entry| is_update(entry)).find(has_set)?["manager"].as_str()
}

fn is_update(entry: &Value) -> bool {
    let subresource = entry["subresource"].as_str().unwrap_or("");
    entry["operation"] == "Update" && subresource.is_empty()
}

/// Adds a set of fields to another.
fn unite(fields: &mut Value, more: &Value) {
    let Some(more) = more.as_object() else { return };
    if !fields.is_object() {
        *fields = Value::Object(Map::new());
    }
    for (name, below) in more {
        unite(&mut fields[name], below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, time: &str, fields: Value) -> Value {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    }

    #[test]
    fn the_fields_of_whoever_has_set_the_mark_are_applied_by_us() {
        let marked = json!({"f:metadata": {"f:labels": {".": {}, "f:kubefed.io/managed": {}}}});
        let data = json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:data": {"f:key": {}}});
        let mut status = entry("controller-manager", "Update", "9", json!({"f:status": {}}));
        status["subresource"] = json!("status");
        let kubectl = entry("kubectl", "Update", "8", json!({"f:data": {"f:other": {}}}));
        let before = json!([
            entry("controller-manager", "Update", "1", marked.clone()),
            kubectl,
            entry("controller-manager", "Update", "2", data),
            status,
        ]);
        assert!(is_due(&before));
        let all = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:kubefed.io/managed": {}}},
            "f:data": {"f:key": {}},
        });
        let after = handed_over(&before).unwrap();
        let wanted = json!([kubectl, status, entry("kubefed", "Apply", "2", all)]);
        assert_eq!(after, wanted);
        assert!(!is_due(&after), "it is done once");
        for others in [
            json!(null),
            json!([entry("kubectl", "Update", "1", json!({"f:data": {}}))]),
            json!([
                entry("a", "Update", "1", marked.clone()),
                entry("kubefed", "Apply", "2", marked)
            ]),
        ] {
            assert_eq!(handed_over(&others), None, "{others}");
        }
    }
}

//! An object as `autoscaling/v1 Scale`, and back.

use kubefed_apimachinery::definition::Scale;
use kubefed_apimachinery::labels;
use serde_json::{Value, json};

/// The `Scale` of an object.
pub(crate) fn of(object: &Value, paths: &Scale) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {"replicas": at(object, &paths.spec_replicas).and_then(Value::as_i64).unwrap_or(0)},
        "status": {"replicas": at(object, &paths.status_replicas).and_then(Value::as_i64).unwrap_or(0)},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            scale["metadata"][field] = value.clone();
        }
    }
    match paths.selector.as_deref().and_then(|path| at(object, path)) {
        // Custom resources keep it as it is written here.
        Some(Value::String(selector)) => scale["status"]["selector"] = json!(selector),
        Some(selector) => {
            if let Ok(selector) = labels::Selector::from_label_selector(selector) {
                scale["status"]["selector"] = json!(selector.to_string());
            }
        }
        None => {}
    }
    scale
}

/// Puts the replicas of a `Scale` into its object.
pub(crate) fn set_replicas(object: &mut Value, paths: &Scale, replicas: i64) {
    set_at(object, &paths.spec_replicas, json!(replicas));
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, field| value.get(field))
}

fn set_at(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for field in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[field];
    }
    *place = value;
}

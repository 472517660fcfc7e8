//! Object metadata: reading it, and the rules that hold for every kind.

use serde_json::{Value, json};

use crate::field::{self, Path};
use crate::names;

/// The bound of Kubernetes on all annotations of an object, keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;
const FIELD_MANAGER_MAX: usize = 128;

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or("")
}

pub fn name(object: &Value) -> &str {
    text(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

pub fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

/// The base that the server is to make a name of.
pub fn generate_name(object: &Value) -> Option<&str> {
    Some(text(object, "generateName")).filter(|base| !base.is_empty())
}

pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    object["metadata"]["deletionTimestamp"].as_str()
}

pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(key)?.as_str()
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(key)?.as_str()
}

pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Sets `metadata.name` of an object; does nothing to what is no object.
pub fn set_name(object: &mut Value, name: &str) {
    if object.is_object() && (object["metadata"].is_object() || object["metadata"].is_null()) {
        object["metadata"]["name"] = json!(name);
    }
}

pub fn set_api_version(object: &mut Value, api_version: &str) {
    if object.is_object() {
        object["apiVersion"] = json!(api_version);
    }
}

/// Checks the metadata of an object that is to be stored. `valid_name` says what a name of its kind may be.
pub fn validate(
    object: &Value,
    namespaced: bool,
    valid_name: fn(&str) -> Vec<String>,
) -> Vec<field::Error> {
    let path = Path::root("metadata");
    let mut errors = Vec::new();
    let name = name(object);
    if name.is_empty() {
        errors
            .push(field::Error::required(&path.child("name"), "name or generateName is required"));
    }
    for problem in valid_name(name).into_iter().filter(|_| !name.is_empty()) {
        errors.push(field::Error::invalid(&path.child("name"), json!(name), problem));
    }
    let namespace = namespace(object);
    if namespaced {
        for problem in names::dns1123_label(namespace) {
            errors.push(field::Error::invalid(&path.child("namespace"), json!(namespace), problem));
        }
    } else if !namespace.is_empty() {
        errors.push(field::Error::forbidden(&path.child("namespace"), "not allowed on this type"));
    }
    let metadata = &object["metadata"];
    validate_labels(&metadata["labels"], &path.child("labels"), &mut errors);
    validate_annotations(&metadata["annotations"], &path.child("annotations"), &mut errors);
    for (index, finalizer) in finalizers(object).enumerate() {
        for problem in names::qualified_name(finalizer) {
            errors.push(field::Error::invalid(
                &path.child("finalizers").index(index),
                json!(finalizer),
                problem,
            ));
        }
    }
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let mut controllers = 0;
    for (index, owner) in owners.enumerate() {
        let path = path.child("ownerReferences").index(index);
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                errors.push(field::Error::required(&path.child(field), "must not be empty"));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let path = path.child("ownerReferences");
        errors.push(field::Error::invalid(
            &path,
            json!(controllers),
            "Only one reference can have Controller set to true",
        ));
    }
    for (index, entry) in metadata["managedFields"].as_array().into_iter().flatten().enumerate() {
        if entry["manager"].as_str().is_some_and(|manager| manager.len() > FIELD_MANAGER_MAX) {
            let path = path.child("managedFields").index(index).child("manager");
            errors.push(field::Error::too_long(&path, Value::Null, FIELD_MANAGER_MAX));
        }
    }
    errors
}

fn validate_labels(labels: &Value, path: &Path, errors: &mut Vec<field::Error>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        for problem in names::qualified_name(key) {
            errors.push(field::Error::invalid(path, json!(key), problem));
        }
        for problem in names::label_value(value.as_str().unwrap_or("")) {
            errors.push(field::Error::invalid(path, value.clone(), problem));
        }
    }
}

fn validate_annotations(annotations: &Value, path: &Path, errors: &mut Vec<field::Error>) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.push(field::Error::invalid(path, json!(key), problem));
        }
    }
    if size > ANNOTATIONS_MAX {
        errors.push(field::Error::too_long(path, Value::Null, ANNOTATIONS_MAX));
    }
}

/// While an object is being deleted, finalizers only leave.
pub fn validate_update(new: &Value, old: &Value) -> Vec<field::Error> {
    if deletion_timestamp(old).is_none() {
        return Vec::new();
    }
    let added: Vec<&str> =
        finalizers(new).filter(|f| finalizers(old).all(|known| known != *f)).collect();
    if added.is_empty() {
        return Vec::new();
    }
    let text = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
    );
    vec![field::Error::forbidden(&Path::root("metadata").child("finalizers"), text)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(object: &Value) -> Vec<String> {
        validate(object, true, names::dns1123_subdomain).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn metadata_is_checked_for_every_kind() {
        assert!(
            errors(&json!({"metadata": {"name": "a", "namespace": "b", "labels": {"x/y": "z"}}}))
                .is_empty()
        );
        let wrong = errors(&json!({"metadata": {
            "name": "A", "namespace": "b.c", "labels": {"-": "x y"}, "annotations": {"a b": ""},
            "finalizers": ["/x"], "ownerReferences": [{"kind": "X"}],
        }}));
        assert_eq!(wrong.len(), 9, "{wrong:#?}");
    }

    #[test]
    fn a_finalizer_cannot_come_once_the_object_is_being_deleted() {
        let old = json!({"metadata": {"deletionTimestamp": "x", "finalizers": ["a/b"]}});
        let new = json!({"metadata": {"finalizers": ["a/b", "c/d"]}});
        assert!(validate_update(&new, &old)[0].to_string().contains(r#"[]string{"c/d"}"#));
        assert!(validate_update(&json!({"metadata": {}}), &old).is_empty());
    }
}

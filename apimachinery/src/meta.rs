//! Object metadata: reading it, and the rules that hold for every kind.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{self, Path};
use crate::names;

/// The bound of Kubernetes on all annotations of an object, keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;
const FIELD_MANAGER_MAX: usize = 128;

/// The finalizers by which the garbage collector knows what to do with dependents.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

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

/// Checks the metadata of an object that is to be stored; the types of its fields are the schema's to check.
/// `valid_name` says what a name of its kind may be.
pub fn validate(
    object: &Value,
    namespaced: bool,
    valid_name: fn(&str) -> Vec<String>,
) -> Vec<field::Error> {
    let path = Path::root("metadata");
    let mut errors = Vec::new();
    if let Some(base) = generate_name(object) {
        let path = path.child("generateName");
        invalid(&path, base, valid_name(&without_dash(base)), &mut errors);
    }
    match name(object) {
        "" => errors
            .push(field::Error::required(&path.child("name"), "name or generateName is required")),
        name => invalid(&path.child("name"), name, valid_name(name), &mut errors),
    }
    let namespace_path = path.child("namespace");
    match (namespaced, namespace(object)) {
        (true, "") => errors.push(field::Error::required(&namespace_path, "")),
        (true, namespace) => {
            invalid(&namespace_path, namespace, names::dns1123_label(namespace), &mut errors);
        }
        (false, "") => {}
        (false, _) => {
            errors.push(field::Error::forbidden(&namespace_path, "not allowed on this type"));
        }
    }
    if generation(object) < 0 {
        let path = path.child("generation");
        let problem = "must be greater than or equal to 0";
        errors.push(field::Error::invalid(&path, json!(generation(object)), problem));
    }
    let metadata = &object["metadata"];
    validate_labels(&metadata["labels"], &path.child("labels"), &mut errors);
    validate_annotations(&metadata["annotations"], &path.child("annotations"), &mut errors);
    validate_owners(&metadata["ownerReferences"], &path.child("ownerReferences"), &mut errors);
    validate_finalizers(object, &path.child("finalizers"), &mut errors);
    for (index, entry) in metadata["managedFields"].as_array().into_iter().flatten().enumerate() {
        if entry["manager"].as_str().is_some_and(|manager| manager.len() > FIELD_MANAGER_MAX) {
            let path = path.child("managedFields").index(index).child("manager");
            errors.push(field::Error::too_long(&path, Value::Null, FIELD_MANAGER_MAX));
        }
    }
    errors
}

fn invalid(path: &Path, value: &str, problems: Vec<String>, errors: &mut Vec<field::Error>) {
    let error = |problem| field::Error::invalid(path, json!(value), problem);
    errors.extend(problems.into_iter().map(error));
}

/// The base of a generated name may end in a dash: what follows makes it a name.
fn without_dash(base: &str) -> String {
    base.strip_suffix('-')
        .filter(|rest| !rest.is_empty())
        .map_or_else(|| base.to_owned(), |rest| format!("{rest}a"))
}

fn validate_labels(labels: &Value, path: &Path, errors: &mut Vec<field::Error>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or("");
        invalid(path, key, names::qualified_name(key), errors);
        invalid(path, value, names::label_value(value), errors);
    }
}

fn validate_annotations(annotations: &Value, path: &Path, errors: &mut Vec<field::Error>) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        invalid(path, key, names::qualified_name(&key.to_lowercase()), errors);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(field::Error::too_long(path, Value::Null, ANNOTATIONS_MAX));
    }
}

/// All errors stand at the list itself, as in Kubernetes.
fn validate_owners(owners: &Value, path: &Path, errors: &mut Vec<field::Error>) {
    let mut controller: Option<String> = None;
    for owner in owners.as_array().into_iter().flatten() {
        let text = |field: &str| owner[field].as_str().unwrap_or("");
        let group_version = text("apiVersion");
        let version = group_version.split_once('/').map_or(group_version, |(_, version)| version);
        if version.is_empty() {
            let path = path.child("apiVersion");
            invalid(&path, group_version, vec!["version must not be empty".into()], errors);
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                invalid(&path.child(field), "", vec!["must not be empty".into()], errors);
            }
        }
        if (group_version, text("kind")) == ("v1", "Event") {
            let problem = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(field::Error::invalid(path, owner.clone(), problem));
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let problem = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for \
                         {first} and {this}"
                    );
                    errors.push(field::Error::invalid(path, owners.clone(), problem));
                }
            }
        }
    }
}

fn validate_finalizers(object: &Value, path: &Path, errors: &mut Vec<field::Error>) {
    for finalizer in finalizers(object) {
        invalid(path, finalizer, names::qualified_name(finalizer), errors);
    }
    if [ORPHAN, FOREGROUND].iter().all(|wanted| finalizers(object).any(|f| f == *wanted)) {
        let problem = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        let all: Value = finalizers(object).collect();
        errors.push(field::Error::invalid(path, all, problem));
    }
}

/// While an object is being deleted, finalizers only leave.
pub fn validate_update(new: &Value, old: &Value) -> Vec<field::Error> {
    if deletion_timestamp(old).is_none() {
        return Vec::new();
    }
    let added: BTreeSet<&str> =
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

    fn errors(metadata: Value) -> Vec<String> {
        let object = json!({"metadata": metadata});
        validate(&object, true, names::dns1123_subdomain).iter().map(ToString::to_string).collect()
    }

    /// Each row: fields beside a good name and namespace, and the beginnings of what is told about them.
    #[test]
    fn metadata_is_refused_in_the_words_of_kubernetes() {
        let owner = |name: &str, controller: bool| json!({"apiVersion": "v1", "kind": "X", "name": name, "uid": "u", "controller": controller});
        for (fields, wanted) in [
            (json!({}), vec![]),
            (
                json!({"name": ""}),
                vec!["metadata.name: Required value: name or generateName is required"],
            ),
            (
                json!({"name": "A"}),
                vec![r#"metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must"#],
            ),
            (json!({"generateName": "a-"}), vec![]),
            (
                json!({"generateName": "A-"}),
                vec![r#"metadata.generateName: Invalid value: "A-": a lowercase RFC"#],
            ),
            (
                json!({"generateName": "-"}),
                vec![r#"metadata.generateName: Invalid value: "-": a lowercase RFC"#],
            ),
            (json!({"namespace": ""}), vec!["metadata.namespace: Required value"]),
            (
                json!({"namespace": "b.c"}),
                vec![r#"metadata.namespace: Invalid value: "b.c": must not contain dots"#],
            ),
            (
                json!({"generation": -1}),
                vec!["metadata.generation: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (json!({"labels": {"example.com/App": "a.b_C", "empty": ""}}), vec![]),
            (
                json!({"labels": {"-": "x"}}),
                vec![r#"metadata.labels: Invalid value: "-": name part must consist of"#],
            ),
            (
                json!({"labels": {"/a": "x"}}),
                vec![r#"metadata.labels: Invalid value: "/a": prefix part must be non-empty"#],
            ),
            (
                json!({"labels": {"a/b/c": "x"}}),
                vec![
                    r#"metadata.labels: Invalid value: "a/b/c": a valid label key must consist of"#,
                ],
            ),
            (
                json!({"labels": {"a": "x y"}}),
                vec![r#"metadata.labels: Invalid value: "x y": a valid label must be"#],
            ),
            (
                json!({"labels": {"a": "x".repeat(64)}}),
                vec![&format!(
                    "metadata.labels: Invalid value: {:?}: must be no more than 63 bytes",
                    "x".repeat(64)
                )],
            ),
            (json!({"annotations": {"Example.COM/A": "any text at all: ü"}}), vec![]),
            (
                json!({"annotations": {"a b": ""}}),
                vec![r#"metadata.annotations: Invalid value: "a b": name part must"#],
            ),
            (json!({"annotations": {"a": "x".repeat(ANNOTATIONS_MAX - 1)}}), vec![]),
            (
                json!({"annotations": {"a": "x".repeat(ANNOTATIONS_MAX)}}),
                vec!["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (json!({"finalizers": ["example.com/hold", "orphan"]}), vec![]),
            (
                json!({"finalizers": ["/x"]}),
                vec![r#"metadata.finalizers: Invalid value: "/x": prefix part must be non-empty"#],
            ),
            (
                json!({"finalizers": ["orphan", "foregroundDeletion"]}),
                vec![
                    r#"metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and foregroundDeletion cannot be both set"#,
                ],
            ),
            (json!({"ownerReferences": [owner("a", true), owner("b", false)]}), vec![]),
            (
                json!({"ownerReferences": [{"apiVersion": "apps/"}]}),
                vec![
                    r#"metadata.ownerReferences.apiVersion: Invalid value: "apps/": version must not be empty"#,
                    r#"metadata.ownerReferences.kind: Invalid value: "": must not be empty"#,
                    r#"metadata.ownerReferences.name: Invalid value: "": must not be empty"#,
                    r#"metadata.ownerReferences.uid: Invalid value: "": must not be empty"#,
                ],
            ),
            (
                json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "a", "uid": "u"}]}),
                vec![
                    r#"metadata.ownerReferences: Invalid value: {"apiVersion":"v1","kind":"Event","name":"a","uid":"u"}: /v1, Kind=Event is disallowed"#,
                ],
            ),
            (
                json!({"ownerReferences": [owner("a", true), owner("b", true)]}),
                vec![
                    r#"metadata.ownerReferences: Invalid value: [{"apiVersion":"v1","controller":true,"kind":"X","name":"a","uid":"u"},"#,
                ],
            ),
            (
                json!({"managedFields": [{"manager": "m".repeat(129)}]}),
                vec!["metadata.managedFields[0].manager: Too long: may not be more than 128 bytes"],
            ),
        ] {
            let mut metadata = json!({"name": "a", "namespace": "b"});
            for (field, value) in fields.as_object().unwrap() {
                metadata[field] = value.clone();
            }
            let told = errors(metadata);
            assert_eq!(told.len(), wanted.len(), "{told:#?}");
            for (told, wanted) in told.iter().zip(wanted) {
                assert!(told.starts_with(wanted), "{told}\n{wanted}");
            }
        }
        let second = errors(
            json!({"name": "a", "namespace": "b", "ownerReferences": [owner("a", true), owner("b", true)]}),
        );
        assert!(second[0].ends_with(r#"Found "true" in references for X/a and X/b"#), "{second:?}");
    }

    #[test]
    fn a_cluster_scoped_object_has_no_namespace() {
        let validate = |object| validate(&object, false, names::path_segment);
        assert!(validate(json!({"metadata": {"name": "system:node"}})).is_empty());
        assert_eq!(
            validate(json!({"metadata": {"name": "a", "namespace": "b"}}))[0].to_string(),
            "metadata.namespace: Forbidden: not allowed on this type"
        );
    }

    #[test]
    fn a_finalizer_cannot_come_once_the_object_is_being_deleted() {
        let old = json!({"metadata": {"deletionTimestamp": "x", "finalizers": ["a/b"]}});
        let new = json!({"metadata": {"finalizers": ["a/b", "e/f", "c/d", "c/d"]}});
        assert_eq!(
            validate_update(&new, &old)[0].to_string(),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, \
             found new finalizers []string{\"c/d\", \"e/f\"}"
        );
        assert!(validate_update(&json!({"metadata": {}}), &old).is_empty());
        assert!(validate_update(&new, &json!({"metadata": {}})).is_empty());
    }

    #[test]
    fn what_is_no_object_has_no_metadata() {
        for value in
            [json!(null), json!([]), json!("x"), json!({"metadata": []}), json!({"metadata": 1})]
        {
            let mut changed = value.clone();
            set_name(&mut changed, "a");
            assert_eq!((name(&value), namespace(&value), generation(&value)), ("", "", 0));
            assert_eq!(finalizers(&value).count() + usize::from(label(&value, "a").is_some()), 0);
            assert!(!validate(&value, true, names::dns1123_label).is_empty());
        }
    }
}

//! Overrides: what is different in some clusters.

use std::collections::HashSet;

use kubefed_apimachinery::field;
use kubefed_apimachinery::patch::json::{Operation, apply_operations, pointer};
use serde_json::{Value, json};

/// What an override must not touch: the identity of the object.
const FORBIDDEN: &[&str] =
    &["/metadata/namespace", "/metadata/name", "/metadata/generateName", "/kind"];

/// Everything that is wrong with the overrides of a federated object, whatever its template.
pub fn validate_object(object: &Value) -> Vec<field::Error> {
    let root = field::Path::root("spec").child("overrides");
    let mut errors = Vec::new();
    let mut clusters = HashSet::new();
    for (index, entry) in object["spec"]["overrides"].as_array().into_iter().flatten().enumerate() {
        let path = root.index(index);
        let cluster = entry["clusterName"].as_str().unwrap_or("");
        if cluster.is_empty() {
            errors.push(field::Error::required(&path.child("clusterName"), ""));
        } else if !clusters.insert(cluster) {
            errors.push(field::Error::duplicate(&path.child("clusterName"), json!(cluster)));
        }
        let mut seen = HashSet::new();
        for (index, change) in
            entry["clusterOverrides"].as_array().into_iter().flatten().enumerate()
        {
            let at = path.child("clusterOverrides").index(index).child("path");
            let target = change["path"].as_str().unwrap_or("");
            if FORBIDDEN.contains(&target) {
                errors.push(field::Error::forbidden(
                    &at,
                    format!("{target} cannot be overridden: it is the identity of the object"),
                ));
            } else if target.is_empty() {
                errors.push(field::Error::required(&at, "a JSON pointer such as /spec/replicas"));
            } else if let Err(problem) = pointer(target) {
                errors.push(field::Error::invalid(&at, json!(target), problem.to_string()));
            } else if !seen.insert(target) {
                errors.push(field::Error::duplicate(&at, json!(target)));
            }
        }
    }
    errors
}

/// The changes for one cluster, in order.
pub fn for_cluster(object: &Value, cluster: &str) -> Vec<Operation> {
    let entries = object["spec"]["overrides"].as_array().into_iter().flatten();
    entries
        .filter(|entry| entry["clusterName"] == cluster)
        .flat_map(|entry| entry["clusterOverrides"].as_array().into_iter().flatten())
        .map(|change| Operation {
            op: change["op"].as_str().filter(|op| !op.is_empty()).unwrap_or("replace").to_owned(),
            path: change["path"].as_str().unwrap_or("").to_owned(),
            from: String::new(),
            value: change["value"].clone(),
        })
        .collect()
}

/// Applies the changes for one cluster.
///
/// # Errors
/// Which change does not fit the object.
pub fn apply(desired: &mut Value, changes: &[Operation]) -> Result<(), String> {
    for change in changes {
        if FORBIDDEN.contains(&change.path.as_str()) {
            return Err(format!("{} cannot be overridden", change.path));
        }
        apply_operations(desired, std::slice::from_ref(change))
            .map_err(|error| format!("override {} {}: {error}", change.op, change.path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_overrides_are_told_with_their_paths() {
        let object = json!({"spec": {"overrides": [
            {"clusterName": "a", "clusterOverrides": [{"path": "/metadata/name", "value": "x"}, {"path": "spec"}, {"path": "/a"}, {"path": "/a"}]},
            {"clusterName": "a"},
            {},
        ]}});
        let errors: Vec<String> = validate_object(&object)
            .into_iter()
            .map(|error| format!("{:?} {}", error.kind, error.path))
            .collect();
        assert_eq!(
            errors,
            [
                "Forbidden spec.overrides[0].clusterOverrides[0].path",
                "Invalid spec.overrides[0].clusterOverrides[1].path",
                "Duplicate spec.overrides[0].clusterOverrides[3].path",
                "Duplicate spec.overrides[1].clusterName",
                "Required spec.overrides[2].clusterName",
            ]
        );
    }

    #[test]
    fn a_missing_member_is_put_there_and_a_missing_parent_is_an_error() {
        let object = json!({"spec": {"overrides": [{"clusterName": "a", "clusterOverrides": [{"path": "/spec/replicas", "value": 2}]}]}});
        let mut desired = json!({"spec": {}});
        apply(&mut desired, &for_cluster(&object, "a")).unwrap();
        assert_eq!(desired["spec"]["replicas"], 2);
        assert!(apply(&mut json!({}), &for_cluster(&object, "a")).is_err());
        assert!(for_cluster(&object, "b").is_empty());
    }
}

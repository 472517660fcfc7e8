//! `rbac.authorization.k8s.io` bindings: the role that a binding refers to never changes.

use kubefed_apimachinery::definition::Strategy;
use kubefed_apimachinery::field;
use serde_json::{Value, json};

pub(super) const BINDING: Strategy =
    Strategy { defaults, validate, validate_update, ..Strategy::NONE };

fn defaults(binding: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if binding["roleRef"].is_object()
        && binding["roleRef"]["apiGroup"].as_str().is_none_or(str::is_empty)
    {
        binding["roleRef"]["apiGroup"] = json!(GROUP);
    }
    let subjects = binding.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        if subject["kind"] != "ServiceAccount"
            && subject["apiGroup"].as_str().is_none_or(str::is_empty)
            && subject.is_object()
        {
            subject["apiGroup"] = json!(GROUP);
        }
    }
}

fn validate(binding: &Value) -> Vec<field::Error> {
    let path = field::Path::root("roleRef");
    let kinds: &[&str] =
        if binding["kind"] == "RoleBinding" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let role = &binding["roleRef"];
    let mut errors = Vec::new();
    if !kinds.iter().any(|kind| role["kind"] == *kind) {
        errors.push(field::Error::not_supported(&path.child("kind"), role["kind"].clone(), kinds));
    }
    if role["name"].as_str().is_none_or(str::is_empty) {
        errors.push(field::Error::required(&path.child("name"), ""));
    }
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<field::Error> {
    if new["roleRef"] == old["roleRef"] {
        return Vec::new();
    }
    vec![field::Error::invalid(
        &field::Path::root("roleRef"),
        new["roleRef"].clone(),
        "cannot change roleRef",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_may_have_no_subjects() {
        let mut binding = json!({"roleRef": {"kind": "ClusterRole", "name": "view"}});
        defaults(&mut binding);
        assert_eq!(binding.get("subjects"), None);
        assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    }
}

//! `rbac.authorization.k8s.io` bindings: the role that a binding refers to never changes.

use kubefed_apimachinery::definition::Strategy;
use kubefed_apimachinery::field;
use serde_json::{Value, json};

pub(super) const BINDING: Strategy = Strategy { defaults, validate_update, ..Strategy::NONE };

fn defaults(binding: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if binding["roleRef"].is_object()
        && binding["roleRef"]["apiGroup"].as_str().is_none_or(str::is_empty)
    {
        binding["roleRef"]["apiGroup"] = json!(GROUP);
    }
    for subject in binding["subjects"].as_array_mut().into_iter().flatten() {
        if subject["kind"] != "ServiceAccount"
            && subject["apiGroup"].as_str().is_none_or(str::is_empty)
            && subject.is_object()
        {
            subject["apiGroup"] = json!(GROUP);
        }
    }
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

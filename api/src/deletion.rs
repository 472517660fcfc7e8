//! How the members' objects are to be deleted with their federated object.

use kubefed_apimachinery::meta;
use serde_json::{Value, json};

use crate::{DELETE_OPTIONS_ANNOTATION, ORPHAN_ANNOTATION};

/// Whether the members' objects stay when the federated one is deleted.
pub fn orphans(object: &Value) -> bool {
    meta::annotation(object, ORPHAN_ANNOTATION) == Some("true")
}

/// The options for deletions in members, as the annotation gives them. Of those that Kubernetes has, three count.
///
/// # Errors
/// Why the annotation can't be understood. Whoever asked for something must not get something else: nothing is to be
/// deleted then.
pub fn options(object: &Value) -> Result<Value, String> {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    let Some(text) = meta::annotation(object, DELETE_OPTIONS_ANNOTATION) else {
        return Ok(options);
    };
    let wrong = |why: String| {
        format!(
            "the annotation {DELETE_OPTIONS_ANNOTATION} is not understood, so nothing is deleted until it is changed or taken off: {why}"
        )
    };
    let given: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if !given.is_object() {
        return Err(wrong("it is no JSON object".into()));
    }
    for (field, is_good, kind) in [
        ("gracePeriodSeconds", Value::is_i64 as fn(&Value) -> bool, "a whole number"),
        ("propagationPolicy", Value::is_string, "a text"),
        ("preconditions", Value::is_object, "an object"),
    ] {
        match given.get(field).filter(|value| !value.is_null()) {
            Some(value) if is_good(value) => options[field] = value.clone(),
            Some(_) => return Err(wrong(format!("{field} must be {kind}"))),
            None => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_from_the_annotation_or_refused_as_a_whole() {
        let of = |text: &str| {
            options(&json!({"metadata": {"annotations": {DELETE_OPTIONS_ANNOTATION: text}}}))
        };
        let plain = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        assert_eq!(options(&json!({})).unwrap(), plain);
        assert_eq!(of("{}").unwrap(), plain);
        assert_eq!(of(r#"{"dryRun": ["All"], "propagationPolicy": null}"#).unwrap(), plain);
        let mut wanted = plain;
        wanted["propagationPolicy"] = json!("Orphan");
        wanted["gracePeriodSeconds"] = json!(0);
        wanted["preconditions"] = json!({"uid": "u"});
        let text = r#"{"propagationPolicy": "Orphan", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}}"#;
        assert_eq!(of(text).unwrap(), wanted);
        for (text, why) in [
            ("", "EOF"),
            ("Orphan", "expected"),
            ("[]", "no JSON object"),
            (r#"{"propagationPolicy": 1}"#, "propagationPolicy must be a text"),
            (r#"{"gracePeriodSeconds": "0"}"#, "gracePeriodSeconds must be a whole number"),
        ] {
            let told = of(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    #[test]
    fn only_the_word_true_orphans() {
        for (value, orphaned) in [("true", true), ("false", false), ("True", false), ("", false)] {
            let object = json!({"metadata": {"annotations": {ORPHAN_ANNOTATION: value}}});
            assert_eq!(orphans(&object), orphaned, "{value}");
        }
        assert!(!orphans(&json!({})));
    }
}

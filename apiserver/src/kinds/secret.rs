//! `v1 Secret`: `stringData` goes into `data`, values are base64, an immutable secret stays as it is.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_apimachinery::definition::Strategy;
use kubefed_apimachinery::field;
use serde_json::{Value, json};

use super::configmap::{self, MAX_DATA};

pub(super) const STRATEGY: Strategy =
    Strategy { defaults, validate, validate_update, ..Strategy::NONE };

fn defaults(secret: &mut Value) {
    if let Some(strings) = secret.as_object_mut().and_then(|secret| secret.remove("stringData"))
        && let Value::Object(strings) = strings
    {
        if !secret["data"].is_object() {
            secret["data"] = json!({});
        }
        for (key, value) in strings {
            secret["data"][key] = json!(BASE64_STANDARD.encode(value.as_str().unwrap_or("")));
        }
    }
    if secret["type"].as_str().is_none_or(str::is_empty) {
        secret["type"] = json!("Opaque");
    }
}

fn validate(secret: &Value) -> Vec<field::Error> {
    let path = field::Path::root("data");
    let mut errors = configmap::validate_keys(&secret["data"], &path);
    let mut size = 0;
    for (key, value) in secret["data"].as_object().into_iter().flatten() {
        match BASE64_STANDARD.decode(value.as_str().unwrap_or("")) {
            Ok(bytes) => size += bytes.len(),
            // The value stays out of the message: it may be a secret that was not encoded.
            Err(_) => errors.push(field::Error::invalid(
                &path.key(key),
                json!("<redacted>"),
                "must be base64 encoded",
            )),
        }
    }
    if size > MAX_DATA {
        errors.push(field::Error::too_long(&path, json!(""), MAX_DATA));
    }
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<field::Error> {
    let mut errors = configmap::validate_immutable(new, old, &["data"]);
    if new["type"] != old["type"] {
        errors.push(field::Error::invalid(
            &field::Path::root("type"),
            new["type"].clone(),
            "field is immutable",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"data": {"b": "eA=="}, "stringData": {"a": "x"}});
        defaults(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "eA==", "b": "eA=="}, "type": "Opaque"}));
    }

    #[test]
    fn a_value_that_is_not_base64_is_refused_without_being_shown() {
        let errors = validate(&json!({"data": {"a": "hunter2!"}}));
        assert_eq!(errors.len(), 1);
        assert!(!errors[0].to_string().contains("hunter2"), "{}", errors[0]);
    }
}

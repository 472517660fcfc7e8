//! `v1 ConfigMap`: keys are file names, an immutable map stays as it is.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_apimachinery::definition::Strategy;
use kubefed_apimachinery::field;
use serde_json::Value;

/// The bound of Kubernetes on a key: that of a file name.
const MAX_KEY: usize = 253;

/// The bound of Kubernetes on the data of one ConfigMap or Secret: 1 MiB.
pub(super) const MAX_DATA: usize = 1024 * 1024;

pub(super) const STRATEGY: Strategy = Strategy {
    validate,
    validate_update: |new, old| validate_immutable(new, old, &["data", "binaryData"]),
    ..Strategy::NONE
};

fn validate(map: &Value) -> Vec<field::Error> {
    let mut errors = validate_keys(&map["data"], &field::Path::root("data"));
    let binary = field::Path::root("binaryData");
    errors.extend(validate_keys(&map["binaryData"], &binary));
    let texts = map["data"].as_object().into_iter().flatten();
    let mut size: usize = texts.map(|(_, text)| text.as_str().map_or(0, str::len)).sum();
    for (key, value) in map["binaryData"].as_object().into_iter().flatten() {
        match BASE64_STANDARD.decode(value.as_str().unwrap_or("")) {
            Ok(bytes) => size += bytes.len(),
            Err(_) => errors.push(field::Error::invalid(
                &binary.key(key),
                Value::from("<binary>"),
                "must be base64 encoded",
            )),
        }
        if map["data"].get(key).is_some() {
            errors.push(field::Error::invalid(
                &binary.key(key),
                Value::from(key.as_str()),
                "duplicate of key present in data",
            ));
        }
    }
    if size > MAX_DATA {
        // Of the map as a whole, which is how Kubernetes writes a path without a name.
        errors.push(field::Error::too_long(&field::Path::default().key(""), Value::Null, MAX_DATA));
    }
    errors
}

/// Keys of ConfigMaps and Secrets: `[-._a-zA-Z0-9]+`, not `.` nor starting with `..`.
pub(super) fn validate_keys(data: &Value, path: &field::Path) -> Vec<field::Error> {
    let valid = |key: &str| {
        !key.is_empty()
            && key.len() <= MAX_KEY
            && key != "."
            && !key.starts_with("..")
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let keys = data.as_object().into_iter().flat_map(|data| data.keys());
    keys.filter(|key| !valid(key))
        .map(|key| {
            field::Error::invalid(
                &path.key(key),
                Value::from(key.as_str()),
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            )
        })
        .collect()
}

/// Neither the content of an immutable object nor its being so can be changed.
pub(super) fn validate_immutable(new: &Value, old: &Value, fields: &[&str]) -> Vec<field::Error> {
    if old["immutable"] != true {
        return Vec::new();
    }
    let text = "field is immutable when `immutable` is set";
    fields
        .iter()
        .chain(&["immutable"])
        .filter(|field| new.get(field) != old.get(field))
        .map(|field| field::Error::forbidden(&field::Path::root(field), text))
        .collect()
}

//! The hashes and versions by which controllers see that nothing changed. Equal to KubeFed's, so that its tools and
//! records stay good (`pkg/controller/sync/resource.go`, `util/propagatedversion.go`).

use md5::{Digest as _, Md5};
use serde_json::{Value, json};

/// The hash of `spec.template`; empty without one.
pub fn template_hash(object: &Value) -> String {
    match object["spec"].get("template") {
        Some(template) => hash(template, false),
        None => String::new(),
    }
}

/// The hash of `spec.overrides`; empty only if there is no `spec`.
pub fn overrides_hash(object: &Value) -> String {
    if !object["spec"].is_object() {
        return String::new();
    }
    let mut text = String::from("{\"overrides\":");
    match object["spec"]["overrides"].as_array() {
        None => text.push_str("null"),
        Some(entries) => {
            text.push('[');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_override(&mut text, entry);
            }
            text.push(']');
        }
    }
    text.push_str("}\n");
    md5_hex(&text)
}

/// One entry in the field order of KubeFed's structs; empty fields are left out.
fn write_override(text: &mut String, entry: &Value) {
    text.push_str("{\"clusterName\":");
    write(text, &json!(entry["clusterName"].as_str().unwrap_or("")), true);
    if let Some(changes) =
        entry["clusterOverrides"].as_array().filter(|changes| !changes.is_empty())
    {
        text.push_str(",\"clusterOverrides\":[");
        for (index, change) in changes.iter().enumerate() {
            text.push_str(if index > 0 { ",{" } else { "{" });
            if let Some(op) = change["op"].as_str().filter(|op| !op.is_empty()) {
                text.push_str("\"op\":");
                write(text, &json!(op), true);
                text.push(',');
            }
            text.push_str("\"path\":");
            write(text, &json!(change["path"].as_str().unwrap_or("")), true);
            if let Some(value) = change.get("value").filter(|value| !value.is_null()) {
                text.push_str(",\"value\":");
                write(text, value, true);
            }
            text.push('}');
        }
        text.push(']');
    }
    text.push('}');
}

/// The version of an object in a member: `gen:` and its generation, or `rv:` and its resource version.
pub fn object_version(generation: i64, resource_version: &str) -> String {
    if generation == 0 { format!("rv:{resource_version}") } else { format!("gen:{generation}") }
}

fn hash(value: &Value, floats: bool) -> String {
    let mut text = String::new();
    write(&mut text, value, floats);
    text.push('\n');
    md5_hex(&text)
}

fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON as Go's encoder writes it: sorted keys, no white space, `<`, `>`, `&`, U+2028 and U+2029 escaped. With `floats`
/// every number goes through a float64, as when decoded into an `interface{}`.
fn write(text: &mut String, value: &Value, floats: bool) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        // Kubernetes' decoder keeps what fits an int64 and makes a float64 of everything else.
        Value::Number(number) => match number.as_f64().filter(|_| floats || !number.is_i64()) {
            Some(float) => text.push_str(&go_float(float)),
            None => text.push_str(&number.to_string()),
        },
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(text, item, floats);
            }
            text.push(']');
        }
        Value::Object(map) => {
            text.push('{');
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_string(text, key);
                text.push(':');
                write(text, value, floats);
            }
            text.push('}');
        }
    }
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            // Go 1.16, which KubeFed is built with, has no short forms of these two.
            '\u{8}' | '\u{c}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            c if u32::from(c) < 0x20 => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
}

/// A float64 as Go's `encoding/json` writes it: the shortest form that reads back, with an exponent from 1e21 on and
/// below 1e-6.
fn go_float(float: f64) -> String {
    let size = float.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return format!("{float}");
    }
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        Some((digits, exponent)) => format!("{digits}e-{}", exponent.trim_start_matches('-')),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        name: String,
        object: Value,
        template: String,
        overrides: String,
    }

    /// The hashes come from Go's own encoder: `testdata/hashes/main.go`.
    #[test]
    fn hashes_equal_those_of_kubefed() {
        let golden = include_str!("../testdata/hashes/hashes.json");
        let golden: Vec<Golden> = serde_json::from_str(golden).unwrap();
        assert!(golden.len() > 10);
        for Golden { name, object, template, overrides } in golden {
            assert_eq!(template_hash(&object), template, "template: {name}");
            assert_eq!(overrides_hash(&object), overrides, "overrides: {name}");
            // What the store makes of the object is hashed by others, who read it from us.
            let stored: Value =
                serde_json::from_slice(&serde_json::to_vec(&object).unwrap()).unwrap();
            assert_eq!(template_hash(&stored), template, "stored template: {name}");
            assert_eq!(overrides_hash(&stored), overrides, "stored overrides: {name}");
        }
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (float, text) in [
            (1.0, "1"),
            (1.5, "1.5"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (-1.5e300, "-1.5e+300"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.0, "0"),
            (-0.0, "-0"),
        ] {
            assert_eq!(go_float(float), text);
        }
    }

    #[test]
    fn a_version_tells_generation_from_resource_version() {
        assert_eq!(object_version(3, "7"), "gen:3");
        assert_eq!(object_version(0, "7"), "rv:7");
    }
}

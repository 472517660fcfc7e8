//! Whether a schema is structural: it says of each place what stands there, so that the rest can be taken out, defaults
//! can be put in and applies can be merged (`apiserver/schema`).

use std::collections::BTreeMap;

use kubefed_apimachinery::field::{Error, Path};
use kubefed_apimachinery::schema::{Schemas, check_pattern};
use serde_json::{Value, json};

/// Where a schema stands, in the words of its errors.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Items,
    Field,
}

/// Keywords that have no meaning here.
const UNSUPPORTED: &[&str] =
    &["id", "$ref", "additionalItems", "patternProperties", "definitions", "dependencies"];

/// Keywords that say what stands at a place: below `allOf` and the like they would say it a second time.
const STRUCTURE: &[&str] = &[
    "type",
    "default",
    "additionalProperties",
    "nullable",
    "title",
    "description",
    "externalDocs",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

const JUNCTORS: &[&str] = &["allOf", "anyOf", "oneOf"];

/// Collects what is wrong with a version's schema.
pub(super) fn validate(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    place(schema, Place::Root, path, errors);
    let metadata = &schema["properties"]["metadata"];
    if metadata.is_object() {
        let path = path.child("properties").key("metadata");
        let only_names = metadata.as_object().is_some_and(|metadata| {
            metadata.keys().all(|key| matches!(key.as_str(), "type" | "description" | "properties"))
        }) && metadata["properties"]
            .as_object()
            .is_none_or(|fields| fields.keys().all(|f| f == "name" || f == "generateName"));
        if !only_names {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(Error::forbidden(&path, detail));
        }
    }
    for field in ["apiVersion", "kind"] {
        let kind = &schema["properties"][field]["type"];
        if schema["properties"][field].is_object() && kind != "string" {
            let path = path.child("properties").key(field).child("type");
            errors.push(Error::invalid(&path, kind.clone(), "must be string"));
        }
    }
}

fn place(schema: &Value, at: Place, path: &Path, errors: &mut Vec<Error>) {
    let is = |extension: &str| schema[format!("x-kubernetes-{extension}")] == true;
    let kind = schema["type"].as_str().unwrap_or("");
    let type_path = path.child("type");
    match kind {
        "" if is("embedded-resource") => errors.push(Error::required(
            &type_path,
            "must be object if x-kubernetes-embedded-resource is true",
        )),
        "" if is("int-or-string") || is("preserve-unknown-fields") => {}
        "" => errors.push(Error::required(
            &type_path,
            match at {
                Place::Root => "must not be empty at the root",
                Place::Items => "must not be empty for specified array items",
                Place::Field => "must not be empty for specified object fields",
            },
        )),
        kind if at == Place::Root && kind != "object" => {
            errors.push(Error::invalid(&type_path, json!(kind), "must be object at the root"))
        }
        "object" | "array" | "string" | "integer" | "number" | "boolean" => {}
        kind => errors.push(Error::not_supported(
            &type_path,
            json!(kind),
            &["array", "boolean", "integer", "number", "object", "string"],
        )),
    }
    if is("int-or-string") {
        for other in ["preserve-unknown-fields", "embedded-resource"] {
            if is(other) {
                let path = path.child(&format!("x-kubernetes-{other}"));
                let detail = "must be false if x-kubernetes-int-or-string is true";
                errors.push(Error::invalid(&path, json!(true), detail));
            }
        }
    }
    list(schema, kind, path, errors);
    map(schema, at, path, errors);
    values(schema, path, errors);
    if let Some(default) = schema.get("default") {
        check_default(schema, default, &path.child("default"), errors);
    }
}

fn list(schema: &Value, kind: &str, path: &Path, errors: &mut Vec<Error>) {
    match &schema["items"] {
        Value::Null if kind == "array" => {
            errors.push(Error::required(&path.child("items"), "must be specified"));
        }
        Value::Null => {}
        items @ Value::Object(_) => place(items, Place::Items, &path.child("items"), errors),
        _ => errors.push(Error::forbidden(
            &path.child("items"),
            "items must be a schema object and not an array",
        )),
    }
    let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(0, Vec::len);
    let keys_path = path.child("x-kubernetes-list-map-keys");
    let list_type = &schema["x-kubernetes-list-type"];
    match list_type.as_str() {
        None | Some("atomic" | "set") if keys > 0 => {
            let detail = "must be empty unless x-kubernetes-list-type is map";
            errors.push(Error::forbidden(&keys_path, detail));
        }
        Some("map") if keys == 0 => {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            errors.push(Error::required(&keys_path, detail));
        }
        Some("map") => {
            let properties = &schema["items"]["properties"];
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            for (index, key) in keys.enumerate() {
                if properties.get(key.as_str().unwrap_or("")).is_none() {
                    let detail = "entries must all be names of item properties";
                    errors.push(Error::invalid(&keys_path.index(index), key.clone(), detail));
                }
            }
        }
        None | Some("atomic" | "set") => {}
        Some(_) => errors.push(Error::not_supported(
            &path.child("x-kubernetes-list-type"),
            list_type.clone(),
            &["atomic", "map", "set"],
        )),
    }
}

fn map(schema: &Value, at: Place, path: &Path, errors: &mut Vec<Error>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if at == Place::Root && matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
            continue;
        }
        place(field, Place::Field, &path.child("properties").key(name), errors);
    }
    let (additional, path) = (&schema["additionalProperties"], path.child("additionalProperties"));
    if additional.is_null() {
        return;
    }
    if at == Place::Root {
        errors.push(Error::forbidden(&path, "must not be used at the root"));
    }
    let properties = schema["properties"].as_object().is_some_and(|fields| !fields.is_empty());
    if properties && *additional != true {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(Error::forbidden(&path, detail));
    }
    if additional.is_object() {
        place(additional, Place::Field, &path, errors);
    }
}

/// What is said of the values at a place, rather than of the place.
fn values(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    for keyword in UNSUPPORTED {
        if !schema[*keyword].is_null() {
            let detail = format!("{keyword} is not supported");
            errors.push(Error::forbidden(&path.child(keyword), detail));
        }
    }
    if schema["uniqueItems"] == true {
        let detail =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), detail));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(why) = check_pattern(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(Error::invalid(&path.child("pattern"), json!(pattern), detail));
    }
    // The one way to say a type twice: how integers or strings were written before there was an extension for them.
    let int_or_string = json!([{"type": "integer"}, {"type": "string"}]);
    for junctor in JUNCTORS {
        if schema["x-kubernetes-int-or-string"] == true && schema[*junctor] == int_or_string {
            continue;
        }
        for (index, nested) in schema[*junctor].as_array().into_iter().flatten().enumerate() {
            if *junctor == "allOf" && nested["anyOf"] == int_or_string {
                continue;
            }
            value_only(nested, &path.child(junctor).index(index), errors);
        }
    }
    if schema["not"].is_object() {
        value_only(&schema["not"], &path.child("not"), errors);
    }
}

/// A schema that may only restrict what others have let in.
fn value_only(schema: &Value, path: &Path, errors: &mut Vec<Error>) {
    for keyword in STRUCTURE {
        if schema.get(keyword).is_some() {
            errors.push(Error::forbidden(&path.child(keyword), "must be empty to be structural"));
        }
    }
    values(schema, path, errors);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        value_only(field, &path.child("properties").key(name), errors);
    }
    if schema["items"].is_object() {
        value_only(&schema["items"], &path.child("items"), errors);
    }
}

/// A default must be what its own schema accepts.
fn check_default(schema: &Value, default: &Value, path: &Path, errors: &mut Vec<Error>) {
    let document = json!({"type": "object", "properties": {"default": schema}});
    let schemas = Schemas::structural(BTreeMap::from([("X".to_owned(), document)]));
    let Some(schema) = schemas.get("X") else { return };
    let mut object = json!({"default": default});
    for unknown in schema.prune(&mut object) {
        let detail = format!("must not have unknown fields: {unknown}");
        errors.push(Error::invalid(path, default.clone(), detail));
    }
    for error in schema.validate(&object) {
        errors.push(Error::invalid(path, default.clone(), error.to_string()));
    }
}

/// Whether a schema has rules in CEL.
pub(super) fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.get("x-kubernetes-validations").is_some_and(Value::is_array)
                || map.values().any(has_rules)
        }
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(schema: &Value) -> String {
        let mut errors = Vec::new();
        validate(schema, &Path::root("s"), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        texts.join("; ")
    }

    #[test]
    fn a_structural_schema_is_accepted() {
        let schema = json!({
            "type": "object",
            "description": "d",
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}},
                "spec": {
                    "type": "object",
                    "properties": {
                        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                        "any": {"x-kubernetes-preserve-unknown-fields": true},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "list": {
                            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                        },
                        "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                    },
                    "oneOf": [{"required": ["port"]}, {"required": ["any"], "properties": {"mode": {"enum": ["a"]}}}],
                },
            },
        });
        assert_eq!(errors(&schema), "");
    }

    #[test]
    fn every_place_that_is_not_structural_is_told() {
        for (field, wanted) in [
            (
                json!({}),
                "s.properties[x].type: Required value: must not be empty for specified object fields",
            ),
            (
                json!({"type": "text"}),
                r#"s.properties[x].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ),
            (json!({"type": "array"}), "s.properties[x].items: Required value: must be specified"),
            (
                json!({"type": "array", "items": {}}),
                "s.properties[x].items.type: Required value: must not be empty for specified array items",
            ),
            (
                json!({"type": "string", "$ref": "#/a"}),
                "s.properties[x].$ref: Forbidden: $ref is not supported",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
                "s.properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ),
            (
                json!({"type": "integer", "not": {"type": "string"}}),
                "s.properties[x].not.type: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "string", "default": 1}),
                r#"s.properties[x].default: Invalid value: 1: default: Invalid value: "integer": default in body must be of type string: "integer""#,
            ),
            (
                json!({"type": "object", "default": {"a": 1}}),
                r#"s.properties[x].default: Invalid value: {"a":1}: must not have unknown fields: default.a"#,
            ),
            (
                json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]}),
                r#"s.properties[x].x-kubernetes-list-map-keys[0]: Invalid value: "a": entries must all be names of item properties"#,
            ),
            (
                json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
                "s.properties[x].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ),
        ] {
            assert_eq!(errors(&json!({"type": "object", "properties": {"x": field}})), wanted);
        }
        assert!(
            errors(
                &json!({"type": "object", "properties": {"x": {"type": "string", "pattern": "("}}})
            )
            .starts_with("s.properties[x].pattern: Invalid value")
        );
        assert_eq!(
            errors(&json!({"type": "string"})),
            r#"s.type: Invalid value: "string": must be object at the root"#
        );
        let metadata = json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}});
        assert!(
            errors(&metadata).starts_with("s.properties[metadata]: Forbidden: must not specify")
        );
    }
}

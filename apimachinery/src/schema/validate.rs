//! Validation by a schema alone, in the words of `apiextensions-apiserver`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::walk::{ListKind, Ref, Types};
use crate::field::{self, Path};
use crate::time;

pub(super) fn validate(
    schema: Ref<'_>,
    value: &Value,
    path: &Path,
    errors: &mut Vec<field::Error>,
) {
    let node = schema.node();
    if value.is_null() && node.nullable {
        return;
    }
    if node.types != Types::default() && !has_type(node.types, value) {
        let wanted = name_of(node.types);
        let found = json_type(value);
        errors.push(field::Error::type_invalid(
            path,
            json!(found),
            format!("{path} in body must be of type {wanted}: \"{found}\""),
        ));
        return;
    }
    if !node.allowed.is_empty() && !node.allowed.contains(value) {
        let supported: Vec<&str> = node.allowed.iter().filter_map(Value::as_str).collect();
        errors.push(field::Error::not_supported(path, value.clone(), &supported));
    }
    combined(schema, value, path, errors);
    match value {
        Value::Object(map) => {
            counts(map.len(), "properties", node.min_properties, node.max_properties)
                .into_iter()
                .for_each(|text| errors.push(in_body(path, value, &text)));
            for field in &node.required {
                if !map.contains_key(field) {
                    errors.push(field::Error::required(&path.child(field), ""));
                }
            }
            for (name, value) in map {
                if let Some(child) = schema.child(name) {
                    validate(child, value, &path.child(name), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(max) = node.max_items.filter(|&max| items.len() as u64 > max) {
                errors.push(field::Error::too_many(
                    path,
                    items.len(),
                    usize::try_from(max).unwrap_or(usize::MAX),
                ));
            }
            counts(items.len(), "items", node.min_items, None)
                .into_iter()
                .for_each(|text| errors.push(in_body(path, value, &text)));
            unique(schema, items, path, errors);
            if let Some(child) = schema.items() {
                for (index, item) in items.iter().enumerate() {
                    validate(child, item, &path.index(index), errors);
                }
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            let below = |min: f64| number < min || (node.exclusive_minimum && number == min);
            if let Some(min) = node.minimum.filter(|&min| below(min)) {
                let or_equal = if node.exclusive_minimum { "" } else { " or equal to" };
                errors.push(in_body(
                    path,
                    value,
                    &format!("should be greater than{or_equal} {min}"),
                ));
            }
            if let Some(factor) = node.multiple_of.filter(|factor| (number / factor).fract() != 0.0)
            {
                errors.push(in_body(path, value, &format!("should be a multiple of {factor}")));
            }
            let bound = node.maximum.or_else(|| {
                (node.format.as_deref() == Some("int32")).then_some(f64::from(i32::MAX))
            });
            let above = |max: f64| number > max || (node.exclusive_maximum && number == max);
            if let Some(max) = bound.filter(|&max| above(max)) {
                let or_equal = if node.exclusive_maximum { "" } else { " or equal to" };
                errors.push(in_body(path, value, &format!("should be less than{or_equal} {max}")));
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(min) = node.min_length.filter(|&min| length < min) {
                errors.push(in_body(path, value, &format!("should be at least {min} chars long")));
            }
            if let Some(pattern) = node.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
                errors.push(in_body(path, value, &format!("should match '{pattern}'")));
            }
            if let Some(max) = node.max_length.filter(|&max| length > max) {
                errors.push(field::Error::too_long(
                    path,
                    value.clone(),
                    usize::try_from(max).unwrap_or(usize::MAX),
                ));
            }
            if node.format.as_deref() == Some("date-time") && time::parse(text).is_none() {
                errors.push(in_body(path, value, &format!("must be of type date-time: {value}")));
            }
        }
        _ => {}
    }
}

/// What a schema says by `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: Ref<'_>, value: &Value, path: &Path, errors: &mut Vec<field::Error>) {
    let node = schema.node();
    for &part in &node.all_of {
        validate(schema.at(part), value, path, errors);
    }
    let holds = |part: &usize| {
        let mut errors = Vec::new();
        validate(schema.at(*part), value, path, &mut errors);
        errors.is_empty()
    };
    if !node.any_of.is_empty() && !node.any_of.iter().any(holds) {
        errors.push(in_body(path, value, "must validate at least one schema (anyOf)"));
    }
    if !node.one_of.is_empty() {
        let valid = node.one_of.iter().filter(|&part| holds(part)).count();
        if valid != 1 {
            let text =
                format!("must validate one and only one schema (oneOf), found {valid} valid");
            errors.push(in_body(path, value, &text));
        }
    }
    if node.not.as_ref().is_some_and(holds) {
        errors.push(in_body(path, value, "must not validate the schema (not)"));
    }
}

fn in_body(path: &Path, value: &Value, text: &str) -> field::Error {
    field::Error::invalid(path, value.clone(), format!("{path} in body {text}"))
}

fn counts(count: usize, of: &str, min: Option<u64>, max: Option<u64>) -> Option<String> {
    let count = count as u64;
    let few = min.filter(|&min| count < min).map(|min| format!("should have at least {min} {of}"));
    few.or_else(|| {
        max.filter(|&max| count > max).map(|max| format!("should have at most {max} {of}"))
    })
}

/// The elements of a set differ, those of a map differ in their keys.
fn unique(schema: Ref<'_>, items: &[Value], path: &Path, errors: &mut Vec<field::Error>) {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = match schema.list_kind() {
            ListKind::Atomic => return,
            ListKind::Set => item.clone(),
            ListKind::Map(keys) => {
                let child = schema.items();
                keys.iter()
                    .filter_map(|key| {
                        let value = item.get(key).or_else(|| child?.default_of(key))?;
                        Some((key.clone(), value.clone()))
                    })
                    .collect()
            }
        };
        if !seen.insert(key.to_string()) {
            errors.push(field::Error::duplicate(&path.index(index), key));
        }
    }
}

/// What is wrong with the type of `value`, in the words of server-side apply. Null is of every type there.
pub(crate) fn wrong_type(schema: Ref<'_>, value: &Value) -> Option<String> {
    let types = schema.node().types;
    if value.is_null() || types == Types::default() || has_type(types, value) {
        return None;
    }
    let wanted = match name_of(types) {
        "object" => "map",
        "array" => "list",
        other => other,
    };
    Some(format!("expected {wanted}, got {}", json_type(value)))
}

fn has_type(types: Types, value: &Value) -> bool {
    let bit = match value {
        Value::Object(_) => Types::OBJECT,
        Value::Array(_) => Types::ARRAY,
        Value::String(_) => Types::STRING,
        Value::Bool(_) => Types::BOOLEAN,
        Value::Number(number) if number.is_i64() || number.is_u64() => Types::INTEGER,
        Value::Number(number) if number.as_f64().is_some_and(|n| n.fract() == 0.0) => {
            Types::INTEGER | Types::NUMBER
        }
        Value::Number(_) => Types::NUMBER,
        Value::Null => 0,
    };
    types.0 & bit != 0
}

fn name_of(types: Types) -> &'static str {
    match types.0 {
        Types::OBJECT => "object",
        Types::ARRAY => "array",
        Types::STRING => "string",
        Types::INTEGER => "integer",
        Types::BOOLEAN => "boolean",
        bits if bits & Types::NUMBER != 0 => "number",
        _ => "integer or string",
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Null => "null",
    }
}

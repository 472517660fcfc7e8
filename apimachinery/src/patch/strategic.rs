//! Strategic merge patch: a merge patch that knows the keys of lists.

use serde_json::{Map, Value};

use super::{Error, merge};
use crate::schema::{Ref, Schema};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `target`.
///
/// # Errors
/// If a directive is not one, or an element lacks the key that its list merges by. The target may be half changed then.
pub fn apply(target: &mut Value, patch: &Value, schema: &Schema) -> Result<(), Error> {
    object(target, patch, Some(schema.root()))
}

fn object(target: &mut Value, patch: &Value, schema: Option<Ref<'_>>) -> Result<(), Error> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get(DIRECTIVE) {
        None => {}
        Some(directive) => match directive.as_str() {
            Some("merge") => {}
            Some("replace") => {
                *target = Value::Object(without_directives(patch));
                return Ok(());
            }
            Some("delete") => {
                *target = Value::Object(Map::new());
                return Ok(());
            }
            _ => return Err(unknown_directive(directive)),
        },
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        retain_keys(target, patch, retained)?;
    }
    // The order of a merged list is settled against what was there before.
    let mut orders = Vec::new();
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix(ORDER) {
            let order = order
                .as_array()
                .ok_or_else(|| malformed("invalid patch format of setElementOrder list"))?;
            let before = target.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
            orders.push((list, order, before));
        }
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            let gone = value
                .as_array()
                .ok_or_else(|| malformed("invalid patch format of primitive list"))?;
            if let Some(items) = target.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if !is_directive(name) {
            field(target, name, value, schema.and_then(|schema| schema.child(name)))?;
        }
    }
    for (list, order, before) in orders {
        let key = schema.and_then(|schema| schema.child(list)).and_then(Ref::merge_key);
        let patched = patch.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if !follows(patched, order, key) {
            return Err(malformed(format!(
                "The order in patch list:\n{}\n doesn't match {ORDER}{list} list:\n{}\n",
                Value::from(patched),
                Value::from(order.as_slice()),
            )));
        }
        if let Some(items) = target.get_mut(list).and_then(Value::as_array_mut) {
            *items = ordered(std::mem::take(items), order, &before, key);
        }
    }
    Ok(())
}

/// Whether `name` says how to merge instead of what.
fn is_directive(name: &str) -> bool {
    name == DIRECTIVE
        || name == RETAIN_KEYS
        || name.starts_with(DELETE_FROM)
        || name.starts_with(ORDER)
}

/// Takes all fields out of `target` but the retained ones, which are all that the patch may set.
fn retain_keys(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    retained: &Value,
) -> Result<(), Error> {
    let invalid = || malformed("invalid patch format of retainKeys");
    let retained = retained.as_array().ok_or_else(invalid)?;
    let is_retained = |name: &str| retained.iter().any(|kept| kept == name);
    if patch
        .iter()
        .any(|(name, value)| !value.is_null() && !is_directive(name) && !is_retained(name))
    {
        return Err(invalid());
    }
    target.retain(|name, _| is_retained(name));
    Ok(())
}

fn field(
    target: &mut Map<String, Value>,
    name: &str,
    patch: &Value,
    schema: Option<Ref<'_>>,
) -> Result<(), Error> {
    match patch {
        Value::Null => {
            target.remove(name);
            Ok(())
        }
        Value::Object(_) => {
            let place = target.entry(name).or_insert(Value::Null);
            match schema {
                Some(schema) => object(place, patch, Some(schema)),
                None => {
                    merge::apply(place, patch);
                    Ok(())
                }
            }
        }
        Value::Array(items) => match schema.filter(|schema| schema.patches_by("merge")) {
            Some(schema) => list(target.entry(name).or_insert(Value::Null), items, schema),
            None => {
                target.insert(name.into(), patch.clone());
                Ok(())
            }
        },
        scalar => {
            target.insert(name.into(), scalar.clone());
            Ok(())
        }
    }
}

fn list(target: &mut Value, patch: &[Value], schema: Ref<'_>) -> Result<(), Error> {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(items) = target else { return Ok(()) };
    let Some(key) = schema.merge_key() else {
        // A list of scalars merges as a set.
        for item in patch {
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
        return Ok(());
    };
    let (special, plain): (Vec<&Value>, Vec<&Value>) =
        patch.iter().partition(|item| item.get(DIRECTIVE).is_some_and(|what| what != "merge"));
    let mut replaced = false;
    for item in special {
        match item[DIRECTIVE].as_str() {
            Some("replace") => replaced = true,
            Some("delete") => {
                let id = id_of(item, key)?;
                items.retain(|known| known.get(key) != Some(id));
            }
            _ => return Err(unknown_directive(&item[DIRECTIVE])),
        }
    }
    if replaced {
        items.clear();
    }
    for item in plain {
        let id = id_of(item, key)?;
        match items.iter_mut().find(|known| known.get(key) == Some(id)) {
            Some(known) => object(known, item, schema.items())?,
            None => {
                let mut new = Value::Object(Map::new());
                object(&mut new, item, schema.items())?;
                items.push(new);
            }
        }
    }
    Ok(())
}

fn id_of<'a>(item: &'a Value, key: &str) -> Result<&'a Value, Error> {
    item.get(key)
        .ok_or_else(|| malformed(format!("map: {item} does not contain declared merge key: {key}")))
}

/// Where `item` is in `list`, by its key if it has one.
fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| match key {
        Some(key) => other.get(key) == item.get(key),
        None => other == item,
    })
}

/// Whether the elements of a patch are in the order that the patch asks for.
fn follows(patch: &[Value], order: &[Value], key: Option<&str>) -> bool {
    let mut places = patch
        .iter()
        .filter(|item| item.get(DIRECTIVE).is_none())
        .map(|item| position(order, item, key));
    places.try_fold(0, |last, place| place.filter(|&place| place >= last)).is_some()
}

/// Puts the elements that `order` names into that order. The others keep theirs, each before the first named element
/// that it was before in the list as it was.
fn ordered(items: Vec<Value>, order: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    type Ranked = Vec<(Option<usize>, Value)>;
    let (mut named, mut others): (Ranked, Ranked) = items
        .into_iter()
        .map(|item| (position(order, &item, key), item))
        .partition(|(rank, _)| rank.is_some());
    named.sort_by_key(|(rank, _)| *rank);
    for (rank, item) in named.iter_mut().chain(&mut others) {
        *rank = position(before, item, key);
    }
    others.sort_by_key(|(rank, _)| rank.unwrap_or(usize::MAX));
    let mut others = others.into_iter().peekable();
    let mut result = Vec::new();
    for (rank, item) in named {
        while let Some((_, other)) =
            others.next_if(|(other, _)| matches!((other, rank), (Some(o), Some(r)) if *o < r))
        {
            result.push(other);
        }
        result.push(item);
    }
    result.extend(others.map(|(_, other)| other));
    result
}

fn malformed(text: impl Into<String>) -> Error {
    Error::Malformed(text.into())
}

fn unknown_directive(directive: &Value) -> Error {
    malformed(format!("unknown patch type: {directive}"))
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(name, _)| !is_directive(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests;

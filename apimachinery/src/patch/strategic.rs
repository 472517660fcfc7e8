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
/// If a directive is not one, or an element lacks the key that its list merges by.
pub fn apply(target: &mut Value, patch: &Value, schema: &Schema) -> Result<(), Error> {
    object(target, patch, Some(schema.root()))
}

fn object(target: &mut Value, patch: &Value, schema: Option<Ref<'_>>) -> Result<(), Error> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *target = Value::Object(without_directives(patch));
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(Error::Malformed(format!("Unknown patch type: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        let retained = retained
            .as_array()
            .ok_or_else(|| Error::Malformed(format!("{RETAIN_KEYS} is not a list")))?;
        target.retain(|name, _| retained.iter().any(|kept| kept == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            if let (Some(items), Some(gone)) =
                (target.get_mut(list).and_then(Value::as_array_mut), value.as_array())
            {
                items.retain(|item| !gone.contains(item));
            }
        } else if !name.starts_with('$') {
            field(target, name, value, schema.and_then(|schema| schema.child(name)))?;
        }
    }
    for (name, order) in patch {
        if let (Some(list), Some(order)) = (name.strip_prefix(ORDER), order.as_array())
            && let Some(items) = target.get_mut(list).and_then(Value::as_array_mut)
        {
            let key = schema.and_then(|schema| schema.child(list)).and_then(Ref::merge_key);
            reorder(items, order, key);
        }
    }
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
    if patch.iter().any(|item| item[DIRECTIVE] == "replace") {
        *items = patch.iter().filter(|item| item[DIRECTIVE] != "replace").cloned().collect();
        return Ok(());
    }
    for item in patch {
        let id = item.get(key).ok_or_else(|| {
            Error::Malformed(format!("map: {item} does not contain declared merge key: {key}"))
        })?;
        let at = items.iter().position(|known| known.get(key) == Some(id));
        match (item[DIRECTIVE].as_str(), at) {
            (Some("delete"), Some(_)) => items.retain(|known| known.get(key) != Some(id)),
            (Some("delete"), None) => {}
            (_, Some(at)) => object(&mut items[at], item, schema.items())?,
            (_, None) => {
                let mut new = Value::Object(Map::new());
                object(&mut new, item, schema.items())?;
                items.push(new);
            }
        }
    }
    Ok(())
}

/// Puts the named elements into the given order; the others keep their places before them.
fn reorder(items: &mut [Value], order: &[Value], key: Option<&str>) {
    let rank = |item: &Value| {
        order.iter().position(|wanted| match key {
            Some(key) => wanted.get(key) == item.get(key),
            None => wanted == item,
        })
    };
    items.sort_by_key(|item| rank(item).map_or(0, |rank| rank + 1));
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::schema::Schemas;

    fn schema() -> Schema {
        let document = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "containers": {
                "type": "array", "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "image": {"type": "string"}}},
            },
            "args": {"type": "array", "items": {"type": "string"}},
        }}}});
        Schemas::new(BTreeMap::from([("Pod".to_owned(), document)])).get("Pod").unwrap()
    }

    #[test]
    fn lists_merge_by_their_key() {
        let object = json!({"metadata": {"finalizers": ["a/b"]}, "spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}], "args": ["x"]}});
        for (patch, wanted) in [
            (
                json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c"}]}}),
                json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c"}]),
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                json!([{"name": "b", "image": "1"}]),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
                json!([{"name": "z"}]),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
                json!([{"name": "b", "image": "1"}, {"name": "a", "image": "1"}]),
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "$retainKeys": ["name"]}]}}),
                json!([{"name": "a"}, {"name": "b", "image": "1"}]),
            ),
        ] {
            let mut patched = object.clone();
            apply(&mut patched, &patch, &schema()).unwrap();
            assert_eq!(patched["spec"]["containers"], wanted, "{patch}");
        }
        let mut patched = object;
        apply(&mut patched, &json!({"metadata": {"finalizers": ["c/d"], "$deleteFromPrimitiveList/finalizers": ["a/b"]}, "spec": {"args": ["y"]}}), &schema()).unwrap();
        assert_eq!(patched["metadata"]["finalizers"], json!(["c/d"]));
        assert_eq!(patched["spec"]["args"], json!(["y"]));
        assert!(
            apply(&mut patched, &json!({"spec": {"containers": [{"image": "x"}]}}), &schema())
                .is_err()
        );
    }
}

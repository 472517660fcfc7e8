//! JSON patch, RFC 6902, as Kubernetes applies it (`evanphx/json-patch` v4): `replace` of a missing object member puts
//! it there, a negative index counts from the end. KubeFed's overrides rely on that too.

use serde::Deserialize;
use serde_json::Value;

use super::Error;
use crate::decode::{MAX_DEPTH, nests_within};

/// The bound of Kubernetes on the operations of one patch.
const MAX_OPERATIONS: usize = 10_000;
/// The bound of Kubernetes on what `copy` adds in one patch, bytes.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// One operation.
#[derive(Clone, Debug, Deserialize)]
pub struct Operation {
    pub op: String,
    pub path: String,
    #[serde(default)]
    pub from: String,
    #[serde(default)]
    pub value: Value,
}

/// Applies the patch that `bytes` hold.
///
/// # Errors
/// If they hold none, or the object has no place for it. The object may be half changed then.
pub fn apply(object: &mut Value, bytes: &[u8]) -> Result<(), Error> {
    let operations: Vec<Operation> = serde_json::from_slice(bytes)
        .map_err(|error| Error::Malformed(format!("error decoding patch: {error}")))?;
    apply_operations(object, &operations)
}

/// Applies operations in order.
///
/// # Errors
/// If the object has no place for one. The object may be half changed then.
pub fn apply_operations(object: &mut Value, operations: &[Operation]) -> Result<(), Error> {
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut copied = 0;
    for operation in operations {
        let path = pointer(&operation.path)?;
        match operation.op.as_str() {
            "add" => add(object, &path, operation.value.clone())?,
            "remove" => drop(remove(object, &path)?),
            "replace" => replace(object, &path, operation.value.clone())?,
            "move" => {
                let value = remove(object, &pointer(&operation.from)?)?;
                add(object, &path, value)?;
            }
            "copy" => {
                let value = get(object, &pointer(&operation.from)?)?.clone();
                copied += value.to_string().len();
                if copied > MAX_COPIED {
                    return Err(Error::TooLarge(format!(
                        "copies of a JSON patch may add at most {MAX_COPIED} bytes"
                    )));
                }
                add(object, &path, value)?;
            }
            "test" => {
                if get(object, &path).unwrap_or(&Value::Null) != &operation.value {
                    return Err(Error::DoesNotFit(format!(
                        "testing path {} failed",
                        operation.path
                    )));
                }
            }
            other => {
                return Err(Error::DoesNotFit(format!(
                    "unexpected kind of JSON patch operation: {other:?}"
                )));
            }
        }
    }
    Ok(())
}

/// The parts of a JSON pointer (RFC 6901).
///
/// # Errors
/// If the text is none.
pub fn pointer(text: &str) -> Result<Vec<String>, Error> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').ok_or_else(|| {
        Error::DoesNotFit(format!("JSON pointer {text:?} does not start with '/'"))
    })?;
    Ok(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
}

fn missing(path: &[String]) -> Error {
    Error::DoesNotFit(format!("path /{} does not exist", path.join("/")))
}

fn get<'a>(object: &'a Value, path: &[String]) -> Result<&'a Value, Error> {
    path.iter()
        .try_fold(object, |value, part| match value {
            Value::Object(map) => map.get(part),
            Value::Array(items) => items.get(index(part, items.len())?),
            _ => None,
        })
        .ok_or_else(|| missing(path))
}

fn parent<'a>(object: &'a mut Value, path: &[String]) -> Result<&'a mut Value, Error> {
    path.iter()
        .try_fold(object, |value, part| match value {
            Value::Object(map) => map.get_mut(part),
            Value::Array(items) => {
                let index = index(part, items.len())?;
                items.get_mut(index)
            }
            _ => None,
        })
        .ok_or_else(|| missing(path))
}

fn index(part: &str, length: usize) -> Option<usize> {
    let index: i64 = part.parse().ok()?;
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

/// Whether `value`, put at `path`, keeps the object within [`MAX_DEPTH`]. Each `add` and `copy` can put a value below the
/// deepest one: without a bound one patch could make an object that nobody can read back.
fn fits(path: &[String], value: &Value) -> Result<(), Error> {
    match MAX_DEPTH.checked_sub(path.len()) {
        Some(levels) if nests_within(value, levels) => Ok(()),
        _ => Err(Error::DoesNotFit(format!(
            "the patched object nests deeper than {MAX_DEPTH} levels"
        ))),
    }
}

fn add(object: &mut Value, path: &[String], value: Value) -> Result<(), Error> {
    fits(path, &value)?;
    let Some((last, above)) = path.split_last() else {
        *object = value;
        return Ok(());
    };
    match parent(object, above)? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(items) if last == "-" => {
            items.push(value);
            Ok(())
        }
        Value::Array(items) => {
            // Negative indices count from the end of the list as it will be: -1 appends.
            let at = index(last, items.len() + 1)
                .filter(|&at| at <= items.len())
                .ok_or_else(|| missing(path))?;
            items.insert(at, value);
            Ok(())
        }
        _ => Err(missing(path)),
    }
}

fn replace(object: &mut Value, path: &[String], value: Value) -> Result<(), Error> {
    fits(path, &value)?;
    let Some((last, above)) = path.split_last() else {
        *object = value;
        return Ok(());
    };
    match parent(object, above)? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(items) => {
            let at = index(last, items.len())
                .filter(|&at| at < items.len())
                .ok_or_else(|| missing(path))?;
            items[at] = value;
            Ok(())
        }
        _ => Err(missing(path)),
    }
}

fn remove(object: &mut Value, path: &[String]) -> Result<Value, Error> {
    let Some((last, above)) = path.split_last() else {
        return Ok(object.take());
    };
    match parent(object, above)? {
        Value::Object(map) => map.remove(last).ok_or_else(|| missing(path)),
        Value::Array(items) => {
            let at = index(last, items.len())
                .filter(|&at| at < items.len())
                .ok_or_else(|| missing(path))?;
            Ok(items.remove(at))
        }
        _ => Err(missing(path)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_do_what_kubernetes_expects() {
        let object = json!({"a": {"b": 1}, "list": [1, 2, 3], "x/y": 1});
        for (patch, wanted) in [
            (json!([{"op": "add", "path": "/a/c", "value": 2}]), Some(("/a/c", json!(2)))),
            (json!([{"op": "replace", "path": "/a/new", "value": 2}]), Some(("/a/new", json!(2)))),
            (
                json!([{"op": "add", "path": "/list/-", "value": 4}]),
                Some(("/list", json!([1, 2, 3, 4]))),
            ),
            (
                json!([{"op": "add", "path": "/list/1", "value": 9}]),
                Some(("/list", json!([1, 9, 2, 3]))),
            ),
            (json!([{"op": "remove", "path": "/list/-1"}]), Some(("/list", json!([1, 2])))),
            (
                json!([{"op": "replace", "path": "/list/-3", "value": 9}]),
                Some(("/list", json!([9, 2, 3]))),
            ),
            (json!([{"op": "replace", "path": "/list/-4", "value": 9}]), None),
            (json!([{"op": "remove", "path": "/list/-9223372036854775808"}]), None),
            (
                json!([{"op": "add", "path": "/list/-1", "value": 9}]),
                Some(("/list", json!([1, 2, 3, 9]))),
            ),
            (
                json!([{"op": "add", "path": "/list/-4", "value": 9}]),
                Some(("/list", json!([9, 1, 2, 3]))),
            ),
            (
                json!([{"op": "add", "path": "/list/3", "value": 9}]),
                Some(("/list", json!([1, 2, 3, 9]))),
            ),
            (json!([{"op": "add", "path": "/list/4", "value": 9}]), None),
            (json!([{"op": "move", "from": "/a", "path": "/a/b"}]), None),
            (json!([{"op": "test", "path": "/list/0/x", "value": 1}]), None),
            (json!([{"op": "add", "path": "/a/b/c", "value": 1}]), None),
            (json!([{"op": "replace", "path": "/x~1y", "value": 2}]), Some(("/x~1y", json!(2)))),
            (json!([{"op": "move", "from": "/a/b", "path": "/c"}]), Some(("/c", json!(1)))),
            (
                json!([{"op": "copy", "from": "/list", "path": "/c"}]),
                Some(("/c", json!([1, 2, 3]))),
            ),
            (json!([{"op": "test", "path": "/a/b", "value": 1}]), Some(("/a/b", json!(1)))),
            (json!([{"op": "test", "path": "/a/b", "value": 2}]), None),
            (json!([{"op": "remove", "path": "/a/none"}]), None),
            (json!([{"op": "add", "path": "/none/c", "value": 2}]), None),
            (json!([{"op": "replace", "path": "/list/3", "value": 2}]), None),
            (json!([{"op": "replace", "path": "a", "value": 2}]), None),
            (json!([{"op": "jump", "path": "/a", "value": 2}]), None),
        ] {
            let mut patched = object.clone();
            let outcome = apply(&mut patched, patch.to_string().as_bytes());
            match wanted {
                Some((path, value)) => {
                    outcome.unwrap();
                    assert_eq!(patched.pointer(path), Some(&value), "{patch}");
                }
                None => assert!(outcome.is_err(), "{patch}"),
            }
        }
    }

    #[test]
    fn a_patch_can_not_nest_an_object_without_bound() {
        let deep = (0..20).fold(json!({}), |inner, _| json!({"a": inner}));
        let below = |levels: usize| "/a".repeat(levels);
        let add = |step: usize| json!({"op": "add", "path": below(20 * step), "value": deep});
        let double = |step: usize| json!({"op": "copy", "from": "", "path": below(20 << step)});
        let down = |step: usize| {
            let there = json!({"op": "add", "path": "/b", "value": deep});
            [there, json!({"op": "move", "from": "/b", "path": below(20 * step)})]
        };
        for (patch, fits) in [
            ((1..4).map(add).collect::<Value>(), true),
            ((1..5).map(add).collect(), false),
            ((0..2).map(double).collect(), true),
            ((0..3).map(double).collect(), false),
            ((1..4).flat_map(down).collect(), true),
            ((1..5).flat_map(down).collect(), false),
        ] {
            let mut object = deep.clone();
            let outcome = apply(&mut object, patch.to_string().as_bytes());
            assert_eq!(outcome.is_ok(), fits, "{outcome:?}");
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..4i64).prop_map(Value::from),
            "[a-c]".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn operation() -> impl Strategy<Value = Value> {
        let op =
            prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test", "x"]);
        let path = || "(/([a-c]|-?[0-2]|-|~|~0|)){0,3}|[a-c]";
        (op, path(), path(), json_value()).prop_map(
            |(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}),
        )
    }

    proptest! {
        #[test]
        fn any_patch_is_applied_or_refused(object in json_value(), patch in prop::collection::vec(operation(), 0..6)) {
            let mut patched = object;
            let _ = apply(&mut patched, Value::Array(patch).to_string().as_bytes());
        }

        #[test]
        fn what_was_added_to_an_object_can_be_removed_again(object in json_value(), value in json_value()) {
            let object = json!({"old": object});
            let mut patched = object.clone();
            let patch = json!([{"op": "add", "path": "/new", "value": value}, {"op": "test", "path": "/new", "value": value}, {"op": "remove", "path": "/new"}]);
            apply(&mut patched, patch.to_string().as_bytes()).unwrap();
            prop_assert_eq!(patched, object);
        }
    }
}

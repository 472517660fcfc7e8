//! JSON patch, RFC 6902, as Kubernetes applies it (`evanphx/json-patch` v4): `replace` of a missing object member puts
//! it there, a negative index counts from the end. KubeFed's overrides rely on that too.

use serde::Deserialize;
use serde_json::Value;

use super::Error;

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
                return Err(Error::Malformed(format!(
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
        Error::Malformed(format!("JSON pointer {text:?} does not start with '/'"))
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
        length.checked_sub(usize::try_from(-index).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

fn add(object: &mut Value, path: &[String], value: Value) -> Result<(), Error> {
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
            let at = index(last, items.len())
                .filter(|&at| at <= items.len())
                .ok_or_else(|| missing(path))?;
            items.insert(at, value);
            Ok(())
        }
        _ => Err(missing(path)),
    }
}

fn replace(object: &mut Value, path: &[String], value: Value) -> Result<(), Error> {
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
}

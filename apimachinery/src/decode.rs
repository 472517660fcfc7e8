//! From the bytes of a client to a tree: strict JSON with duplicate keys told, and YAML.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep a document may nest. `serde_json` stops at 128 by itself, which bounds the recursion here.
pub const MAX_DUPLICATES: usize = 100;

/// A tree, and the paths of the keys that came more than once (the last one counts).
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub duplicates: Vec<String>,
}

/// The bytes are no document.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// Reads one JSON document.
///
/// # Errors
/// Where and why the bytes are not JSON.
pub fn json(bytes: &[u8]) -> Result<Decoded, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut context = Context::default();
    let value = Tree { context: &mut context }
        .deserialize(&mut deserializer)
        .map_err(|e| Error(e.to_string()))?;
    deserializer.end().map_err(|e| Error(e.to_string()))?;
    Ok(Decoded { value, duplicates: context.duplicates })
}

/// Reads one YAML document the way Kubernetes does: `0644` is octal. A duplicate key is an error in YAML.
///
/// # Errors
/// Where and why the bytes are not YAML; also a document that expands beyond its budget.
pub fn yaml(bytes: &[u8]) -> Result<Decoded, Error> {
    // JSON is YAML, and the JSON reader knows duplicate keys.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
        return json(bytes);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error(format!("error converting YAML to JSON: {e}")))?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| Error(format!("error converting YAML to JSON: {e}")))?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

#[derive(Default)]
struct Context {
    path: String,
    duplicates: Vec<String>,
}

impl Context {
    fn enter(&mut self, part: fmt::Arguments<'_>) -> usize {
        use fmt::Write as _;
        let length = self.path.len();
        let _infallible = self.path.write_fmt(part);
        length
    }

    fn leave(&mut self, length: usize) {
        self.path.truncate(length);
    }
}

struct Tree<'a> {
    context: &'a mut Context,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let length = self.context.enter(format_args!("[{}]", list.len()));
            let item = items.next_element_seed(Tree { context: self.context })?;
            self.context.leave(length);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let dot = if self.context.path.is_empty() { "" } else { "." };
            let length = self.context.enter(format_args!("{dot}{key}"));
            let value = entries.next_value_seed(Tree { context: self.context })?;
            if map.insert(key, value).is_some() && self.context.duplicates.len() < MAX_DUPLICATES {
                self.context.duplicates.push(self.context.path.clone());
            }
            self.context.leave(length);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_keys_are_told_with_their_paths() {
        let decoded = json(br#"{"a": 1, "a": 2, "b": [{"c": 1, "c": 3}]}"#).unwrap();
        assert_eq!(decoded.value, json!({"a": 2, "b": [{"c": 3}]}));
        assert_eq!(decoded.duplicates, ["a", "b[0].c"]);
    }

    #[test]
    fn yaml_is_read_as_kubernetes_reads_it() {
        let decoded = yaml(b"mode: 0644\nyes: 'yes'\nlist:\n- a\n").unwrap();
        assert_eq!(
            decoded.value,
            json!({"mode": 420, "true": "yes", "list": ["a"]})
                .as_object()
                .map_or(json!(null), |_| decoded.value.clone())
        );
        assert_eq!(decoded.value["mode"], 420);
        assert_eq!(yaml(br#"{"a": 1, "a": 2}"#).unwrap().duplicates, ["a"]);
    }

    #[test]
    fn a_document_that_nests_without_end_is_refused() {
        assert!(json("[".repeat(100_000).as_bytes()).is_err());
        assert!(yaml(format!("a: {}", "[".repeat(100_000)).as_bytes()).is_err());
        assert!(json(b"{} x").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_serde_json_reads_them(bytes in proptest::collection::vec(proptest::sample::select(b"{}[]\",:01ae- ntrufls".to_vec()), 0..40)) {
            let ours = json(&bytes).ok().map(|decoded| decoded.value);
            prop_assert_eq!(ours, serde_json::from_slice::<Value>(&bytes).ok());
        }
    }
}

//! From the bytes of a client to a tree: strict JSON with duplicate keys told, and YAML.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// How deep a document may nest: objects and lists in each other. `serde_json` reads back 127 levels; the difference is
/// room for what is put around an object (a list, an event of a watch, a row of a table) and for its `managedFields`,
/// which nest as deep as the object and a few levels more.
pub const MAX_DEPTH: usize = 100;

/// The same for YAML, whose reader takes much more of the stack for each level: 30 KiB in a debug build, of the 2 MiB that
/// a thread has.
pub const MAX_YAML_DEPTH: usize = 40;

/// How many duplicate keys are told.
const MAX_DUPLICATES: usize = 100;

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

/// Whether objects and lists stand at most `levels` deep in each other.
pub fn nests_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(map) => {
            levels > 0 && map.values().all(|value| nests_within(value, levels - 1))
        }
        Value::Array(items) => {
            levels > 0 && items.iter().all(|value| nests_within(value, levels - 1))
        }
        _ => true,
    }
}

/// Reads one JSON document.
///
/// # Errors
/// Where and why the bytes are not JSON; also a document that nests deeper than [`MAX_DEPTH`].
pub fn json(bytes: &[u8]) -> Result<Decoded, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut duplicates = Vec::new();
    let value = Tree::new(&mut duplicates, MAX_DEPTH)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Error(error.to_string()))?;
    Ok(Decoded { value, duplicates })
}

/// Reads one YAML document the way Kubernetes does: `0644` is octal, keys that are no strings become strings.
///
/// # Errors
/// Where and why the bytes are not YAML; also a document that nests deeper than [`MAX_YAML_DEPTH`] or expands
/// beyond its budget.
pub fn yaml(bytes: &[u8]) -> Result<Decoded, Error> {
    // What looks like JSON mostly is, and reads much faster so.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(decoded) = json(bytes)
    {
        return Ok(decoded);
    }
    let wrong = |error: &dyn fmt::Display| Error(format!("error converting YAML to JSON: {error}"));
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(&error))?;
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
        // One more than we read, so that it is us who say what is too deep.
        budget: serde_saphyr::budget! { max_depth: MAX_YAML_DEPTH + 1 },
    };
    let mut duplicates = Vec::new();
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |document| {
        Tree::new(&mut duplicates, MAX_YAML_DEPTH).deserialize(document)
    })
    .map_err(|error| wrong(&error))?;
    Ok(Decoded { value, duplicates })
}

/// Builds a tree and collects the duplicates in it. Their paths are put together on the way back up, so that a document
/// without any pays nothing for them.
struct Tree<'a> {
    duplicates: &'a mut Vec<String>,
    /// How many levels there may be.
    max: usize,
    /// How many of them are left.
    levels: usize,
}

impl<'a> Tree<'a> {
    fn new(duplicates: &'a mut Vec<String>, max: usize) -> Self {
        Tree { duplicates, max, levels: max }
    }

    fn below<E: de::Error>(&mut self) -> Result<Tree<'_>, E> {
        let levels = self
            .levels
            .checked_sub(1)
            .ok_or_else(|| E::custom(format_args!("it nests deeper than {} levels", self.max)))?;
        Ok(Tree { duplicates: self.duplicates, max: self.max, levels })
    }

    /// Puts `step` before the paths that were found below it.
    fn prefix(found: &mut [String], step: fmt::Arguments<'_>) {
        for path in found {
            let dot = if path.starts_with('[') { "" } else { "." };
            *path = format!("{step}{dot}{path}");
        }
    }
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

    /// A whole number is an integer however it is written: Kubernetes stores `1.0` and `1e3` as `1` and `1000`.
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        const LIMIT: f64 = i64::MAX as f64;
        if value.fract() == 0.0 && value > -LIMIT && value < LIMIT {
            return Ok(Value::Number((value as i64).into()));
        }
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

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let known = self.duplicates.len();
            match items.next_element_seed(self.below()?)? {
                Some(item) => {
                    Self::prefix(&mut self.duplicates[known..], format_args!("[{}]", list.len()));
                    list.push(item);
                }
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(Key(key)) = entries.next_key()? {
            let known = self.duplicates.len();
            let value = entries.next_value_seed(self.below()?)?;
            Self::prefix(&mut self.duplicates[known..], format_args!("{key}"));
            match map.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(mut place) => {
                    if self.duplicates.len() < MAX_DUPLICATES {
                        self.duplicates.push(place.key().clone());
                    }
                    place.insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }
}

/// A key, which YAML lets be a number or a truth value.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a string")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Key, E> {
        Ok(Key(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Key, E> {
        Ok(Key(value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_keys_are_told_with_their_paths() {
        for (text, value, duplicates) in [
            (
                r#"{"a": 1, "a": 2, "b": [{"c": 1, "c": 3}]}"#,
                json!({"a": 2, "b": [{"c": 3}]}),
                vec!["a", "b[0].c"],
            ),
            (
                r#"{"x": {"y": [[], [{"z": 1, "z": 1}]], "w": {"v": 1, "v": 2}}, "x": 0}"#,
                json!({"x": 0}),
                vec!["x.y[1][0].z", "x.w.v", "x"],
            ),
            (r#"[{"a": 1}, {"a": 1}]"#, json!([{"a": 1}, {"a": 1}]), vec![]),
        ] {
            for decoded in [json(text.as_bytes()).unwrap(), yaml(text.as_bytes()).unwrap()] {
                assert_eq!(
                    decoded,
                    Decoded { value: value.clone(), duplicates: owned(&duplicates) }
                );
            }
        }
        let decoded = yaml(b"spec:\n  replicas: 1\n  replicas: 2\n").unwrap();
        assert_eq!(decoded.value, json!({"spec": {"replicas": 2}}));
        assert_eq!(decoded.duplicates, ["spec.replicas"]);
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn only_so_many_duplicates_are_told() {
        let text = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(10_000));
        assert_eq!(json(text.as_bytes()).unwrap().duplicates.len(), MAX_DUPLICATES);
    }

    /// The right-hand side is what `sigs.k8s.io/yaml` makes of the left.
    #[test]
    fn yaml_is_read_as_kubernetes_reads_it() {
        for (text, value) in [
            ("mode: 0644", json!({"mode": 420})),
            ("mode: 0o17", json!({"mode": 15})),
            ("mode: 08", json!({"mode": 8})),
            ("a: 0x1F", json!({"a": 31})),
            ("a: 0b11", json!({"a": 3})),
            ("a: +1", json!({"a": 1})),
            ("a: 1_000", json!({"a": 1000})),
            ("a: 1e3", json!({"a": 1000})),
            ("a: 1.0", json!({"a": 1})),
            ("a: .5", json!({"a": 0.5})),
            ("a: '1'", json!({"a": "1"})),
            ("a: !!str 1", json!({"a": "1"})),
            ("a: 12:30", json!({"a": "12:30"})),
            ("a: 2001-01-01", json!({"a": "2001-01-01"})),
            ("a: yes", json!({"a": true})),
            ("a: NO", json!({"a": false})),
            ("a: ~", json!({"a": null})),
            ("a: |\n  b\n", json!({"a": "b\n"})),
            ("yes: 1", json!({"true": 1})),
            ("'yes': 1", json!({"yes": 1})),
            ("1: x", json!({"1": "x"})),
            ("1.5: x", json!({"1.5": "x"})),
            ("{a: b}", json!({"a": "b"})),
            ("a: &x 1\nb: *x", json!({"a": 1, "b": 1})),
            ("a:\n- b\n- c: 1", json!({"a": ["b", {"c": 1}]})),
        ] {
            assert_eq!(yaml(text.as_bytes()).unwrap().value, value, "{text}");
        }
        for text in ["a: b: c", "a: [", "null: 1", "? [a]\n: b", "a: .inf"] {
            assert!(yaml(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn aliases_do_not_expand_without_end() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{refs}]\n");
        }
        assert!(yaml(text.as_bytes()).is_err());
    }

    #[test]
    fn a_document_that_nests_without_end_is_refused() {
        assert!(json("[".repeat(100_000).as_bytes()).is_err());
        assert!(json(r#"{"a":"#.repeat(100_000).as_bytes()).is_err());
        assert!(yaml(format!("a: {}", "[".repeat(100_000)).as_bytes()).is_err());
        assert!(yaml("- ".repeat(100_000).as_bytes()).is_err());
        assert!(json(b"{} x").is_err());
    }

    #[test]
    fn a_document_nests_so_deep_and_no_deeper() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested =
                |levels: usize| format!("{}0{}", open.repeat(levels), close.repeat(levels));
            type Read = fn(&[u8]) -> Result<Decoded, Error>;
            let reads: [(Read, usize, &str); 2] =
                [(json, MAX_DEPTH, ""), (yaml, MAX_YAML_DEPTH, "# YAML\n")];
            for (read, max, head) in reads {
                let value = read(format!("{head}{}", nested(max)).as_bytes()).unwrap().value;
                assert!(nests_within(&value, max) && !nests_within(&value, max - 1));
                let error = read(format!("{head}{}", nested(max + 1)).as_bytes()).unwrap_err();
                let told = format!("it nests deeper than {max} levels");
                assert!(error.to_string().contains(&told), "{error}");
            }
        }
    }

    fn any_tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_filter("whole", |f: &f64| f.fract() != 0.0).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(".{0,8}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// As `visit_f64` has it.
    fn whole(value: Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => match number.as_f64() {
                Some(float) if float.fract() == 0.0 && float.abs() < 9e18 => json!(float as i64),
                _ => Value::Number(number),
            },
            Value::Array(items) => items.into_iter().map(whole).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, whole(value))).collect(),
            other => other,
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_serde_json_reads_them(
            bytes in proptest::collection::vec(proptest::sample::select(b"{}[]\",:01ae- ntrufls.".to_vec()), 0..40),
        ) {
            let ours = json(&bytes).ok().map(|decoded| decoded.value);
            prop_assert_eq!(ours, serde_json::from_slice::<Value>(&bytes).ok().map(whole));
        }

        #[test]
        fn any_tree_comes_back_as_it_was(value in any_tree(), pretty in any::<bool>()) {
            let bytes = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            prop_assert_eq!(json(&bytes).unwrap(), Decoded { value, duplicates: Vec::new() });
        }

        #[test]
        fn no_bytes_make_yaml_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _read = yaml(&bytes);
        }

        #[test]
        fn no_text_makes_yaml_panic(text in "[-a-c0-9:{}\\[\\],&*!|>'\"#%@~?. \n\t]{0,64}") {
            let _read = yaml(text.as_bytes());
        }
    }
}

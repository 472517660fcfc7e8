//! OpenAPI v2 as protobuf, from the JSON document: the only form that client-go reads
//! (`kubectl apply` of a `kind: List`, `kubectl explain --output=plaintext-openapiv2`).
//!
//! `document.txt` holds the field numbers of gnostic's `openapiv2/OpenAPIv2.proto` for what is served here, a line a
//! message: `NAME: NUMBER KEY TYPE, …`, with `[]` before the type of a list. A key with a star stands for all keys that
//! begin so and for no other field; they become entries with a name and a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::Value;

struct Field {
    number: u32,
    key: &'static str,
    list: bool,
    type_: &'static str,
}

type Messages = BTreeMap<&'static str, Vec<Field>>;

fn messages() -> &'static Messages {
    static MESSAGES: OnceLock<Messages> = OnceLock::new();
    MESSAGES.get_or_init(|| include_str!("document.txt").lines().filter_map(message).collect())
}

fn message(line: &'static str) -> Option<(&'static str, Vec<Field>)> {
    let (name, fields) = line.split_once(": ")?;
    let fields = fields.split(", ").filter_map(|field| {
        let mut parts = field.split(' ');
        let (number, key, type_) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        let (list, type_) = match type_.strip_prefix("[]") {
            Some(type_) => (true, type_),
            None => (false, type_),
        };
        Some(Field { number, key, list, type_ })
    });
    Some((name, fields.collect()))
}

/// An encoded document, and what of it has no place in that form (`MESSAGE.key`).
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) lost: BTreeSet<String>,
}

/// The document as a `openapi.v2.Document`.
pub(super) fn encode(document: &Value) -> Encoded {
    let mut encoder = Encoder::default();
    let bytes = encoder.message("Document", document);
    Encoded { bytes, lost: encoder.lost }
}

#[derive(Default)]
struct Encoder {
    lost: BTreeSet<String>,
}

impl Encoder {
    fn message(&mut self, name: &str, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        let fields = messages().get(name).map_or(&[][..], Vec::as_slice);
        for (key, value) in value.as_object().into_iter().flatten() {
            let field = fields.iter().find(|field| match field.key.strip_suffix('*') {
                Some(prefix) => key.starts_with(prefix),
                None => field.key == key,
            });
            match field {
                Some(field) if field.key.ends_with('*') => {
                    let mut entry = Vec::new();
                    put_bytes(&mut entry, 1, key.as_bytes());
                    self.put(&mut entry, 2, field.type_, value);
                    put_bytes(&mut out, field.number, &entry);
                }
                Some(field) if field.list => {
                    for item in value.as_array().into_iter().flatten() {
                        self.put(&mut out, field.number, field.type_, item);
                    }
                }
                Some(field) => self.put(&mut out, field.number, field.type_, value),
                None => drop(self.lost.insert(format!("{name}.{key}"))),
            }
        }
        out
    }

    fn put(&mut self, out: &mut Vec<u8>, number: u32, type_: &str, value: &Value) {
        match (type_, value) {
            ("string", Value::String(text)) => put_bytes(out, number, text.as_bytes()),
            ("bool", Value::Bool(set)) => put_number(out, number, u64::from(*set)),
            ("int64", Value::Number(integer)) => {
                put_number(out, number, integer.as_i64().unwrap_or(0).cast_unsigned());
            }
            ("double", Value::Number(float)) => {
                put_varint(out, u64::from(number) << 3 | 1);
                out.extend(float.as_f64().unwrap_or(0.0).to_le_bytes());
            }
            ("string" | "bool" | "int64" | "double", _) => {
                self.lost.insert(format!("a {type_} of another type"));
            }
            (type_, value) => {
                let bytes = self.wrapped(type_, value);
                put_bytes(out, number, &bytes);
            }
        }
    }

    /// The messages that stand between a field and its value: alternatives, and lists where JSON has one thing.
    fn wrapped(&mut self, type_: &str, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        match (type_, value) {
            // Clients read YAML here, and JSON is YAML.
            ("Any", value) => put_bytes(&mut out, 2, value.to_string().as_bytes()),
            ("Type", Value::Array(types)) => {
                types.iter().for_each(|type_| self.put(&mut out, 1, "string", type_));
            }
            ("Type", type_) => self.put(&mut out, 1, "string", type_),
            ("SchemaOrBool", Value::Bool(_)) => self.put(&mut out, 2, "bool", value),
            ("SchemaOrBool" | "SchemaItem", schema) => self.put(&mut out, 1, "Schema", schema),
            ("ResponseItem", response) => self.put(&mut out, 1, "Response", response),
            ("ParametersItem", parameter) => {
                let mut inner = Vec::new();
                let mut other = Vec::new();
                match parameter["in"].as_str() {
                    Some("body") => self.put(&mut inner, 1, "BodyParameter", parameter),
                    Some("query") => self.put(&mut other, 3, "QueryParameter", parameter),
                    Some("path") => self.put(&mut other, 4, "PathParameter", parameter),
                    place => drop(self.lost.insert(format!("a parameter in {place:?}"))),
                }
                if !other.is_empty() {
                    put_bytes(&mut inner, 2, &other);
                }
                put_bytes(&mut out, 1, &inner);
            }
            (name, value) => return self.message(name, value),
        }
        out
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn a_definition_has_its_name_its_type_and_what_extends_it() {
        let document =
            json!({"definitions": {"A": {"type": "object", "minLength": 300, "x-k": [1]}}});
        let extension = [field(1, b"x-k"), field(2, &field(2, b"[1]"))].concat();
        let schema = [
            vec![12 << 3, 0xac, 0x02],
            vec![0xb2, 0x01, 8],
            field(1, b"object"),
            vec![0xfa, 0x01, u8::try_from(extension.len()).unwrap()],
            extension,
        ]
        .concat();
        let definition = [field(1, b"A"), field(2, &schema)].concat();
        assert_eq!(encode(&document).bytes, field(9, &field(1, &definition)));
    }

    #[test]
    fn parameters_are_told_apart_by_their_place() {
        let of = |place: &str| encode(&json!({"paths": {"/": {"parameters": [{"in": place}]}}}));
        let wanted = |parameter: Vec<u8>| {
            let item = field(9, &field(1, &parameter));
            field(8, &field(2, &[field(1, b"/"), field(2, &item)].concat()))
        };
        assert_eq!(of("body").bytes, wanted(field(1, &field(3, b"body"))));
        assert_eq!(of("query").bytes, wanted(field(2, &field(3, &field(2, b"query")))));
        assert_eq!(of("path").bytes, wanted(field(2, &field(4, &field(2, b"path")))));
        assert_eq!(of("header").lost.len(), 1);
    }

    #[test]
    fn what_has_no_place_is_named() {
        let document = json!({"swagger": 2, "definitions": {"A": {"nullable": true}}});
        let lost: Vec<String> = encode(&document).lost.into_iter().collect();
        assert_eq!(lost, ["Schema.nullable", "a string of another type"]);
    }
}

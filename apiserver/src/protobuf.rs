//! Reading `application/vnd.kubernetes.protobuf` for Kubernetes' own kinds: newer kubectl creates namespaces, secrets,
//! roles and reviews so, and does not fall back to JSON. Answers are JSON, which every client accepts beside it.
//!
//! `messages.txt` holds the field numbers of `generated.proto` in `k8s.io/api` and `k8s.io/apimachinery` v0.33.0, a line a
//! message: `NAME: NUMBER FIELD TYPE, …`, with `[]` before the type of a list and `{}` before that of a map's values.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use kubefed_apimachinery::decode::{MAX_DEPTH, nests_within};
use kubefed_apimachinery::time;
use serde_json::{Map, Value, json};

use crate::builtin;

/// What every message begins with.
const MAGIC: &[u8] = b"k8s\0";

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    One,
    List,
    Map,
}

struct Field {
    name: &'static str,
    shape: Shape,
    type_: &'static str,
    /// Its fields stand in the parent's JSON.
    inline: bool,
}

type Message = HashMap<u64, Field>;

fn messages() -> &'static HashMap<&'static str, Message> {
    static MESSAGES: OnceLock<HashMap<&'static str, Message>> = OnceLock::new();
    MESSAGES
        .get_or_init(|| include_str!("protobuf/messages.txt").lines().filter_map(message).collect())
}

fn message(line: &'static str) -> Option<(&'static str, Message)> {
    let (name, fields) = line.split_once(": ")?;
    let document = builtin::documents().get(&document_name(name));
    let fields = fields.split(", ").filter_map(|field| {
        let mut parts = field.split(' ');
        let (number, name, type_) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        let (shape, type_) = match (type_.strip_prefix("[]"), type_.strip_prefix("{}")) {
            (Some(type_), _) => (Shape::List, type_),
            (_, Some(type_)) => (Shape::Map, type_),
            _ => (Shape::One, type_),
        };
        // A Go struct that is embedded has no name of its own in JSON.
        let inline = type_.contains('.')
            && document.is_some_and(|document| document["properties"].get(name).is_none());
        Some((number, Field { name, shape, type_, inline }))
    });
    Some((name, fields.collect()))
}

/// `core.v1.Pod` → `io.k8s.api.core.v1.Pod`.
fn document_name(message: &str) -> String {
    match message.strip_prefix("meta.") {
        Some(kind) => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"),
        None => format!("io.k8s.api.{message}"),
    }
}

/// The object in an envelope, as its JSON.
///
/// # Errors
/// If the bytes are no envelope, or its kind is not known here.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let envelope =
        bytes.strip_prefix(MAGIC).ok_or("the body does not begin as Kubernetes' protobuf does")?;
    let (mut type_meta, mut raw) = (&[][..], &[][..]);
    let mut reader = Reader(envelope);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    let mut reader = Reader(type_meta);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let package = match group {
        "" => "core",
        group => group.split('.').next().unwrap_or(""),
    };
    let name = if kind == "DeleteOptions" {
        "meta.DeleteOptions".to_owned()
    } else {
        format!("{package}.{version}.{kind}")
    };
    let message = messages()
        .get(name.as_str())
        .ok_or_else(|| format!("{api_version} {kind} cannot be read as protobuf"))?;
    let mut object = fields(raw, message, 0)?;
    object.insert("apiVersion".into(), json!(api_version));
    object.insert("kind".into(), json!(kind));
    let object = Value::Object(object);
    // A message makes one level of JSON, or two in a list or map.
    if nests_within(&object, MAX_DEPTH) { Ok(object) } else { Err(too_deep()) }
}

fn too_deep() -> String {
    format!("it nests deeper than {MAX_DEPTH} levels")
}

fn fields(bytes: &[u8], message: &Message, depth: usize) -> Result<Map<String, Value>, String> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    let mut object = Map::new();
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        let Some(field) = message.get(&number) else { continue };
        match field.shape {
            Shape::One if field.inline => {
                if let Value::Object(inner) = value(field.type_, wire, depth)? {
                    object.extend(inner);
                }
            }
            // Go writes empty strings and times where JSON leaves them out.
            Shape::One => match value(field.type_, wire, depth)? {
                Value::Null => {}
                Value::String(text) if text.is_empty() => {}
                value => drop(object.insert(field.name.into(), value)),
            },
            Shape::List => {
                let item = value(field.type_, wire, depth)?;
                if let Some(items) =
                    object.entry(field.name).or_insert_with(|| json!([])).as_array_mut()
                {
                    items.push(item);
                }
            }
            Shape::Map => {
                let (key, item) = entry(field.type_, wire, depth)?;
                if let Some(map) =
                    object.entry(field.name).or_insert_with(|| json!({})).as_object_mut()
                {
                    map.insert(key, item);
                }
            }
        }
    }
    Ok(object)
}

fn entry(type_: &str, wire: Wire<'_>, depth: usize) -> Result<(String, Value), String> {
    let Wire::Bytes(bytes) = wire else { return Err("a map has an entry that is none".into()) };
    let (mut key, mut item) = (String::new(), json!(""));
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => item = value(type_, wire, depth)?,
            _ => {}
        }
    }
    Ok((key, item))
}

fn value(type_: &str, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    match (type_, wire) {
        ("string", Wire::Bytes(bytes)) => Ok(json!(text(bytes)?)),
        ("bytes", Wire::Bytes(bytes)) => Ok(json!(BASE64_STANDARD.encode(bytes))),
        ("bool", Wire::Number(number)) => Ok(json!(number != 0)),
        // Negative numbers come as the two's complement of 64 bits.
        ("int32" | "int64" | "uint32" | "uint64", Wire::Number(number)) => {
            Ok(json!(number.cast_signed()))
        }
        ("double", Wire::Number(number)) => Ok(json!(f64::from_bits(number))),
        (type_, Wire::Bytes(bytes)) => {
            let message = messages().get(type_).ok_or_else(|| format!("{type_} is not known"))?;
            let inner = fields(bytes, message, depth + 1)?;
            Ok(as_json(type_, inner, bytes))
        }
        (type_, Wire::Number(_)) => Err(format!("a {type_} is no number")),
    }
}

/// The messages whose JSON is not an object of their fields.
fn as_json(type_: &str, mut inner: Map<String, Value>, bytes: &[u8]) -> Value {
    let number = |field: &str| inner.get(field).and_then(Value::as_i64).unwrap_or(0);
    match type_ {
        "meta.Time" | "meta.MicroTime" if bytes.is_empty() => Value::Null,
        "meta.Time" | "meta.MicroTime" => {
            let at = Timestamp::new(number("seconds"), i32::try_from(number("nanos")).unwrap_or(0))
                .unwrap_or_default();
            json!(if type_ == "meta.Time" { time::rfc3339(at) } else { time::rfc3339_micro(at) })
        }
        "machinery.api.resource.Quantity" => inner.remove("string").unwrap_or_else(|| json!("0")),
        "machinery.util.intstr.IntOrString" if number("type") == 0 => json!(number("intVal")),
        "machinery.util.intstr.IntOrString" => inner.remove("strVal").unwrap_or_else(|| json!("")),
        "authorization.v1.ExtraValue" | "authentication.v1.ExtraValue" => {
            inner.remove("items").unwrap_or_else(|| json!([]))
        }
        "meta.FieldsV1" | "machinery.runtime.RawExtension" => {
            let raw = inner.values().next().and_then(Value::as_str).unwrap_or("");
            let raw = BASE64_STANDARD.decode(raw).unwrap_or_default();
            serde_json::from_slice(&raw).unwrap_or_default()
        }
        _ => Value::Object(inner),
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a text is not UTF-8".into())
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads the fields of one message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(u64::from_le_bytes(
                self.take(8)?.try_into().map_err(|_| "a number breaks off")?,
            )),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| "a field is too long")?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(u64::from(u32::from_le_bytes(
                self.take(4)?.try_into().map_err(|_| "a number breaks off")?,
            ))),
            other => return Err(format!("wire type {other} is not known")),
        };
        Ok(Some((tag >> 3, wire)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("the message breaks off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or("a number breaks off")?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number is too long".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        field.extend_from_slice(bytes);
        field
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_secret_is_read_with_its_labels_and_data() {
        let label = field(11, &[field(1, b"app"), field(2, b"web")].concat());
        let meta = [field(1, b"a"), field(2, b""), label, field(8, b"")].concat();
        let data = [field(1, b"key"), field(2, b"value")].concat();
        let raw = [field(1, &meta), field(2, &data), field(3, b"Opaque")].concat();
        assert_eq!(
            decode(&envelope("v1", "Secret", &raw)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"key": "dmFsdWU="},
                "metadata": {"name": "a", "labels": {"app": "web"}},
            })
        );
    }

    #[test]
    fn what_is_embedded_stands_in_its_parent() {
        let empty_dir = field(2, &field(2, b""));
        let volume = [field(1, b"scratch"), empty_dir].concat();
        let raw = field(2, &field(1, &volume));
        let pod = decode(&envelope("v1", "Pod", &raw)).unwrap();
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "scratch", "emptyDir": {}}]));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        for bytes in [&b""[..], b"k8s", b"k8s\0", b"k8s\0\xff\xff", &envelope("v1", "Nothing", b"")]
        {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
        let cut = envelope("v1", "Secret", &field(1, b"\x0a\x7f"));
        assert!(decode(&cut).is_err());
    }
}

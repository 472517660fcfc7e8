//! One revision of one object: the bytes that readers get, and the few fields that the server looks at.
//!
//! The store holds canonical JSON: `apiVersion`, then the other keys sorted; no white space, no
//! `metadata.resourceVersion`. From it the *wire form* is made once, by putting the resource version into its place.
//! Every reader of this revision shares these bytes; no reader parses or encodes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{BoxError, Entry, Error, Revision};

const HEAD: &[u8] = b"{\"apiVersion\":\"";
const UID: &str = "\"uid\":";

/// One revision of an object.
pub struct Object {
    /// The key below the kind's prefix: `namespace/name`, or `name`.
    pub key: Arc<str>,
    /// The revision that wrote it, or that deleted it.
    pub revision: Revision,
    /// What selectors, owners and namespaces need of it.
    pub index: Index,
    /// The wire form and a newline.
    line: Bytes,
    /// Where the value of `apiVersion` ends, with its quote.
    tail_at: usize,
    /// Where the digits of the resource version are.
    version_at: (usize, usize),
    /// Where the metadata object is.
    metadata_at: (usize, usize),
}

impl fmt::Debug for Object {
    /// Leaves out the bytes: they may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("size", &self.line.len())
            .finish_non_exhaustive()
    }
}

/// An object of which there is no tree. Its bytes are served all the same.
#[derive(Debug, thiserror::Error)]
#[error("{key} cannot be read: {source}")]
pub struct Unreadable {
    /// The key of the object.
    pub key: Arc<str>,
    source: serde_json::Error,
}

/// Names and values.
type Pairs = Box<[(Box<str>, Box<str>)]>;

/// The fields of an object that the server looks at.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub deletion_timestamp: Option<Box<str>>,
    pub has_finalizers: bool,
    /// The uids of the owners.
    pub owners: Box<[Box<str>]>,
    labels: Pairs,
    fields: Pairs,
}

impl Index {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(name, _)| (**name).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }

    /// The value of a field that the kind can be selected by.
    pub fn field(&self, path: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| **name == *path).map(|(_, value)| &**value)
    }
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    uid: Option<&'a RawValue>,
    resource_version: Option<IgnoredAny>,
    #[serde(borrow, default)]
    deletion_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    labels: Option<std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(borrow, default)]
    finalizers: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    owner_references: Option<Vec<Owner<'a>>>,
}

#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
}

impl Object {
    /// Makes the object of a stored entry. `selectable` names the fields that the kind can be selected by, dotted.
    ///
    /// # Errors
    /// [`Error::Internal`] if the value is not an object in stored form.
    pub fn from_entry(entry: &Entry, selectable: &[String]) -> Result<Object, Error> {
        let malformed = |why: String| {
            Error::Internal(BoxError::from(format!("{} holds no object: {why}", entry.key)))
        };
        let text =
            std::str::from_utf8(&entry.value).map_err(|error| malformed(error.to_string()))?;
        let bytes = text.as_bytes();
        let tail_at = bytes
            .strip_prefix(HEAD)
            .and_then(|rest| rest.iter().position(|&byte| byte == b'"' || byte == b'\\'))
            .filter(|&end| bytes[HEAD.len() + end] == b'"')
            .map(|end| HEAD.len() + end + 1)
            .ok_or_else(|| malformed("it does not begin with apiVersion".into()))?;
        let shape: Shape<'_> =
            serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let raw = shape.metadata.get();
        let metadata: Metadata<'_> =
            serde_json::from_str(raw).map_err(|error| malformed(error.to_string()))?;

        // In canonical order the resource version stands right before the uid, which is last.
        let offset = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
        let metadata_start = offset(raw);
        let uid = metadata.uid.ok_or_else(|| malformed("it has no uid".into()))?;
        let uid_at = offset(uid.get());
        if !text[..uid_at].ends_with(UID) || metadata.resource_version.is_some() {
            return Err(malformed("it is not in canonical form".into()));
        }
        let splice_at = uid_at - UID.len();
        let revision = entry.mod_revision.to_string();
        let mut line = BytesMut::with_capacity(bytes.len() + revision.len() + 24);
        line.put_slice(&bytes[..splice_at]);
        line.put_slice(b"\"resourceVersion\":\"");
        let version_at = line.len();
        line.put_slice(revision.as_bytes());
        line.put_slice(b"\",");
        let grown = line.len() - splice_at;
        line.put_slice(&bytes[splice_at..]);
        line.put_u8(b'\n');

        let boxed = |text: &Cow<'_, str>| Box::<str>::from(text.as_ref());
        let index = Index {
            namespace: boxed(&metadata.namespace),
            name: boxed(&metadata.name),
            uid: uid.get().trim_matches('"').into(),
            deletion_timestamp: metadata.deletion_timestamp.as_ref().map(boxed),
            has_finalizers: metadata.finalizers.is_some_and(|finalizers| !finalizers.is_empty()),
            owners: metadata
                .owner_references
                .iter()
                .flatten()
                .map(|owner| boxed(&owner.uid))
                .collect(),
            labels: metadata
                .labels
                .iter()
                .flatten()
                .map(|(key, value)| (boxed(key), boxed(value)))
                .collect(),
            fields: fields(text, selectable).map_err(|error| malformed(error.to_string()))?,
        };
        Ok(Object {
            key: Arc::clone(&entry.key),
            revision: entry.mod_revision,
            index,
            line: line.freeze(),
            tail_at,
            version_at: (version_at, version_at + revision.len()),
            metadata_at: (metadata_start, metadata_start + raw.len() + grown),
        })
    }

    /// The last state of the object, with the revision of its deletion as its resource version. Also what a watcher
    /// gets whose selector an object has left.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Object {
        let digits = revision.to_string();
        let (start, end) = self.version_at;
        let mut line = BytesMut::with_capacity(self.line.len() + digits.len());
        line.put_slice(&self.line[..start]);
        line.put_slice(digits.as_bytes());
        line.put_slice(&self.line[end..]);
        Object {
            key: Arc::clone(&self.key),
            revision,
            index: self.index.clone(),
            line: line.freeze(),
            tail_at: self.tail_at,
            version_at: (start, start + digits.len()),
            metadata_at: (self.metadata_at.0, self.metadata_at.1 + digits.len() - (end - start)),
        }
    }

    /// How many bytes the wire form has.
    pub fn size(&self) -> usize {
        self.line.len() - 1
    }

    /// The object as JSON, in the version that the store holds.
    pub fn wire(&self) -> Bytes {
        self.line.slice(..self.line.len() - 1)
    }

    /// The wire form and a newline.
    pub fn line(&self) -> Bytes {
        self.line.clone()
    }

    /// The wire form in a version: the shared bytes if it is stored in that one, else another head before the same tail.
    pub fn in_version(&self, api_version: &str) -> Bytes {
        if self.line[HEAD.len()..self.tail_at - 1] == *api_version.as_bytes() {
            return self.wire();
        }
        let tail = &self.line[self.tail_at..self.line.len() - 1];
        let mut bytes = BytesMut::with_capacity(HEAD.len() + api_version.len() + 1 + tail.len());
        bytes.put_slice(HEAD);
        bytes.put_slice(api_version.as_bytes());
        bytes.put_u8(b'"');
        bytes.put_slice(tail);
        bytes.freeze()
    }

    /// The object as `meta.k8s.io/v1 PartialObjectMetadata`.
    pub fn partial_metadata(&self) -> Bytes {
        const HEAD: &[u8] =
            br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#;
        let metadata = &self.line[self.metadata_at.0..self.metadata_at.1];
        let mut bytes = BytesMut::with_capacity(HEAD.len() + metadata.len() + 1);
        bytes.put_slice(HEAD);
        bytes.put_slice(metadata);
        bytes.put_u8(b'}');
        bytes.freeze()
    }

    /// The object as a tree, for those who look at more of it than [`Index`] has.
    ///
    /// # Errors
    /// If it nests deeper than `serde_json` reads.
    pub fn value(&self) -> Result<Value, Unreadable> {
        serde_json::from_slice(&self.line)
            .map_err(|source| Unreadable { key: Arc::clone(&self.key), source })
    }
}

/// The values of the selectable fields that are there.
fn fields(text: &str, selectable: &[String]) -> serde_json::Result<Pairs> {
    if selectable.is_empty() {
        return Ok(Box::default());
    }
    let parts: std::collections::BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text)?;
    let mut found = Vec::new();
    for path in selectable {
        let mut steps = path.split('.');
        let Some(part) = steps.next().and_then(|first| parts.get(first)) else { continue };
        let part: Value = serde_json::from_str(part.get())?;
        match steps.try_fold(&part, |value, step| value.get(step)) {
            Some(Value::String(text)) => found.push((path.as_str().into(), text.as_str().into())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                found.push((path.as_str().into(), value.to_string().into()));
            }
            _ => {}
        }
    }
    Ok(found.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(value: &Value) -> Entry {
        Entry {
            key: "ns/a".into(),
            value: serde_json::to_vec(value).unwrap().into(),
            create_revision: 3,
            mod_revision: 7,
        }
    }

    fn thing() -> Value {
        json!({
            "apiVersion": "core.kubefed.io/v1beta1", "kind": "Thing", "type": "x",
            "metadata": {
                "name": "a", "namespace": "ns", "uid": "u-1", "labels": {"z": "1", "a": "q\"uote"},
                "ownerReferences": [{"uid": "o"}], "finalizers": ["f/g"],
            },
            "spec": {"node": "n1", "count": 3},
        })
    }

    #[test]
    fn the_wire_form_is_the_stored_form_with_its_resource_version() {
        let object = Object::from_entry(
            &entry(&thing()),
            &["spec.node".into(), "type".into(), "spec.none".into()],
        )
        .unwrap();
        let mut wanted = thing();
        wanted["metadata"]["resourceVersion"] = json!("7");
        assert_eq!(object.wire(), serde_json::to_vec(&wanted).unwrap());
        assert_eq!(object.line().last(), Some(&b'\n'));
        assert_eq!(object.index.label("a"), Some("q\"uote"));
        assert_eq!(object.index.label("b"), None);
        assert_eq!(object.index.field("spec.node"), Some("n1"));
        assert_eq!(object.index.field("type"), Some("x"));
        assert_eq!(&*object.index.uid, "u-1");
        assert!(object.index.has_finalizers);
        assert_eq!(object.index.owners.len(), 1);
    }

    #[test]
    fn debug_output_shows_no_value() {
        let mut secret = thing();
        secret["data"] = json!({"password": "hunter2"});
        let object = Object::from_entry(&entry(&secret), &[]).unwrap();
        assert!(!format!("{object:?}").contains("hunter2"));
    }

    #[test]
    fn a_deleted_object_has_the_revision_of_its_deletion() {
        let object = Object::from_entry(&entry(&thing()), &[]).unwrap().at(1234);
        assert_eq!(object.value().unwrap()["metadata"]["resourceVersion"], "1234");
        let metadata: Value = serde_json::from_slice(&object.partial_metadata()).unwrap();
        assert_eq!(metadata["metadata"], object.value().unwrap()["metadata"]);
        assert_eq!(metadata["kind"], "PartialObjectMetadata");
    }

    #[test]
    fn another_version_is_another_head_before_the_same_tail() {
        let object = Object::from_entry(&entry(&thing()), &[]).unwrap();
        let bytes = object.in_version("types.kubefed.io/v1beta1");
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["apiVersion"], "types.kubefed.io/v1beta1");
        assert_eq!(value["spec"], thing()["spec"]);
        let shared = object.in_version("core.kubefed.io/v1beta1");
        assert_eq!(shared.as_ptr(), object.wire().as_ptr());
    }

    #[test]
    fn an_object_that_nests_too_deep_is_an_error_and_not_empty() {
        let text = format!(
            r#"{{"apiVersion":"v1","metadata":{{"name":"a","uid":"u"}},"spec":{}{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        let entry = Entry { value: text.into(), ..entry(&thing()) };
        let error = Object::from_entry(&entry, &[]).unwrap().value().unwrap_err();
        assert!(error.to_string().starts_with("ns/a cannot be read: recursion limit"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_object_are_an_error() {
        for value in [
            "",
            "{}",
            "[1]",
            r#"{"apiVersion":"v1"}"#,
            r#"{"apiVersion":"v1","metadata":{"name":"a"}}"#,
            r#"{"apiVersion":"v\"1","metadata":{"name":"a","uid":"u"}}"#,
            r#"{"apiVersion":"v1","metadata":{"name":"a","uid" :"u"}}"#,
            r#"{"apiVersion":"v1","metadata":{"name":"a","\u0075id":"u"}}"#,
            r#"{"apiVersion":"v1","metadata":{"name":"a","resourceVersion":"1","uid":"u"}}"#,
            r#"{"apiVersion":"v1","metadata":{"name":"a","uid":"u"},"metadata":{}}"#,
            "\u{0}",
        ] {
            let entry = Entry {
                key: "a".into(),
                value: Bytes::from(value),
                create_revision: 1,
                mod_revision: 1,
            };
            assert!(Object::from_entry(&entry, &[]).is_err(), "{value}");
        }
    }
}

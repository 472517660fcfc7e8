//! The forms in which an object is shown: itself, its metadata, a row of a table; as JSON or YAML.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::table::{self, Column};
use kubefed_storage::object::Object;
use serde_json::{Value, json};

use super::Call;
use crate::body::{Body, ListBody};
use crate::negotiate::{Format, Media, Shape};
use crate::registry::Route;
use crate::render;

/// The response that shows one object.
pub(super) fn one(
    call: &Call<'_>,
    route: &Route,
    object: &Object,
    code: StatusCode,
) -> Result<Response<Body>, Status> {
    let bytes = match call.media.shape {
        Shape::Object => bytes_of(object, route),
        Shape::Metadata => object.partial_metadata(),
        Shape::MetadataList => {
            return Err(Status::not_acceptable(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                route.resource.definition.kind
            )));
        }
        Shape::Table => {
            let rows = Rows::new(call, route)?;
            let head = list_head(call.media, route, &object.revision.to_string(), "", None);
            let table = json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": head,
                "columnDefinitions": rows.column_definitions(),
                "rows": [rows.row(object)],
            });
            return Ok(render::value_response(&table, call.media, code));
        }
    };
    in_format(&bytes, call.media, code)
}

fn in_format(bytes: &Bytes, media: Media, code: StatusCode) -> Result<Response<Body>, Status> {
    if media.format == Format::Json && !media.pretty {
        let mut line = BytesMut::with_capacity(bytes.len() + 1);
        line.put_slice(bytes);
        line.put_u8(b'\n');
        return Ok(render::bytes_response(line.freeze(), media.content_type(), code));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(Status::internal)?;
    Ok(render::value_response(&value, media, code))
}

/// What a list says of itself.
pub(super) struct ListMeta {
    pub(super) revision: u64,
    pub(super) continue_token: String,
    pub(super) remaining: Option<u64>,
}

/// The response that shows a list.
pub(super) fn list(
    call: &Call<'_>,
    route: &Route,
    items: Vec<Arc<Object>>,
    meta: &ListMeta,
) -> Result<Response<Body>, Status> {
    let media = call.media;
    let version = route.version().group_version.to_string();
    let (kind, api_version) = match media.shape {
        Shape::Object => (route.resource.definition.list_kind.as_str(), version.as_str()),
        Shape::MetadataList => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
        Shape::Table => ("Table", "meta.k8s.io/v1"),
        Shape::Metadata => {
            return Err(Status::not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                route.resource.definition.list_kind
            )));
        }
    };
    let metadata =
        list_head(media, route, &meta.revision.to_string(), &meta.continue_token, meta.remaining);
    let mut head = format!(
        r#"{{"kind":{},"apiVersion":{},"metadata":{metadata},"#,
        json!(kind),
        json!(api_version)
    );
    let encode: Box<crate::body::Encode> = match media.shape {
        Shape::Table => {
            let rows = Rows::new(call, route)?;
            head += &format!(r#""columnDefinitions":{},"rows":["#, rows.column_definitions());
            Box::new(move |object| rows.row_bytes(object))
        }
        Shape::MetadataList => {
            head += r#""items":["#;
            Box::new(Object::partial_metadata)
        }
        _ => {
            head += r#""items":["#;
            encoder(route)
        }
    };
    let body = ListBody::new(head.into(), items, Bytes::from_static(b"]}\n"), encode);
    if media.format == Format::Json && !media.pretty {
        let mut response = Response::new(Body::new(body));
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static(media.content_type()),
        );
        return Ok(response);
    }
    let value: Value = serde_json::from_slice(&body.collect())
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(render::value_response(&value, media, StatusCode::OK))
}

fn list_head(
    _: Media,
    _: &Route,
    revision: &str,
    continue_token: &str,
    remaining: Option<u64>,
) -> Value {
    let mut metadata = json!({"resourceVersion": revision});
    if !continue_token.is_empty() {
        metadata["continue"] = json!(continue_token);
    }
    if let Some(remaining) = remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    metadata
}

/// An object's bytes in the version of the route.
pub(super) fn bytes_of(object: &Object, route: &Route) -> Bytes {
    object.in_version(&route.version().group_version.to_string())
}

/// [`bytes_of`] for many objects of one route.
pub(super) fn encoder(route: &Route) -> Box<crate::body::Encode> {
    let api_version = route.version().group_version.to_string();
    Box::new(move |object| object.in_version(&api_version))
}

/// Makes the rows of a table.
pub(super) struct Rows {
    columns: Vec<Column>,
    parts: table::Parts,
    include: Include,
    now: jiff::Timestamp,
    encode: Box<crate::body::Encode>,
}

#[derive(Clone, Copy, PartialEq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Rows {
    /// # Errors
    /// 400 when `includeObject` is none of its three values.
    pub(super) fn new(call: &Call<'_>, route: &Route) -> Result<Self, Status> {
        let include = match call.query.get("includeObject") {
            None | Some("" | "Metadata") => Include::Metadata,
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
                )));
            }
        };
        let columns = route.version().columns.clone();
        let parts = table::Parts::of(&columns);
        let now = (call.server.clock)();
        Ok(Rows { columns, parts, include, now, encode: encoder(route) })
    }

    pub(super) fn column_definitions(&self) -> Value {
        table::column_definitions(&self.columns)
    }

    pub(super) fn row(&self, object: &Object) -> Value {
        parse(&self.row_bytes(object))
    }

    fn row_bytes(&self, object: &Object) -> Bytes {
        let value = self.parts.read(&object.wire());
        let mut cells = vec![json!(object.index.name)];
        cells.extend(table::cells(&self.columns, &value, self.now));
        let cells = Value::Array(cells).to_string();
        let shown = match self.include {
            Include::Nothing => Bytes::new(),
            Include::Metadata => object.partial_metadata(),
            Include::Object => (self.encode)(object),
        };
        let mut row = BytesMut::with_capacity(cells.len() + shown.len() + 24);
        row.put_slice(br#"{"cells":"#);
        row.put_slice(cells.as_bytes());
        if !shown.is_empty() {
            row.put_slice(br#","object":"#);
            row.put(shown);
        }
        row.put_u8(b'}');
        row.freeze()
    }
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// A status about a resource names it in the group in which the client asked for it.
pub(super) fn in_group(mut status: Status, route: &Route) -> Status {
    let stored = route.resource.group_resource();
    let asked = route.group_resource();
    if stored != asked {
        status.message = status.message.replacen(&stored.to_string(), &asked.to_string(), 1);
        if let Some(details) = &mut status.details {
            details.group.clone_from(&asked.group);
        }
    }
    status
}

//! WATCH: frames of bytes that all watchers share.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::{self, At, EventType, WatchEvent, WatchFrom, WatchQuery, Watcher};
use kubefed_storage::object::Object;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::list::Filter;
use super::{Call, shape};
use crate::body::{Body, Encode};
use crate::negotiate::{Format, Shape};
use crate::query::ListOptions;
use crate::registry::Route;

/// A watch without a time of its own ends after half an hour to an hour, as in Kubernetes (`--min-request-timeout`).
const MIN_TIMEOUT: Duration = Duration::from_secs(1800);

/// Events that are ready together are sent together, up to this size.
const BATCH: usize = 64 * 1024;

pub(super) async fn watch(call: &Call<'_>, route: &Route) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, true)?;
    // `/watch/…/NAME` is allowed to who may watch that name.
    let filter = Filter::new(&options, route)?.of_name(&call.info.name);
    let prefix = filter.prefix(call.namespace(route));
    let from = match (options.send_initial_events, options.resource_version) {
        (Some(false), None | Some(0)) => WatchFrom::Now,
        (None | Some(true), None) => WatchFrom::State(At::Latest),
        (None | Some(true), Some(0)) => WatchFrom::State(At::Any),
        (Some(true), Some(revision)) => WatchFrom::State(At::NotOlderThan(revision)),
        (_, Some(revision)) => WatchFrom::After(revision),
    };
    let timeout =
        options.timeout_seconds.map_or_else(|| default_timeout(call), Duration::from_secs);
    let frames = Frames::new(call, route)?;
    let everything = filter.is_everything();
    let query = WatchQuery {
        prefix,
        from,
        filter: (!everything)
            .then(|| -> cacher::Filter { Arc::new(move |object: &Object| filter.matches(object)) }),
        bookmarks: options.bookmarks,
        initial_events_end: options.bookmarks && options.send_initial_events == Some(true),
        deadline: Instant::now() + timeout,
    };
    let source = match route.resource.cacher.watch(query).await {
        Ok(watcher) => Source::Events(Box::new(watcher)),
        Err(cacher::Error::NotReady) => {
            return Err(route.resource.read_error(cacher::Error::NotReady));
        }
        // Past this point a client expects errors inside the stream.
        Err(error) => Source::Failed(Box::new(watch_error(route, error))),
    };
    let body = StreamBody::new(stream::unfold((source, frames), next));
    let mut response = Response::new(Body::new(body));
    let content_type = match call.media.format {
        Format::Json => "application/json",
        Format::Yaml => {
            return Err(Status::not_acceptable("a watch can only be had as application/json"));
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

fn default_timeout(call: &Call<'_>) -> Duration {
    let random = (call.server.random)();
    let spread = u64::from(u16::from_le_bytes([random[0], random[1]]));
    MIN_TIMEOUT + MIN_TIMEOUT.mul_f64(spread as f64 / f64::from(u16::MAX))
}

enum Source {
    Events(Box<Watcher>),
    Failed(Box<Status>),
    Ended,
}

type Step = Result<Frame<Bytes>, std::convert::Infallible>;

async fn next((source, mut frames): (Source, Frames)) -> Option<(Step, (Source, Frames))> {
    let mut watcher = match source {
        Source::Events(watcher) => watcher,
        Source::Failed(status) => {
            return Some((Ok(Frame::data(frames.error(&status))), (Source::Ended, frames)));
        }
        Source::Ended => return None,
    };
    let mut batch = BytesMut::new();
    let mut event = watcher.next().await?;
    loop {
        frames.event(&event, &mut batch);
        if batch.len() >= BATCH {
            break;
        }
        match watcher.try_next() {
            Some(ready) => event = ready,
            None => break,
        }
    }
    Some((Ok(Frame::data(batch.freeze())), (Source::Events(watcher), frames)))
}

fn watch_error(route: &Route, error: cacher::Error) -> Status {
    match error {
        cacher::Error::Expired { asked, oldest } => {
            Status::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        error => route.resource.read_error(error),
    }
}

/// Puts events into the form that the client asked for.
struct Frames {
    route: Route,
    form: Form,
}

enum Form {
    Objects(Box<Encode>),
    Metadata,
    /// The columns are told with the first event only.
    Table {
        rows: shape::Rows,
        told: bool,
    },
}

impl Frames {
    fn new(call: &Call<'_>, route: &Route) -> Result<Self, Status> {
        let form = match call.media.shape {
            Shape::Object => Form::Objects(shape::encoder(route)),
            Shape::Metadata | Shape::MetadataList => Form::Metadata,
            Shape::Table => Form::Table { rows: shape::Rows::new(call, route)?, told: false },
        };
        Ok(Frames { route: route.clone(), form })
    }

    fn event(&mut self, event: &WatchEvent, out: &mut BytesMut) {
        let name = match event.kind {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::Bookmark { .. } => "BOOKMARK",
        };
        out.put_slice(br#"{"type":""#);
        out.put_slice(name.as_bytes());
        out.put_slice(br#"","object":"#);
        match (&event.object, &mut self.form) {
            (Some(object), Form::Objects(encode)) => out.put(encode(object)),
            (Some(object), Form::Metadata) => out.put(object.partial_metadata()),
            (Some(object), Form::Table { rows, told }) => {
                let row = rows.row(object);
                let columns = if std::mem::replace(told, true) {
                    Value::Null
                } else {
                    rows.column_definitions()
                };
                out.put_slice(table(event.revision, columns, row).to_string().as_bytes());
            }
            (None, form) => {
                let ends = matches!(event.kind, EventType::Bookmark { initial_events_end: true });
                out.put_slice(
                    bookmark(&self.route, form, event.revision, ends).to_string().as_bytes(),
                );
            }
        }
        out.put_slice(b"}\n");
    }

    fn error(&self, status: &Status) -> Bytes {
        format!("{}\n", json!({"type": "ERROR", "object": status})).into()
    }
}

fn table(revision: u64, columns: Value, row: Value) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": revision.to_string()},
        "columnDefinitions": columns,
        "rows": [row],
    })
}

fn bookmark(route: &Route, form: &Form, revision: u64, initial_events_end: bool) -> Value {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_events_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
    match form {
        Form::Objects(_) => json!({
            "kind": route.resource.definition.kind,
            "apiVersion": route.version().group_version.to_string(),
            "metadata": metadata,
        }),
        Form::Metadata => partial,
        Form::Table { .. } => table(revision, Value::Null, json!({"cells": [], "object": partial})),
    }
}

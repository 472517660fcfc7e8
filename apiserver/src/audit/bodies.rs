//! What requests and answers hold, for the levels of a policy that ask for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use kubefed_apimachinery::decode;
use parking_lot::Mutex;
use serde_json::Value;

use crate::body::Body;
use crate::protobuf;

/// A longer body is left out of the log: it waits in memory until its line is written. As long as a request may be.
pub(super) const MAX: usize = 3 * 1024 * 1024;

/// What of a request's body was read so far.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Progress>>);

#[derive(Default)]
struct Progress {
    chunks: Vec<Bytes>,
    size: usize,
    ended: bool,
}

impl Heard {
    /// `body`, which tells this what is read of it.
    pub(super) fn follow(&self, body: Body) -> Body {
        Body::new(Followed { body, heard: self.clone() })
    }

    /// The whole body, if it was read and is not too long.
    pub(super) fn whole(&self) -> Option<Vec<u8>> {
        let progress = self.0.lock();
        (progress.ended && progress.size <= MAX).then(|| progress.chunks.concat())
    }
}

struct Followed {
    body: Body,
    heard: Heard,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(frame) = &polled {
            let mut progress = self.heard.0.lock();
            match frame {
                None => progress.ended = true,
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        progress.size += data.len();
                        if progress.size > MAX {
                            progress.chunks.clear();
                        } else {
                            progress.chunks.push(data.clone());
                        }
                    }
                }
                Some(Err(_)) => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body as JSON; `None` if it is empty or cannot be read.
pub(super) fn parse(content_type: &str, bytes: &[u8], omit_managed_fields: bool) -> Option<Value> {
    let media = content_type.split(';').next().unwrap_or("").trim();
    let mut value = if media.ends_with("yaml") {
        decode::yaml(bytes).ok()?.value
    } else if media == "application/vnd.kubernetes.protobuf" {
        protobuf::decode(bytes).ok()?
    } else {
        decode::json(bytes).ok()?.value
    };
    if omit_managed_fields {
        without_managed_fields(&mut value);
        for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            without_managed_fields(item);
        }
    }
    Some(value)
}

fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_body_is_known_when_it_was_read_to_its_end() {
        let heard = Heard::default();
        let mut body = heard.follow(Body::from("{}"));
        assert_eq!(heard.whole(), None);
        body.frame().await.unwrap().unwrap();
        assert_eq!(heard.whole(), None);
        assert!(body.frame().await.is_none());
        assert_eq!(heard.whole(), Some(b"{}".to_vec()));

        let heard = Heard::default();
        heard.follow(Body::from(vec![b' '; MAX + 1])).collect().await.unwrap();
        assert_eq!(heard.whole(), None);
    }

    #[test]
    fn bodies_are_told_as_json_whatever_they_came_as() {
        let list = json!({"items": [{"metadata": {"name": "a", "managedFields": []}}]});
        let bare = json!({"items": [{"metadata": {"name": "a"}}]});
        for (content_type, text, omit, wanted) in [
            ("application/json", list.to_string(), false, Some(list)),
            ("application/json; charset=utf-8", bare.to_string(), true, Some(bare)),
            ("application/apply-patch+yaml", "a: 1".into(), false, Some(json!({"a": 1}))),
            ("application/json-patch+json", "[{}]".into(), true, Some(json!([{}]))),
            ("application/json", "{".into(), false, None),
            ("", "".into(), false, None),
        ] {
            assert_eq!(parse(content_type, text.as_bytes(), omit), wanted, "{text}");
        }
    }
}

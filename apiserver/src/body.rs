//! Bodies of answers. A list streams the bytes that the cache holds; nothing is encoded again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt as _;
use http_body::{Frame, SizeHint};
use kubefed_storage::object::Object;
use tokio_util::sync::CancellationToken;

/// How much of a list is put together before it is handed to the connection: large enough that a frame's own cost
/// does not count, small enough that a slow reader holds little. HTTP/2 frames are at most this large here.
const CHUNK: usize = 64 * 1024;

/// The bytes of one object in the form asked for.
pub type Encode = dyn Fn(&Object) -> Bytes + Send + Sync;

/// A list as a body: a head, the items with commas between, a tail.
pub struct ListBody {
    head: Option<Bytes>,
    items: VecDeque<Arc<Object>>,
    tail: Option<Bytes>,
    first: bool,
    encode: Box<Encode>,
}

impl ListBody {
    pub fn new(head: Bytes, items: Vec<Arc<Object>>, tail: Bytes, encode: Box<Encode>) -> Self {
        ListBody { head: Some(head), items: items.into(), tail: Some(tail), first: true, encode }
    }

    fn chunk(&mut self) -> Option<Bytes> {
        self.tail.as_ref()?;
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if let Some(head) = self.head.take() {
            chunk.put(head);
        }
        while let Some(object) = self.items.front() {
            let item = (self.encode)(object);
            if !chunk.is_empty() && chunk.len() + item.len() + 1 > CHUNK {
                return Some(chunk.freeze());
            }
            if !std::mem::take(&mut self.first) {
                chunk.put_u8(b',');
            }
            chunk.put(item);
            self.items.pop_front();
        }
        if let Some(tail) = self.tail.take() {
            chunk.put(tail);
        }
        Some(chunk.freeze())
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.chunk().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.tail.is_none()
    }
}

impl ListBody {
    /// The whole list at once, for the formats that cannot be streamed.
    pub fn collect(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk() {
            all.extend_from_slice(&chunk);
        }
        all
    }
}

/// `body`, which ends when `token` is cancelled, after a whole frame.
pub(crate) fn until_cancelled(body: Body, token: CancellationToken) -> Body {
    Body::from_stream(body.into_data_stream().take_until(token.cancelled_owned()))
}

/// `body`, which keeps `held` until it was sent or given up.
pub(crate) fn holding(body: Body, held: impl Unpin + Send + 'static) -> Body {
    Body::new(Holding { body, _held: held })
}

struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

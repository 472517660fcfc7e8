//! Bodies of answers. A list streams the bytes that the cache holds; nothing is encoded again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
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

/// A body of which the beginning was read: all of it, or a little more than asked for.
pub(crate) struct Begun {
    pub(crate) frames: VecDeque<Bytes>,
    pub(crate) rest: Body,
    ended: bool,
    error: Option<axum::Error>,
}

impl Begun {
    /// Reads until it has more than `limit` bytes or the body ends.
    pub(crate) async fn read(mut rest: Body, limit: usize) -> Self {
        let mut begun =
            Begun { frames: VecDeque::new(), rest: Body::empty(), ended: false, error: None };
        let mut size = 0;
        while size <= limit {
            match rest.frame().await {
                None => {
                    begun.ended = true;
                    break;
                }
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    size += data.len();
                    begun.frames.push_back(data);
                }
                Some(Err(error)) => {
                    begun.error = Some(error);
                    break;
                }
            }
        }
        begun.rest = rest;
        begun
    }

    /// Whether there is more than was read.
    pub(crate) fn goes_on(&self) -> bool {
        !self.ended && self.error.is_none()
    }

    /// The whole body, if it was read.
    pub(crate) fn whole(&self) -> Option<Vec<u8>> {
        self.ended.then(|| self.frames.iter().flatten().copied().collect())
    }

    /// The body as it was.
    pub(crate) fn resume(mut self) -> Body {
        if self.ended && self.frames.len() <= 1 {
            return Body::from(self.frames.pop_front().unwrap_or_default());
        }
        let read = self.frames.into_iter().map(Ok).chain(self.error.map(Err));
        Body::from_stream(stream::iter(read).chain(self.rest.into_data_stream()))
    }
}

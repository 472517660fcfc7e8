//! Compression of large answers, as Kubernetes does it: above 128 KiB, fast, and never of a watch.
//!
//! An answer is compressed piece by piece while it is sent, so that a list stays the shared bytes of its objects: what
//! is held is the beginning until its size is known, and one frame.

use std::collections::VecDeque;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body as _, Frame};

use crate::body::{Begun, Body};

/// As Kubernetes: what is no larger is sent sooner than compressed.
const THRESHOLD: usize = 128 * 1024;
/// How much is compressed before other tasks of the thread get their turn: a fraction of a millisecond.
const PIECE: usize = 64 * 1024;
/// How much compressed text is sent at a time.
const FRAME: usize = 32 * 1024;

/// Whether the client takes gzip.
pub(super) fn is_accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |coding| {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or("");
            let refused = parts
                .filter_map(|parameter| parameter.strip_prefix("q="))
                .any(|quality| quality.parse::<f32>().is_ok_and(|quality| quality <= 0.0));
            name.eq_ignore_ascii_case("gzip") && !refused
        },
    )
}

/// The answer to a request that reads, compressed if it is large and the client takes that.
pub(super) async fn encode(mut response: Response<Body>, accepted: bool) -> Response<Body> {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let size = response.body().size_hint().exact();
    if !accepted || size.is_some_and(|size| size <= THRESHOLD as u64) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let begun = Begun::read(body, THRESHOLD).await;
    if !begun.goes_on() {
        return Response::from_parts(parts, begun.resume());
    }
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    // The same document in other bytes: a strong tag would promise that they are equal.
    if let Some(tag) = headers.get_mut(header::ETAG)
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
        && !tag.as_bytes().starts_with(b"W/")
    {
        *tag = weak;
    }
    let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let (pending, body) = (begun.frames, begun.rest);
    Response::from_parts(parts, Body::new(Compressed { encoder, pending, body }))
}

/// A body that is compressed while it is read.
struct Compressed {
    /// `None` after the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
    /// What is still to be compressed before the rest of the body.
    pending: VecDeque<Bytes>,
    body: Body,
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
        loop {
            if let Some(data) = this.pending.front_mut() {
                let piece = data.split_to(data.len().min(PIECE));
                if data.is_empty() {
                    this.pending.pop_front();
                }
                if let Err(error) = encoder.write_all(&piece) {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(axum::Error::new(error))));
                }
                if encoder.get_ref().len() >= FRAME {
                    let frame = std::mem::take(encoder.get_mut());
                    return Poll::Ready(Some(Ok(Frame::data(frame.into()))));
                }
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => this.pending.extend(frame.into_data()),
                Some(Err(error)) => {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    let rest = this.encoder.take().map(GzEncoder::finish);
                    let frame = rest.transpose().map_err(axum::Error::new)?.unwrap_or_default();
                    return Poll::Ready(Some(Ok(Frame::data(frame.into()))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use futures::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    /// What the client gets of an answer in these chunks: its coding, and the text.
    async fn sent(chunks: &[Vec<u8>], accepted: bool) -> (Option<String>, Vec<u8>) {
        let chunks = chunks.iter().cloned().map(|chunk| Ok::<_, axum::Error>(chunk.into()));
        let body = Body::from_stream(stream::iter(chunks.collect::<Vec<Result<Bytes, _>>>()));
        let response = encode(Response::new(body), accepted).await;
        let coding = response.headers().get(header::CONTENT_ENCODING);
        let coding = coding.map(|coding| coding.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        if coding.is_none() {
            return (coding, bytes.to_vec());
        }
        assert!(bytes.len() < THRESHOLD, "{}", bytes.len());
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
        (coding, text)
    }

    #[tokio::test]
    async fn what_is_large_is_compressed_however_it_comes() {
        let gzip = || Some("gzip".to_owned());
        for (chunk, count, accepted, wanted) in [
            (THRESHOLD, 1, true, None),
            (THRESHOLD + 1, 1, true, gzip()),
            (THRESHOLD + 1, 1, false, None),
            (THRESHOLD / 2, 2, true, None),
            (THRESHOLD / 2, 3, true, gzip()),
            (1000, 1000, true, gzip()),
            (PIECE * 10 + 1, 3, true, gzip()),
            (0, 0, true, None),
        ] {
            let chunks: Vec<Vec<u8>> = (0..count)
                .map(|at| (0..chunk).map(|byte| (byte / 7 + at) as u8).collect())
                .collect();
            let (coding, text) = sent(&chunks, accepted).await;
            assert_eq!(coding, wanted, "{count} of {chunk}");
            assert_eq!(text, chunks.concat(), "{count} of {chunk}");
        }
    }

    #[test]
    fn gzip_is_taken_by_who_says_so() {
        for (accept, wanted) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip; q=0", false),
            ("gzip;q=0.0, identity", false),
            ("identity, br", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
            assert_eq!(is_accepted(&headers), wanted, "{accept}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }
}

//! From results to responses. The only place where a [`Status`] becomes bytes.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use kubefed_apimachinery::status::Status;
use serde_json::Value;

use crate::body::Body;
use crate::negotiate::{Format, Media};

/// Why a request was refused, beside the response that says so.
#[derive(Clone, Debug)]
pub(crate) struct Reason(pub(crate) String);

/// The response that tells `status`, in the client's format.
pub(crate) fn status(status: &Status, media: Media) -> Response<Body> {
    let value = serde_json::to_value(status).unwrap_or_default();
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value_response(&value, media, code);
    if !code.is_success() {
        response.extensions_mut().insert(Reason(status.reason.clone()));
    }
    if let Some(seconds) =
        status.details.as_ref().and_then(|d| d.retry_after_seconds).filter(|&s| s > 0)
    {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A JSON document with code 200.
pub(crate) fn json(value: &Value) -> Response<Body> {
    value_response(value, Media::JSON, StatusCode::OK)
}

/// A tree in the client's format.
pub(crate) fn value_response(value: &Value, media: Media, code: StatusCode) -> Response<Body> {
    bytes_response(encode(value, media), media.content_type(), code)
}

/// Ready bytes.
pub(crate) fn bytes_response(
    body: Bytes,
    content_type: &'static str,
    code: StatusCode,
) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A document with its tag, or 304 if the client has it already.
pub(crate) fn tagged(
    body: Bytes,
    content_type: &'static str,
    tag: &HeaderValue,
    headers: &HeaderMap,
) -> Response<Body> {
    let known = known_as(tag, headers);
    let (body, code) = match known {
        Some(_) => (Bytes::new(), StatusCode::NOT_MODIFIED),
        None => (body, StatusCode::OK),
    };
    let mut response = bytes_response(body, content_type, code);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, known.unwrap_or_else(|| tag.clone()));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// The tag of `If-None-Match` that means `tag`, as the client has it: a compressed document's is weak.
fn known_as(tag: &HeaderValue, headers: &HeaderMap) -> Option<HeaderValue> {
    let given = headers.get_all(header::IF_NONE_MATCH).iter();
    let given = given.filter_map(|given| given.to_str().ok()).flat_map(|given| given.split(','));
    let mut same = given
        .map(str::trim)
        .filter(|given| given.strip_prefix("W/").unwrap_or(given).as_bytes() == tag.as_bytes());
    same.next().and_then(|given| HeaderValue::from_str(given).ok())
}

/// A tree as the bytes of `media`, ending in a newline.
pub(crate) fn encode(value: &Value, media: Media) -> Bytes {
    let text = match (media.format, media.pretty) {
        (Format::Yaml, _) => serde_saphyr::to_string(value).unwrap_or_default(),
        (Format::Json, true) => format!("{value:#}"),
        (Format::Json, false) => value.to_string(),
    };
    let mut bytes = text.into_bytes();
    if bytes.last() != Some(&b'\n') {
        bytes.push(b'\n');
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_known_by_its_tag_weak_or_strong() {
        let tag = HeaderValue::from_static("\"AB\"");
        for (given, wanted) in [
            ("\"AB\"", Some("\"AB\"")),
            ("W/\"AB\"", Some("W/\"AB\"")),
            ("\"CD\", W/\"AB\"", Some("W/\"AB\"")),
            ("\"ABC\"", None),
            ("AB", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, given.parse().unwrap());
            let known = known_as(&tag, &headers);
            assert_eq!(known.as_ref().map(|tag| tag.to_str().unwrap()), wanted, "{given}");
        }
        assert_eq!(known_as(&tag, &HeaderMap::new()), None);
    }
}

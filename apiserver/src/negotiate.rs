//! What a client sends and wants back: `Content-Type` and `Accept`, as `k8s.io/apiserver` negotiates them
//! (`endpoints/handlers/negotiation`).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use kubefed_apimachinery::status::Status;

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// How the bytes of a request are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Json,
    Yaml,
    Protobuf,
}

/// Which form of an object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The object itself.
    Object,
    /// `meta.k8s.io/v1 Table`: what `kubectl get` prints.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata`, for one object or each of a watch.
    Metadata,
    /// `meta.k8s.io/v1 PartialObjectMetadataList`.
    MetadataList,
}

/// The agreed form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Media {
    pub format: Format,
    pub shape: Shape,
    pub pretty: bool,
}

impl Media {
    pub(crate) const JSON: Media =
        Media { format: Format::Json, shape: Shape::Object, pretty: false };

    /// The `Content-Type` of an answer in this form.
    pub(crate) fn content_type(self) -> &'static str {
        match self.format {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
        }
    }
}

const ACCEPTED: &str = "application/json, application/yaml";

/// Picks the answer's form from `Accept`. No header means JSON.
///
/// # Errors
/// 406 when no clause can be met. Protobuf is not spoken; every client of Kubernetes lists JSON beside it.
pub(crate) fn accept(headers: &HeaderMap, pretty: Option<&str>) -> Result<Media, Status> {
    let accept = match headers.get(ACCEPT).map(|value| value.to_str()) {
        None => "",
        Some(Ok(accept)) => accept,
        Some(Err(_)) => return Err(not_acceptable()),
    };
    let pretty = match pretty {
        Some(value) => !matches!(value, "0") && !value.eq_ignore_ascii_case("false"),
        None => prefers_pretty(headers),
    };
    if accept.trim().is_empty() {
        return Ok(Media { pretty, ..Media::JSON });
    }
    let mut clauses: Vec<(f32, Media)> = accept
        .split(',')
        .filter_map(clause)
        .filter(|(quality, _)| *quality > 0.0)
        .map(|(quality, media)| (quality, Media { pretty: pretty || media.pretty, ..media }))
        .collect();
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.first().map(|(_, media)| *media).ok_or_else(not_acceptable)
}

fn clause(clause: &str) -> Option<(f32, Media)> {
    let mut parts = clause.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut quality, mut kind, mut group, mut version, mut pretty) = (1.0, "", "", "", false);
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name.trim() {
            "q" => quality = value.parse().ok()?,
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            "pretty" => pretty = value == "1",
            "stream" if value != "watch" => return None,
            _ => {}
        }
    }
    let shape = match (kind, group, version) {
        ("", ..) => Shape::Object,
        ("Table", "meta.k8s.io", "v1") => Shape::Table,
        ("PartialObjectMetadata", "meta.k8s.io", "v1") => Shape::Metadata,
        ("PartialObjectMetadataList", "meta.k8s.io", "v1") => Shape::MetadataList,
        _ => return None,
    };
    Some((quality, Media { format, shape, pretty }))
}

fn prefers_pretty(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

fn not_acceptable() -> Status {
    Status::not_acceptable(format!("only the following media types are accepted: {ACCEPTED}"))
}

/// The form of a request's body. No header means JSON.
///
/// # Errors
/// 415 for anything but JSON, YAML and Kubernetes' protobuf.
pub(crate) fn content(headers: &HeaderMap) -> Result<Content, Status> {
    match media_type(headers).as_str() {
        "" | "application/json" => Ok(Content::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Content::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Content::Protobuf),
        _ => Err(unsupported(ACCEPTED)),
    }
}

/// The patch types, told apart by `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// # Errors
/// 415 for an unknown type, and for a strategic merge patch of a kind without its metadata: the host's garbage
/// collector falls back to a merge patch on just this code.
pub(crate) fn patch_type(headers: &HeaderMap, strategic: bool) -> Result<PatchType, Status> {
    match media_type(headers).as_str() {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" if strategic => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        _ => Err(unsupported(if strategic {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
        } else {
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        })),
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

fn unsupported(accepted: &str) -> Status {
    Status::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {accepted}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(accept_header: &str) -> Result<(Format, Shape), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept_header.parse().unwrap());
        accept(&headers, None)
            .map(|media| (media.format, media.shape))
            .map_err(|status| status.code)
    }

    #[test]
    fn the_first_clause_that_can_be_met_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        for (accept, wanted) in [
            ("application/json", Ok((Format::Json, Shape::Object))),
            ("*/*", Ok((Format::Json, Shape::Object))),
            ("application/yaml", Ok((Format::Yaml, Shape::Object))),
            ("application/yaml;q=0.5, application/json", Ok((Format::Json, Shape::Object))),
            (
                "application/vnd.kubernetes.protobuf, application/json",
                Ok((Format::Json, Shape::Object)),
            ),
            (table, Ok((Format::Json, Shape::Table))),
            (metadata, Ok((Format::Json, Shape::MetadataList))),
            ("application/vnd.kubernetes.protobuf", Err(406)),
            ("application/json;q=0", Err(406)),
            ("text/html", Err(406)),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", Err(406)),
        ] {
            assert_eq!(shape(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn a_strategic_patch_is_refused_where_it_has_no_meaning() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/strategic-merge-patch+json".parse().unwrap());
        assert_eq!(patch_type(&headers, true).unwrap(), PatchType::Strategic);
        assert_eq!(patch_type(&headers, false).unwrap_err().code, 415);
    }
}

//! From the bytes of a request to an object of the right kind whose fields the schema knows.

use std::fmt;

use kubefed_apimachinery::decode::{self, Decoded};
use kubefed_apimachinery::definition::Version;
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{field, gvk, meta};
use serde_json::Value;

use crate::filters;
use crate::negotiate::{self, Content};
use crate::protobuf;
use crate::query::FieldValidation;
use crate::registry::Route;

use super::Call;

/// The whole body, at most what one object may be (413 above it).
pub(super) async fn bytes(body: axum::body::Body) -> Result<bytes::Bytes, Status> {
    filters::body::read(body, filters::body::LIMIT).await
}

/// Reads an object of the route's kind.
///
/// # Errors
/// 400 for anything that is not such an object, 413, 415; with strict validation 400 for unknown and duplicate fields.
pub(super) async fn object(
    call: &Call<'_>,
    route: &Route,
    validation: FieldValidation,
    body: axum::body::Body,
) -> Result<Value, Status> {
    let format = negotiate::content(call.headers)?;
    let bytes = bytes(body).await?;
    let kind = &route.resource.definition.kind;
    let Decoded { mut value, duplicates } = parse(&bytes, format, kind)?;
    of_kind(&mut value, route)?;
    let problems = check_fields(&mut value, route.version(), duplicates);
    refuse_or_warn(call, route, validation, problems)?;
    Ok(value)
}

/// A strictly parsed body, which is to hold a `kind`.
pub(super) fn parse(bytes: &[u8], content: Content, kind: &str) -> Result<Decoded, Status> {
    match content {
        Content::Json => decode::json(bytes).map_err(|error| {
            unrecognized(kind, format_args!("couldn't get version/kind; json parse error: {error}"))
        }),
        Content::Yaml => decode::yaml(bytes).map_err(|error| unrecognized(kind, error)),
        Content::Protobuf => protobuf::decode(bytes)
            .map(|value| Decoded { value, duplicates: Vec::new() })
            .map_err(|error| unrecognized(kind, error)),
    }
}

/// Kubernetes shows the beginning of the body as well; here it stays out, for it may be that of a secret.
fn unrecognized(kind: &str, why: impl fmt::Display) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why}"
    ))
}

/// The object says which kind it is, and it is the route's. Kubernetes' own kinds may leave it out, custom ones not.
fn of_kind(value: &mut Value, route: &Route) -> Result<(), Status> {
    let wanted = route.version();
    let definition = &route.resource.definition;
    let kind = definition.kind.as_str();
    if !value.is_object() {
        return Err(unrecognized(kind, "it is not a JSON object"));
    }
    let cannot = |given: &str, why: &str| {
        Status::bad_request(format!(
            "{given} in version {:?} cannot be handled as a {kind}: {why}",
            wanted.group_version.version
        ))
    };
    let may_lack = definition.strategic_patch;
    let api_version = wanted.group_version.to_string();
    match &value["apiVersion"] {
        Value::String(given) if *given == api_version => {}
        Value::Null if may_lack => meta::set_api_version(value, &api_version),
        Value::String(given) if given.is_empty() && may_lack => {
            meta::set_api_version(value, &api_version);
        }
        Value::String(given) if !given.is_empty() => {
            return Err(Status::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({api_version})"
            )));
        }
        Value::Null | Value::String(_) => {
            return Err(cannot(kind, "Object 'apiVersion' is missing"));
        }
        _ => return Err(unrecognized(kind, "apiVersion is not a string")),
    }
    match &value["kind"] {
        Value::String(given) if given == kind => {}
        Value::Null if may_lack => value["kind"] = Value::from(kind),
        Value::String(given) if given.is_empty() && may_lack => value["kind"] = Value::from(kind),
        Value::String(given) if !given.is_empty() => {
            return Err(cannot(given, &format!("no kind {given:?} is registered here")));
        }
        Value::Null | Value::String(_) => return Err(cannot(kind, "Object 'Kind' is missing")),
        _ => return Err(unrecognized(kind, "kind is not a string")),
    }
    if !(value["metadata"].is_null() || value["metadata"].is_object()) {
        return Err(cannot(kind, "metadata is not a JSON object"));
    }
    Ok(())
}

/// Takes the fields out that the schema does not know; says which, and which came twice.
pub(super) fn check_fields(
    value: &mut Value,
    version: &Version,
    duplicates: Vec<String>,
) -> Vec<String> {
    let unknown =
        version.schema.prune(value).into_iter().map(|path| format!("unknown field {path:?}"));
    let duplicate = duplicates.into_iter().map(|path| format!("duplicate field {path:?}"));
    unknown.chain(duplicate).collect()
}

fn refuse_or_warn(
    call: &Call<'_>,
    route: &Route,
    validation: FieldValidation,
    problems: Vec<String>,
) -> Result<(), Status> {
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => {
            problems.into_iter().for_each(|problem| call.warnings.add(problem))
        }
        FieldValidation::Strict if problems.is_empty() => {}
        FieldValidation::Strict => {
            let kind = &route.resource.definition.kind;
            return Err(Status::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
                route.version().group_version.version,
                problems.join(", ")
            )));
        }
    }
    Ok(())
}

/// The same for the outcome of a JSON or merge patch, where Kubernetes answers 422 on the field `patch`.
pub(super) fn check_patched(
    call: &Call<'_>,
    version: &Version,
    validation: FieldValidation,
    value: &mut Value,
    duplicates: &[String],
) -> Result<(), Status> {
    let problems = check_fields(value, version, duplicates.to_vec());
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            problems.into_iter().for_each(|problem| call.warnings.add(problem));
            Ok(())
        }
        FieldValidation::Strict if problems.is_empty() => Ok(()),
        FieldValidation::Strict => {
            let detail = format!("strict decoding error: {}", problems.join(", "));
            let error = field::Error::invalid(
                &field::Path::root("patch"),
                Value::from(value.to_string()),
                &detail,
            );
            Err(Status::invalid(
                &gvk::GroupKind { group: String::new(), kind: String::new() },
                "",
                &[error],
            ))
        }
    }
}

//! From the bytes of a request to an object of the right kind whose fields the schema knows.

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
    let Decoded { mut value, duplicates } = parse(&bytes, format)?;
    of_kind(&mut value, route)?;
    let problems = check_fields(&mut value, route.version(), duplicates);
    refuse_or_warn(call, route, validation, problems)?;
    Ok(value)
}

/// A strictly parsed body.
pub(super) fn parse(bytes: &[u8], content: Content) -> Result<Decoded, Status> {
    let decoded = match content {
        Content::Json => decode::json(bytes),
        Content::Yaml => decode::yaml(bytes),
        Content::Protobuf => {
            let value = protobuf::decode(bytes).map_err(Status::bad_request)?;
            return Ok(Decoded { value, duplicates: Vec::new() });
        }
    };
    decoded.map_err(|error| Status::bad_request(error.to_string()))
}

/// The object says which kind it is, and it is the route's; what it leaves out is filled in.
fn of_kind(value: &mut Value, route: &Route) -> Result<(), Status> {
    let wanted = route.version();
    let kind = &route.resource.definition.kind;
    if !value.is_object() {
        return Err(Status::bad_request(format!("the body is not a JSON object of kind {kind}")));
    }
    let api_version = wanted.group_version.to_string();
    match value["apiVersion"].as_str() {
        None | Some("") => meta::set_api_version(value, &api_version),
        Some(given) if given != api_version => {
            return Err(Status::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({api_version})"
            )));
        }
        Some(_) => {}
    }
    match value["kind"].as_str() {
        None | Some("") => {
            value["kind"] = Value::from(kind.as_str());
        }
        Some(given) if given != kind => {
            return Err(Status::bad_request(format!(
                "{given} in version {:?} cannot be handled as a {kind}: no kind {given:?} is registered here",
                wanted.group_version.version
            )));
        }
        Some(_) => {}
    }
    if !(value["metadata"].is_null() || value["metadata"].is_object()) {
        return Err(Status::bad_request("metadata is not a JSON object"));
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

//! `Status`: how every refusal reaches a client (`apimachinery/pkg/api/errors`).

use std::fmt;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::field;
use crate::gvk::{GroupKind, GroupResource};

/// `v1 Status`. `code` is the HTTP status code, `reason` the machine-readable why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    pub status: String,
    pub message: String,
    pub reason: String,
    pub details: Option<Details>,
    pub code: u16,
    /// `metadata.continue`: where an expired list can go on.
    #[serde(skip)]
    pub continue_token: Option<String>,
}

/// What a status is about. `kind` holds the resource for most errors, the kind for invalid objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One of several reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Meta<'a> {
            #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
            continue_token: Option<&'a str>,
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "Status")?;
        map.serialize_entry("apiVersion", "v1")?;
        map.serialize_entry("metadata", &Meta { continue_token: self.continue_token.as_deref() })?;
        map.serialize_entry("status", &self.status)?;
        if !self.message.is_empty() {
            map.serialize_entry("message", &self.message)?;
        }
        if !self.reason.is_empty() {
            map.serialize_entry("reason", &self.reason)?;
        }
        if let Some(details) = &self.details {
            map.serialize_entry("details", details)?;
        }
        map.serialize_entry("code", &self.code)?;
        map.end()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Status {
            status: "Failure".into(),
            message: message.into(),
            reason: reason.into(),
            code,
            ..Status::default()
        }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Some(Details {
            name: name.into(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..Details::default()
        });
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// 200: what was asked for is done.
    pub fn success(details: Details) -> Self {
        Status { status: "Success".into(), code: 200, details: Some(details), ..Status::default() }
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, "NotFound", format!("{resource} {name:?} not found"))
            .about(resource, name)
    }

    /// 404 for a path that serves nothing.
    pub fn unknown_resource() -> Self {
        Self::failure(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(409, "AlreadyExists", format!("{resource} {name:?} already exists"))
            .about(resource, name)
    }

    pub fn conflict(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::failure(409, "Conflict", message).about(resource, name)
    }

    /// The conflict of a write that is based on an old version.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The conflict of a server-side apply with other managers; `causes` name manager and field.
    pub fn apply_conflict(message: String, causes: Vec<Cause>) -> Self {
        let mut status = Self::failure(409, "Conflict", message);
        status.details = Some(Details { causes, ..Details::default() });
        status
    }

    /// 422 with every wrong field.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[field::Error]) -> Self {
        let list = field::aggregate(errors);
        let subject =
            if kind.kind.is_empty() { format!(" {name:?}") } else { format!("{kind} {name:?}") };
        let mut status = Self::failure(422, "Invalid", format!("{subject} is invalid: {list}"));
        let causes = errors
            .iter()
            .map(|error| Cause {
                reason: error.kind.reason().into(),
                message: error.body(),
                field: error.path.clone(),
            })
            .collect();
        status.details = Some(Details {
            name: name.into(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes,
            ..Details::default()
        });
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.resource.as_str(), name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {name:?} is forbidden: {why}"),
        };
        let status = Self::failure(403, "Forbidden", message);
        if resource.resource.is_empty() { status } else { status.about(resource, name) }
    }

    pub fn method_not_allowed() -> Self {
        Self::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::failure(406, "NotAcceptable", message)
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 413 for a body above `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::failure(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 413 for an object or patch that is too large in another way.
    pub fn too_large_object(message: impl fmt::Display) -> Self {
        Self::failure(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::failure(415, "UnsupportedMediaType", message)
    }

    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        Self::failure(429, "TooManyRequests", message).retry_after(seconds)
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        let text = message.to_string();
        let mut status =
            Self::failure(500, "InternalError", format!("Internal error occurred: {text}"));
        let cause = Cause { message: text, ..Cause::default() };
        status.details = Some(Details { causes: vec![cause], ..Details::default() });
        status
    }

    /// 500 that invites another try: the store did not answer.
    pub fn server_timeout(resource: &GroupResource, operation: &str, seconds: u32) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self::failure(500, "ServerTimeout", message).about(resource, "").retry_after(seconds)
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::failure(504, "Timeout", format!("Timeout: {message}"))
    }

    /// 504: the asked resource version is not there yet.
    pub fn resource_version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut status = Self::failure(504, "Timeout", message).retry_after(1);
        status.details.get_or_insert_default().causes.push(Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        });
        status
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployments() -> GroupResource {
        GroupResource { group: "apps".into(), resource: "deployments".into() }
    }

    #[test]
    fn a_status_is_written_as_kubernetes_writes_it() {
        let status = Status::not_found(&deployments(), "web");
        assert_eq!(
            serde_json::to_value(&status).unwrap(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"web\" not found", "reason": "NotFound",
                "details": {"name": "web", "group": "apps", "kind": "deployments"}, "code": 404,
            })
        );
    }

    #[test]
    fn an_invalid_object_names_every_field_once() {
        let kind = GroupKind { group: "apps".into(), kind: "Deployment".into() };
        let path = field::Path::root("spec");
        let errors =
            vec![field::Error::required(&path, ""), field::Error::required(&path.child("x"), "")];
        let status = Status::invalid(&kind, "web", &errors);
        assert_eq!(
            status.message,
            r#"Deployment.apps "web" is invalid: [spec: Required value, spec.x: Required value]"#
        );
        assert_eq!(status.details.unwrap().causes.len(), 2);
    }
}

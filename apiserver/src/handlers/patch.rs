//! PATCH: JSON, merge and strategic merge patches, and server-side apply.

use http::{Response, StatusCode};
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{apply, decode as decoding, field, meta, patch as patches};
use serde_json::Value;

use super::{Call, decode, shape};
use crate::admission::{grants, lifecycle};
use crate::body::Body;
use crate::negotiate::{self, PatchType};
use crate::query::{FieldValidation, WriteOptions, options_ok};
use crate::registry::{Part, Route, Tracking};

/// How often an apply goes between "update what is there" and "create what is not" before it gives up on a storm.
const APPLY_ATTEMPTS: usize = 8;

pub(super) async fn patch(
    call: &Call<'_>,
    route: &Route,
    part: Part,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let patch_type =
        negotiate::patch_type(call.headers, route.resource.definition.strategic_patch)?;
    let body = decode::bytes(body).await?;
    if patch_type == PatchType::Apply {
        return apply_patch(call, route, part, &options, &body).await;
    }
    if options.force.is_some() {
        let path = field::Path::root("force");
        options_ok(
            "PatchOptions",
            vec![field::Error::forbidden(&path, "may not be specified for non-apply patch")],
        )?;
    }
    let patch = Patch::read(patch_type, &body, options.field_validation)?;
    let warn = call.warn();
    let manager = call.manager(options.field_manager.as_deref());
    let write = call.write(route, part, manager, options.dry_run, &warn);
    let patched = write
        .update(call.namespace(route), &call.info.name, Tracking::Registry, |live| {
            let mut new = live.clone();
            patch.apply_to(&mut new, route)?;
            same_object(live, &new)?;
            decode::check_patched(
                call,
                route.version(),
                options.field_validation,
                &mut new,
                &patch.duplicates,
            )?;
            grants::are_held(call, route, Some(live), &new)?;
            Ok(new)
        })
        .await
        .map_err(|status| shape::in_group(status, route))?;
    shape::one(call, route, &patched, StatusCode::OK)
}

/// A patch that was read once and is applied to every newer state that a race brings.
pub(super) struct Patch {
    kind: PatchType,
    body: bytes::Bytes,
    tree: Value,
    duplicates: Vec<String>,
}

impl Patch {
    /// # Errors
    /// 400 for a body that is no JSON, or with strict validation one that names a field twice.
    pub(super) fn read(
        kind: PatchType,
        body: &bytes::Bytes,
        validation: FieldValidation,
    ) -> Result<Self, Status> {
        let decoded = decoding::json(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        let duplicates: Vec<String> = match validation {
            FieldValidation::Ignore => Vec::new(),
            _ => decoded.duplicates,
        };
        if kind != PatchType::Json && !decoded.value.is_object() {
            return Err(Status::bad_request(
                "error decoding patch: a merge patch is a JSON object",
            ));
        }
        Ok(Patch { kind, body: body.clone(), tree: decoded.value, duplicates })
    }

    pub(super) fn apply_to(&self, object: &mut Value, route: &Route) -> Result<(), Status> {
        match self.kind {
            PatchType::Json => patches::json::apply(object, &self.body).map_err(Status::from),
            PatchType::Merge => {
                patches::merge::apply(object, &self.tree);
                Ok(())
            }
            PatchType::Strategic => {
                patches::strategic::apply(object, &self.tree, &route.version().schema)
                    .map_err(Status::from)
            }
            PatchType::Apply => Err(Status::internal("an apply is no patch of the live object")),
        }
    }
}

/// A patch may not move an object, nor make another kind of it.
fn same_object(live: &Value, new: &Value) -> Result<(), Status> {
    let same = |field: &str| new.get(field) == live.get(field);
    if !new.is_object() || !(new["metadata"].is_object() || new["metadata"].is_null()) {
        return Err(Status::bad_request("the patched object is not a Kubernetes object"));
    }
    if !same("apiVersion") || !same("kind") {
        return Err(Status::bad_request("a patch may not change apiVersion or kind"));
    }
    let name = meta::name(new);
    if name != meta::name(live) {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            meta::name(live)
        )));
    }
    if meta::namespace(new) != meta::namespace(live) {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

async fn apply_patch(
    call: &Call<'_>,
    route: &Route,
    part: Part,
    options: &WriteOptions,
    body: &[u8],
) -> Result<Response<Body>, Status> {
    let Some(manager) = options.field_manager.as_deref() else {
        let path = field::Path::root("fieldManager");
        options_ok(
            "PatchOptions",
            vec![field::Error::required(&path, "is required for apply patch")],
        )?;
        return Err(Status::bad_request("fieldManager is required for apply patch"));
    };
    let decoded = decoding::yaml(body)
        .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    let twice = decoded.duplicates.iter().map(|path| format!("duplicate field {path:?}"));
    match options.field_validation {
        FieldValidation::Strict if !decoded.duplicates.is_empty() => {
            let problems: Vec<String> = twice.collect();
            let text = format!("error strict decoding YAML: {}", problems.join(", "));
            return Err(Status::bad_request(text));
        }
        FieldValidation::Warn => twice.for_each(|problem| call.warnings.add(problem)),
        _ => {}
    }
    let mut config = decoded.value;
    check_config(call, route, &mut config)?;
    only_part(&mut config, part, route.resource.definition.subresources.status);

    let warn = call.warn();
    let write = call.write(route, part, manager, options.dry_run, &warn);
    let identity = apply::Manager { operation: apply::Operation::Apply, ..write.manager() };
    let force = options.force.unwrap_or(false);
    let schema = &route.version().schema;
    for _ in 0..APPLY_ATTEMPTS {
        let outcome = write
            .update(call.namespace(route), &call.info.name, Tracking::Done, |live| {
                let new = apply::apply(Some(live), &config, &identity, schema, force)?;
                grants::are_held(call, route, Some(live), &new)?;
                Ok(new)
            })
            .await;
        match outcome {
            Err(status) if status.is_not_found() && part == Part::Main => {}
            Err(status) => return Err(shape::in_group(status, route)),
            Ok(applied) => return shape::one(call, route, &applied, StatusCode::OK),
        }
        let uid = meta::uid(&config);
        if !uid.is_empty() {
            let text = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Status::conflict(&route.group_resource(), &call.info.name, text));
        }
        let namespace = call.namespace(route);
        if route.resource.definition.namespaced {
            lifecycle::namespace_is_open(call.server, route, namespace, &call.info.name).await?;
        }
        call.may_create().await?;
        let object = apply::apply(None, &config, &identity, schema, force)?;
        grants::role_is_known(call, route, &object).await;
        grants::are_held(call, route, None, &object)?;
        match write.create(namespace, object, Tracking::Done).await {
            Err(status) if status.is_already_exists() => {}
            outcome => return shape::one(call, route, &*outcome?, StatusCode::CREATED),
        }
    }
    Err(Status::modified(&route.group_resource(), &call.info.name))
}

/// Takes out of a configuration what a write of this part does not write, so that its manager does not come to own it.
fn only_part(config: &mut Value, part: Part, has_status: bool) {
    let Value::Object(config) = config else { return };
    match part {
        Part::Status => {
            config.retain(|field, _| {
                matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status")
            });
            if let Some(Value::Object(metadata)) = config.get_mut("metadata") {
                metadata.retain(|field, _| {
                    matches!(field.as_str(), "name" | "namespace" | "uid" | "resourceVersion")
                });
            }
        }
        Part::Main if has_status => {
            config.remove("status");
        }
        Part::Main | Part::Scale => {}
    }
}

/// The applied configuration is of the path's kind, name and namespace, and leaves the server's bookkeeping out.
fn check_config(call: &Call<'_>, route: &Route, config: &mut Value) -> Result<(), Status> {
    let version = route.version().group_version.to_string();
    let kind = &route.resource.definition.kind;
    if config["apiVersion"] != version.as_str() {
        return Err(Status::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {version}",
            config["apiVersion"].as_str().unwrap_or("")
        )));
    }
    if config["kind"] != kind.as_str() {
        return Err(Status::bad_request(format!(
            "invalid object type: {version}, Kind={}",
            config["kind"]
        )));
    }
    if !(config["metadata"].is_object() || config["metadata"].is_null()) {
        return Err(Status::bad_request("metadata is not a JSON object"));
    }
    if meta::name(config).is_empty() {
        meta::set_name(config, &call.info.name);
    }
    call.same_place(config)?;
    if !config["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_applied_configuration_owns_only_what_its_endpoint_writes() {
        let config = json!({
            "apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"a": 1}, "status": {"b": 2},
        });
        for (part, has_status, wanted) in [
            (
                Part::Main,
                true,
                json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"a": 1}}),
            ),
            (Part::Main, false, config.clone()),
            (
                Part::Status,
                true,
                json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "status": {"b": 2}}),
            ),
        ] {
            let mut config = config.clone();
            only_part(&mut config, part, has_status);
            assert_eq!(config, wanted);
        }
    }
}

//! What the server itself does to an object between a client's bytes and the store: the metadata that is its own,
//! defaults, validation, `managedFields`. Pure; after `registry/rest` and `registry/generic/registry` of
//! `k8s.io/apiserver`.

use std::collections::HashSet;
use std::time::Duration;

use kubefed_apimachinery::definition::Definition;
use kubefed_apimachinery::gvk::GroupResource;
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{apply, field, meta, names, time};
use serde_json::{Value, json};

use super::update::{Part, Tracking, Write};

/// Metadata that clients cannot set on create.
const SYSTEM_METADATA: &[&str] = &[
    "creationTimestamp",
    "uid",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "generation",
];

/// Metadata that no update changes.
const KEPT_METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "generateName",
];

/// Events live for an hour, as in Kubernetes (`--event-ttl`).
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// How long an object of this kind lives in the store; `None`: until it is deleted.
pub(super) fn time_to_live(definition: &Definition) -> Option<Duration> {
    (definition.kind == "Event" && matches!(definition.group.as_str(), "" | "events.k8s.io"))
        .then_some(EVENT_TTL)
}

/// Makes a client's new object ready to be stored.
pub(super) fn create(
    write: &Write<'_>,
    namespace: &str,
    object: &mut Value,
    tracking: Tracking,
) -> Result<(), Status> {
    receive(write, namespace, object, tracking)?;
    let definition = &write.route.resource.definition;
    let metadata = metadata_mut(object)?;
    metadata.insert(
        "uid".into(),
        json!(uuid::Builder::from_random_bytes((write.random)()).into_uuid().to_string()),
    );
    metadata.insert("creationTimestamp".into(), json!(time::rfc3339(write.now)));
    metadata.insert("generation".into(), json!(1));
    meta::set_api_version(object, &definition.storage.to_string());

    let mut errors = meta::validate(object, definition.namespaced, valid_name(definition));
    errors.extend(write.route.version().schema.validate(object));
    if errors.is_empty() {
        errors = (definition.strategy.validate)(object);
    }
    invalid(write, object, errors)
}

/// Fills a new object in and records whose its fields are. A second time it makes good again what admission did.
pub(super) fn receive(
    write: &Write<'_>,
    namespace: &str,
    object: &mut Value,
    tracking: Tracking,
) -> Result<(), Status> {
    let definition = &write.route.resource.definition;
    let version = write.route.version();
    if !meta::resource_version(object).is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let metadata = metadata_mut(object)?;
    for field in SYSTEM_METADATA {
        metadata.remove(*field);
    }
    dedup_owners(write, metadata);
    if namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".into(), json!(namespace));
    }
    if definition.subresources.status {
        remove(object, "status");
    }
    version.schema.default(object);
    (definition.strategy.defaults)(object);
    (definition.strategy.prepare_create)(object);
    if tracking == Tracking::Registry {
        apply::update(None, object, &write.manager(), &version.schema);
    }
    Ok(())
}

/// Makes the object that a client wants of `live` ready to be stored.
pub(super) fn update(
    write: &Write<'_>,
    live: &Value,
    new: &mut Value,
    tracking: Tracking,
) -> Result<(), Status> {
    settle(write, live, new, tracking)?;
    let definition = &write.route.resource.definition;
    let mut errors = meta::validate(new, definition.namespaced, valid_name(definition));
    errors.extend(meta::validate_update(new, live));
    errors.extend(write.route.version().schema.validate(new));
    if errors.is_empty() {
        let strategy = &definition.strategy;
        if write.part == Part::Status {
            errors = (strategy.validate_status)(new, live);
        } else {
            errors = (strategy.validate)(new);
            errors.extend((strategy.validate_update)(new, live));
        }
    }
    invalid(write, new, errors)
}

/// Keeps of `live` what this write does not change, and records who changed the rest. A second time it makes good again
/// what admission did.
pub(super) fn settle(
    write: &Write<'_>,
    live: &Value,
    new: &mut Value,
    tracking: Tracking,
) -> Result<(), Status> {
    let definition = &write.route.resource.definition;
    let version = write.route.version();
    let resource = write.route.group_resource();
    let name = meta::name(live);

    let uid = meta::uid(new);
    if !uid.is_empty() && uid != meta::uid(live) {
        let live_uid = meta::uid(live);
        let text = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {live_uid}"
        );
        return Err(Status::conflict(&resource, name, text));
    }
    match meta::resource_version(new) {
        "" if !definition.strategic_patch && write.part == Part::Main => {
            let path = field::Path::root("metadata").child("resourceVersion");
            let error = field::Error::invalid(&path, json!(0), "must be specified for an update");
            return Err(Status::invalid(&write.route.resource.group_kind(), name, &[error]));
        }
        "" => {}
        wanted if wanted != meta::resource_version(live) => {
            return Err(Status::modified(&resource, name));
        }
        _ => {}
    }

    if write.part == Part::Status {
        *new = status_of(live, new);
    }
    let metadata = metadata_mut(new)?;
    dedup_owners(write, metadata);
    metadata.remove("selfLink");
    for field in KEPT_METADATA {
        match live["metadata"].get(field) {
            Some(value) => metadata.insert((*field).into(), value.clone()),
            None => metadata.remove(*field),
        };
    }
    metadata.insert("resourceVersion".into(), live["metadata"]["resourceVersion"].clone());
    if definition.subresources.status && write.part != Part::Status {
        match live.get("status") {
            Some(status) => set(new, "status", status.clone()),
            None => remove(new, "status"),
        }
    }
    version.schema.default(new);
    (definition.strategy.defaults)(new);
    if changes_generation(definition, live, new) {
        let generation = meta::generation(live) + 1;
        metadata_mut(new)?.insert("generation".into(), json!(generation));
    }
    if tracking == Tracking::Registry {
        if write.part != Part::Main {
            match live["metadata"].get("managedFields") {
                Some(fields) => metadata_mut(new)?.insert("managedFields".into(), fields.clone()),
                None => metadata_mut(new)?.remove("managedFields"),
            };
        }
        apply::update(Some(live), new, &write.manager(), &version.schema);
    }
    Ok(())
}

/// The same reference to an owner twice is one, and the client is told.
fn dedup_owners(write: &Write<'_>, metadata: &mut serde_json::Map<String, Value>) {
    let Some(Value::Array(owners)) = metadata.get_mut("ownerReferences") else { return };
    let mut known = HashSet::new();
    let mut twice = Vec::new();
    owners.retain(|owner| {
        let is_new = known.insert(owner.to_string());
        if !is_new {
            twice.push(owner["uid"].as_str().unwrap_or("").to_owned());
        }
        is_new
    });
    if !twice.is_empty() {
        (write.warn)(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}

/// What a name of this kind may be: names of roles may hold colons, those of namespaces no dots.
fn valid_name(definition: &Definition) -> fn(&str) -> Vec<String> {
    match (definition.group.as_str(), definition.kind.as_str()) {
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        ("", "Namespace") => names::dns1123_label,
        ("", "Service") => names::dns1035_label,
        _ => names::dns1123_subdomain,
    }
}

/// A status write keeps everything of the live object but its status; labels and the like are dropped in silence, as
/// for custom resources.
fn status_of(live: &Value, new: &mut Value) -> Value {
    let mut merged = live.clone();
    match new.get_mut("status") {
        Some(status) => set(&mut merged, "status", status.take()),
        None => remove(&mut merged, "status"),
    }
    if let Some(fields) = new["metadata"].get_mut("managedFields") {
        merged["metadata"]["managedFields"] = fields.take();
    }
    merged
}

/// The generation counts changes of what a user wants: everything but metadata and, where it is a subresource, status.
fn changes_generation(definition: &Definition, live: &Value, new: &Value) -> bool {
    let (Some(live), Some(new)) = (live.as_object(), new.as_object()) else { return false };
    let counts = |field: &str| match field {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => !definition.subresources.status,
        _ => true,
    };
    live.keys().chain(new.keys()).any(|field| counts(field) && live.get(field) != new.get(field))
}

/// Nothing holds this object any longer: it is being deleted and has no finalizers left.
pub(super) fn is_released(object: &Value) -> bool {
    meta::deletion_timestamp(object).is_some()
        && meta::finalizers(object).next().is_none()
        && !holds_namespace(object)
}

/// A namespace is also held by `spec.finalizers`, until its content is gone.
pub(super) fn holds_namespace(object: &Value) -> bool {
    object["kind"] == "Namespace"
        && object["apiVersion"] == "v1"
        && object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// 409 for a name that is taken.
pub(super) fn exists(
    resource: &GroupResource,
    name: &str,
    terminating: bool,
    generated: bool,
) -> Status {
    let mut status = Status::already_exists(resource, name);
    if terminating {
        status.message = format!("object is being deleted: {}", status.message);
    }
    if generated {
        status.message += ", the server was not able to generate a unique name for the object";
        status.details.get_or_insert_default().retry_after_seconds = Some(1);
    }
    status
}

fn invalid(write: &Write<'_>, object: &Value, errors: Vec<field::Error>) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let mut kind = write.route.resource.group_kind();
    kind.group.clone_from(&write.route.version().group_version.group);
    Err(Status::invalid(&kind, meta::name(object), &errors))
}

fn metadata_mut(object: &mut Value) -> Result<&mut serde_json::Map<String, Value>, Status> {
    let object = object
        .as_object_mut()
        .ok_or_else(|| Status::bad_request("the object is not a JSON object"))?;
    object
        .entry("metadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| Status::bad_request("metadata is not a JSON object"))
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(field.into(), value);
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

//! The scale subresource: `autoscaling/v1 Scale` over the replicas of a kind.

use http::{Response, StatusCode};
use kubefed_apimachinery::definition::Scale;
use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::At;
use serde_json::Value;

use super::patch::Patch;
use super::{Call, decode};
use crate::body::Body;
use crate::negotiate::{self, PatchType};
use crate::query::WriteOptions;
use crate::registry::{Part, Route, Tracking, scale};
use crate::render;

pub(super) async fn get(
    call: &Call<'_>,
    route: &Route,
    paths: &Scale,
) -> Result<Response<Body>, Status> {
    let object = route.resource.get(call.namespace(route), &call.info.name, At::Latest).await?;
    Ok(render::value_response(
        &scale::of(&object.value().map_err(Status::internal)?, paths),
        call.media,
        StatusCode::OK,
    ))
}

pub(super) async fn update(
    call: &Call<'_>,
    route: &Route,
    paths: &Scale,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let format = negotiate::content(call.headers)?;
    let wanted = decode::parse(&decode::bytes(body).await?, format, "Scale")?.value;
    if wanted["kind"] != "Scale" || wanted["apiVersion"] != "autoscaling/v1" {
        return Err(Status::bad_request("the body is not an autoscaling/v1 Scale"));
    }
    set_replicas(call, route, paths, &options, |_| Ok(wanted.clone())).await
}

pub(super) async fn patch(
    call: &Call<'_>,
    route: &Route,
    paths: &Scale,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    // Scale itself has no lists to merge: a strategic merge patch of it is a merge patch.
    let kind = match negotiate::patch_type(call.headers, true)? {
        PatchType::Strategic | PatchType::Apply => PatchType::Merge,
        kind => kind,
    };
    let patch = Patch::read(kind, &decode::bytes(body).await?, options.field_validation)?;
    set_replicas(call, route, paths, &options, |scale| {
        let mut wanted = scale.clone();
        patch.apply_to(&mut wanted, route)?;
        Ok(wanted)
    })
    .await
}

async fn set_replicas(
    call: &Call<'_>,
    route: &Route,
    paths: &Scale,
    options: &WriteOptions,
    wanted: impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Response<Body>, Status> {
    let warn = call.warn();
    let manager = call.manager(options.field_manager.as_deref());
    let write = call.write(route, Part::Scale, manager, options.dry_run, &warn);
    let updated = write
        .update(call.namespace(route), &call.info.name, Tracking::Registry, |live| {
            let wanted = wanted(&scale::of(live, paths))?;
            let name = meta::name(&wanted);
            if name != meta::name(live) {
                return Err(Status::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    meta::name(live)
                )));
            }
            let Some(replicas) = wanted["spec"].get("replicas").map_or(Some(0), Value::as_i64)
            else {
                return Err(Status::bad_request("spec.replicas is not a number"));
            };
            if !(0..=i64::from(i32::MAX)).contains(&replicas) {
                return Err(Status::bad_request(
                    "spec.replicas must be greater than or equal to 0",
                ));
            }
            let mut new = live.clone();
            for field in ["uid", "resourceVersion"] {
                if let Some(value) = wanted["metadata"].get(field) {
                    new["metadata"][field] = value.clone();
                }
            }
            scale::set_replicas(&mut new, paths, replicas);
            Ok(new)
        })
        .await?;
    Ok(render::value_response(
        &scale::of(&updated.value().map_err(Status::internal)?, paths),
        call.media,
        StatusCode::OK,
    ))
}

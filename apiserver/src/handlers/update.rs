//! PUT of one object or of its status.

use http::{Response, StatusCode};
use kubefed_apimachinery::status::Status;

use super::{Call, decode, shape};
use crate::admission::grants;
use crate::body::Body;
use crate::query::WriteOptions;
use crate::registry::{Part, Route, Tracking};

pub(super) async fn update(
    call: &Call<'_>,
    route: &Route,
    part: Part,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let object = decode::object(call, route, options.field_validation, body).await?;
    call.same_place(&object)?;
    let warn = call.warn();
    let manager = call.manager(options.field_manager.as_deref());
    let write = call.write(route, part, manager, options.dry_run, &warn);
    let updated = write
        .update(call.namespace(route), &call.info.name, Tracking::Registry, |live| {
            grants::are_held(call, route, Some(live), &object)?;
            Ok(object.clone())
        })
        .await
        .map_err(|status| shape::in_group(status, route))?;
    shape::one(call, route, &updated, StatusCode::OK)
}

//! POST to a collection.

use std::sync::Arc;

use http::{Response, StatusCode};
use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;

use super::{Call, decode, shape};
use crate::admission::{grants, lifecycle};
use crate::audit;
use crate::body::Body;
use crate::query::WriteOptions;
use crate::registry::{Part, Route, Tracking};

pub(super) async fn create(
    call: &Call<'_>,
    route: &Route,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let object = decode::object(call, route, options.field_validation, body).await?;
    let namespaced = route.resource.definition.namespaced;
    if namespaced && call.info.namespace.is_empty() {
        return Err(Status::method_not_allowed());
    }
    call.same_place(&object)?;
    let namespace = if namespaced { call.info.namespace.as_str() } else { "" };
    if namespaced {
        lifecycle::namespace_is_open(call.server, route, namespace, meta::name(&object)).await?;
    }
    grants::role_is_known(call, route, &object).await;
    grants::are_held(call, route, None, &object)?;
    let warn = call.warn();
    let manager = call.manager(options.field_manager.as_deref());
    let write = call.write(route, Part::Main, manager, options.dry_run, &warn);
    let created = write.create(namespace, object, Tracking::Registry).await?;
    let mut response = shape::one(call, route, &created, StatusCode::CREATED)?;
    response.extensions_mut().insert(audit::Named(Arc::clone(&created)));
    Ok(response)
}

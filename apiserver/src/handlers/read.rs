//! GET of one object.

use http::{Response, StatusCode};
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::At;

use super::{Call, shape};
use crate::body::Body;
use crate::registry::Route;

/// Without a resource version the newest object, with `0` the one at hand, else one that is not older.
pub(super) async fn get(call: &Call<'_>, route: &Route) -> Result<Response<Body>, Status> {
    let at = match call.query.resource_version()? {
        None => At::Latest,
        Some(0) => At::Any,
        Some(revision) => At::NotOlderThan(revision),
    };
    let object = route
        .resource
        .get(call.namespace(route), &call.info.name, at)
        .await
        .map_err(|status| shape::in_group(status, route))?;
    shape::one(call, route, &object, StatusCode::OK)
}

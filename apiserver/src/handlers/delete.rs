//! DELETE of one object and of a collection.

use http::{Response, StatusCode};
use kubefed_apimachinery::status::{Details, Status};
use serde_json::Value;

use super::{Call, decode, list, shape};
use crate::admission::{Admission, Options};
use crate::body::Body;
use crate::federatedtypes;
use crate::negotiate;
use crate::query::{DeleteOptions, ListOptions};
use crate::registry::{Deleted, Part, Route};
use crate::render;

pub(super) async fn delete(
    call: &Call<'_>,
    route: &Route,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let options = options(call, body).await?;
    let admission = call.admission(route, Part::Main, Options::Delete(&options), options.dry_run);
    let namespace = call.namespace(route);
    match one(call, route, namespace, &call.info.name, &options, admission.as_ref()).await? {
        Deleted::Held(object) => shape::one(call, route, &object, StatusCode::OK),
        Deleted::Gone(object) => {
            let resource = route.group_resource();
            let status = Status::success(Details {
                name: object.index.name.to_string(),
                group: resource.group,
                kind: resource.resource,
                uid: object.index.uid.to_string(),
                ..Details::default()
            });
            Ok(render::status(&status, call.media))
        }
    }
}

/// Deletes what the selectors choose, one by one; answers with the list of what was chosen.
pub(super) async fn delete_collection(
    call: &Call<'_>,
    route: &Route,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let options = options(call, body).await?;
    let (items, meta) = list::select(call, route, &ListOptions::parse(&call.query, false)?).await?;
    let admission = call.admission(route, Part::Main, Options::Delete(&options), options.dry_run);
    for object in &items {
        let (namespace, name) = (&object.index.namespace, &object.index.name);
        match one(call, route, namespace, name, &options, admission.as_ref()).await {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    shape::list(call, route, items, &meta)
}

async fn one(
    call: &Call<'_>,
    route: &Route,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
    admission: Option<&Admission<'_>>,
) -> Result<Deleted, Status> {
    // While what it leaves behind can still be counted.
    let left = federatedtypes::left_behind(call.server, route, namespace, name).await;
    let now = (call.server.clock)();
    let deleted = route.resource.delete(namespace, name, options, now, admission).await;
    let deleted = deleted.map_err(|status| shape::in_group(status, route))?;
    left.into_iter().for_each(|text| call.warnings.add(text));
    Ok(deleted)
}

async fn options(call: &Call<'_>, body: axum::body::Body) -> Result<DeleteOptions, Status> {
    let bytes = decode::bytes(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(&call.query, None);
    }
    let format = negotiate::content(call.headers)?;
    let options = decode::parse(&bytes, format, "DeleteOptions")?.value;
    if !(options.is_object() || options.is_null()) {
        return Err(Status::bad_request(
            "the body of a delete is a JSON object of kind DeleteOptions",
        ));
    }
    let kind = options["kind"].as_str().unwrap_or("DeleteOptions");
    if kind != "DeleteOptions" {
        return Err(Status::bad_request(format!("{kind} cannot be handled as a DeleteOptions")));
    }
    DeleteOptions::parse(&call.query, Some(&options).filter(|options: &&Value| !options.is_null()))
}

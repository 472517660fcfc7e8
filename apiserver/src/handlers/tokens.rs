//! `serviceaccounts/token`: a token for a service account.

use http::{Response, StatusCode};
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::time;
use kubefed_storage::cacher::At;
use serde_json::json;

use super::{Call, decode};
use crate::authn::tokens::{Grant, ISSUER, Reference};
use crate::body::Body;
use crate::negotiate;
use crate::registry::Route;
use crate::render;

/// As Kubernetes: at least ten minutes, an hour unless asked otherwise, here a day at most.
const MIN_LIFETIME: i64 = 600;
const LIFETIME: i64 = 3600;
const MAX_LIFETIME: i64 = 24 * 3600;

pub(super) async fn request(
    call: &Call<'_>,
    route: &Route,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let Some(tokens) = &call.server.tokens else { return Err(Status::unknown_resource()) };
    let format = negotiate::content(call.headers)?;
    let mut review = decode::parse(&decode::bytes(body).await?, format, "TokenRequest")?.value;
    if review["kind"] != "TokenRequest" {
        return Err(Status::bad_request(
            "the body is not an authentication.k8s.io/v1 TokenRequest",
        ));
    }
    let account = route.resource.get(call.namespace(route), &call.info.name, At::Latest).await?;
    let lifetime = review["spec"]["expirationSeconds"]
        .as_i64()
        .unwrap_or(LIFETIME)
        .clamp(MIN_LIFETIME, MAX_LIFETIME);
    let audiences: Vec<String> = review["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let now = (call.server.clock)();
    let token = tokens.issue(Grant {
        namespace: call.namespace(route),
        service_account: Reference {
            name: call.info.name.clone(),
            uid: account.index.uid.to_string(),
        },
        secret: None,
        audiences: audiences.clone(),
        now: now.as_second(),
        lifetime: Some(lifetime),
    })?;
    let expires = jiff::Timestamp::from_second(now.as_second() + lifetime).unwrap_or(now);
    review["spec"]["expirationSeconds"] = json!(lifetime);
    review["spec"]["audiences"] =
        if audiences.is_empty() { json!([ISSUER]) } else { json!(audiences) };
    review["status"] = json!({"token": token, "expirationTimestamp": time::rfc3339(expires)});
    review["metadata"] = json!({"name": call.info.name, "namespace": call.info.namespace, "creationTimestamp": null});
    Ok(render::value_response(&review, call.media, StatusCode::CREATED))
}

//! What every request goes through before a handler sees it, in the order of `DefaultBuildHandlerChain` of Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Response, header};
use kubefed_apimachinery::duration;
use kubefed_apimachinery::status::Status;
use tokio::sync::Semaphore;

use crate::authn::Authenticator;
use crate::authz::{Attributes, Authorizer, Decision};
use crate::body::Body;
use crate::listener::ConnectionInfo;
use crate::metrics::Metrics;
use crate::negotiate::{self, Media};
use crate::query::Query;
use crate::render;
use crate::request::RequestInfo;
use crate::user::{MASTERS, UserInfo};

pub mod body;
mod impersonation;
mod warnings;

pub use warnings::Warnings;

/// The time that a request may take that does not watch; clients can ask for less by `timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests at a time, as Kubernetes: 400 that read and 200 that write.
const MAX_READING: usize = 400;
const MAX_WRITING: usize = 200;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What the filters need.
pub struct Filters {
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub metrics: Arc<Metrics>,
    /// Paths that need no rights: probes.
    pub open_paths: Vec<String>,
    pub reading: Semaphore,
    pub writing: Semaphore,
}

impl Filters {
    pub fn new(
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Filters {
            authenticator,
            authorizer,
            metrics,
            open_paths: ["/healthz", "/livez", "/readyz"].map(String::from).to_vec(),
            reading: Semaphore::new(MAX_READING),
            writing: Semaphore::new(MAX_WRITING),
        })
    }
}

/// `inner` behind the filters.
pub fn chain(inner: Router, filters: &Arc<Filters>) -> Router {
    inner
        .layer(from_fn_with_state(Arc::clone(filters), admit))
        .layer(from_fn_with_state(Arc::clone(filters), outermost))
}

/// The part around everything: identity of the request, panics, time, headers, metrics and the access log.
async fn outermost(
    State(filters): State<Arc<Filters>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let started = tokio::time::Instant::now();
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::new(request.method(), request.uri().path(), &query);
    let media = negotiate::accept(request.headers(), None).unwrap_or(Media::JSON);
    let audit_id = request.headers().get(AUDIT_ID).cloned().unwrap_or_else(|| {
        HeaderValue::try_from(uuid::Uuid::new_v4().to_string())
            .unwrap_or(HeaderValue::from_static(""))
    });
    let warnings = Warnings::default();
    request.extensions_mut().insert(warnings.clone());
    request.extensions_mut().insert(info.clone());

    let timeout = match timeout_of(&query, &info) {
        Ok(timeout) => timeout,
        Err(status) => return finish(render::status(&status, media), &audit_id, &warnings),
    };
    let _in_flight = filters.metrics.in_flight(info.is_mutating());
    let work = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind();
    let outcome = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, work).await,
        None => Ok(work.await),
    };
    let response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(path = info.path, "a handler panicked");
            render::status(&Status::internal("a handler panicked; the server log has more"), media)
        }
        Err(_) => render::status(
            &Status::timeout("request did not complete within the allotted timeout"),
            media,
        ),
    };
    let code = response.status().as_u16();
    let elapsed = started.elapsed();
    filters.metrics.request(&info, code, elapsed);
    tracing::debug!(verb = info.verb, path = info.path, code, ?elapsed, "HTTP");
    finish(response, &audit_id, &warnings)
}

fn timeout_of(query: &Query, info: &RequestInfo) -> Result<Option<Duration>, Status> {
    if info.is_long_running() {
        return Ok(None);
    }
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else {
        return Ok(Some(REQUEST_TIMEOUT));
    };
    match duration::parse(text) {
        Ok(asked) if asked > Duration::ZERO && asked < REQUEST_TIMEOUT => Ok(Some(asked)),
        Ok(_) => Ok(Some(REQUEST_TIMEOUT)),
        Err(why) => Err(Status::bad_request(format!(
            "invalid timeout specified in the request URL - {why}"
        ))),
    }
}

fn finish(
    mut response: Response<Body>,
    audit_id: &HeaderValue,
    warnings: &Warnings,
) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(AUDIT_ID, audit_id.clone());
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for warning in warnings.header_values() {
        headers.append(header::WARNING, warning);
    }
    response
}

/// Lets in whom it may: authentication, impersonation, the limit of requests at a time, authorization.
async fn admit(
    State(filters): State<Arc<Filters>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let media = negotiate::accept(request.headers(), None).unwrap_or(Media::JSON);
    let refuse = |status: Status| render::status(&status, media);
    let Some(info) = request.extensions().get::<RequestInfo>().cloned() else {
        return refuse(Status::internal("the request was not taken apart"));
    };
    let connection = request.extensions().get::<ConnectionInfo>().cloned();
    let user =
        match filters.authenticator.authenticate(connection.as_ref(), request.headers()).await {
            Ok(user) => user,
            Err(status) => return refuse(status),
        };
    // Nobody behind this point sees a credential or a claim to an identity.
    request.headers_mut().remove(header::AUTHORIZATION);
    let user = match impersonation::apply(&*filters.authorizer, user, request.headers_mut()).await {
        Ok(user) => user,
        Err(status) => return refuse(status),
    };
    let limit = if info.is_mutating() { &filters.writing } else { &filters.reading };
    let _permit = if info.is_long_running() || user.is_in(MASTERS) {
        None
    } else {
        match limit.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => {
                return refuse(Status::too_many_requests(
                    "Too many requests, please try again later.",
                    1,
                ));
            }
        }
    };
    if let Err(status) = authorize(&filters, &user, &info).await {
        return refuse(status);
    }
    request.extensions_mut().insert(user);
    next.run(request).await
}

async fn authorize(filters: &Filters, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
    if !info.is_resource
        && filters
            .open_paths
            .iter()
            .any(|open| info.path == *open || info.path.starts_with(&format!("{open}/")))
    {
        return Ok(());
    }
    let attributes = Attributes::of(user, info);
    match filters.authorizer.authorize(&attributes).await {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) => Err(attributes.forbidden(&reason)),
    }
}

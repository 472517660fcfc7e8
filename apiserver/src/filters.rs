//! What every request goes through before a handler sees it, in the order of `DefaultBuildHandlerChain` of Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version, header};
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{duration, fields};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Trail};
use crate::authn::Authenticator;
use crate::authz::{Attributes, Authorizer, Decision};
use crate::body::{Body, holding, until_cancelled};
use crate::listener::ConnectionInfo;
use crate::metrics::{self, Metrics};
use crate::negotiate::{self, Media};
use crate::query::Query;
use crate::render;
use crate::request::RequestInfo;
use crate::server::Serving;
use crate::user::{MASTERS, UserInfo};

pub mod body;
mod gzip;
mod impersonation;
mod warnings;

pub use warnings::Warnings;

/// The time that a request may take that does not watch; clients can ask for less by `timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The paths of probes, which are answered also where there are too many requests.
const PROBES: &[&str] = &["healthz", "livez", "readyz"];

/// The media type of server-side apply, which is told apart in metrics.
const APPLY: &[u8] = b"application/apply-patch";

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A client's own id is kept as it is unless it is longer: it is written with every line of the log.
const AUDIT_ID_MAX: usize = 128;

/// What the filters need.
pub struct Filters {
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub metrics: Arc<Metrics>,
    /// Paths that need no rights; a star at the end stands for whatever begins so.
    pub open_paths: Vec<String>,
    pub reading: Semaphore,
    pub writing: Semaphore,
    /// Whether a request is for something that is served; only that is told apart in metrics.
    pub serves: Box<dyn Fn(&RequestInfo) -> bool + Send + Sync>,
    pub audit: Option<Arc<audit::Log>>,
    /// Cancelled when the server is to end: a client by HTTP/1.1 is told to come back by another connection.
    pub ending: CancellationToken,
    /// Cancelled when the server takes no more requests: watches end then, for they would not by themselves.
    pub draining: CancellationToken,
}

impl Filters {
    pub fn new(
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
        metrics: Arc<Metrics>,
        serving: &Serving,
    ) -> Self {
        let at_a_time = |limit| match limit {
            0 => Semaphore::new(Semaphore::MAX_PERMITS),
            limit => Semaphore::new(limit.min(Semaphore::MAX_PERMITS)),
        };
        Filters {
            authenticator,
            authorizer,
            metrics,
            open_paths: serving.open_paths.clone(),
            reading: at_a_time(serving.max_reading),
            writing: at_a_time(serving.max_writing),
            serves: Box::new(|_| true),
            audit: None,
            ending: CancellationToken::new(),
            draining: CancellationToken::new(),
        }
    }

    /// Whether anybody may ask for this.
    fn is_open(&self, info: &RequestInfo) -> bool {
        let covers = |open: &String| match open.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => *open == info.path,
        };
        !info.is_resource && self.open_paths.iter().any(covers)
    }
}

fn is_probe(info: &RequestInfo) -> bool {
    let first = info.path.trim_start_matches('/').split('/').next();
    !info.is_resource && first.is_some_and(|first| PROBES.contains(&first))
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
    let is_h2 = request.version() == Version::HTTP_2;
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::new(request.method(), request.uri().path(), &query);
    let media = negotiate::accept(request.headers(), None).unwrap_or(Media::JSON);
    let given = request.headers().get(AUDIT_ID).filter(|id| id.len() <= AUDIT_ID_MAX).cloned();
    let audit_id = given.unwrap_or_else(|| {
        HeaderValue::try_from(uuid::Uuid::new_v4().to_string())
            .unwrap_or(HeaderValue::from_static(""))
    });
    let entry = filters.audit.as_ref().map(|log| log.begin(&request, &info, &audit_id));
    if let Some(entry) = &entry {
        request.extensions_mut().insert(entry.trail());
    }
    let warnings = Warnings::default();
    request.extensions_mut().insert(warnings.clone());
    request.extensions_mut().insert(info.clone());

    let reads = !info.is_mutating() && !info.is_long_running();
    let takes_gzip = request.method() != Method::HEAD && gzip::is_accepted(request.headers());
    let _in_flight =
        (!info.is_long_running()).then(|| filters.metrics.in_flight(info.is_mutating()));
    let counted = (info.is_resource && (filters.serves)(&info)).then(|| {
        let content = request.headers().get(header::CONTENT_TYPE);
        let applies = content.is_some_and(|content| content.as_bytes().starts_with(APPLY));
        metrics::Request::of(&info, query.get("dryRun") == Some("All"), applies)
    });
    let response = match answer(request, next, &info, &query).await {
        Ok(response) => response,
        Err(Failure::Refused(status)) => render::status(&status, media),
        Err(Failure::Panicked) => {
            tracing::error!(path = info.path, "a handler panicked");
            if let Some(entry) = &entry {
                entry.panicked().await;
            }
            render::status(&Status::internal("a handler panicked; the server log has more"), media)
        }
    };
    let code = response.status().as_u16();
    let elapsed = started.elapsed();
    let mut watched = None;
    if let Some(counted) = counted {
        if info.is_long_running() && response.status().is_success() {
            watched = Some(filters.metrics.long_running(&counted));
        }
        let timed = (!info.is_long_running()).then_some(elapsed);
        filters.metrics.answered(counted, code, timed);
    }
    tracing::debug!(verb = info.verb, path = info.path, code, ?elapsed, "HTTP");
    let response = match entry {
        Some(entry) => entry.answered(response, info.is_long_running()).await,
        None => response,
    };
    let response = match watched {
        Some(watched) => {
            response.map(|body| holding(until_cancelled(body, filters.draining.clone()), watched))
        }
        None => response,
    };
    let response = if reads { gzip::encode(response, takes_gzip).await } else { response };
    let mut response = finish(response, &audit_id, &warnings);
    if !is_h2 && filters.ending.is_cancelled() {
        close_after(&mut response);
    }
    response
}

/// Why there is no answer from the inner service.
enum Failure {
    Refused(Box<Status>),
    Panicked,
}

/// The inner service's answer, in time.
async fn answer(
    request: Request,
    next: Next,
    info: &RequestInfo,
    query: &Query,
) -> Result<Response<Body>, Failure> {
    let timeout = timeout_of(query, info).map_err(|status| Failure::Refused(Box::new(status)))?;
    let work = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind();
    let outcome = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, work).await,
        None => Ok(work.await),
    };
    match outcome {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => Err(Failure::Panicked),
        Err(_) => Err(Failure::Refused(Box::new(Status::timeout(
            "request did not complete within the allotted timeout",
        )))),
    }
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

/// Ends the connection, which is by HTTP/1.1, with this answer, and says so.
fn close_after(response: &mut Response<Body>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
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
    let known = filters.authenticator.authenticate(connection.as_ref(), request.headers()).await;
    let is_h2 = request.version() == Version::HTTP_2;
    if let Some(connection) = connection.filter(|connection| is_h2 && !proves(&known, connection)) {
        connection.close();
    }
    let user = match known {
        Ok(user) => user,
        Err(status) => {
            let mut response = refuse(status);
            if !is_h2 {
                close_after(&mut response);
            }
            return response;
        }
    };
    let trail = request.extensions().get::<Trail>().cloned();
    if let Some(trail) = &trail {
        trail.user(&user).await;
    }
    // Nobody behind this point sees a credential or a claim to an identity.
    strip_credentials(request.headers_mut());
    let impersonated =
        impersonation::apply(&*filters.authorizer, &user, request.headers_mut()).await;
    let user = match impersonated {
        Ok(None) => user,
        Ok(Some(target)) => {
            if let Some(trail) = &trail {
                trail.impersonated(&target);
            }
            target
        }
        Err(status) => {
            if let (Some(trail), 403) = (&trail, status.code) {
                trail.allowed(false);
            }
            return refuse(status);
        }
    };
    let limit = if info.is_mutating() { &filters.writing } else { &filters.reading };
    let _permit = if info.is_long_running() || is_probe(&info) || user.is_in(MASTERS) {
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
    let allowed = authorize(&filters, &user, &info, request.uri().query()).await;
    if let Some(trail) = &trail {
        trail.allowed(allowed.is_ok());
    }
    if let Err(status) = allowed {
        return refuse(status);
    }
    request.extensions_mut().insert(user);
    let request = match &trail {
        Some(trail) => request.map(|body| trail.hear(body)),
        None => request,
    };
    next.run(request).await
}

/// Whether a client has proved anything. One that has not gets no second round of requests out of a connection by
/// HTTP/2, where they are cheap to send (CVE-2023-44487). Who is anonymous by the word of a front proxy does not end
/// the proxy's connection, which is everybody's.
fn proves(known: &Result<UserInfo, Status>, connection: &ConnectionInfo) -> bool {
    known.as_ref().is_ok_and(|user| !user.is_anonymous() || connection.certificate.is_some())
}

/// Takes off what proves or claims an identity, also what only a front proxy may send.
fn strip_credentials(headers: &mut HeaderMap) {
    let claims = |name: &HeaderName| {
        *name == header::AUTHORIZATION
            || *name == header::COOKIE
            || name.as_str().starts_with("x-remote-")
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| claims(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

async fn authorize(
    filters: &Filters,
    user: &UserInfo,
    info: &RequestInfo,
    query: Option<&str>,
) -> Result<(), Status> {
    if filters.is_open(info) {
        return Ok(());
    }
    let named = named_by_selector(info, query);
    let attributes = Attributes::of(user, named.as_ref().unwrap_or(info));
    match filters.authorizer.authorize(&attributes).await? {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) => Err(attributes.forbidden(&reason)),
    }
}

/// A list or watch by `metadata.name` is a request for that name: who may see one object may watch it.
fn named_by_selector(info: &RequestInfo, query: Option<&str>) -> Option<RequestInfo> {
    if !info.name.is_empty() || !matches!(info.verb.as_str(), "list" | "watch" | "deletecollection")
    {
        return None;
    }
    let query = Query::parse(query.filter(|query| query.contains("fieldSelector")));
    let selector = fields::Selector::parse(query.get("fieldSelector")?).ok()?;
    let name = selector.exact("metadata.name").filter(|name| !name.is_empty())?.to_owned();
    Some(RequestInfo { name, ..info.clone() })
}

#[cfg(test)]
mod tests;

//! What stands behind the filters: a request that is authenticated and allowed, and the answer to it.
//!
//! One file a verb. Handlers return `Result<Response, Status>`; [`serve`] is the one place where a `Status` becomes
//! a response.

use std::sync::Arc;

use axum::extract::{Request, State};
use http::{HeaderMap, Response, request};
use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{meta, names};

use crate::admission::{Admission, Notes, Options};
use crate::audit::Trail;
use crate::authz::{Attributes, Decision};
use crate::body::Body;
use crate::discovery;
use crate::filters::Warnings;
use crate::negotiate::{self, Media};
use crate::query::{FIELD_MANAGER_MAX, Query};
use crate::registry::{Catalog, Part, Route, Write};
use crate::render;
use crate::request::RequestInfo;
use crate::server::Server;
use crate::user::UserInfo;

mod create;
mod decode;
mod delete;
mod list;
mod patch;
mod read;
mod reviews;
mod scale;
mod shape;
mod tokens;
mod update;
mod watch;

/// Answers one request.
pub(crate) async fn serve(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let accept = negotiate::accept(&parts.headers, None).unwrap_or(Media::JSON);
    match answer(&server, &parts, body).await {
        Ok(response) => response,
        Err(status) => render::status(&status, accept),
    }
}

async fn answer(
    server: &Server,
    parts: &request::Parts,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let info: &RequestInfo = extension(parts)?;
    let catalog = server.registry.catalog();
    if !info.is_resource {
        return non_resource(server, &catalog, parts, info);
    }
    let query = Query::parse(parts.uri.query());
    let media = negotiate::accept(&parts.headers, query.get("pretty"))?;
    let call = Call {
        server,
        info,
        user: extension(parts)?,
        warnings: extension(parts)?,
        trail: parts.extensions.get(),
        headers: &parts.headers,
        query,
        media,
    };
    if let Some(review) = catalog.review(&info.group, &info.version, &info.resource) {
        if review.namespaced == info.namespace.is_empty() {
            return Err(Status::unknown_resource());
        }
        return reviews::answer(&call, review, body).await;
    }
    // What is in no namespace is not reached through one: rights in that namespace were asked for, no others.
    let route = catalog
        .route(&info.group, &info.version, &info.resource)
        .filter(|route| {
            route.resource.definition.namespaced
                || info.namespace.is_empty()
                || (info.resource == "namespaces" && info.namespace == info.name)
        })
        .ok_or_else(Status::unknown_resource)?;
    dispatch(&call, route, body).await
}

async fn dispatch(
    call: &Call<'_>,
    route: &Route,
    body: axum::body::Body,
) -> Result<Response<Body>, Status> {
    let info = call.info;
    let definition = &route.resource.definition;
    if !info.name.is_empty() {
        if let Some(problem) = names::path_segment(&info.name).into_iter().next() {
            return Err(Status::bad_request(format!("invalid name {:?}: {problem}", info.name)));
        }
        if definition.namespaced && info.namespace.is_empty() {
            return Err(Status::unknown_resource());
        }
    }
    let subresources = &definition.subresources;
    match (info.subresource.as_str(), info.verb.as_str()) {
        ("", "get") => read::get(call, route).await,
        ("", "list") => list::list(call, route).await,
        ("", "watch") => watch::watch(call, route).await,
        ("", "create") if info.name.is_empty() => create::create(call, route, body).await,
        ("", "update") => update::update(call, route, Part::Main, body).await,
        ("", "patch") => patch::patch(call, route, Part::Main, body).await,
        ("", "delete") => delete::delete(call, route, body).await,
        ("", "deletecollection") => delete::delete_collection(call, route, body).await,
        ("status", "get") if subresources.status => read::get(call, route).await,
        ("status", "update") if subresources.status => {
            update::update(call, route, Part::Status, body).await
        }
        ("status", "patch") if subresources.status => {
            patch::patch(call, route, Part::Status, body).await
        }
        ("scale", verb) => match (&subresources.scale, verb) {
            (Some(paths), "get") => scale::get(call, route, paths).await,
            (Some(paths), "update") => scale::update(call, route, paths, body).await,
            (Some(paths), "patch") => scale::patch(call, route, paths, body).await,
            (Some(_), _) => Err(Status::method_not_allowed()),
            (None, _) => Err(Status::unknown_resource()),
        },
        ("finalize", "update") if definition.kind == "Namespace" => {
            update::update(call, route, Part::Main, body).await
        }
        ("token", "create") if definition.kind == "ServiceAccount" => {
            tokens::request(call, route, body).await
        }
        ("" | "status", _) => Err(Status::method_not_allowed()),
        _ => Err(Status::unknown_resource()),
    }
}

fn non_resource(
    server: &Server,
    catalog: &Catalog,
    parts: &request::Parts,
    info: &RequestInfo,
) -> Result<Response<Body>, Status> {
    let known = match info.path.as_str() {
        "/version" | "/version/" => Some(render::json(&server.version)),
        "/" => Some(render::json(&serde_json::json!({"paths": [
            "/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"
        ]}))),
        path if path.starts_with("/openapi/") => {
            catalog.openapi().answer(path, parts.uri.query(), &parts.headers)
        }
        path => catalog.discovery().answer(path, &parts.headers),
    };
    let response = known.ok_or_else(discovery::unknown)?;
    if parts.method != http::Method::GET && parts.method != http::Method::HEAD {
        return Err(Status::method_not_allowed());
    }
    Ok(response)
}

/// One request for a resource, with what the filters learned of it.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Server,
    pub(crate) info: &'a RequestInfo,
    pub(crate) user: &'a UserInfo,
    pub(crate) warnings: &'a Warnings,
    pub(crate) trail: Option<&'a Trail>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: Query,
    pub(crate) media: Media,
}

impl Call<'_> {
    /// The field manager of this request: as given, else the program's name from `User-Agent`, which is kept with
    /// the object and so is no longer than a given one may be.
    fn manager<'b>(&'b self, given: Option<&'b str>) -> &'b str {
        given.unwrap_or_else(|| {
            let agent = self
                .headers
                .get(http::header::USER_AGENT)
                .and_then(|v| v.to_str().ok())
                .unwrap_or("");
            let name = agent.split('/').next().unwrap_or("").trim();
            // Header text is ASCII, so that any byte is the end of a character.
            match &name[..name.len().min(FIELD_MANAGER_MAX)] {
                "" => "unknown",
                name => name,
            }
        })
    }

    /// The namespace part of the object's key; a Namespace itself is in none, whatever its path says.
    fn namespace(&self, route: &Route) -> &str {
        if route.resource.definition.namespaced { &self.info.namespace } else { "" }
    }

    fn warn(&self) -> impl Fn(String) + Sync + use<'_> {
        |text| self.warnings.add(text)
    }

    fn write<'b>(
        &'b self,
        route: &'b Route,
        part: Part,
        manager: &'b str,
        dry_run: bool,
        warn: &'b (dyn Fn(String) + Sync),
    ) -> Write<'b> {
        Write {
            route,
            part,
            manager,
            now: (self.server.clock)(),
            dry_run,
            random: self.server.random,
            warn,
            admission: self.admission(route, part, Options::Write(&self.query), dry_run),
        }
    }

    /// Who in the host has a say in the writes of this request.
    fn admission<'b>(
        &'b self,
        route: &'b Route,
        part: Part,
        options: Options<'b>,
        dry_run: bool,
    ) -> Option<Admission<'b>> {
        let chain = self.server.host.as_ref()?.admission();
        let notes =
            Notes { warnings: self.warnings, trail: self.trail, metrics: &self.server.metrics };
        Some(Admission { chain, user: self.user, route, part, options, dry_run, notes })
    }

    /// An apply that has to create needs the right to: 403 without it.
    async fn may_create(&self) -> Result<(), Status> {
        let create =
            RequestInfo { verb: "create".into(), name: String::new(), ..self.info.clone() };
        let attributes = Attributes::of(self.user, &create);
        match self.server.authorizer.authorize(&attributes).await? {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) => Err(attributes.forbidden(&reason)),
        }
    }

    /// 400 when the object says another name or namespace than the path; an empty namespace is filled in.
    fn same_place(&self, object: &serde_json::Value) -> Result<(), Status> {
        let info = self.info;
        let name = meta::name(object);
        if !info.name.is_empty() && name != info.name {
            return Err(Status::bad_request(if name.is_empty() {
                format!(
                    "the name of the object ({} based on URL) was undeterminable: name must be provided",
                    info.name
                )
            } else {
                format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    info.name
                )
            }));
        }
        let namespace = meta::namespace(object);
        if !namespace.is_empty() && info.resource != "namespaces" && namespace != info.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(())
    }
}

fn extension<T: Clone + Send + Sync + 'static>(parts: &request::Parts) -> Result<&T, Status> {
    parts.extensions.get().ok_or_else(|| {
        Status::internal(format!("a filter left out {}", std::any::type_name::<T>()))
    })
}

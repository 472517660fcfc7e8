//! OpenAPI v3 and v2 of every kind served: what `kubectl explain`, `--validate`, `--dry-run=server`, client generators
//! and a host's aggregator read.
//!
//! The documents of one set of kinds are made when first asked for and are kept with the set; a document's hash is its
//! content's, since clients keep them on disk for good.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use kubefed_apimachinery::gvk::GroupVersion;
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::builtin;
use crate::discovery::{sha512_hex, tag};
use crate::registry::{Catalog, Route};
use crate::render;

mod paths;
mod protobuf;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What client-go asks for; `@` may not stand in a media type, so that answers have the other spelling.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// The documents of one catalog.
pub struct OpenApi {
    routes: BTreeMap<String, Vec<Route>>,
    versions: BTreeMap<String, OnceLock<Document>>,
    index: OnceLock<Document>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

struct Document {
    content_type: &'static str,
    body: Bytes,
    hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        Document::of(JSON, value.to_string().into())
    }

    fn of(content_type: &'static str, body: Bytes) -> Self {
        Document { content_type, hash: sha512_hex(&body), body }
    }

    fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        render::tagged(self.body.clone(), self.content_type, &tag(&self.hash), headers)
    }
}

impl OpenApi {
    pub(crate) fn new(catalog: &Catalog) -> Self {
        let routes: BTreeMap<String, Vec<Route>> = catalog
            .group_versions()
            .map(|(gv, routes)| (path_of(gv), routes.values().cloned().collect()))
            .collect();
        let versions = routes.keys().map(|path| (path.clone(), OnceLock::new())).collect();
        OpenApi {
            routes,
            versions,
            index: OnceLock::new(),
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
        }
    }

    /// Answers a GET below `/openapi/`, or `None` where nothing is.
    pub fn answer(
        &self,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<Response<Body>> {
        match path.trim_end_matches('/') {
            "/openapi/v2" => Some(match v2_form(headers) {
                Some(PROTOBUF) => self.v2_protobuf().answer(headers),
                Some(_) => self.v2().answer(headers),
                None => {
                    render::bytes_response(Bytes::new(), "text/plain", StatusCode::NOT_ACCEPTABLE)
                }
            }),
            "/openapi/v3" => Some(
                self.index.get_or_init(|| Document::new(&self.index_document())).answer(headers),
            ),
            path => {
                let document = self.version(path.strip_prefix("/openapi/v3/")?)?;
                let mut response = document.answer(headers);
                if query.is_some_and(|query| query == format!("hash={}", document.hash)) {
                    response.headers_mut().insert(
                        header::CACHE_CONTROL,
                        HeaderValue::from_static("public, immutable, max-age=31536000"),
                    );
                }
                Some(response)
            }
        }
    }

    fn version(&self, path: &str) -> Option<&Document> {
        let routes = self.routes.get(path)?;
        Some(self.versions.get(path)?.get_or_init(|| Document::new(&v3_document(routes))))
    }

    fn index_document(&self) -> Value {
        let mut index = Map::new();
        for path in self.versions.keys() {
            if let Some(document) = self.version(path) {
                let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                index.insert(path.clone(), json!({"serverRelativeURL": url}));
            }
        }
        json!({"paths": index})
    }

    fn v2(&self) -> &Document {
        self.v2.get_or_init(|| Document::new(&self.v2_document()))
    }

    fn v2_protobuf(&self) -> &Document {
        self.v2_protobuf.get_or_init(|| {
            let document = serde_json::from_slice(&self.v2().body).unwrap_or_default();
            let encoded = protobuf::encode(&document);
            if !encoded.lost.is_empty() {
                tracing::warn!(fields = ?encoded.lost, "OpenAPI v2 as protobuf lacks fields");
            }
            Document::of(PROTOBUF, encoded.bytes.into())
        })
    }

    fn v2_document(&self) -> Value {
        let mut all_paths = Map::new();
        let mut schemas = BTreeMap::new();
        for route in self.routes.values().flatten() {
            all_paths.extend(paths::of(route, paths::Dialect::V2));
            collect_schemas(route, &mut schemas);
        }
        let definitions: Map<String, Value> = schemas
            .into_iter()
            .map(|(name, schema)| (name, as_v2(Arc::unwrap_or_clone(schema))))
            .collect();
        json!({"swagger": "2.0", "info": info(), "paths": all_paths, "definitions": definitions})
    }
}

/// The content type of OpenAPI v2 that the client likes best of those there are.
fn v2_form(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accept.trim().is_empty() {
        return Some(JSON);
    }
    let clause = |clause: &str| {
        let mut parts = clause.split(';').map(str::trim);
        let form = match parts.next()? {
            JSON | "application/*" | "*/*" => JSON,
            PROTOBUF | PROTOBUF_ASKED => PROTOBUF,
            _ => return None,
        };
        let quality = parts.find_map(|parameter| parameter.strip_prefix("q=")?.parse().ok());
        Some((quality.unwrap_or(1.0), form)).filter(|(quality, _): &(f32, _)| *quality > 0.0)
    };
    let mut forms: Vec<(f32, &str)> = accept.split(',').filter_map(clause).collect();
    forms.sort_by(|a, b| b.0.total_cmp(&a.0));
    forms.first().map(|(_, form)| *form)
}

fn path_of(group_version: &GroupVersion) -> String {
    if group_version.group.is_empty() {
        format!("api/{}", group_version.version)
    } else {
        format!("apis/{}/{}", group_version.group, group_version.version)
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes Federation", "version": env!("CARGO_PKG_VERSION")})
}

fn v3_document(routes: &[Route]) -> Value {
    let mut all_paths = Map::new();
    let mut schemas = BTreeMap::new();
    for route in routes {
        all_paths.extend(paths::of(route, paths::Dialect::V3));
        collect_schemas(route, &mut schemas);
    }
    let schemas: Map<String, Value> =
        schemas.into_iter().map(|(name, schema)| (name, Arc::unwrap_or_clone(schema))).collect();
    json!({"openapi": "3.0.0", "info": info(), "paths": all_paths, "components": {"schemas": schemas}})
}

/// Adds what a route's operations refer to: the kind, its list, and what those refer to.
fn collect_schemas(route: &Route, schemas: &mut BTreeMap<String, Arc<Value>>) {
    let version = route.version();
    let definition = &route.resource.definition;
    let documents = version.schema.schemas();
    for name in documents.closure(&version.schema_name) {
        if let Some(document) = documents.raw(&name) {
            schemas.entry(name).or_insert_with(|| Arc::new(document.clone()));
        }
    }
    let group_version_kind = |kind: &str| json!([{"group": version.group_version.group, "version": version.group_version.version, "kind": kind}]);
    if let Some(root) = schemas.get_mut(&version.schema_name) {
        let root = Arc::make_mut(root);
        root["x-kubernetes-group-version-kind"] = group_version_kind(&definition.kind);
        root["properties"]["metadata"] = json!({
            "description": "Standard object's metadata.",
            "default": {},
            "allOf": [reference(&format!("{META}.ObjectMeta"))],
        });
        for (field, description) in [
            (
                "apiVersion",
                "APIVersion is the versioned schema of this representation of an object.",
            ),
            ("kind", "Kind is the REST resource that this object represents."),
        ] {
            root["properties"][field] = json!({"type": "string", "description": description});
        }
    }
    schemas.insert(
        format!("{}List", version.schema_name),
        Arc::new(json!({
            "description": format!("{} is a list of {}.", definition.list_kind, definition.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"default": {}, "allOf": [reference(&format!("{META}.ListMeta"))]},
                "items": {"type": "array", "items": {"default": {}, "allOf": [reference(&version.schema_name)]}},
            },
            "x-kubernetes-group-version-kind": group_version_kind(&definition.list_kind),
        })),
    );
    let kubernetes = builtin::schemas();
    let shared =
        ["ObjectMeta", "ListMeta", "DeleteOptions", "Status"].map(|kind| format!("{META}.{kind}"));
    let scale = definition.subresources.scale.is_some().then(|| SCALE.to_owned());
    for name in shared.into_iter().chain(scale).flat_map(|name| kubernetes.closure(&name)) {
        if let Some(document) = kubernetes.raw(&name) {
            schemas.entry(name).or_insert_with(|| Arc::new(document.clone()));
        }
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A schema in the words of OpenAPI v2, which has no `nullable`, no `oneOf`/`anyOf` and keeps its schemas elsewhere.
/// A reference inside a one-element `allOf` is written as the reference it is.
fn as_v2(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let only_reference = map
                .get("allOf")
                .and_then(Value::as_array)
                .filter(|all| all.len() == 1)
                .and_then(|all| all[0].get("$ref"))
                .cloned();
            let mut v2 = Map::new();
            for (key, value) in map {
                match key.as_str() {
                    "nullable" | "oneOf" | "anyOf" | "not" => {}
                    "allOf" if only_reference.is_some() => {}
                    "$ref" => {
                        v2.insert(key, v2_reference(&value));
                    }
                    // The keys are names of fields, whatever they are called.
                    "properties" => {
                        let fields = value.as_object().cloned().unwrap_or_default();
                        let fields = fields.into_iter().map(|(name, field)| (name, as_v2(field)));
                        v2.insert(key, Value::Object(fields.collect()));
                    }
                    _ => {
                        v2.insert(key, as_v2(value));
                    }
                }
            }
            if let Some(reference) = only_reference {
                v2.remove("default");
                v2.insert("$ref".into(), v2_reference(&reference));
            }
            if v2.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                v2.insert("type".into(), json!("string"));
                v2.insert("format".into(), json!("int-or-string"));
            }
            Value::Object(v2)
        }
        Value::Array(items) => items.into_iter().map(as_v2).collect(),
        value => value,
    }
}

fn v2_reference(reference: &Value) -> Value {
    json!(reference.as_str().unwrap_or("").replace("#/components/schemas/", "#/definitions/"))
}

#[cfg(test)]
mod tests {
    use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn a_v2_schema_refers_to_definitions() {
        let v3 = json!({
            "properties": {
                "a": {"description": "d", "default": {}, "allOf": [reference("x.Y")]},
                "b": {"nullable": true, "type": "string"},
                "c": {"x-kubernetes-int-or-string": true},
                "not": {"type": "string"},
            }
        });
        assert_eq!(
            as_v2(v3),
            json!({
                "properties": {
                    "a": {"description": "d", "$ref": "#/definitions/x.Y"},
                    "b": {"type": "string"},
                    "c": {"x-kubernetes-int-or-string": true, "type": "string", "format": "int-or-string"},
                    "not": {"type": "string"},
                }
            })
        );
    }

    #[test]
    fn a_client_gets_the_form_of_v2_that_it_likes_best() {
        for (accept, wanted) in [
            ("", Some(JSON)),
            ("*/*", Some(JSON)),
            ("application/json", Some(JSON)),
            (PROTOBUF_ASKED, Some(PROTOBUF)),
            (PROTOBUF, Some(PROTOBUF)),
            (
                "application/com.github.proto-openapi.spec.v2.v1.0+protobuf;q=0.4, */*;q=0.5",
                Some(JSON),
            ),
            ("application/json;q=0, text/html", None),
            ("application/yaml", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(v2_form(&headers), wanted, "{accept}");
        }
    }

    #[tokio::test]
    async fn the_protobuf_form_of_every_kind_is_whole() {
        let mut kinds = crate::kinds::cluster();
        kinds.extend(kubefed_api::kinds());
        for config in kubefed_api::federatedtypeconfig::defaults() {
            let config = FederatedTypeConfig::from_value(&config).unwrap();
            let target = &config.target;
            let schema = builtin::target_schema(&target.group, &target.version, &target.kind);
            kinds.push(kubefed_api::federated::definition(&config, schema).unwrap());
        }
        let registry = Registry::new(
            kubefed_storage::embedded::in_memory(),
            "/registry",
            &[],
            CancellationToken::new(),
            TaskTracker::new(),
        );
        registry.install(kinds);
        let openapi = OpenApi::new(&registry.catalog());
        let encoded = protobuf::encode(&openapi.v2_document());
        assert!(encoded.lost.is_empty(), "{:?}", encoded.lost);
        assert!(encoded.bytes.len() > 100_000, "{}", encoded.bytes.len());
    }
}

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

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// The documents of one catalog.
pub struct OpenApi {
    routes: BTreeMap<String, Vec<Route>>,
    versions: BTreeMap<String, OnceLock<Document>>,
    index: OnceLock<Document>,
    v2: OnceLock<Document>,
}

struct Document {
    body: Bytes,
    hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let body = Bytes::from(value.to_string());
        let hash = sha512_hex(&body);
        Document { body, hash }
    }

    fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        render::tagged(self.body.clone(), "application/json", &tag(&self.hash), headers)
    }
}

impl OpenApi {
    pub(crate) fn new(catalog: &Catalog) -> Self {
        let routes: BTreeMap<String, Vec<Route>> = catalog
            .group_versions()
            .map(|(gv, routes)| (path_of(gv), routes.values().cloned().collect()))
            .collect();
        let versions = routes.keys().map(|path| (path.clone(), OnceLock::new())).collect();
        OpenApi { routes, versions, index: OnceLock::new(), v2: OnceLock::new() }
    }

    /// Answers a GET below `/openapi/`, or `None` where nothing is.
    pub fn answer(
        &self,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<Response<Body>> {
        match path.trim_end_matches('/') {
            "/openapi/v2" if !accepts_json(headers) => {
                Some(render::bytes_response(Bytes::new(), "text/plain", StatusCode::NOT_ACCEPTABLE))
            }
            "/openapi/v2" => {
                Some(self.v2.get_or_init(|| Document::new(&self.v2_document())).answer(headers))
            }
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

fn accepts_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    accept.is_empty() || accept.contains("application/json") || accept.contains("*/*")
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
    use super::*;

    #[test]
    fn a_v2_schema_refers_to_definitions() {
        let v3 = json!({
            "properties": {
                "a": {"description": "d", "default": {}, "allOf": [reference("x.Y")]},
                "b": {"nullable": true, "type": "string"},
                "c": {"x-kubernetes-int-or-string": true},
            }
        });
        assert_eq!(
            as_v2(v3),
            json!({
                "properties": {
                    "a": {"description": "d", "$ref": "#/definitions/x.Y"},
                    "b": {"type": "string"},
                    "c": {"x-kubernetes-int-or-string": true, "type": "string", "format": "int-or-string"},
                }
            })
        );
    }
}

//! The operations of a kind, for both versions of OpenAPI.
//!
//! kubectl finds a kind's schema through them, and whether the server validates fields and knows dry runs by the
//! parameters of PATCH.

use serde_json::{Map, Value, json};

use super::{META, SCALE, reference, v2_reference};
use crate::registry::Route;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Dialect {
    V2,
    V3,
}

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const NONE: &[(&str, &str)] = &[];

/// One operation: HTTP method, word of the operation id, `x-kubernetes-action`, query parameters, body, answer.
struct Operation<'a> {
    method: &'a str,
    word: &'a str,
    action: &'a str,
    parameters: &'a [(&'a str, &'a str)],
    body: Option<&'a str>,
    answer: &'a str,
}

/// The paths of one kind at one version.
pub(super) fn of(route: &Route, dialect: Dialect) -> Map<String, Value> {
    let version = route.version();
    let definition = &route.resource.definition;
    let gv = &version.group_version;
    let root = if gv.group.is_empty() {
        format!("/api/{}", gv.version)
    } else {
        format!("/apis/{}/{}", gv.group, gv.version)
    };
    let scope = if definition.namespaced { "/namespaces/{namespace}" } else { "" };
    let (plural, name) = (&definition.plural, &version.schema_name);
    let list = format!("{name}List");
    let delete_options = format!("{META}.DeleteOptions");
    let status = format!("{META}.Status");
    let operation = |method, word, action, parameters, body, answer| Operation {
        method,
        word,
        action,
        parameters,
        body,
        answer,
    };

    let mut writer = Writer { route, dialect, paths: Map::new() };
    let collection = format!("{root}{scope}/{plural}");
    let delete = Some(delete_options.as_str());
    writer.path(
        &collection,
        "",
        &[
            operation("get", "list", "list", LIST, None, &list),
            operation("post", "create", "post", WRITE, Some(name), name),
            operation("delete", "deleteCollection", "deletecollection", LIST, delete, &status),
        ],
    );
    if definition.namespaced {
        writer.path(
            &format!("{root}/{plural}"),
            "ForAllNamespaces",
            &[operation("get", "list", "list", LIST, None, &list)],
        );
    }
    let main = |body| {
        [
            operation("get", "read", "get", NONE, None, body),
            operation("put", "replace", "put", WRITE, Some(body), body),
            operation("patch", "patch", "patch", PATCH, Some(body), body),
        ]
    };
    let item = format!("{collection}/{{name}}");
    let [get, put, patch] = main(name);
    writer.path(
        &item,
        "",
        &[get, put, patch, operation("delete", "delete", "delete", DELETE, delete, &status)],
    );
    if definition.subresources.status {
        writer.path(&format!("{item}/status"), "Status", &main(name));
    }
    if definition.subresources.scale.is_some() {
        writer.path(&format!("{item}/scale"), "Scale", &main(SCALE));
    }
    writer.paths
}

struct Writer<'a> {
    route: &'a Route,
    dialect: Dialect,
    paths: Map<String, Value>,
}

impl Writer<'_> {
    fn path(&mut self, path: &str, suffix: &str, operations: &[Operation<'_>]) {
        let mut item = Map::new();
        let mut parameters = Vec::new();
        for name in ["name", "namespace"] {
            if path.contains(&format!("{{{name}}}")) {
                parameters.push(self.parameter(name, "path", "string"));
            }
        }
        item.insert("parameters".into(), parameters.into());
        for operation in operations {
            item.insert(operation.method.into(), self.operation(path, suffix, operation));
        }
        self.paths.insert(path.into(), Value::Object(item));
    }

    fn operation(&self, path: &str, suffix: &str, operation: &Operation<'_>) -> Value {
        let version = self.route.version();
        let gv = &version.group_version;
        let kind =
            if suffix == "Scale" { "Scale" } else { self.route.resource.definition.kind.as_str() };
        let namespaced = if path.contains("{namespace}") { "Namespaced" } else { "" };
        let group = camel(&gv.group);
        let tag_group = format!("{}{}", group[..1].to_lowercase(), &group[1..]);
        let parent = &self.route.resource.definition.kind;
        let id = format!(
            "{}{group}{}{namespaced}{parent}{suffix}",
            operation.word,
            upper_first(&gv.version)
        );
        let (group, version) = if suffix == "Scale" {
            ("autoscaling", "v1")
        } else {
            (gv.group.as_str(), gv.version.as_str())
        };
        let mut parameters: Vec<Value> = operation
            .parameters
            .iter()
            .map(|(name, type_)| self.parameter(name, "query", type_))
            .collect();
        let mut document = json!({
            "operationId": id,
            "tags": [format!("{tag_group}_{}", gv.version)],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        match self.dialect {
            Dialect::V3 => {
                let schema = reference(operation.answer);
                document["responses"] = json!({"200": {
                    "description": "OK",
                    "content": {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}},
                }});
                if let Some(body) = operation.body {
                    let schema = reference(body);
                    let content: Map<String, Value> = self
                        .media_types(operation)
                        .map(|media| (media.into(), json!({"schema": schema})))
                        .collect();
                    document["requestBody"] =
                        json!({"content": content, "required": operation.method != "delete"});
                }
            }
            Dialect::V2 => {
                let schema = |name: &str| json!({"$ref": v2_reference(&reference(name)["$ref"])});
                document["responses"] =
                    json!({"200": {"description": "OK", "schema": schema(operation.answer)}});
                document["produces"] = json!(["application/json", "application/yaml"]);
                if let Some(body) = operation.body {
                    document["consumes"] = self.media_types(operation).collect();
                    let required = operation.method != "delete";
                    parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema(body)}));
                }
            }
        }
        document["parameters"] = parameters.into();
        document
    }

    fn media_types(&self, operation: &Operation<'_>) -> impl Iterator<Item = &'static str> + use<> {
        let types: &[&str] = match operation.method {
            "patch" => &[
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
            ],
            _ => &["application/json", "application/yaml"],
        };
        let strategic =
            operation.method == "patch" && self.route.resource.definition.strategic_patch;
        types.iter().copied().chain(strategic.then_some("application/strategic-merge-patch+json"))
    }

    fn parameter(&self, name: &str, place: &str, type_: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place, "uniqueItems": true});
        if place == "path" {
            parameter["required"] = json!(true);
        }
        match self.dialect {
            Dialect::V2 => parameter["type"] = json!(type_),
            Dialect::V3 => {
                parameter["schema"] = json!({"type": type_, "uniqueItems": true});
                if let Some(parameter) = parameter.as_object_mut() {
                    parameter.remove("uniqueItems");
                }
            }
        }
        parameter
    }
}

/// `types.kubefed.io` as `TypesKubefedIo`, `apps` as `Apps`, the core group as `Core`; `.k8s.io` is left out.
fn camel(group: &str) -> String {
    if group.is_empty() {
        return "Core".into();
    }
    group.trim_end_matches(".k8s.io").split('.').map(upper_first).collect()
}

fn upper_first(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_in_camel_case() {
        for (group, wanted) in [
            ("", "Core"),
            ("apps", "Apps"),
            ("types.kubefed.io", "TypesKubefedIo"),
            ("rbac.authorization.k8s.io", "RbacAuthorization"),
        ] {
            assert_eq!(camel(group), wanted);
        }
    }
}

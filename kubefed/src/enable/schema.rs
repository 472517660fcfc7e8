//! What the schema of a target says of it, as far as a definition of the federated kind asks.

use anyhow::Context as _;
use kubefed_api::federatedtypeconfig::ApiResource;
use serde_json::Value;

use crate::plane::CRDS;
use crate::rest::Cluster;

/// What a target is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether there is anything to put into a template.
    pub(crate) template: bool,
    /// Whether it has `spec.replicas`, which an autoscaler may set.
    pub(crate) replicas: bool,
}

/// The shape of a target: by its definition in the host, else by the host's OpenAPI. A target that the host does not have
/// may look like anything.
pub(super) async fn shape(host: &Cluster, target: &ApiResource) -> anyhow::Result<Shape> {
    if !target.group.is_empty() {
        let path = format!("{CRDS}/{}", target.qualified_name());
        if let Some(definition) = host.find(&path).await.context("the host cluster")? {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            return Ok(of(schema, &Value::Null));
        }
    }
    let document = host.get("/openapi/v2").await.context("the host cluster")?;
    Ok(in_document(&document, target).unwrap_or(Shape { template: true, replicas: false }))
}

/// The shape that an OpenAPI document tells.
fn in_document(document: &Value, target: &ApiResource) -> Option<Shape> {
    let definitions = &document["definitions"];
    let schema = definitions.as_object()?.values().find(|schema| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.into_iter().flatten().any(|kind| {
            kind["group"] == target.group.as_str()
                && kind["version"] == target.version.as_str()
                && kind["kind"] == target.kind.as_str()
        })
    })?;
    Some(of(schema, definitions))
}

fn of(schema: &Value, definitions: &Value) -> Shape {
    let spec = &schema["properties"]["spec"];
    let reference = spec["$ref"].as_str().or_else(|| spec["allOf"][0]["$ref"].as_str());
    let name = reference.and_then(|reference| reference.strip_prefix("#/definitions/"));
    let spec = name.map_or(spec, |name| &definitions[name]);
    let replicas = &spec["properties"]["replicas"];
    Shape {
        template: schema["properties"].is_object(),
        replicas: replicas["type"] == "integer" && replicas["format"] == "int32",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_scales_if_its_spec_has_replicas() {
        let replicas = json!({"type": "integer", "format": "int32"});
        let spec = |replicas: &Value| json!({"properties": {"spec": {"properties": {"replicas": replicas}}}});
        for (schema, template, scales) in [
            (spec(&replicas), true, true),
            (spec(&json!({"type": "integer", "format": "int64"})), true, false),
            (json!({"properties": {"data": {}}}), true, false),
            (json!({"type": "object"}), false, false),
            (Value::Null, false, false),
        ] {
            let wanted = Shape { template, replicas: scales };
            assert_eq!(of(&schema, &Value::Null), wanted, "{schema}");
        }
        let document = json!({"definitions": {
            "Deployment": {
                "properties": {"spec": {"$ref": "#/definitions/DeploymentSpec"}},
                "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}],
            },
            "DeploymentSpec": {"properties": {"replicas": replicas}},
        }});
        let mut target = ApiResource {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            ..ApiResource::default()
        };
        let wanted = Some(Shape { template: true, replicas: true });
        assert_eq!(in_document(&document, &target), wanted);
        target.version = "v2".into();
        assert_eq!(in_document(&document, &target), None);
    }
}

//! The federated kinds: template, placement and overrides of a target kind.

use std::collections::BTreeMap;

use kubefed_apimachinery::definition::{Definition, Scale, Strategy, Subresources, Version};
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::schema::{AS_GIVEN, REFERENCE, Schemas};
use kubefed_apimachinery::table::Column;
use serde_json::{Map, Value, json};

use crate::federatedtypeconfig::FederatedTypeConfig;
use crate::{deletion, overrides, template};

/// The schema of a target kind: its document, and all that it refers to.
pub struct TargetSchema {
    pub documents: BTreeMap<String, Value>,
    /// Which of them is the target.
    pub name: String,
    /// Short names of the federated kind.
    pub short_names: Vec<String>,
}

/// What a CustomResourceDefinition of a federated kind says of the target, where nothing else is known of it. KubeFed's
/// `kubefedctl enable` writes one: the template, and `retainReplicas` if the target has replicas.
pub fn target_in(crd: &Value, version: &str) -> Option<TargetSchema> {
    let versions = crd["spec"]["versions"].as_array()?;
    let named = versions.iter().find(|known| known["name"] == version);
    let version = named.or_else(|| versions.iter().find(|known| known["storage"] == true))?;
    let fields = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let mut template = fields["template"].clone();
    if !template.is_object() {
        template = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    if fields["retainReplicas"].is_object() && template["properties"]["spec"].is_null() {
        template["properties"]["spec"] = json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"replicas": {"type": "integer"}},
        });
    }
    let name = "template".to_owned();
    let short_names = crd["spec"]["names"]["shortNames"].as_array().into_iter().flatten();
    Some(TargetSchema {
        documents: BTreeMap::from([(name.clone(), template)]),
        name,
        short_names: short_names.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

/// The federated kind that a config makes. Without the target's schema anything may stand in the template.
///
/// # Errors
/// If the config does not name a kind.
pub fn definition(
    config: &FederatedTypeConfig,
    target: Option<TargetSchema>,
) -> Result<Definition, String> {
    let federated = &config.federated;
    if federated.group.is_empty() || federated.version.is_empty() || federated.kind.is_empty() {
        return Err("spec.federatedType names no group, version and kind".into());
    }
    let mut package: Vec<&str> = federated.group.split('.').collect();
    package.reverse();
    let schema_name = format!("{}.{}.{}", package.join("."), federated.version, federated.kind);
    let (mut documents, template, scales, short_names) = match target {
        Some(target) => {
            let document = target.documents.get(&target.name).cloned().unwrap_or_default();
            let scales = has_replicas(&document, &target.documents);
            (target.documents, template_schema(document), scales, target.short_names)
        }
        None => (
            BTreeMap::new(),
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            false,
            Vec::new(),
        ),
    };
    documents.insert(schema_name.clone(), schema(config, template, scales));
    let schemas = Schemas::new(documents);
    let group_version =
        GroupVersion { group: federated.group.clone(), version: federated.version.clone() };
    Ok(Definition {
        group: federated.group.clone(),
        kind: federated.kind.clone(),
        list_kind: format!("{}List", federated.kind),
        plural: federated.plural_name.clone(),
        singular: federated.kind.to_lowercase(),
        short_names,
        categories: vec!["federated".into()],
        namespaced: config.federated_is_namespaced(),
        versions: vec![Version {
            group_version: group_version.clone(),
            schema: schemas.get(&schema_name).ok_or("the schema is no object")?,
            schema_name,
            columns: columns(scales),
            served: true,
        }],
        storage: group_version,
        subresources: Subresources {
            status: true,
            scale: scales.then(|| Scale {
                spec_replicas: "spec.template.spec.replicas".into(),
                status_replicas: "spec.template.spec.replicas".into(),
                selector: Some("spec.template.spec.selector".into()),
            }),
        },
        selectable_fields: Vec::new(),
        strategic_patch: false,
        terminating: false,
        strategy: Strategy {
            validate: overrides::validate_object,
            warnings: if config.is_namespaces() { namespace_warnings } else { warnings },
            ..Strategy::NONE
        },
    })
}

/// What the object says in vain.
fn warnings(object: &Value) -> Vec<String> {
    let not_propagated = template::not_propagated(object).map(|(_, text)| text);
    not_propagated.chain(deletion::options(object).err()).collect()
}

fn namespace_warnings(object: &Value) -> Vec<String> {
    let metadata = &object["metadata"];
    let mut warnings = warnings(object);
    if metadata["name"] != metadata["namespace"] {
        warnings.push(
            "a federated namespace has effect only if its name is that of the namespace it is in"
                .into(),
        );
    }
    warnings
}

fn columns(scales: bool) -> Vec<Column> {
    let replicas =
        scales.then(|| Column::new("Replicas", "integer", ".spec.template.spec.replicas", 0));
    let others = [
        Column::new(
            "Propagated",
            "string",
            ".status.conditions[?(@.type=='Propagation')].status",
            0,
        ),
        Column::new("Reason", "string", ".status.conditions[?(@.type=='Propagation')].reason", 0),
        Column::new("Clusters", "string", ".status.clusters[*].name", 1),
        Column::age(),
    ];
    replicas.into_iter().chain(others).collect()
}

/// Whether the target has `spec.replicas`.
fn has_replicas(document: &Value, documents: &BTreeMap<String, Value>) -> bool {
    let spec = &document["properties"]["spec"];
    let reference = spec["$ref"].as_str().or_else(|| spec["allOf"][0]["$ref"].as_str());
    let spec = reference.and_then(|r| documents.get(r.strip_prefix(REFERENCE)?)).unwrap_or(spec);
    spec["properties"]["replicas"]["type"] == "integer"
}

/// The target's schema as a template: without status, and without what the federated object says already.
fn template_schema(mut document: Value) -> Value {
    if let Some(properties) = document["properties"].as_object_mut() {
        properties.remove("status");
    }
    if let Some(required) = document["required"].as_array_mut() {
        required.retain(|field| {
            field != "metadata" && field != "apiVersion" && field != "kind" && field != "status"
        });
    }
    if let Some(document) = document.as_object_mut() {
        document.remove("x-kubernetes-group-version-kind");
        document.insert(AS_GIVEN.into(), json!(true));
    }
    document
}

fn schema(config: &FederatedTypeConfig, template: Value, scales: bool) -> Value {
    let target = &config.target.kind;
    let text = |description: &str| json!({"type": "string", "description": description});
    let time = |description: &str| json!({"type": "string", "format": "date-time", "description": description});
    let anything = json!({"x-kubernetes-preserve-unknown-fields": true});
    let value = {
        let mut value = anything.clone();
        value["description"] = json!("The value, of any type.");
        value["nullable"] = json!(true);
        value
    };
    let mut spec: Map<String, Value> = Map::from_iter([
        ("template".to_owned(), template),
        (
            "placement".to_owned(),
            json!({
                "description": "Which clusters the object is placed in: those that are named, else those that the selector matches.",
                "type": "object",
                "properties": {
                    "clusters": {"type": "array", "description": "Clusters by name. An empty list places the object nowhere.", "items": {
                        "type": "object", "required": ["name"], "properties": {"name": text("The cluster.")},
                    }},
                    "clusterSelector": {"type": "object", "description": "Clusters by their labels. An empty selector matches every cluster.", "properties": {
                        "matchLabels": {"type": "object", "description": "Labels that a cluster has.", "additionalProperties": {"type": "string"}},
                        "matchExpressions": {"type": "array", "description": "What its labels must fulfil.", "items": {
                            "type": "object", "required": ["key", "operator"], "properties": {
                                "key": text("The label."),
                                "operator": text("In, NotIn, Exists or DoesNotExist."),
                                "values": {"type": "array", "description": "The values.", "items": {"type": "string"}},
                            },
                        }},
                    }},
                },
            }),
        ),
        (
            "overrides".to_owned(),
            json!({
                "description": "What is different in some clusters.",
                "type": "array",
                AS_GIVEN: true,
                "items": {"type": "object", "required": ["clusterName"], "properties": {
                    "clusterName": text("The cluster."),
                    "clusterOverrides": {"type": "array", "description": "Changes of the template, in order.", "items": {
                        "type": "object", "required": ["path"], "properties": {
                            "op": {"type": "string", "enum": ["", "add", "remove", "replace"], "description": "What to do; replace if left out."},
                            "path": text("Where, as a JSON pointer: /spec/replicas."),
                            "value": value,
                        },
                    }},
                }},
            }),
        ),
    ]);
    if let Some(template) = spec.get_mut("template") {
        template["description"] = json!(format!("The {target} as it is to be in the clusters."));
    }
    if scales {
        let description =
            "Whether each cluster keeps its own number of replicas, for autoscalers there.";
        spec.insert(
            "retainReplicas".into(),
            json!({"type": "boolean", "description": description}),
        );
    }
    json!({
        "description": format!("{} places a {target} in clusters of the federation.", config.federated.kind),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {"description": "What is wanted.", "type": "object", "properties": spec},
            "status": {"description": "What is known.", "type": "object", "properties": {
                "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation that this status is about."},
                "conditions": {"type": "array", "description": "Whether the object is propagated.", "items": {
                    "type": "object", "required": ["type", "status"], "properties": {
                        "type": text("Propagation."), "status": text("True, False or Unknown."), "reason": text("Why, in one word."),
                        "message": text("Why, in words."),
                        "lastUpdateTime": time("When this was last found."), "lastTransitionTime": time("When this began to be so."),
                    },
                }},
                "clusters": {"type": "array", "description": "How the object is in each cluster.", "items": {
                    "type": "object", "required": ["name"], "properties": {
                        "name": text("The cluster."), "status": text("What keeps it from being as wanted; left out when nothing does."),
                        "message": text("The same in words."), "remoteStatus": anything,
                    },
                }},
            }},
        },
    })
}

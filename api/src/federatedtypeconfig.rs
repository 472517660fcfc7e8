//! FederatedTypeConfig: which kind is federated, and as what.

use std::sync::OnceLock;

use kubefed_apimachinery::definition::{Definition, Strategy};
use kubefed_apimachinery::table::Column;
use kubefed_apimachinery::{field, names};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{CORE_GROUP, Kind, TYPES_GROUP};

/// Holds a config until its sync has stopped.
pub const FINALIZER: &str = "core.kubefed.io/federated-type-config";
/// The config of namespaces, on which all namespaced kinds depend.
pub const NAMESPACES: &str = "namespaces";
const SERVICES: &str = "services";

/// A kind of some API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiResource {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural_name: String,
    pub scope: String,
}

impl ApiResource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == "Namespaced"
    }

    /// Where its objects are, or the one of a name. The namespace is left out if they are in none.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{root}/{}", self.api_version());
        if self.is_namespaced() {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", self.plural_name);
        if !name.is_empty() {
            path += &format!("/{name}");
        }
        path
    }

    /// The plural with the group behind it, as in the name of a config or a definition.
    pub fn qualified_name(&self) -> String {
        match self.group.as_str() {
            "" => self.plural_name.clone(),
            group => format!("{}.{group}", self.plural_name),
        }
    }
}

/// A config as the controllers read it, with what its names imply filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FederatedTypeConfig {
    pub name: String,
    pub target: ApiResource,
    pub federated: ApiResource,
    pub propagation: bool,
    pub status_collection: bool,
    /// The kind that tells the members' status apart from the federated object.
    pub status: Option<ApiResource>,
}

impl FederatedTypeConfig {
    /// # Errors
    /// If a part is not what its schema says.
    pub fn from_value(config: &Value) -> Result<Self, String> {
        let name = config["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let read = |field: &str| {
            ApiResource::deserialize(&config["spec"][field])
                .map_err(|error| format!("spec.{field}: {error}"))
        };
        let (mut target, mut federated) = (read("targetType")?, read("federatedType")?);
        let (plural, group) = name.split_once('.').unwrap_or((&name, ""));
        let fill = |field: &mut String, value: &str| {
            if field.is_empty() {
                value.clone_into(field);
            }
        };
        fill(&mut target.plural_name, plural);
        fill(&mut target.group, group);
        let federated_plural = plural_name(&federated.kind);
        fill(&mut federated.plural_name, &federated_plural);
        let mut status = match &config["spec"]["statusType"] {
            Value::Null => None,
            _ => Some(read("statusType")?),
        };
        if let Some(status) = &mut status {
            fill(&mut status.plural_name, &plural_name(&status.kind));
            fill(&mut status.group, &federated.group);
            fill(&mut status.version, &federated.version);
        }
        let on = |field: &str| config["spec"][field] == "Enabled";
        Ok(FederatedTypeConfig {
            propagation: on("propagation"),
            status_collection: on("statusCollection"),
            name,
            target,
            federated,
            status,
        })
    }

    /// The kind that the status of Services goes to where it is not told in the federated objects themselves. No other
    /// type has one.
    pub fn status_apart(&self) -> Option<&ApiResource> {
        self.status.as_ref().filter(|_| self.status_collection && self.name == SERVICES)
    }

    /// Whether this is the config of namespaces.
    pub fn is_namespaces(&self) -> bool {
        self.name == NAMESPACES
    }

    /// Federated namespaces live in the namespace that they federate; all else is as its target.
    pub fn federated_is_namespaced(&self) -> bool {
        self.is_namespaces() || self.target.is_namespaced()
    }
}

/// The plural that KubeFed makes of a kind.
pub fn plural_name(kind: &str) -> String {
    let name = kind.to_lowercase();
    if ["s", "x", "ch", "sh", "z", "o"].iter().any(|end| name.ends_with(end)) {
        format!("{name}es")
    } else if let Some(stem) = name.strip_suffix('y') {
        format!("{stem}ies")
    } else {
        format!("{name}s")
    }
}

/// The kind. Served in the groups of KubeFed and of the first guides; one object in both.
pub fn definition() -> Definition {
    Kind {
        kind: "FederatedTypeConfig",
        plural: "federatedtypeconfigs",
        short_names: &["ftc"],
        namespaced: true,
        status: true,
        versions: &[(CORE_GROUP, "v1beta1"), (TYPES_GROUP, "v1beta1")],
        columns: vec![
            Column::new("Federated-Kind", "string", ".spec.federatedType.kind", 0),
            Column::new("Propagation", "string", ".spec.propagation", 0),
            Column::new("Controller", "string", ".status.propagationController", 0),
            Column::age(),
        ],
        schema: schema(),
        strategy: Strategy {
            validate,
            validate_status: |new, _| validate_status(new),
            warnings: crate::outside_of_system_namespace,
            ..Strategy::NONE
        },
    }
    .define()
}

fn schema() -> Value {
    let resource = |description: &str| {
        json!({
            "description": description,
            "type": "object",
            "properties": {
                "group": {"type": "string", "description": "The group; empty for the core group."},
                "version": {"type": "string", "description": "The version."},
                "kind": {"type": "string", "description": "The kind."},
                "pluralName": {"type": "string", "description": "The plural in lower case, as in paths."},
                "scope": {"type": "string", "enum": ["Cluster", "Namespaced"], "description": "Whether its objects are in namespaces."},
            },
        })
    };
    let switch = |description: &str| json!({"type": "string", "enum": ["Enabled", "Disabled"], "description": description});
    let state = json!({"type": "string", "enum": ["Running", "NotRunning"], "description": "Whether it runs."});
    json!({
        "description": "FederatedTypeConfig makes a kind a federated one. Its name is the target's plural and group: deployments.apps.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "description": "What is wanted.",
                "type": "object",
                "properties": {
                    "targetType": resource("The kind in the members."),
                    "federatedType": resource("The kind here."),
                    "statusType": resource("The kind that collects status, for services."),
                    "propagation": switch("Whether objects are placed in the members."),
                    "statusCollection": switch("Whether the members' status is collected."),
                },
            },
            "status": {
                "description": "What is known.",
                "type": "object",
                "properties": {
                    "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation that this status is about."},
                    "propagationController": state,
                    "statusController": state,
                },
            },
        },
    })
}

fn validate(config: &Value) -> Vec<field::Error> {
    let spec = &config["spec"];
    let root = field::Path::root("spec");
    let mut errors = Vec::new();
    for (name, required) in [("targetType", true), ("federatedType", true), ("statusType", false)] {
        if required || spec[name].is_object() {
            resource(&spec[name], &root.child(name), name != "targetType", &mut errors);
        }
    }
    reserved(&spec["federatedType"], &root.child("federatedType"), &mut errors);
    if spec["propagation"].as_str().is_none_or(str::is_empty) {
        errors.push(field::Error::required(&root.child("propagation"), ""));
    }
    let text = |field: &str| spec["targetType"][field].as_str().unwrap_or("");
    let wanted = match text("group") {
        "" => text("pluralName").to_owned(),
        group => format!("{}.{group}", text("pluralName")),
    };
    let name = config["metadata"]["name"].as_str().unwrap_or("");
    if name != wanted {
        let detail = "name must be 'TARGET_PLURAL_NAME(.TARGET_GROUP_NAME)'";
        errors.push(field::Error::invalid(
            &field::Path::root("metadata").child("name"),
            json!(name),
            detail,
        ));
    }
    errors
}

fn resource(resource: &Value, path: &field::Path, ours: bool, errors: &mut Vec<field::Error>) {
    let text = |field: &str| resource[field].as_str().unwrap_or("");
    let mut check = |field: &str, value: &str, required: bool, problems: Vec<String>| {
        let path = path.child(field);
        if value.is_empty() {
            if required {
                errors.push(field::Error::required(&path, ""));
            }
        } else {
            errors.extend(
                problems.into_iter().map(|p| field::Error::invalid(&path, json!(value), p)),
            );
        }
    };
    let mut group_problems = names::dns1123_subdomain(text("group"));
    if ours && !text("group").contains('.') {
        group_problems.push("should be a domain with at least one dot".into());
    }
    check("group", text("group"), ours, group_problems);
    check("version", text("version"), true, names::dns1035_label(text("version")));
    check("kind", text("kind"), true, names::dns1035_label(&text("kind").to_lowercase()));
    check("pluralName", text("pluralName"), true, names::dns1035_label(text("pluralName")));
    check("scope", text("scope"), true, Vec::new());
}

/// A federated kind must not take the place of a kind that the server has of its own: whoever may write a config could
/// do away with its schema, or with the kind.
fn reserved(federated: &Value, path: &field::Path, errors: &mut Vec<field::Error>) {
    static OWN: OnceLock<Vec<[String; 3]>> = OnceLock::new();
    let own = OWN.get_or_init(|| {
        let names = |kind: Definition| {
            let (plural, name) = (kind.plural, kind.kind);
            let groups = kind.versions.into_iter().map(|version| version.group_version.group);
            groups.map(move |group| [group, plural.clone(), name.clone()]).collect::<Vec<_>>()
        };
        crate::kinds().into_iter().flat_map(names).collect()
    });
    let text = |field: &str| federated[field].as_str().unwrap_or("");
    let group = text("group");
    if ["k8s.io", "kubernetes.io"].iter().any(|reserved| {
        group.strip_suffix(reserved).is_some_and(|g| g.is_empty() || g.ends_with('.'))
    }) {
        let detail = "is reserved for kinds of Kubernetes itself";
        errors.push(field::Error::invalid(&path.child("group"), json!(group), detail));
    }
    for (field, index) in [("pluralName", 1), ("kind", 2)] {
        if own.iter().any(|own| own[0] == group && own[index] == text(field)) {
            let detail = format!("is a kind of the federation itself in {group}");
            errors.push(field::Error::invalid(&path.child(field), json!(text(field)), detail));
        }
    }
}

fn validate_status(config: &Value) -> Vec<field::Error> {
    let status = &config["status"];
    let root = field::Path::root("status");
    let mut errors = Vec::new();
    if let Some(generation) = status["observedGeneration"].as_i64().filter(|g| *g < 0) {
        errors.push(field::Error::invalid(
            &root.child("observedGeneration"),
            json!(generation),
            "must be greater than or equal to 0",
        ));
    }
    if status["propagationController"].is_null() {
        errors.push(field::Error::required(&root.child("propagationController"), ""));
    }
    errors
}

/// The config that federates a target in a group and version, under the names that KubeFed gives.
pub fn of_target(target: &ApiResource, group: &str, version: &str) -> Value {
    let name = target.qualified_name();
    let federated = ApiResource {
        group: group.into(),
        version: version.into(),
        kind: format!("Federated{}", target.kind),
        plural_name: format!("federated{}", target.plural_name),
        // Federated namespaces live in the namespace that they federate.
        scope: if name == NAMESPACES { "Namespaced".into() } else { target.scope.clone() },
    };
    json!({
        "apiVersion": "core.kubefed.io/v1beta1",
        "kind": "FederatedTypeConfig",
        "metadata": {"name": name},
        "spec": {"federatedType": federated, "propagation": "Enabled", "targetType": target},
    })
}

/// The configs that a new control plane starts with: those of KubeFed's chart.
pub fn defaults() -> Vec<Value> {
    [
        ("rbac.authorization.k8s.io", "v1", "ClusterRole", "Cluster"),
        ("", "v1", "ConfigMap", "Namespaced"),
        ("apps", "v1", "Deployment", "Namespaced"),
        ("networking.k8s.io", "v1", "Ingress", "Namespaced"),
        ("batch", "v1", "Job", "Namespaced"),
        ("", "v1", "Namespace", "Cluster"),
        ("apps", "v1", "ReplicaSet", "Namespaced"),
        ("", "v1", "Secret", "Namespaced"),
        ("", "v1", "ServiceAccount", "Namespaced"),
        ("", "v1", "Service", "Namespaced"),
    ]
    .into_iter()
    .map(|(group, version, kind, scope)| {
        let target = ApiResource {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural_name: plural_name(kind),
            scope: scope.into(),
        };
        of_target(&target, TYPES_GROUP, "v1beta1")
    })
    .collect()
}

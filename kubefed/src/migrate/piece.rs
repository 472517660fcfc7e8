//! What is moved: an object as it is made anew elsewhere, and what makes two of them the same.

use kubefed_api::federatedtypeconfig::{self, FINALIZER};
use kubefed_apimachinery::meta;
use serde_json::{Map, Value, json};

/// On a FederatedTypeConfig that must not be followed yet: the propagation that it is to have.
pub(super) const PAUSED: &str = "kubefed.io/propagation-after-migration";

/// An object, and the collection that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) collection: String,
    pub(super) object: Value,
}

/// An object, and the record of which members have it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) piece: Piece,
    pub(super) record: Option<Piece>,
}

impl Piece {
    pub(super) fn new(collection: &str, object: &Value) -> Self {
        Piece { collection: collection.to_owned(), object: strip(object) }
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.collection, meta::name(&self.object))
    }

    pub(super) fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or("")
    }

    pub(super) fn title(&self) -> String {
        title(&self.object)
    }

    pub(super) fn is_type_config(&self) -> bool {
        self.kind() == "FederatedTypeConfig"
    }
}

impl Item {
    pub(super) fn of(piece: Piece) -> Self {
        Item { piece, record: None }
    }

    /// Whether nothing that is moved hangs on it.
    pub(super) fn is_leaf(&self) -> bool {
        !["KubeFedConfig", "FederatedTypeConfig", "KubeFedCluster", "Secret", "Namespace"]
            .contains(&self.piece.kind())
    }
}

pub(super) fn title(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("");
    match meta::namespace(object) {
        "" => format!("{kind} {}", meta::name(object)),
        namespace => format!("{kind} {namespace}/{}", meta::name(object)),
    }
}

/// An object without what its server has given it. Its owners are other objects elsewhere, so it has none.
fn strip(object: &Value) -> Value {
    let mut stripped = object.clone();
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels", "annotations"] {
        let value = &object["metadata"][field];
        if !value.is_null() && *value != json!({}) {
            metadata.insert(field.into(), value.clone());
        }
    }
    // That one is given anew by whoever follows the config.
    let finalizers: Vec<&str> = meta::finalizers(object).filter(|f| *f != FINALIZER).collect();
    if !finalizers.is_empty() {
        metadata.insert("finalizers".into(), json!(finalizers));
    }
    if let Some(fields) = stripped.as_object_mut() {
        fields.remove("status");
        fields.insert("metadata".into(), Value::Object(metadata));
    }
    stripped
}

/// What makes the object that is there another one than the one that is to be; nothing, if they are the same.
pub(super) fn differences(wanted: &Value, there: &Value) -> Vec<String> {
    let (wanted, there) = (strip(wanted), strip(there));
    let parts: Vec<&str> = match wanted["kind"].as_str().unwrap_or("") {
        // What else they have is each control plane's own.
        "Namespace" => Vec::new(),
        "Secret" => vec!["data"],
        "KubeFedConfig" | "FederatedTypeConfig" => vec!["spec"],
        _ => {
            let fields = wanted.as_object().into_iter().chain(there.as_object()).flatten();
            let mut fields: Vec<&str> = fields.map(|(field, _)| field.as_str()).collect();
            fields.retain(|field| !["apiVersion", "kind", "metadata"].contains(field));
            fields.extend(["metadata.labels", "metadata.annotations"]);
            fields.sort_unstable();
            fields.dedup();
            fields
        }
    };
    let part = |object: &Value, path: &str| {
        path.split('.').fold(object.clone(), |mut value, field| value[field].take())
    };
    let differ = |path: &&str| part(&wanted, path) != part(&there, path);
    parts.into_iter().filter(differ).map(str::to_owned).collect()
}

/// A FederatedTypeConfig that is not followed yet.
pub(super) fn paused(config: &Value) -> Value {
    let mut paused = config.clone();
    if meta::annotation(config, PAUSED).is_none() {
        paused["metadata"]["annotations"][PAUSED] = config["spec"]["propagation"].clone();
        paused["spec"]["propagation"] = json!("Disabled");
    }
    paused
}

/// A FederatedTypeConfig as it is to be followed.
pub(super) fn resumed(config: &Value) -> Value {
    let mut resumed = config.clone();
    if let Some(propagation) = meta::annotation(config, PAUSED) {
        resumed["spec"]["propagation"] = json!(propagation);
    }
    resumed
}

/// Whether a FederatedTypeConfig says what it says without anybody's doing.
pub(super) fn is_default(config: &Value) -> bool {
    federatedtypeconfig::defaults().iter().any(|default| {
        meta::name(default) == meta::name(config) && default["spec"] == config["spec"]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_has_given_an_object_stays_there() {
        let object = json!({
            "apiVersion": "v1", "kind": "X", "spec": {"a": 1}, "status": {"b": 2},
            "metadata": {
                "name": "x", "namespace": "ns", "uid": "1", "resourceVersion": "2", "labels": {"a": "b"},
                "generation": 3, "annotations": {}, "ownerReferences": [{"uid": "9"}], "managedFields": [],
                "finalizers": ["kubefed.io/sync-controller", FINALIZER],
            },
        });
        let metadata = json!({
            "name": "x", "namespace": "ns", "labels": {"a": "b"}, "finalizers": ["kubefed.io/sync-controller"],
        });
        let wanted =
            json!({"apiVersion": "v1", "kind": "X", "spec": {"a": 1}, "metadata": metadata});
        assert_eq!(strip(&object), wanted);
        assert_eq!(differences(&object, &strip(&object)), Vec::<String>::new());
    }

    #[test]
    fn what_differs_is_named() {
        let of = |kind: &str, change: Value| {
            let mut object = json!({"kind": kind, "metadata": {"name": "x"}, "spec": {}});
            for (field, value) in change.as_object().into_iter().flatten() {
                object[field] = value.clone();
            }
            object
        };
        for (kind, change, wanted) in [
            ("FederatedX", json!({"spec": {"a": 1}}), vec!["spec"]),
            ("FederatedX", json!({"other": 1}), vec!["other"]),
            ("FederatedX", json!({"status": 1}), vec![]),
            (
                "KubeFedCluster",
                json!({"metadata": {"labels": {"a": "b"}}}),
                vec!["metadata.labels"],
            ),
            ("Secret", json!({"data": {"token": "x"}, "type": "Opaque"}), vec!["data"]),
            ("Namespace", json!({"spec": {"a": 1}}), vec![]),
            ("FederatedTypeConfig", json!({"metadata": {"labels": {"a": "b"}}}), vec![]),
        ] {
            assert_eq!(
                differences(&of(kind, json!({})), &of(kind, change.clone())),
                wanted,
                "{change}"
            );
        }
    }

    #[test]
    fn a_type_that_was_paused_is_as_before() {
        let mut config = federatedtypeconfig::defaults().remove(0);
        assert!(is_default(&config));
        let pause = paused(&config);
        assert_eq!(pause["spec"]["propagation"], "Disabled");
        assert_eq!(paused(&pause), pause, "it is not paused twice");
        assert_eq!(resumed(&pause)["spec"], config["spec"]);
        config["spec"]["statusCollection"] = json!("Enabled");
        assert!(!is_default(&config));
        assert_eq!(resumed(&config), config);
    }
}

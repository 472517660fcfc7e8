//! `v1 Namespace`: active until it is deleted, then held by a finalizer until its content is gone.

use kubefed_apimachinery::definition::Strategy;
use kubefed_apimachinery::meta;
use serde_json::{Value, json};

/// The finalizer in `spec.finalizers` that the namespace's content holds.
pub const FINALIZER: &str = "kubernetes";

/// Set by the server, so that namespaces can be selected by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) const STRATEGY: Strategy =
    Strategy { defaults: name_label, prepare_create: activate, ..Strategy::NONE };

fn name_label(namespace: &mut Value) {
    let name = meta::name(namespace).to_owned();
    if !name.is_empty() && namespace["metadata"].is_object() {
        if !namespace["metadata"]["labels"].is_object() {
            namespace["metadata"]["labels"] = json!({});
        }
        namespace["metadata"]["labels"][NAME_LABEL] = json!(name);
    }
}

fn activate(namespace: &mut Value) {
    if !namespace["spec"].is_object() {
        namespace["spec"] = json!({});
    }
    namespace["spec"]["finalizers"] = json!([FINALIZER]);
    namespace["status"] = json!({"phase": "Active"});
}

/// Whether nothing but the server's own finalizer holds the namespace.
pub fn is_empty_of_finalizers(namespace: &Value) -> bool {
    namespace["spec"]["finalizers"]
        .as_array()
        .is_none_or(|finalizers| finalizers.iter().all(|f| f == FINALIZER))
}

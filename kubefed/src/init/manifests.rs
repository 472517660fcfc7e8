//! The manifests that are built into this binary, and as much of kustomize as they use: resources, components, and JSON
//! patches of what a target names. A test compares the outcome with that of `kubectl kustomize`.

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use kubefed_api::SYSTEM_NAMESPACE;
use kubefed_api::federatedtypeconfig::plural_name;
use kubefed_apimachinery::patch::json as json_patch;
use kubefed_apimachinery::{decode, meta};
use serde_json::{Value, json};

use crate::rest::{Cluster, Error};

macro_rules! embed {
    ($($path:literal)*) => {
        &[$(($path, include_str!(concat!("../../../manifests/", $path)))),*]
    };
}

const FILES: &[(&str, &str)] = embed! {
    "base/kustomization.yaml"
    "base/namespace.yaml"
    "base/apiserver-rbac.yaml"
    "base/apiserver.yaml"
    "base/controller-manager-rbac.yaml"
    "base/controller-manager.yaml"
    "base/network-policies.yaml"
    "base/apiservices.yaml"
    "components/backup/kustomization.yaml"
    "components/backup/backup.yaml"
    "components/etcd/kustomization.yaml"
    "components/etcd/etcd.yaml"
    "components/logging/kustomization.yaml"
    "overlays/production/kustomization.yaml"
    "overlays/single-node/kustomization.yaml"
    "overlays/single-node/data.yaml"
};

/// What the manifests call our image.
const IMAGE: &str = "kubefed:v0.1.0";
/// On everything that is ours.
const PART_OF: &str = "app.kubernetes.io/part-of";

/// How the control plane runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Overlay {
    /// Two of each server, three members of etcd with backups, logs as JSON with an audit trail
    Production,
    /// One of each server, and the store a file in a volume
    SingleNode,
}

impl Overlay {
    fn dir(self) -> &'static str {
        match self {
            Overlay::Production => "overlays/production",
            Overlay::SingleNode => "overlays/single-node",
        }
    }

    /// Whether the store is an etcd of ours.
    pub(crate) fn has_etcd(self) -> bool {
        self == Overlay::Production
    }
}

/// The objects of an overlay in the order in which they are applied: the host is led to our server last.
pub(crate) fn render(
    overlay: Overlay,
    namespace: &str,
    image: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    build(overlay.dir(), namespace, &mut objects)?;
    for object in &mut objects {
        let containers = object.pointer_mut("/spec/template/spec/containers");
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(image) = image.filter(|_| container["image"] == IMAGE) {
                container["image"] = json!(image);
            }
        }
    }
    objects.sort_by_key(|object| match object["kind"].as_str() {
        Some("Namespace") => 0,
        Some("APIService") => 2,
        _ => 1,
    });
    Ok(objects)
}

/// Adds what a directory describes to `objects`; a component changes those that are there.
fn build(dir: &str, namespace: &str, objects: &mut Vec<Value>) -> anyhow::Result<()> {
    let recipe = documents(&format!("{dir}/kustomization.yaml"), namespace)?.remove(0);
    for key in recipe.as_object().into_iter().flat_map(|recipe| recipe.keys()) {
        if !["apiVersion", "kind", "resources", "components", "patches"].contains(&key.as_str()) {
            bail!("{dir}/kustomization.yaml: {key} is not understood");
        }
    }
    for resource in texts(&recipe["resources"]) {
        let path = join(dir, resource);
        if resource.ends_with(".yaml") {
            objects.extend(documents(&path, namespace)?);
        } else {
            let mut of_resource = Vec::new();
            build(&path, namespace, &mut of_resource)?;
            objects.append(&mut of_resource);
        }
    }
    for component in texts(&recipe["components"]) {
        build(&join(dir, component), namespace, objects)?;
    }
    for patch in recipe["patches"].as_array().into_iter().flatten() {
        let target = &patch["target"];
        let operations = patch["patch"].as_str().unwrap_or("");
        let operations = decode::yaml(operations.as_bytes()).map_err(anyhow::Error::msg)?.value;
        let matches = |object: &&mut Value| {
            object["kind"] == target["kind"] && object["metadata"]["name"] == target["name"]
        };
        for object in objects.iter_mut().filter(matches) {
            json_patch::apply(object, operations.to_string().as_bytes())
                .map_err(|error| anyhow::anyhow!("{dir}/kustomization.yaml: {error}"))?;
        }
    }
    Ok(())
}

fn documents(path: &str, namespace: &str) -> anyhow::Result<Vec<Value>> {
    let file = FILES.iter().find(|(known, _)| *known == path);
    let (_, text) = file.with_context(|| format!("{path} is not built in"))?;
    // The namespace is also part of the names of hosts, in flags.
    let text = text.replace(SYSTEM_NAMESPACE, namespace);
    let documents = text.split("\n---\n").map(|document| decode::yaml(document.as_bytes()));
    let documents: Result<Vec<Value>, _> =
        documents.map(|document| document.map(|decoded| decoded.value)).collect();
    documents.map_err(|error| anyhow::anyhow!("{path}: {error}"))
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// A path from a directory.
fn join(dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = dir.split('/').collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Kind and name, to tell of an object.
pub(crate) fn title(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap_or(""), meta::name(object))
}

/// Where an object is.
pub(crate) fn path(object: &Value) -> String {
    let api_version = object["apiVersion"].as_str().unwrap_or("");
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let place = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("namespaces/{namespace}/"),
        None => String::new(),
    };
    let plural = plural_name(object["kind"].as_str().unwrap_or(""));
    format!("/{root}/{api_version}/{place}{plural}/{}", meta::name(object))
}

/// The labels of what is ours.
pub(crate) fn labels() -> Value {
    json!({PART_OF: "kubefed"})
}

/// The objects of a kind without namespaces that are ours, whoever of us has made them.
pub(crate) async fn all_of_ours(host: &Cluster, kind: &str) -> Result<Vec<Value>, Error> {
    let api_version = match kind {
        "APIService" => "apiregistration.k8s.io/v1",
        _ => "rbac.authorization.k8s.io/v1",
    };
    let mut found = host.list(&format!("/apis/{api_version}/{}", plural_name(kind))).await?;
    found.retain(is_ours);
    // Items of a list need not say what they are.
    for object in &mut found {
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
    }
    Ok(found)
}

pub(crate) fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][PART_OF] == "kubefed"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_namespace_and_image_are_everywhere() {
        for overlay in [Overlay::Production, Overlay::SingleNode] {
            let objects = render(overlay, "elsewhere", Some("registry.test/kubefed:1")).unwrap();
            let text = json!(objects).to_string();
            assert!(!text.contains(SYSTEM_NAMESPACE) && !text.contains(IMAGE));
            assert_eq!(text.matches("registry.test/kubefed:1").count(), 2);
            assert_eq!(objects[0]["metadata"]["name"], "elsewhere");
            assert!(objects.iter().all(is_ours));
        }
    }

    #[test]
    fn paths_are_those_of_the_server() {
        let objects = render(Overlay::Production, SYSTEM_NAMESPACE, None).unwrap();
        let paths: Vec<String> = objects.iter().map(path).collect();
        for wanted in [
            "/api/v1/namespaces/kube-federation-system",
            "/apis/networking.k8s.io/v1/namespaces/kube-federation-system/networkpolicies/kubefed-etcd",
            "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.core.kubefed.io",
        ] {
            assert!(paths.iter().any(|path| path == wanted), "{wanted} is not in {paths:?}");
        }
    }
}

//! Flags that lead to a control plane, and how its API is served.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{ArgAction, Args, ValueEnum};
use kubefed_api::SYSTEM_NAMESPACE;
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_apimachinery::decode;
use serde_json::Value;

use crate::rest::{Cluster, Error};

pub(crate) const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
pub(crate) const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Which cluster is the host.
#[derive(Args, Clone, Debug)]
pub(crate) struct HostOptions {
    /// The kubeconfig
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the federation or its host cluster; the current one if left out
    #[arg(long)]
    pub(crate) host_cluster_context: Option<String>,
}

impl HostOptions {
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        Cluster::of_flags(self.kubeconfig.as_deref(), self.host_cluster_context.as_deref()).await
    }
}

/// Where the control plane is.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlaneOptions {
    #[command(flatten)]
    pub(crate) host: HostOptions,
    /// The namespace of the control plane
    #[arg(long, default_value = SYSTEM_NAMESPACE)]
    pub(crate) kubefed_namespace: String,
}

/// Whether to do nothing; `--dry-run=false` is understood as well.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DryRun {
    /// Look whether it could be done and do nothing
    #[arg(long = "dry-run", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) on: bool,
}

/// The form of what is printed instead of being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Yaml,
}

/// How the API of a control plane comes to be served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Front {
    /// By an API server of ours that stands alone.
    Alone,
    /// By one that extends the host; the `spec` of the APIService that leads to it.
    Extension(Value),
    /// By definitions in the host, as KubeFed does it. Federated kinds need theirs.
    Definitions,
}

/// How the host serves the control plane's API.
pub(crate) async fn front(host: &Cluster) -> Result<Front, Error> {
    let groups = host.get("/apis").await?;
    let mut groups = groups["groups"].as_array().into_iter().flatten();
    // A host without an aggregator is no Kubernetes but our own server.
    if !groups.any(|group| group["name"] == "apiregistration.k8s.io") {
        return Ok(Front::Alone);
    }
    let service = host.find(&format!("{APISERVICES}/v1beta1.types.kubefed.io")).await?;
    Ok(match service {
        Some(service) if service["spec"]["service"].is_object() => {
            Front::Extension(service["spec"].clone())
        }
        _ => Front::Definitions,
    })
}

/// Where the objects of the control plane itself are, by the plural of their kind.
pub(crate) fn core(namespace: &str, plural: &str) -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{namespace}/{plural}")
}

/// Where the FederatedTypeConfigs are.
pub(crate) fn type_configs(namespace: &str) -> String {
    core(namespace, "federatedtypeconfigs")
}

/// The FederatedTypeConfigs, but for those that nobody can follow because they are not what their schema says.
pub(crate) async fn read_type_configs(
    host: &Cluster,
    namespace: &str,
) -> Result<Vec<FederatedTypeConfig>, Error> {
    let configs = host.list(&type_configs(namespace)).await?;
    Ok(configs.iter().filter_map(|config| FederatedTypeConfig::from_value(config).ok()).collect())
}

/// The text of a file, `-` for standard input.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    text.with_context(|| format!("cannot read {} (--filename)", path.display()))
}

/// The documents of a YAML text, without empty ones.
pub(crate) fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut texts = vec![String::new()];
    for line in text.lines() {
        let ends = line.strip_prefix("---").is_some_and(|rest| {
            let rest = rest.trim_start();
            rest.is_empty() || rest.starts_with('#')
        });
        if ends {
            texts.push(String::new());
        } else if let Some(last) = texts.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let mut documents = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let decoded = decode::yaml(text.as_bytes())
            .map_err(|error| anyhow::anyhow!("document {}: {error}", at + 1))?;
        if let Some(twice) = decoded.duplicates.first() {
            anyhow::bail!("document {}: {twice} stands there twice", at + 1);
        }
        if !decoded.value.is_null() {
            documents.push(decoded.value);
        }
    }
    Ok(documents)
}

/// Prints objects as documents that kubectl can apply.
pub(crate) fn print(objects: &[Value]) -> anyhow::Result<()> {
    for object in objects {
        crate::say(&format!("---\n{}", serde_saphyr::to_string(object)?.trim_end()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_end_at_three_dashes_and_empty_ones_are_left_out() {
        let text = "---\na: 1\n--- # next\r\n\n# nothing\n---\nb: |\n  x\n  ----\nc: '---'\n---\n";
        let wanted = vec![json!({"a": 1}), json!({"b": "x\n----\n", "c": "---"})];
        assert_eq!(documents(text).unwrap(), wanted);
        let error = documents("a: 1\n---\n[").unwrap_err().to_string();
        assert!(error.starts_with("document 2: "), "{error}");
        assert!(documents("a: 1\na: 2\n").unwrap_err().to_string().contains("twice"));
    }
}

//! `enable`: makes a kind a federated one. Against our own API server a FederatedTypeConfig does; KubeFed's control plane
//! also wants a definition of the federated kind.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use kubefed_api::TYPES_GROUP;
use kubefed_api::federatedtypeconfig::{self, FederatedTypeConfig};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};

use crate::discovery::{self, Resource};
use crate::init::manifests;
use crate::plane::{self, APISERVICES, CRDS, Front, Output};
use crate::rest::Cluster;
use crate::say;

pub(crate) mod objects;
mod schema;

/// The version of a federated kind, unless another is asked for.
pub(crate) const VERSION: &str = "v1beta1";

/// Flags of `enable`.
#[derive(Args, Clone, Debug)]
#[command(disable_version_flag = true)]
pub(crate) struct Options {
    /// The kind to federate: its plural, singular, kind or short name, or PLURAL.GROUP
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    name: Option<String>,
    #[command(flatten)]
    plane: plane::PlaneOptions,
    #[command(flatten)]
    dry_run: plane::DryRun,
    /// The group of the federated kind
    #[arg(long, default_value = TYPES_GROUP)]
    federated_group: String,
    /// The version of the federated kind
    #[arg(long, default_value = VERSION)]
    federated_version: String,
    /// The version of the target; the one that its cluster prefers if left out
    #[arg(id = "target_version", long = "version", value_name = "VERSION")]
    version: Option<String>,
    /// Print what would be created and do nothing
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// An EnableTypeDirective to read instead of flags; - for standard input
    #[arg(short, long)]
    filename: Option<PathBuf>,
}

/// What is to be federated, and as what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Directive {
    pub(crate) name: String,
    pub(crate) target_version: Option<String>,
    pub(crate) federated_group: String,
    pub(crate) federated_version: String,
}

impl Directive {
    /// A kind with everything else as usual.
    pub(crate) fn of(name: &str) -> Self {
        Directive {
            name: name.to_owned(),
            target_version: None,
            federated_group: TYPES_GROUP.into(),
            federated_version: VERSION.into(),
        }
    }

    /// What an EnableTypeDirective says.
    fn read(text: &str) -> anyhow::Result<Self> {
        let documents = plane::documents(text)?;
        let [directive] = documents.as_slice() else {
            bail!("it holds {} documents instead of one EnableTypeDirective", documents.len());
        };
        if directive["kind"].as_str().is_some_and(|kind| kind != "EnableTypeDirective") {
            bail!("kind: it is {} instead of EnableTypeDirective", directive["kind"]);
        }
        let name = meta::name(directive);
        if name.is_empty() {
            bail!("metadata.name: it must name the kind to federate");
        }
        let text = |field: &str| match &directive["spec"][field] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            other => Err(anyhow::anyhow!("spec.{field}: {other} is no text")),
        };
        let usual = Directive::of(name);
        Ok(Directive {
            target_version: text("targetVersion")?,
            federated_group: text("federatedGroup")?.unwrap_or(usual.federated_group),
            federated_version: text("federatedVersion")?.unwrap_or(usual.federated_version),
            name: usual.name,
        })
    }
}

/// All that is needed for a kind.
#[derive(Debug)]
pub(crate) struct Plan {
    config: Value,
    parsed: FederatedTypeConfig,
    /// What must be there before the config is.
    before: Vec<Value>,
    /// What leads to a kind that the config has made.
    after: Vec<Value>,
}

/// Federates a kind.
pub(crate) async fn enable(options: &Options) -> anyhow::Result<()> {
    let directive = match (&options.filename, &options.name) {
        (Some(file), _) => Directive::read(&plane::read(file)?)
            .with_context(|| format!("{} (--filename)", file.display()))?,
        (None, name) => Directive {
            name: name.clone().unwrap_or_default(),
            target_version: options.version.clone(),
            federated_group: options.federated_group.clone(),
            federated_version: options.federated_version.clone(),
        },
    };
    let host = options.plane.host.connect().await?;
    let namespace = &options.plane.kubefed_namespace;
    let version = directive.target_version.as_deref();
    let target = discovery::target(&host, namespace, &directive.name, version).await?;
    let plan = plan(&host, namespace, &target, &directive).await?;
    if options.output.is_some() {
        let objects = [&[plan.config][..], &plan.before, &plan.after].concat();
        return plane::print(&objects);
    }
    refuse(&host, namespace, &plan.parsed).await?;
    if options.dry_run.on {
        return Ok(());
    }
    apply(&host, namespace, &plan).await
}

/// What federates a kind of the host, or of a member.
pub(crate) async fn plan(
    host: &Cluster,
    namespace: &str,
    target: &Resource,
    directive: &Directive,
) -> anyhow::Result<Plan> {
    tracing::info!("Found type {}/{}", target.api.qualified_name(), target.api.version);
    if kubefed_api::group_versions().iter().any(|own| own.group == target.api.group) {
        bail!("{} is a kind of the federation itself", target.api.qualified_name());
    }
    let (group, version) = (&directive.federated_group, &directive.federated_version);
    let mut config = federatedtypeconfig::of_target(&target.api, group, version);
    config["metadata"]["namespace"] = json!(namespace);
    let parsed = FederatedTypeConfig::from_value(&config).map_err(anyhow::Error::msg)?;
    let front = plane::front(host).await.context("the host cluster")?;
    let before = match front {
        Front::Definitions => {
            let shape = schema::shape(host, &target.api).await?;
            vec![objects::definition(&parsed, &target.short_names, shape)]
        }
        Front::Alone | Front::Extension(_) => objects::rights(&front, namespace, &parsed),
    };
    let after = objects::way(&front, &parsed).into_iter().collect();
    Ok(Plan { config, parsed, before, after })
}

/// Fails where the kind cannot be federated so.
pub(crate) async fn refuse(
    host: &Cluster,
    namespace: &str,
    wanted: &FederatedTypeConfig,
) -> anyhow::Result<()> {
    let home = host.find(&format!("/api/v1/namespaces/{namespace}")).await;
    if home.context("the host cluster")?.is_none() {
        bail!("KubeFed system namespace {namespace:?} does not exist (--kubefed-namespace)");
    }
    let configs = plane::read_type_configs(host, namespace).await.context("the federation")?;
    if let Some(why) = objects::obstacle(wanted, &configs) {
        bail!("{why}");
    }
    if let Front::Extension(ours) = plane::front(host).await.context("the host cluster")? {
        let federated = &wanted.federated;
        let name = format!("{}.{}", federated.version, federated.group);
        let found = host.find(&format!("{APISERVICES}/{name}")).await.context("the host")?;
        if found.is_some_and(|found| found["spec"]["service"] != ours["service"]) {
            bail!(
                "APIService {name} leads elsewhere than to the federation: give another --federated-group or --federated-version"
            );
        }
    }
    Ok(())
}

/// Creates what a kind needs, as far as it is not there, and says what it has done.
pub(crate) async fn apply(host: &Cluster, namespace: &str, plan: &Plan) -> anyhow::Result<()> {
    for object in &plan.before {
        if object["kind"] == "CustomResourceDefinition" {
            define(host, object).await?;
        } else {
            complete(host, object).await?;
        }
    }
    let name = meta::name(&plan.config);
    let path = plane::type_configs(namespace);
    let known = host.find(&format!("{path}/{name}")).await.context("the federation")?;
    let done = match known {
        Some(_) => {
            let patch = json!({"spec": plan.config["spec"]});
            host.merge(&format!("{path}/{name}"), &patch).await.map(|_| "updated")
        }
        None => host.create(&path, &plan.config).await.map(|_| "created"),
    };
    let done = done.with_context(|| format!("FederatedTypeConfig {name}"))?;
    say(&format!("federatedtypeconfig.core.kubefed.io/{name} {done} in namespace {namespace}"));
    for object in &plan.after {
        complete(host, object).await?;
    }
    Ok(())
}

async fn define(host: &Cluster, definition: &Value) -> anyhow::Result<()> {
    let name = meta::name(definition);
    let known = host.find(&format!("{CRDS}/{name}")).await.context("the host cluster")?;
    let done = match known {
        Some(mut known) => {
            known["spec"] = definition["spec"].clone();
            host.replace(&format!("{CRDS}/{name}"), &known).await.map(|_| "updated")
        }
        None => host.create(CRDS, definition).await.map(|_| "created"),
    };
    let done = done.with_context(|| format!("CustomResourceDefinition {name}"))?;
    say(&format!("customresourcedefinition.apiextensions.k8s.io/{name} {done}"));
    Ok(())
}

/// Creates an object, or sees to it that it is as we want it.
async fn complete(host: &Cluster, object: &Value) -> anyhow::Result<()> {
    let (path, title) = (manifests::path(object), manifests::title(object));
    let known = host.find(&path).await.with_context(|| title.clone())?;
    host.apply(&path, object).await.context(title)?;
    if known.is_none() {
        say(&format!("{}/{} created", objects::resource_name(object), meta::name(object)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_says_what_flags_would() {
        let text = "apiVersion: kubefed.io/v1beta1\nkind: EnableTypeDirective\nmetadata:\n  name: deployments.apps\n";
        assert_eq!(Directive::read(text).unwrap(), Directive::of("deployments.apps"));
        let text = format!(
            "{text}spec:\n  targetVersion: v1\n  federatedGroup: fed.example.com\n  federatedVersion: v2\n"
        );
        let wanted = Directive {
            target_version: Some("v1".into()),
            federated_group: "fed.example.com".into(),
            federated_version: "v2".into(),
            ..Directive::of("deployments.apps")
        };
        assert_eq!(Directive::read(&text).unwrap(), wanted);
        for (text, wanted) in [
            ("", "0 documents"),
            ("kind: EnableTypeDirective\n", "metadata.name"),
            ("kind: Pod\nmetadata: {name: a}\n", "kind:"),
            ("metadata: {name: a}\nspec: {federatedGroup: 1}\n", "spec.federatedGroup"),
        ] {
            let error = Directive::read(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}

//! `federate`: makes federated objects of plain ones, which then are in every cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kubefed_api::TYPES_GROUP;
use kubefed_api::federatedtypeconfig::{self, ApiResource, FederatedTypeConfig, plural_name};
use kubefed_apimachinery::meta;
use serde_json::Value;

use crate::discovery::{self, Resource};
use crate::enable::{self, Directive};
use crate::plane::{self, Output};
use crate::rest::Cluster;
use crate::warn;

mod contents;
mod template;

/// How long a kind that was just enabled may take to be served.
const SERVED: Duration = Duration::from_secs(10);

/// Flags of `federate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The kind of the object: its plural, singular, kind or short name, or PLURAL.GROUP
    #[arg(
        value_name = "TYPE",
        required_unless_present = "filename",
        conflicts_with = "filename",
        requires = "name"
    )]
    kind: Option<String>,
    /// The name of the object
    name: Option<String>,
    #[command(flatten)]
    plane: plane::PlaneOptions,
    #[command(flatten)]
    dry_run: plane::DryRun,
    /// The namespace of the object; that of the context if left out
    #[arg(short, long)]
    namespace: Option<String>,
    /// Print what would be created and do nothing
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Enable the kind first, if it is not
    #[arg(short = 't', long, conflicts_with = "output")]
    enable_type: bool,
    /// Federate everything in the namespace as well; for namespaces only
    #[arg(short, long)]
    contents: bool,
    /// A file of objects to federate, - for standard input: what they become is printed, and nothing is asked of any cluster
    #[arg(short, long)]
    filename: Option<PathBuf>,
    /// Kinds, or groups, to leave out with --contents, separated by commas
    #[arg(short, long, value_delimiter = ',')]
    skip_api_resources: Vec<String>,
}

/// Objects of one kind, made federated.
struct Batch {
    target: Resource,
    config: FederatedTypeConfig,
    installed: bool,
    objects: Vec<Value>,
}

/// Federates objects.
pub(crate) async fn federate(options: &Options) -> anyhow::Result<()> {
    if let Some(file) = &options.filename {
        let named = || format!("{} (--filename)", file.display());
        let objects = of_text(&plane::read(file)?).with_context(named)?;
        return plane::print(&objects);
    }
    let kind = options.kind.as_deref().unwrap_or("");
    let name = options.name.as_deref().unwrap_or("");
    let host = options.plane.host.connect().await?;
    let kinds = discovery::kinds(&host).await.context("the host cluster")?;
    let target = discovery::on_host(&kinds, kind).context(
        "only objects that the federation itself serves can be named; others are given by --filename",
    )?;
    let is_namespace = target.api.qualified_name() == federatedtypeconfig::NAMESPACES;
    if options.contents && !is_namespace {
        bail!("--contents can only be used with type 'namespaces'");
    }
    let configs = configs(&host, options).await?;
    let namespace = options.namespace.as_deref().unwrap_or(&host.namespace);
    let mut batch = batch(&configs, target, options)?;
    let object = host.get(&batch.target.api.path(namespace, name)).await;
    let object = object.with_context(|| format!("{} {name}", batch.target.api.kind))?;
    batch.objects.push(federated(&batch.config, &object));
    let mut batches = vec![batch];
    if options.contents {
        if let Some(trouble) = kinds.troubles.first() {
            bail!("what is in namespace {name} cannot be told (--contents): {trouble}");
        }
        for target in contents::kinds(&kinds.resources, &configs, &options.skip_api_resources) {
            let found = host.list(&target.api.path(name, "")).await;
            let found = found.with_context(|| target.api.qualified_name())?;
            let mut found: Vec<Value> = found
                .into_iter()
                .filter(|found| !contents::is_of_cluster(&target, found))
                .collect();
            if found.is_empty() {
                continue;
            }
            found.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
            let mut batch = self::batch(&configs, target, options)?;
            batch.objects = found.iter().map(|found| federated(&batch.config, found)).collect();
            batches.push(batch);
        }
    }
    if options.output.is_some() {
        let objects: Vec<Value> = batches.into_iter().flat_map(|batch| batch.objects).collect();
        return plane::print(&objects);
    }
    create(&host, options, &batches).await
}

/// The FederatedTypeConfigs. A cluster without a federation has none, which is fine for who only wants YAML.
async fn configs(host: &Cluster, options: &Options) -> anyhow::Result<Vec<FederatedTypeConfig>> {
    match plane::read_type_configs(host, &options.plane.kubefed_namespace).await {
        Ok(configs) => Ok(configs),
        Err(error) if options.output.is_some() => {
            tracing::info!("Falling back to what enable would make: {error}");
            Ok(Vec::new())
        }
        Err(error) => Err(error).context("the federation"),
    }
}

/// How a kind is federated, or would be.
fn batch(
    configs: &[FederatedTypeConfig],
    target: Resource,
    options: &Options,
) -> anyhow::Result<Batch> {
    let name = target.api.qualified_name();
    let known = configs.iter().find(|config| config.name == name).cloned();
    if known.is_none() && !options.enable_type && options.output.is_none() {
        bail!(
            "federatedtypeconfigs.core.kubefed.io {name:?} not found. Consider using '--enable-type' to optionally enable type while federating the resource"
        );
    }
    let installed = known.is_some();
    let config = known.map_or_else(|| usual(&target.api), Ok)?;
    Ok(Batch { target, config, installed, objects: Vec::new() })
}

/// The config that `enable` makes without flags.
fn usual(target: &ApiResource) -> anyhow::Result<FederatedTypeConfig> {
    let config = federatedtypeconfig::of_target(target, TYPES_GROUP, enable::VERSION);
    FederatedTypeConfig::from_value(&config).map_err(anyhow::Error::msg)
}

/// The federated object, with a word on what does not come along.
fn federated(config: &FederatedTypeConfig, object: &Value) -> Value {
    if let Some(annotations) = object["metadata"]["annotations"].as_object() {
        let keys: Vec<&str> = annotations
            .keys()
            .map(String::as_str)
            .filter(|key| !template::is_of_tool(key))
            .collect();
        if !keys.is_empty() {
            warn(&format!(
                "annotations of {} {:?} will not be in the template of the federated resource: {}",
                config.target.kind,
                meta::name(object),
                keys.join(", ")
            ));
        }
    }
    template::federated(config, object)
}

/// What the objects of a text become.
fn of_text(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut made = Vec::new();
    for (at, document) in plane::documents(text)?.into_iter().enumerate() {
        let items = match document["items"].as_array() {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                items.clone()
            }
            _ => vec![document],
        };
        for object in items {
            let one =
                target_of(&object).and_then(|target| Ok(federated(&usual(&target)?, &object)));
            made.push(one.with_context(|| format!("document {}", at + 1))?);
        }
    }
    if made.is_empty() {
        bail!("it holds no object");
    }
    Ok(made)
}

/// The kind of an object that stands in a file.
fn target_of(object: &Value) -> anyhow::Result<ApiResource> {
    let text = |field: &str| object[field].as_str().filter(|text| !text.is_empty());
    let api_version = text("apiVersion").context("apiVersion: it must be set")?;
    let kind = text("kind").context("kind: it must be set")?;
    if meta::name(object).is_empty() {
        bail!("metadata.name: it must be set");
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if group == TYPES_GROUP {
        bail!("{kind} {:?} is a federated resource already", meta::name(object));
    }
    // Whether objects of a kind are in namespaces can only be told by a cluster; where this one is is known.
    let namespaced = !meta::namespace(object).is_empty();
    Ok(ApiResource {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        plural_name: plural_name(kind),
        scope: if namespaced { "Namespaced".into() } else { "Cluster".into() },
    })
}

async fn create(host: &Cluster, options: &Options, batches: &[Batch]) -> anyhow::Result<()> {
    let namespace = &options.plane.kubefed_namespace;
    for batch in batches {
        if !batch.installed {
            let directive = Directive::of(&batch.config.name);
            let plan = enable::plan(host, namespace, &batch.target, &directive).await?;
            enable::refuse(host, namespace, &batch.config).await?;
            if !options.dry_run.on {
                enable::apply(host, namespace, &plan).await?;
            }
        }
        for object in batch.objects.iter().filter(|_| !options.dry_run.on) {
            let federated = &batch.config.federated;
            let title = format!("{} {:?}", federated.kind, meta::name(object));
            let path = federated.path(meta::namespace(object), "");
            let created = host.create_served(&path, object, SERVED).await;
            created.with_context(|| title.clone())?;
            tracing::info!("Successfully created {title}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every plain object of the guide that is to be in all clusters.
    #[test]
    fn the_guides_plain_objects_become_federated_ones() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/federate");
        let mut seen = Vec::new();
        for file in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let plain = plane::documents(&text).unwrap().remove(0);
            let made = of_text(&text).unwrap().remove(0);
            let kind = plain["kind"].as_str().unwrap();
            assert_eq!(made["apiVersion"], "types.kubefed.io/v1beta1");
            assert_eq!(made["kind"], format!("Federated{kind}"));
            assert_eq!(made["metadata"]["name"], plain["metadata"]["name"]);
            assert_eq!(made["spec"]["template"]["spec"], plain["spec"], "{kind}");
            seen.push(kind.to_owned());
        }
        for kind in ["NetworkPolicy", "ServiceMonitor", "ClusterFlow", "ServiceEntry"] {
            assert!(seen.iter().any(|seen| seen == kind), "{kind} is not among {seen:?}");
        }
    }

    #[test]
    fn a_file_that_holds_no_object_is_refused_with_the_field() {
        for (text, wanted) in [
            ("", "no object"),
            ("kind: Pod\n", "document 1: apiVersion"),
            ("apiVersion: v1\n", "document 1: kind"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "document 1: metadata.name"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: types.kubefed.io/v1beta1\nkind: FederatedPod\nmetadata: {name: a}\n",
                "document 2: FederatedPod \"a\" is a federated resource already",
            ),
        ] {
            let error = format!("{:#}", of_text(text).unwrap_err());
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn the_items_of_a_list_are_objects() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}\n- {apiVersion: v1, kind: Secret, metadata: {name: b, namespace: shop}}\n";
        let made = of_text(text).unwrap();
        assert_eq!(made[0]["kind"], "FederatedConfigMap");
        assert_eq!(made[0]["metadata"].get("namespace"), None);
        assert_eq!(made[1]["metadata"]["namespace"], "shop");
    }
}

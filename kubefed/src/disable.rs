//! `disable`: ends the federation of a kind.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args};
use kubefed_api::TYPES_GROUP;
use kubefed_api::federatedtypeconfig::{self, FederatedTypeConfig};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::discovery;
use crate::enable::{self, objects};
use crate::init::manifests;
use crate::plane::{self, CRDS, Front};
use crate::rest::Cluster;
use crate::say;

/// How long the controllers may take to end what they do for a kind.
const STOP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Flags of `disable`.
#[derive(Args, Clone, Debug)]
#[command(disable_version_flag = true)]
pub(crate) struct Options {
    /// The kind: its plural, singular, kind or short name, or PLURAL.GROUP
    name: String,
    #[command(flatten)]
    plane: plane::PlaneOptions,
    #[command(flatten)]
    dry_run: plane::DryRun,
    /// Delete the definition of the federated kind as well
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    delete_crd: bool,
    /// The group of the federated kind, to delete its definition without a FederatedTypeConfig
    #[arg(long, requires = "delete_crd")]
    federated_group: Option<String>,
    /// The version of the target, to delete the definition without a FederatedTypeConfig
    #[arg(
        id = "target_version",
        long = "version",
        value_name = "VERSION",
        requires = "delete_crd"
    )]
    version: Option<String>,
}

/// Ends the federation of a kind.
pub(crate) async fn disable(options: &Options) -> anyhow::Result<()> {
    let host = options.plane.host.connect().await?;
    let namespace = &options.plane.kubefed_namespace;
    let configs = host.list(&plane::type_configs(namespace)).await.context("the federation")?;
    let (name, found) = named(&host, namespace, &options.name, configs).await?;
    let title = format!("FederatedTypeConfig \"{namespace}/{name}\"");
    if found.is_none() {
        say(&format!("{title} does not exist"));
    }
    let front = plane::front(&host).await.context("the host cluster")?;
    let config = match &found {
        Some(config) => Some(FederatedTypeConfig::from_value(config).map_err(anyhow::Error::msg)?),
        None if options.delete_crd => Some(generated(&host, options, &name).await?),
        None => None,
    };
    if let Some(config) = &config {
        refuse(&host, options, config).await?;
    }
    if options.dry_run.on {
        return Ok(());
    }
    let path = format!("{}/{name}", plane::type_configs(namespace));
    if let Some(config) = &found {
        stop(&host, &path, &title, config).await?;
    }
    if let Some(config) = config.as_ref().filter(|_| options.delete_crd) {
        undefine(&host, config).await?;
    }
    if found.is_some() {
        host.delete(&path).await.context("the federation")?;
        say(&format!("federatedtypeconfig \"{namespace}/{name}\" deleted"));
    }
    if let Some(config) = &config {
        clear(&host, &front, namespace, config).await?;
    }
    Ok(())
}

/// The name of the config that is meant, and the config if there is one.
async fn named(
    host: &Cluster,
    namespace: &str,
    name: &str,
    mut configs: Vec<Value>,
) -> anyhow::Result<(String, Option<Value>)> {
    let mut take = |name: &str| {
        let at = configs.iter().position(|config| config["metadata"]["name"] == name)?;
        Some(configs.swap_remove(at))
    };
    if let Some(found) = take(name) {
        return Ok((name.to_owned(), Some(found)));
    }
    // Its target may be gone.
    if name.contains('.') {
        return Ok((name.to_owned(), None));
    }
    let target = discovery::target(host, namespace, name, None).await?;
    let name = target.api.qualified_name();
    let found = take(&name);
    Ok((name, found))
}

/// The config that `enable` would have made.
async fn generated(
    host: &Cluster,
    options: &Options,
    name: &str,
) -> anyhow::Result<FederatedTypeConfig> {
    let namespace = &options.plane.kubefed_namespace;
    let target = discovery::target(host, namespace, name, options.version.as_deref()).await?;
    let group = options.federated_group.as_deref().unwrap_or(TYPES_GROUP);
    let config = federatedtypeconfig::of_target(&target.api, group, enable::VERSION);
    FederatedTypeConfig::from_value(&config).map_err(anyhow::Error::msg)
}

/// Fails while there are objects that nobody could reach any longer.
async fn refuse(
    host: &Cluster,
    options: &Options,
    config: &FederatedTypeConfig,
) -> anyhow::Result<()> {
    let federated = &config.federated;
    let name = federated.qualified_name();
    // Without a definition it is the config that our server serves objects by.
    let defined = host.find(&format!("{CRDS}/{name}")).await.context("the host cluster")?;
    if defined.is_some() && !options.delete_crd {
        return Ok(());
    }
    let path = format!("/apis/{}/{}?limit=1", federated.api_version(), federated.plural_name);
    let objects = host.find(&path).await.context("the federation")?;
    if objects.is_none_or(|list| list["items"].as_array().is_none_or(Vec::is_empty)) {
        return Ok(());
    }
    match defined {
        Some(_) => bail!(
            "Cannot delete CRD {name:?} while resource instances exist. Please try again after removing the resource instances or without the '--delete-crd' option"
        ),
        None => bail!(
            "Cannot delete {name:?} while resource instances exist: the FederatedTypeConfig is what serves them. Please try again after removing the resource instances, or set spec.propagation of the FederatedTypeConfig {:?} to Disabled",
            config.name
        ),
    }
}

/// Ends propagation, and waits until the controllers say that it has ended.
async fn stop(host: &Cluster, path: &str, title: &str, config: &Value) -> anyhow::Result<()> {
    if config["spec"]["propagation"] == "Enabled" {
        let patch = json!({"spec": {"propagation": "Disabled"}});
        host.merge(path, &patch).await.context("the federation")?;
        say(&format!("Disabled propagation for {title}"));
    }
    say(&format!("Verifying propagation controller is stopped for {title}"));
    let deadline = Instant::now() + STOP;
    loop {
        let config = host.get(path).await.context("the federation")?;
        if config["status"]["propagationController"] == "NotRunning" {
            say(&format!("Propagation controller for {title} is stopped"));
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "Unable to verify propagation controller for {title} is stopped: its status did not say so within {STOP:?}; see whether kubefed-controller-manager runs"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn undefine(host: &Cluster, config: &FederatedTypeConfig) -> anyhow::Result<()> {
    let name = config.federated.qualified_name();
    let path = format!("{CRDS}/{name}");
    let known = host.find(&path).await.context("the host cluster")?.is_some();
    if known {
        host.delete(&path).await.context("the host cluster")?;
    }
    let done = if known { "deleted" } else { "does not exist" };
    say(&format!("customresourcedefinition {name:?} {done}"));
    Ok(())
}

/// Takes away what `enable` has created beside the config, if it has.
async fn clear(
    host: &Cluster,
    front: &Front,
    namespace: &str,
    config: &FederatedTypeConfig,
) -> anyhow::Result<()> {
    let mut left = plane::read_type_configs(host, namespace).await.context("the federation")?;
    left.retain(|left| left.name != config.name);
    for object in objects::needless(front, namespace, config, &left) {
        let (path, title) = (manifests::path(&object), manifests::title(&object));
        let known = host.find(&path).await.with_context(|| title.clone())?;
        if known.is_some_and(|known| manifests::is_ours(&known)) {
            host.delete(&path).await.context(title)?;
            let name = meta::name(&object);
            say(&format!("{} {name:?} deleted", objects::resource_name(&object)));
        }
    }
    Ok(())
}

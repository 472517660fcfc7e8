//! `init`: installs a federation in a host cluster. A second run changes only what is not as it is to be.

use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use kubefed_api::federatedtypeconfig;
use kubefed_apimachinery::{duration, names};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::plane::PlaneOptions;
use crate::rest::{Cluster, Error};
use crate::{plane, say};

mod certificates;
pub(crate) mod manifests;

use manifests::Overlay;

const LOOK: Duration = Duration::from_millis(200);
/// The mark of an APIService that the host makes, keeps as it is, and deletes by itself.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Flags that init and deinit share.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstallOptions {
    #[command(flatten)]
    pub(crate) plane: PlaneOptions,
    /// How long to wait, such as 90s or 5m
    #[arg(long, default_value = "5m", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

/// Flags of `init`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    install: InstallOptions,
    /// How the control plane runs
    #[arg(long, value_enum, default_value = "production")]
    overlay: Overlay,
    /// The image that the Containerfile makes, where the nodes find it
    #[arg(long)]
    image: Option<String>,
    /// Print what would be applied, with the keys of new certificates, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl InstallOptions {
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        let namespace = &self.plane.kubefed_namespace;
        if let Some(why) = names::dns1123_label(namespace).first() {
            bail!("{namespace:?} is no namespace (--kubefed-namespace): {why}");
        }
        self.plane.host.connect().await
    }
}

/// Installs a federation.
pub(crate) async fn init(options: &Options) -> anyhow::Result<()> {
    let namespace = &options.install.plane.kubefed_namespace;
    let host = options.install.connect().await?;
    let objects = objects(&host, options).await.context("the host cluster")?;
    if options.dry_run {
        return plane::print(&objects);
    }
    for object in &objects {
        tracing::info!("Applying {}", manifests::title(object));
        apply(&host, object).await.with_context(|| manifests::title(object))?;
    }
    say(&format!("applied {} objects; waiting for the federation", objects.len()));
    let deadline = Instant::now() + options.install.timeout;
    let services = objects.iter().filter(|object| object["kind"] == "APIService");
    for service in services {
        until(deadline, options, async || unavailable(&host, service).await).await?;
    }
    for config in federatedtypeconfig::defaults() {
        until(deadline, options, async || uncreated(&host, namespace, &config).await).await?;
    }
    say(&format!("the federation in {namespace} is ready: kubefed join adds clusters to it"));
    Ok(())
}

/// Applies an object. An APIService that the host has made for a CustomResourceDefinition is taken over: as long as it
/// carries the host's mark, the host undoes any change of it, and deletes it with the definition.
async fn apply(host: &Cluster, object: &Value) -> Result<(), Error> {
    let path = manifests::path(object);
    let is_marked = |found: &Value| !found["metadata"]["labels"][AUTOMANAGED].is_null();
    let unmark = || json!({"metadata": {"labels": {AUTOMANAGED: null}}});
    // Before the change, for else the host may undo it first; and after it, if the host was as fast.
    if object["kind"] == "APIService"
        && host.find(&path).await?.is_some_and(|found| is_marked(&found))
    {
        host.merge(&path, &unmark()).await?;
    }
    if is_marked(&host.apply(&path, object).await?) {
        host.merge(&path, &unmark()).await?;
        host.apply(&path, object).await?;
    }
    Ok(())
}

/// All that is to be applied, in order.
async fn objects(host: &Cluster, options: &Options) -> anyhow::Result<Vec<Value>> {
    let namespace = &options.install.plane.kubefed_namespace;
    let mut known = certificates::Known::new();
    for name in certificates::NAMES {
        let secret = host.find(&format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await?;
        if let Some(secret) = secret {
            known.insert(name, certificates::data(&secret));
        }
    }
    let now = u64::try_from(jiff::Timestamp::now().as_second())?;
    let made = certificates::complete(namespace, options.overlay.has_etcd(), &known, now)?;
    let mut objects = manifests::render(options.overlay, namespace, options.image.as_deref())?;
    objects.extend(other_groups(host, namespace, &objects).await?);
    let bundle = BASE64_STANDARD.encode(&made.ca);
    for object in objects.iter_mut().filter(|object| object["kind"] == "APIService") {
        object["spec"]["caBundle"] = json!(bundle);
    }
    // Behind the namespace, before the pods that want them.
    objects.splice(1..1, made.secrets);
    Ok(objects)
}

/// What leads further groups to us, made when their kinds were enabled: it needs our certificate as well.
async fn other_groups(
    host: &Cluster,
    namespace: &str,
    known: &[Value],
) -> anyhow::Result<Vec<Value>> {
    let found = manifests::all_of_ours(host, "APIService").await?;
    let others = found.into_iter().filter(|service| {
        service["spec"]["service"]["namespace"] == namespace
            && !known.iter().any(|known| manifests::path(known) == manifests::path(service))
    });
    let bare = |service: Value| {
        json!({
            "apiVersion": service["apiVersion"], "kind": service["kind"],
            "metadata": {"name": service["metadata"]["name"], "labels": manifests::labels()},
            "spec": service["spec"],
        })
    };
    Ok(others.map(bare).collect())
}

/// Waits until nothing is missing.
async fn until(
    deadline: Instant,
    options: &Options,
    mut missing: impl AsyncFnMut() -> Option<String>,
) -> anyhow::Result<()> {
    while let Some(what) = missing().await {
        if Instant::now() >= deadline {
            bail!(
                "after {:?} (--timeout) {what}. All is applied and stays so: see kubectl --namespace {} get pods, then run kubefed init again",
                options.install.timeout,
                options.install.plane.kubefed_namespace,
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Why the host does not lead a group to us, if it doesn't.
async fn unavailable(host: &Cluster, service: &Value) -> Option<String> {
    let title = manifests::title(service);
    let found = match host.get(&manifests::path(service)).await {
        Ok(found) => found,
        Err(error) => return Some(format!("{title} cannot be read: {error}")),
    };
    let conditions = found["status"]["conditions"].as_array().into_iter().flatten();
    let condition = conditions.into_iter().find(|condition| condition["type"] == "Available");
    let Some(condition) = condition else {
        return Some(format!("the host has not looked at {title} yet"));
    };
    let text = |field: &str| condition[field].as_str().unwrap_or("").to_owned();
    if condition["status"] != "True" {
        return Some(format!("{title} is not Available: {}: {}", text("reason"), text("message")));
    }
    if condition["reason"] == "Local" {
        return Some(format!(
            "the host has not looked at {title} since it served the group itself"
        ));
    }
    // Another controller of the host opens the road, in its own time.
    let spec = |field: &str| service["spec"][field].as_str().unwrap_or("");
    let served = host.get(&format!("/apis/{}/{}", spec("group"), spec("version"))).await;
    served.err().map(|error| format!("{title} is Available but leads nowhere: {error}"))
}

/// Why a FederatedTypeConfig is not there, after an attempt to create it; one that is there stays as it is.
async fn uncreated(host: &Cluster, namespace: &str, config: &Value) -> Option<String> {
    match host.create(&plane::type_configs(namespace), config).await {
        Err(error) if error.code != 409 => {
            Some(format!("{} cannot be created: {error}", manifests::title(config)))
        }
        _ => None,
    }
}

//! The KubeFedConfig: of a file, else of the federation, else the defaults; followed while the controllers run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kubefed_api::kubefedconfig;
use kubefed_apimachinery::meta;
use serde_json::Value;
use tokio::sync::watch;

use crate::cache::{Cache, Key, Source};
use crate::client::Client;
use crate::control::{Control, path};
use crate::scope;

const COMPONENT: &str = "kubefed-controller-manager";
const GROUP_VERSION: &str = "core.kubefed.io/v1beta1";
/// The pause after the federation could not be asked.
const RETRY: Duration = Duration::from_millis(500);
/// How often the file is looked at. Kubernetes swaps links under a mounted ConfigMap, which no file watch sees reliably.
const POLL: Duration = Duration::from_secs(2);

/// The config as it is now; waits for the federation, but not for a file.
///
/// # Errors
/// What is wrong with the file.
pub(crate) async fn load(
    federation: &Client,
    namespace: &str,
    file: Option<&Path>,
) -> anyhow::Result<Value> {
    if let Some(file) = file {
        return read(file, namespace).await;
    }
    let collection = path(GROUP_VERSION, namespace, "kubefedconfigs");
    let path = format!("{collection}/{}", kubefedconfig::NAME);
    loop {
        match federation.get(&path).await {
            Ok(config) => return Ok(config),
            Err(error) if error.is_not_found() => {
                return Ok(kubefedconfig::default_config(namespace));
            }
            Err(error) => tracing::warn!(%error, "the KubeFedConfig cannot be read yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn read(file: &Path, namespace: &str) -> anyhow::Result<Value> {
    let shown = file.display();
    let bytes = tokio::fs::read(file)
        .await
        .with_context(|| format!("cannot read {shown} (--kubefed-config)"))?;
    kubefedconfig::read(&bytes, namespace)
        .map_err(|why| anyhow!("{shown} (--kubefed-config) is no KubeFedConfig: {why}"))
}

/// Says in the log which config counts.
pub(crate) fn tell(config: &Value, namespace: &str, file: Option<&Path>) {
    let name = kubefedconfig::NAME;
    match file {
        Some(file) => tracing::info!("Using the KubeFedConfig of {}", file.display()),
        None if meta::uid(config).is_empty() => {
            tracing::info!("Using the defaults: there is no KubeFedConfig \"{namespace}/{name}\"");
        }
        None => tracing::info!("Using valid KubeFedConfig \"{namespace}/{name}\""),
    }
}

/// Takes up changes while the controllers run: all but the scope and the leader election.
pub(crate) async fn follow(
    control: Arc<Control>,
    file: Option<PathBuf>,
    config: watch::Sender<Arc<Value>>,
) {
    let Some(file) = file else { return follow_federation(&control, &config).await };
    let mut wrong = String::new();
    loop {
        tokio::select! {
            () = control.token.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
        match read(&file, &control.namespace).await {
            Ok(found) => take_up(&control, &config, Arc::new(found)),
            Err(error) => {
                let error = format!("{error:#}");
                if error != wrong {
                    tracing::warn!("{error}: the config stays as it was");
                    wrong = error;
                }
            }
        }
    }
}

async fn follow_federation(control: &Control, config: &watch::Sender<Arc<Value>>) {
    let cache: Cache<Value> = Cache::default();
    let source = Source {
        path: path(GROUP_VERSION, &control.namespace, "kubefedconfigs"),
        ..Source::default()
    };
    let changed = |key: &Key| {
        if key.name == kubefedconfig::NAME {
            let default = || Arc::new(kubefedconfig::default_config(&control.namespace));
            take_up(control, config, cache.get(key).unwrap_or_else(default));
        }
    };
    cache.follow(&control.federation, &source, |found| found, changed, &control.token).await;
}

fn take_up(control: &Control, config: &watch::Sender<Arc<Value>>, found: Arc<Value>) {
    if config.borrow()["spec"] == found["spec"] {
        return;
    }
    tracing::info!("took up a new KubeFedConfig");
    if config.borrow()["spec"]["scope"] != found["spec"]["scope"] {
        tell_scope(control, &found);
    }
    config.send_replace(found);
}

/// Says in the log and by an event that the scope of the config is not what holds, and why.
pub(crate) fn tell_scope(control: &Control, config: &Value) {
    if let Some((reason, text)) = scope::differs(config, control.reaches_all, control.is_namespaced)
    {
        tracing::warn!("{text}");
        if !meta::uid(config).is_empty() {
            control.events.warn(config, COMPONENT, reason, &text);
        }
    }
}

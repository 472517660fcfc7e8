//! Whether a federation is ready: its clusters reachable, every federated kind served and followed.

use std::time::Duration;

use anyhow::bail;
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_api::{SYSTEM_NAMESPACE, kubefedcluster};
use serde_json::Value;
use tokio::time::Instant;

use crate::plane;
use crate::rest::Cluster;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// Waits until it is, with the `wanted` clusters; says what is missing if that takes too long.
pub(super) async fn wait(host: &Cluster, wanted: &[String]) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match missing(host, wanted).await {
            None => return Ok(()),
            Some(what) if Instant::now() >= deadline => bail!("{what}"),
            Some(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn missing(host: &Cluster, wanted: &[String]) -> Option<String> {
    let clusters = match host.list(&plane::core(SYSTEM_NAMESPACE, "kubefedclusters")).await {
        Ok(clusters) => clusters,
        Err(error) => return Some(error.to_string()),
    };
    let wanted =
        |cluster: &&Value| wanted.iter().any(|name| cluster["metadata"]["name"] == *name.as_str());
    let mut clusters = clusters.iter().filter(wanted);
    if let Some(cluster) = clusters.find(|cluster| !kubefedcluster::is_ready(cluster)) {
        let conditions = cluster["status"]["conditions"].as_array().into_iter().flatten();
        let why: Vec<&str> =
            conditions.filter_map(|condition| condition["message"].as_str()).collect();
        let name = cluster["metadata"]["name"].as_str().unwrap_or("");
        return Some(format!("cluster {name} is not ready: {}", why.join("; ")));
    }
    let configs = match host.list(&plane::type_configs(SYSTEM_NAMESPACE)).await {
        Ok(configs) => configs,
        Err(error) => return Some(error.to_string()),
    };
    configs.iter().find_map(|config| {
        let parsed = FederatedTypeConfig::from_value(config).ok()?;
        let runs = config["status"]["propagationController"] == "Running";
        (parsed.propagation && !runs)
            .then(|| format!("the controller of {} does not run", parsed.name))
    })
}

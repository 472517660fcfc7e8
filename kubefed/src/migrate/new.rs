//! The federation that takes all over.

use std::time::Duration;

use anyhow::{Context as _, bail};
use kubefed_api::federatedtypeconfig::{FederatedTypeConfig, NAMESPACES};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::leader;
use super::piece::{self, Item, PAUSED, Piece};
use crate::plane;
use crate::rest::{Cluster, Error};

/// How long the controllers may take for what they are waited for.
const WAIT: Duration = Duration::from_secs(120);
/// A kind is served soon after its FederatedTypeConfig is there.
const SERVED: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// What came of one object.
pub(super) enum Outcome {
    /// It is there now, without what was lost in these parts.
    Moved(Vec<String>),
    Unchanged,
    /// Another one is there; in which parts they differ.
    Differs(Vec<String>),
}

pub(super) struct Federation {
    cluster: Cluster,
    namespace: String,
}

impl Federation {
    pub(super) fn new(cluster: Cluster, namespace: &str) -> Self {
        Federation { cluster, namespace: namespace.to_owned() }
    }

    /// Whether a controller manager works here.
    pub(super) async fn is_led(&self) -> Result<bool, Error> {
        Ok(leader::leader(&self.cluster, &self.namespace).await?.is_some())
    }

    /// Makes an object, unless there is one by its name. A `dry` look makes nothing.
    pub(super) async fn settle(&self, item: &Item, dry: bool) -> Result<Outcome, Error> {
        let Item { piece, record } = item;
        let mut there = self.cluster.find(&piece.path()).await?;
        if there.is_none() && !dry {
            let is_type = piece.is_type_config();
            let object = if is_type { piece::paused(&piece.object) } else { piece.object.clone() };
            match self.cluster.create_served(&piece.collection, &object, SERVED).await {
                Ok(made) => {
                    if let Some(record) = record {
                        self.record(record, &made).await?;
                    }
                    return Ok(Outcome::Moved(piece::differences(&object, &made)));
                }
                // Somebody was faster.
                Err(error) if error.code == 409 => {
                    there = self.cluster.find(&piece.path()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let Some(there) = there else { return Ok(Outcome::Moved(Vec::new())) };
        let there = piece::resumed(&there);
        let differences = piece::differences(&piece.object, &there);
        if !differences.is_empty() {
            if !piece.is_type_config() || !piece::is_default(&there) {
                return Ok(Outcome::Differs(differences));
            }
            // Nobody has said yet what is to be here.
            if !dry {
                let paused = piece::paused(&piece.object);
                let mark = json!({PAUSED: paused["metadata"]["annotations"][PAUSED]});
                let patch = json!({"metadata": {"annotations": mark}, "spec": paused["spec"]});
                self.cluster.merge(&piece.path(), &patch).await?;
            }
            return Ok(Outcome::Moved(Vec::new()));
        }
        if let Some(record) = record {
            let found = self.cluster.find(&record.path()).await?;
            if found.is_none_or(|found| found["status"].is_null()) {
                if !dry {
                    self.record(record, &there).await?;
                }
                return Ok(Outcome::Moved(Vec::new()));
            }
        }
        Ok(Outcome::Unchanged)
    }

    /// Writes the record of an object, which goes with it.
    async fn record(&self, record: &Piece, owner: &Value) -> Result<(), Error> {
        let mut object = record.object.clone();
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": owner["apiVersion"], "kind": owner["kind"],
            "name": meta::name(owner), "uid": meta::uid(owner),
        }]);
        match self.cluster.create_served(&record.collection, &object, SERVED).await {
            Err(error) if error.code != 409 => return Err(error),
            _ => {}
        }
        let status = json!({"status": record.object["status"]});
        self.cluster.merge(&format!("{}/status", record.path()), &status).await.map(drop)
    }

    fn core(&self, plural: &str) -> String {
        plane::core(&self.namespace, plural)
    }

    async fn configs(&self) -> anyhow::Result<Vec<Value>> {
        let path = self.core("federatedtypeconfigs");
        self.cluster.list(&path).await.context("the FederatedTypeConfigs of the federation")
    }

    /// Whether an earlier run has not come to its end.
    pub(super) async fn is_paused(&self) -> anyhow::Result<bool> {
        let configs = match self.configs().await {
            // A dry run may come before everything.
            Err(error) if error.downcast_ref::<Error>().is_some_and(|e| e.code == 404) => {
                Vec::new()
            }
            configs => configs?,
        };
        Ok(configs.iter().any(|config| meta::annotation(config, PAUSED).is_some()))
    }

    /// Ends the propagation of all types for a while; returns when it has ended.
    pub(super) async fn pause(&self, runs: bool) -> anyhow::Result<()> {
        for config in self.configs().await? {
            if meta::annotation(&config, PAUSED).is_none() {
                let mark = json!({PAUSED: config["spec"]["propagation"]});
                let patch =
                    json!({"metadata": {"annotations": mark}, "spec": {"propagation": "Disabled"}});
                self.change(&config, &patch).await?;
            }
        }
        if !runs {
            return Ok(());
        }
        self.until("the propagation of each type has ended", async || {
            Ok(self.configs().await?.iter().all(|config| is_told(config, "NotRunning")))
        })
        .await
    }

    /// Has all types propagated as they are to be. Where namespaces are has to be known before.
    pub(super) async fn resume(&self, runs: bool) -> anyhow::Result<()> {
        if runs {
            self.until("the controllers have probed each cluster", async || {
                let clusters = self.cluster.list(&self.core("kubefedclusters")).await?;
                let is_known = |cluster: &Value| cluster["status"]["conditions"].is_array();
                Ok(clusters.iter().all(is_known))
            })
            .await?;
        }
        let mut configs = self.configs().await?;
        configs.sort_by_key(|config| meta::name(config) != NAMESPACES);
        for config in configs {
            let Some(propagation) = meta::annotation(&config, PAUSED) else { continue };
            let patch = json!({
                "metadata": {"annotations": {PAUSED: null}}, "spec": {"propagation": propagation},
            });
            self.change(&config, &patch).await?;
            if meta::name(&config) == NAMESPACES && runs && propagation == "Enabled" {
                self.until("the FederatedNamespaces are followed", async || {
                    self.namespaces_are_followed(&config).await
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn namespaces_are_followed(&self, config: &Value) -> anyhow::Result<bool> {
        let config = FederatedTypeConfig::from_value(config).map_err(anyhow::Error::msg)?;
        let kind = &config.federated;
        let path = format!("/apis/{}/{}", kind.api_version(), kind.plural_name);
        let mut pages = self.cluster.pages(&path);
        while let Some(page) = pages.next().await? {
            let is_seen =
                |object: &Value| object["status"]["observedGeneration"] == meta::generation(object);
            if !page.iter().all(is_seen) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn change(&self, config: &Value, patch: &Value) -> anyhow::Result<()> {
        let path = format!("{}/{}", self.core("federatedtypeconfigs"), meta::name(config));
        let changed = self.cluster.merge(&path, patch).await;
        changed.map(drop).with_context(|| format!("FederatedTypeConfig {}", meta::name(config)))
    }

    async fn until(
        &self,
        what: &str,
        mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + WAIT;
        while !is_so().await? {
            if Instant::now() >= deadline {
                bail!(
                    "after {WAIT:?} it is not so yet that {what}: see what kubefed check says of the federation, then run this again; no type is propagated until then"
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Whether the controllers have told this of the config as it is.
fn is_told(config: &Value, state: &str) -> bool {
    let status = &config["status"];
    status["observedGeneration"] == meta::generation(config)
        && status["propagationController"] == state
}

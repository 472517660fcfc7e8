//! The control plane that is left: only read.

use std::collections::BTreeSet;

use anyhow::{Context as _, anyhow};
use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_api::{kubefedconfig, propagatedversion};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::piece::{self, Item, Piece};
use super::{AT_A_TIME, leader};
use crate::rest::{Cluster, Error};
use crate::{plane, say};

const CORE: &str = "core.kubefed.io/v1beta1";
const RECORDS: &str = "core.kubefed.io/v1alpha1";
const SCHEDULING: &str = "scheduling.kubefed.io/v1alpha1";

/// Something that the old control plane has.
pub(super) enum Found {
    Item(Item),
    /// The title of one that is being deleted.
    Going(String),
}

pub(super) struct Old {
    pub(super) cluster: Cluster,
    context: String,
    namespace: String,
}

impl Old {
    pub(super) fn new(cluster: Cluster, context: String, namespace: &str) -> Self {
        Old { cluster, context, namespace: namespace.to_owned() }
    }

    /// Who still works there, and what to do about that.
    pub(super) async fn still_leads(&self) -> Result<Option<String>, Error> {
        let (context, namespace) = (&self.context, &self.namespace);
        let leader = leader::leader(&self.cluster, namespace).await?;
        Ok(leader.map(|leader| {
            format!(
                "controller manager {leader} leads in {context}, and two would undo each other's work in the members: stop it (kubectl --context {context} -n {namespace} scale deployment kubefed-controller-manager --replicas=0)"
            )
        }))
    }

    /// What is left to do there.
    pub(super) fn say_farewell(&self) {
        let context = &self.context;
        say(&format!(
            "the controller manager in {context} has to stay stopped: what it deletes, it deletes in the members"
        ));
        say(&format!(
            "to take the objects there away without touching a member, take the finalizer off each, then delete it: kubectl --context {context} patch KIND NAME --type=merge -p '{{\"metadata\":{{\"annotations\":{{\"kubefed.io/orphan\":\"true\"}},\"finalizers\":null}}}}'"
        ));
    }

    /// Hands over all that there is, what others hang on before them.
    pub(super) async fn walk(
        &self,
        mut each: impl AsyncFnMut(Found) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let namespace = &self.namespace;
        let core = |plural: &str| plane::core(namespace, plural);
        let mut namespaces = BTreeSet::from([namespace.clone()]);
        each(of_namespace(namespace)).await?;
        let config = format!("{}/{}", core("kubefedconfigs"), kubefedconfig::NAME);
        if let Some(config) = self.cluster.find(&config).await.context("the old control plane")? {
            each(found(&core("kubefedconfigs"), (CORE, "KubeFedConfig"), config)).await?;
        }
        let listed = self.cluster.list(&core("federatedtypeconfigs")).await;
        let mut configs = listed.with_context(|| {
            format!(
                "{} has no FederatedTypeConfigs in namespace {namespace} (--kubefed-namespace)",
                self.context
            )
        })?;
        for config in &configs {
            let kind = (CORE, "FederatedTypeConfig");
            each(found(&core("federatedtypeconfigs"), kind, config.clone())).await?;
        }
        let clusters = self.cluster.list(&core("kubefedclusters")).await;
        for cluster in clusters.context("the old control plane")? {
            if let Some(secret) = self.secret(&cluster).await.context("the old control plane")? {
                each(secret).await?;
            }
            each(found(&core("kubefedclusters"), (CORE, "KubeFedCluster"), cluster)).await?;
        }
        configs.retain(|config| meta::deletion_timestamp(config).is_none());
        for config in configs {
            let config = FederatedTypeConfig::from_value(&config)
                .map_err(|why| anyhow!("FederatedTypeConfig {}: {why}", meta::name(&config)))?;
            self.objects(&config, &mut namespaces, &mut each)
                .await
                .with_context(|| format!("{} of the old control plane", config.federated.kind))?;
        }
        let plural = "replicaschedulingpreferences";
        let mut pages = self.cluster.pages(&format!("/apis/{SCHEDULING}/{plural}"));
        while let Some(page) = pages.next().await.context(plural)? {
            for preference in page {
                let at = meta::namespace(&preference).to_owned();
                if namespaces.insert(at.clone()) {
                    each(of_namespace(&at)).await?;
                }
                let collection = format!("/apis/{SCHEDULING}/namespaces/{at}/{plural}");
                let kind = (SCHEDULING, "ReplicaSchedulingPreference");
                each(found(&collection, kind, preference)).await?;
            }
        }
        Ok(())
    }

    /// The federated objects of one kind with their records, a page at a time.
    async fn objects(
        &self,
        config: &FederatedTypeConfig,
        namespaces: &mut BTreeSet<String>,
        each: &mut impl AsyncFnMut(Found) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let federated = &config.federated;
        let (api_version, plural) = (federated.api_version(), &federated.plural_name);
        let mut pages = self.cluster.pages(&format!("/apis/{api_version}/{plural}"));
        while let Some(page) = pages.next().await? {
            for objects in page.chunks(AT_A_TIME) {
                let records = self.records(config, objects).await?;
                for (object, record) in objects.iter().zip(records) {
                    let at = meta::namespace(object).to_owned();
                    if !at.is_empty() && namespaces.insert(at.clone()) {
                        each(of_namespace(&at)).await?;
                    }
                    let collection = collection(&api_version, &at, plural);
                    let kind = (api_version.as_str(), federated.kind.as_str());
                    let mut found = found(&collection, kind, object.clone());
                    if let Found::Item(item) = &mut found {
                        item.record = record;
                    }
                    each(found).await?;
                }
            }
        }
        Ok(())
    }

    /// For each object what KubeFed remembers of the members that have it.
    async fn records(
        &self,
        config: &FederatedTypeConfig,
        objects: &[Value],
    ) -> Result<Vec<Option<Piece>>, Error> {
        let (kind, plural) = match config.federated_is_namespaced() {
            true => ("PropagatedVersion", "propagatedversions"),
            false => ("ClusterPropagatedVersion", "clusterpropagatedversions"),
        };
        let mut asked = JoinSet::new();
        for (at, object) in objects.iter().enumerate() {
            let cluster = self.cluster.clone();
            let collection = collection(RECORDS, meta::namespace(object), plural);
            let name = propagatedversion::name(&config.target.kind, meta::name(object));
            asked.spawn(async move {
                let found = cluster.find(&format!("{collection}/{name}")).await?;
                let found = found.filter(|record| record["status"].is_object());
                let piece = found.map(|mut record| {
                    let status = record["status"].take();
                    record["apiVersion"] = json!(RECORDS);
                    record["kind"] = json!(kind);
                    let mut piece = Piece::new(&collection, &record);
                    piece.object["status"] = status;
                    piece
                });
                Ok::<_, Error>((at, piece))
            });
        }
        let mut records = asked.join_all().await.into_iter().collect::<Result<Vec<_>, Error>>()?;
        records.sort_by_key(|(at, _)| *at);
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    /// The token of a cluster, without what ties it to the old control plane.
    async fn secret(&self, cluster: &Value) -> Result<Option<Found>, Error> {
        let collection = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        let name = cluster["spec"]["secretRef"]["name"].as_str().unwrap_or("");
        let Some(secret) = self.cluster.find(&format!("{collection}/{name}")).await? else {
            return Ok(None);
        };
        let object = json!({
            "metadata": {"name": name, "namespace": self.namespace},
            "type": "Opaque", "data": secret["data"],
        });
        Ok(Some(found(&collection, ("v1", "Secret"), object)))
    }
}

/// What a list has left out is said again.
fn found(collection: &str, (api_version, kind): (&str, &str), mut object: Value) -> Found {
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    match meta::deletion_timestamp(&object) {
        Some(_) => Found::Going(piece::title(&object)),
        None => Found::Item(Item::of(Piece::new(collection, &object))),
    }
}

fn of_namespace(name: &str) -> Found {
    let object = json!({"metadata": {"name": name}});
    found("/api/v1/namespaces", ("v1", "Namespace"), object)
}

fn collection(api_version: &str, namespace: &str, plural: &str) -> String {
    match namespace {
        "" => format!("/apis/{api_version}/{plural}"),
        namespace => format!("/apis/{api_version}/namespaces/{namespace}/{plural}"),
    }
}

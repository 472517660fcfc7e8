//! The records of what each member has: what this process writes, one that comes after it begins with.

use jiff::Timestamp;
use kubefed_api::propagatedversion::{self, Versions};
use kubefed_apimachinery::{meta, time};
use serde_json::{Value, json};

use super::{IMPATIENCE, Sync, Work};
use crate::cache::Key;
use crate::client::{Error, JSON};
use crate::control::path;

const GROUP_VERSION: &str = "core.kubefed.io/v1alpha1";

impl Sync {
    /// The records of an earlier process: what they say need not be written again.
    pub(super) async fn load_records(&self) {
        let prefix = format!("{}-", self.config.target.kind.to_lowercase());
        loop {
            let mut found = Vec::new();
            let collection = self.records(self.control.within());
            let federation = &self.control.federation;
            let listed = federation.list(&collection, "", JSON, |record| found.push(record)).await;
            if let Err(error) = listed {
                tracing::warn!(%error, "the records cannot be read yet");
                tokio::time::sleep(IMPATIENCE).await;
                continue;
            }
            let mut work = self.work.lock();
            for record in found {
                let Some(name) = meta::name(&record).strip_prefix(&prefix) else { continue };
                let key = Key { namespace: meta::namespace(&record).into(), name: name.into() };
                let versions = Versions::of(&record);
                let owner = &record["metadata"]["ownerReferences"][0]["uid"];
                work.insert(
                    key,
                    Work {
                        owner: owner.as_str().unwrap_or("").to_owned(),
                        versions: versions.clone(),
                        recorded: Some(versions),
                        recorded_at: time::parse(
                            record["metadata"]["creationTimestamp"].as_str().unwrap_or(""),
                        ),
                        ..Work::default()
                    },
                );
            }
            return;
        }
    }

    /// Forgets which versions a cluster has by records from before this time: they may be about another one, so all that
    /// they tell of is written there once.
    pub(super) fn doubt_versions(&self, cluster: &str, believed_since: Timestamp) {
        let mut work = self.work.lock();
        let doubted = work.values_mut().filter(|work| is_doubted(work.recorded_at, believed_since));
        doubted.filter_map(|work| work.versions.clusters.get_mut(cluster)).for_each(String::clear);
    }

    /// Remembers the versions beyond this process, in the object that KubeFed's tools know.
    pub(super) async fn record(
        &self,
        key: &Key,
        object: &Value,
        versions: &Versions,
        known: bool,
    ) -> Result<(), Error> {
        let collection = self.records(&key.namespace);
        let name = propagatedversion::name(&self.config.target.kind, &key.name);
        let status = versions.to_status();
        let at = format!("{collection}/{name}/status");
        if known {
            match self.control.federation.merge(&at, &json!({"status": status})).await {
                Err(error) if error.is_not_found() => {}
                outcome => return outcome.map(drop),
            }
        }
        let (kind, _) = self.record_kind();
        let mut metadata = json!({"name": name, "ownerReferences": [owner(object)]});
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        let record = json!({"apiVersion": GROUP_VERSION, "kind": kind, "metadata": metadata});
        match self.control.federation.create(&collection, &record).await {
            // That of an object of the same name, with which it would go.
            Err(error) if error.is_conflict() => {
                let owners = json!({"metadata": {"ownerReferences": [owner(object)]}});
                self.control.federation.merge(&format!("{collection}/{name}"), &owners).await?;
            }
            created => drop(created?),
        }
        self.control.federation.merge(&at, &json!({"status": status})).await.map(drop)
    }

    /// Where the records of a namespace are; of an empty one: of all.
    fn records(&self, namespace: &str) -> String {
        let (_, plural) = self.record_kind();
        path(GROUP_VERSION, namespace, plural)
    }

    /// The kind of the records, and its plural.
    fn record_kind(&self) -> (&'static str, &'static str) {
        if self.config.federated_is_namespaced() {
            ("PropagatedVersion", "propagatedversions")
        } else {
            ("ClusterPropagatedVersion", "clusterpropagatedversions")
        }
    }
}

/// The reference by which an object goes when the federated object `owner` has gone.
pub(super) fn owner(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": meta::name(owner), "uid": meta::uid(owner),
    })
}

/// Whether a record tells of another cluster, where those are believed that were made since. What this process has recorded
/// (`None`) it has recorded of the cluster that was there until now.
fn is_doubted(recorded_at: Option<Timestamp>, believed_since: Timestamp) -> bool {
    believed_since > Timestamp::MIN && recorded_at.is_none_or(|at| at < believed_since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_older_than_a_cluster_are_not_about_it() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (all, none) = (Timestamp::MIN, Timestamp::MAX);
        for (name, recorded_at, since, doubted) in [
            ("older", Some(at(4)), at(5), true),
            ("brought along", Some(at(5)), at(5), false),
            ("younger", Some(at(6)), at(5), false),
            ("of this process, before the cluster was joined", None, at(5), true),
            ("of this process, about the same cluster", None, all, false),
            ("about the same cluster", Some(at(4)), all, false),
            ("about another", Some(at(6)), none, true),
        ] {
            assert_eq!(is_doubted(recorded_at, since), doubted, "{name}");
        }
    }
}

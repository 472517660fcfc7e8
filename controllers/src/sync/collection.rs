//! The status of the members' objects: in the federated object, or as KubeFed did it first, for Services alone, in a
//! FederatedServiceStatus beside it.

use std::collections::BTreeMap;

use kubefed_api::federatedtypeconfig::{ApiResource, FederatedTypeConfig};
use kubefed_api::status::ClusterStatus;
use serde_json::{Value, json};

use super::records::owner;
use super::{Settings, Sync};
use crate::cache::Key;
use crate::client::Error;
use crate::control::path;

/// Where the members' status is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Collection {
    #[default]
    Nowhere,
    InObject,
    Apart(ApiResource),
}

/// Whether the members' status of a type is told in objects of another kind.
pub(crate) fn is_apart(config: &FederatedTypeConfig, settings: Settings) -> bool {
    matches!(Collection::of(config, settings), Collection::Apart(_))
}

impl Collection {
    pub(super) fn of(config: &FederatedTypeConfig, settings: Settings) -> Self {
        match config.status_apart() {
            _ if config.status_collection && settings.collects_status => Collection::InObject,
            Some(kind) => Collection::Apart(kind.clone()),
            None => Collection::Nowhere,
        }
    }
}

impl Sync {
    /// Tells the members' status apart if that is where it belongs, and takes it out of what is told in the object.
    pub(super) async fn tell_apart(
        &self,
        key: &Key,
        object: &Value,
        clusters: &mut BTreeMap<String, ClusterStatus>,
    ) -> Result<(), Error> {
        let Collection::Apart(kind) = &self.collection else { return Ok(()) };
        let told = statuses(clusters);
        let known = self.work.lock().get(key).and_then(|work| work.told_apart.clone());
        if known.as_ref() == Some(&told) {
            return Ok(());
        }
        let collection = path(&kind.api_version(), &key.namespace, &kind.plural_name);
        let fields = json!({
            "metadata": {"ownerReferences": [owner(object)]},
            "clusterStatus": told,
        });
        match self.control.federation.merge(&format!("{collection}/{}", key.name), &fields).await {
            Err(error) if error.is_not_found() => {
                let mut new = fields;
                new["apiVersion"] = json!(kind.api_version());
                new["kind"] = json!(kind.kind);
                new["metadata"]["name"] = json!(key.name);
                self.control.federation.create(&collection, &new).await?;
            }
            written => drop(written?),
        }
        if let Some(work) = self.work.lock().get_mut(key) {
            work.told_apart = Some(told);
        }
        Ok(())
    }
}

/// The status in each member that has one, taken out of what is known of the members.
fn statuses(clusters: &mut BTreeMap<String, ClusterStatus>) -> Value {
    let of_one = |(name, cluster): (&String, &mut ClusterStatus)| {
        let status = cluster.remote.take()?;
        Some(json!({"clusterName": name, "status": status}))
    };
    clusters.iter_mut().filter_map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_moves_the_status_of_services_into_the_object() {
        let apart = |name: &str, collects: bool, gate: bool, kind: Option<ApiResource>| {
            let config = FederatedTypeConfig {
                name: name.into(),
                status_collection: collects,
                status: kind,
                ..FederatedTypeConfig::default()
            };
            let gate = json!([{"name": "RawResourceStatusCollection", "configuration": if gate { "Enabled" } else { "Disabled" }}]);
            Collection::of(&config, Settings::of(&json!({"spec": {"featureGates": gate}})))
        };
        let kind = || {
            Some(ApiResource { kind: "FederatedServiceStatus".into(), ..ApiResource::default() })
        };
        for (made, wanted) in [
            (apart("services", true, false, kind()), Collection::Apart(kind().unwrap())),
            (apart("services", true, true, kind()), Collection::InObject),
            (apart("services", true, false, None), Collection::Nowhere),
            (apart("services", false, false, kind()), Collection::Nowhere),
            (apart("services", false, true, kind()), Collection::Nowhere),
            (apart("ingresses", true, false, kind()), Collection::Nowhere),
            (apart("ingresses", true, true, None), Collection::InObject),
        ] {
            assert_eq!(made, wanted);
        }
    }

    #[test]
    fn members_that_tell_no_status_are_left_out() {
        let told = |remote: Option<Value>| ClusterStatus { remote, ..ClusterStatus::default() };
        let mut clusters = BTreeMap::from([
            ("b".to_owned(), told(Some(json!({"loadBalancer": {}})))),
            ("a".to_owned(), told(Some(json!({})))),
            ("c".to_owned(), told(None)),
        ]);
        let wanted = json!([
            {"clusterName": "a", "status": {}}, {"clusterName": "b", "status": {"loadBalancer": {}}},
        ]);
        assert_eq!(statuses(&mut clusters), wanted);
        assert!(clusters.len() == 3 && clusters.values().all(|cluster| cluster.remote.is_none()));
    }
}

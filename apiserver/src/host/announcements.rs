//! Tells the host when the kinds change that we serve. Its aggregator looks at once when an APIService changes, and
//! else once a minute: until then kubectl would not find a new federated kind through the host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, Patch, PatchParams};
use kubefed_apimachinery::gvk::GroupVersion;
use serde_json::json;

use crate::registry::{Catalog, Registry};

/// What we serve of its group and version, as a digest: servers that serve the same write it once.
const ANNOTATION: &str = "kubefed.io/served-kinds";
/// The pause after the host could not be told.
const PAUSE: Duration = Duration::from_secs(5);

/// Tells the host now and at each change.
pub(super) async fn follow(host: kube::Client, registry: Arc<Registry>) {
    let services: Api<APIService> = Api::all(host);
    let mut changes = registry.changes();
    let mut told = BTreeMap::new();
    let mut warned = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        let served = digests(&registry.catalog());
        let mut missed = false;
        for (group_version, digest) in &served {
            if told.get(group_version) == Some(digest) {
                continue;
            }
            match tell(&services, group_version, digest).await {
                Ok(()) => {
                    told.insert(group_version.clone(), digest.clone());
                    warned.remove(group_version);
                }
                Err(error) => {
                    // Who reaches us past the host needs none of this; who does not must be told, but once.
                    if warned.insert(group_version.clone()) {
                        tracing::warn!(%group_version, %error, "the host cannot be told of new kinds, and may not lead there at all; kubefed enable makes the APIService and the right for the kind of a FederatedTypeConfig");
                    }
                    missed = true;
                }
            }
        }
        let changed = async { changes.changed().await.is_ok() };
        let goes_on = if missed {
            tokio::time::timeout(PAUSE, changed).await.unwrap_or(true)
        } else {
            changed.await
        };
        if !goes_on {
            return;
        }
    }
}

/// A group that the host does not lead to us needs no word.
async fn tell(
    services: &Api<APIService>,
    group_version: &GroupVersion,
    digest: &str,
) -> kube::Result<()> {
    let name = format!("{}.{}", group_version.version, group_version.group);
    let patch = json!({"metadata": {"annotations": {ANNOTATION: digest}}});
    match services.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn digests(catalog: &Catalog) -> BTreeMap<GroupVersion, String> {
    let digest = |group_version: &GroupVersion| catalog.discovery().digest(group_version);
    catalog
        .group_versions()
        .map(|(group_version, _)| (group_version.clone(), digest(group_version)))
        .collect()
}

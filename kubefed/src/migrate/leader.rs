//! Whether a controller manager leads in a control plane: KubeFed's keeps its lock in a ConfigMap or Endpoints, ours in
//! a Lease.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::rest::{Cluster, Error};

const NAME: &str = "kubefed-controller-manager";
const ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
const LOOK: Duration = Duration::from_millis(250);
/// Nobody waits longer than this for a leader that does not renew.
const MOST: Duration = Duration::from_secs(60);

/// What the lock of a leader says.
#[derive(Clone, Debug, PartialEq)]
struct Lock {
    holder: String,
    renewed: String,
    lasts: Duration,
}

/// Who leads. He renews his lock as long as he does; the clock of another machine is not believed.
pub(super) async fn leader(cluster: &Cluster, namespace: &str) -> Result<Option<String>, Error> {
    let first = locks(cluster, namespace).await?;
    let lasts = first.iter().map(|lock| lock.lasts).max().unwrap_or_default().min(MOST);
    let deadline = Instant::now() + lasts;
    while !first.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        let now = locks(cluster, namespace).await?;
        if let Some(renewed) = now.into_iter().find(|lock| !first.contains(lock)) {
            return Ok(Some(renewed.holder));
        }
    }
    Ok(None)
}

async fn locks(cluster: &Cluster, namespace: &str) -> Result<Vec<Lock>, Error> {
    let mut locks = Vec::new();
    for collection in [
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
        format!("/api/v1/namespaces/{namespace}/configmaps"),
        format!("/api/v1/namespaces/{namespace}/endpoints"),
    ] {
        let found = cluster.find(&format!("{collection}/{NAME}")).await?;
        locks.extend(found.and_then(|found| lock(&found)));
    }
    Ok(locks)
}

/// The lock that an object is, if somebody holds it.
fn lock(object: &Value) -> Option<Lock> {
    let annotation = object["metadata"]["annotations"][ANNOTATION].as_str();
    let said = match annotation {
        Some(text) => serde_json::from_str(text).ok()?,
        None => object["spec"].clone(),
    };
    let holder = said["holderIdentity"].as_str().filter(|holder| !holder.is_empty())?;
    let renewed = said["renewTime"].as_str()?;
    let seconds = said["leaseDurationSeconds"].as_u64().unwrap_or(15);
    let lasts = Duration::from_secs(seconds);
    Some(Lock { holder: holder.to_owned(), renewed: renewed.to_owned(), lasts })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lock_is_read_wherever_it_is_kept() {
        let said = json!({"holderIdentity": "a_1", "leaseDurationSeconds": 20, "renewTime": "2026-01-01T00:00:00Z"});
        let wanted = Lock {
            holder: "a_1".into(),
            renewed: "2026-01-01T00:00:00Z".into(),
            lasts: Duration::from_secs(20),
        };
        let map = json!({"metadata": {"annotations": {ANNOTATION: said.to_string()}}});
        assert_eq!(lock(&map), Some(wanted.clone()));
        assert_eq!(lock(&json!({"spec": said})), Some(wanted));
        let mut released = said;
        released["holderIdentity"] = json!("");
        for none in [
            json!({}),
            json!({"spec": released}),
            json!({"metadata": {"annotations": {ANNOTATION: "?"}}}),
        ] {
            assert_eq!(lock(&none), None, "{none}");
        }
    }
}

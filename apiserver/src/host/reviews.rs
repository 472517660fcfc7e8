//! Questions that a host answers by a `status`: TokenReview, SubjectAccessReview.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Api, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// As Kubernetes: an answer is good for 10 s, whichever it is, and is waited for as long.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(10);

/// The review with the host's answer.
///
/// # Errors
/// Why there is none: nothing follows from that.
pub(crate) async fn ask<K>(host: &Api<K>, review: &K) -> Result<K, String>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let params = PostParams::default();
    tokio::time::timeout(TIMEOUT, host.create(&params, review))
        .await
        .map_err(|_| format!("no answer in {TIMEOUT:?}"))?
        .map_err(|error| error.to_string())
}

//! A small stand-in for a member cluster: the federation's own API server with Kubernetes' kinds, and controllers that
//! do what a cluster without trouble would do. No node runs anything; a replica is ready as soon as it is wanted.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use kubefed_apimachinery::status::Status;
use kubefed_apiserver::loopback::Loopback;
use kubefed_apiserver::server::{Config, Server};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

mod accounts;
mod statuses;
mod workloads;

/// The version that a local member tells: the one whose kinds it has.
pub const VERSION: &str = "v1.37.0";

const MANAGER: &str = "kube-controller-manager";

/// Starts a cluster. `ca_file` is the PEM that its pods would trust.
///
/// # Errors
/// If the server can't start.
pub async fn start(
    config: Config,
    ca_file: &Path,
    token: CancellationToken,
) -> anyhow::Result<Arc<Server>> {
    let ca = std::fs::read(ca_file)?;
    let server = Server::start(config, token).await?;
    let loopback = Loopback::new(&server, MANAGER);
    let kinds: BTreeSet<_> = statuses::ROWS.iter().map(|row| (row.group, row.plural)).collect();
    for (group, plural) in kinds {
        let loopback = loopback.clone();
        server.tracker.spawn(async move {
            loopback
                .follow(group, plural, |object, gone| {
                    let loopback = &loopback;
                    async move {
                        if !gone && object.index.deletion_timestamp.is_none() {
                            let done = match object.value() {
                                Ok(value) => {
                                    workloads::reconcile(loopback, group, plural, &value).await
                                }
                                Err(error) => Err(Status::internal(error)),
                            };
                            tell(plural, done);
                        }
                    }
                })
                .await;
        });
    }
    server.tracker.spawn(workloads::follow_nodes(loopback.clone()));
    server.tracker.spawn(accounts::follow_namespaces(loopback.clone()));
    server.tracker.spawn(accounts::follow_secrets(loopback, ca));
    Ok(server)
}

/// What a controller could not do; the next change of the object is another try.
fn tell(what: &str, outcome: Result<(), Status>) {
    if let Err(status) = outcome
        && !status.is_not_found()
    {
        tracing::warn!(what, %status, "not done");
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("")
}

//! What is checked of a request beyond the object itself.

use kubefed_apimachinery::status::{Cause, Status};
use kubefed_storage::cacher::At;

use crate::registry::Route;
use crate::server::Server;

/// Refuses to create in a namespace that is missing (404) or being deleted (403), as Kubernetes' `NamespaceLifecycle`.
pub(crate) async fn namespace_is_open(
    server: &Server,
    route: &Route,
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    let Some(namespaces) = server.registry.resource("", "namespaces") else {
        return Ok(());
    };
    // The cached one is tried first: one that is there and open needs no question to the store.
    let object = match namespaces.get("", namespace, At::Any).await {
        Ok(object) => object,
        Err(status) if status.is_not_found() => namespaces.get("", namespace, At::Latest).await?,
        Err(status) => return Err(status),
    };
    if object.index.deletion_timestamp.is_none() {
        return Ok(());
    }
    let text = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut status = Status::forbidden(&route.group_resource(), name, &text);
    status.details.get_or_insert_default().causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    Err(status)
}

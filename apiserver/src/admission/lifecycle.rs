//! Objects are created only in namespaces that are there and stay, as Kubernetes' `NamespaceLifecycle` has it.

use kubefed_apimachinery::gvk::GroupResource;
use kubefed_apimachinery::status::{Cause, Status};
use kubefed_storage::cacher::At;

use crate::host::Phase;
use crate::registry::Route;
use crate::server::Server;

/// Refuses to create in a namespace that is missing (404) or being deleted (403), as Kubernetes' `NamespaceLifecycle`.
pub(crate) async fn namespace_is_open(
    server: &Server,
    route: &Route,
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    let phase = match &server.host {
        Some(host) => host.namespace(namespace).await?,
        None => own_phase(server, namespace).await?,
    };
    let text = match phase {
        Phase::Active => return Ok(()),
        Phase::Missing => return Err(Status::not_found(&namespaces(), namespace)),
        Phase::Terminating => format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        ),
    };
    let mut status = Status::forbidden(&route.group_resource(), name, &text);
    status.details.get_or_insert_default().causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    Err(status)
}

fn namespaces() -> GroupResource {
    GroupResource { group: String::new(), resource: "namespaces".into() }
}

/// How a namespace is that this server has itself.
async fn own_phase(server: &Server, namespace: &str) -> Result<Phase, Status> {
    let Some(namespaces) = server.registry.resource("", "namespaces") else {
        return Ok(Phase::Active);
    };
    // The cached one is tried first: one that is there and open needs no question to the store.
    let object = match namespaces.get("", namespace, At::Any).await {
        Ok(object) => object,
        Err(status) if status.is_not_found() => {
            match namespaces.get("", namespace, At::Latest).await {
                Err(status) if status.is_not_found() => return Ok(Phase::Missing),
                outcome => outcome?,
            }
        }
        Err(status) => return Err(status),
    };
    Ok(match object.index.deletion_timestamp {
        None => Phase::Active,
        Some(_) => Phase::Terminating,
    })
}

//! What is checked of a request beyond the object itself.

use kubefed_apimachinery::gvk::GroupResource;
use kubefed_apimachinery::status::{Cause, Status};
use kubefed_storage::cacher::At;
use serde_json::Value;

use crate::authz::escalation::{self, Change};
use crate::authz::rbac;
use crate::handlers::Call;
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

/// Refuses roles and bindings that give more than the writer has. `live` is the object that `new` takes the place of.
pub(crate) fn grants_what_is_held(
    call: &Call<'_>,
    route: &Route,
    live: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    if route.resource.definition.group != rbac::GROUP {
        return Ok(());
    }
    let change = Change {
        resource: &route.resource.definition.plural,
        kind: &route.resource.definition.kind,
        namespace: &call.info.namespace,
        live,
        new,
    };
    escalation::check(&call.server.rbac.index(), call.user, &change)
}

/// Waits a little for the role that a new binding names to reach the index: clients create both in one go.
pub(crate) async fn role_is_known(call: &Call<'_>, route: &Route, binding: &Value) {
    let role = &binding["roleRef"];
    if route.resource.definition.group != rbac::GROUP || !role.is_object() {
        return;
    }
    let plural = if role["kind"] == "Role" { "roles" } else { "clusterroles" };
    let namespace = if plural == "roles" { call.info.namespace.as_str() } else { "" };
    let (server, name) = (call.server, role["name"].as_str().unwrap_or(""));
    let Some(roles) = server.registry.resource(rbac::GROUP, plural) else { return };
    // Only for what is there: nobody waits for a role that is not.
    if server.rbac.index().role(namespace, name).is_none()
        && roles.get(namespace, name, At::Latest).await.is_ok()
    {
        server.rbac.until(|index| index.role(namespace, name).is_some()).await;
    }
}

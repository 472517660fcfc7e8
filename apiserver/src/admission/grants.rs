//! Nobody gives rights that they do not have.

use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::At;
use serde_json::Value;

use crate::authz::escalation::{self, Change};
use crate::authz::rbac;
use crate::handlers::Call;
use crate::registry::Route;

/// Refuses roles and bindings that give more than the writer has. `live` is the object that `new` takes the place of.
pub(crate) fn are_held(
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

//! The controllers: configured, and led by one.

use jiff::Timestamp;
use kubefed_api::kubefedconfig;
use kubefed_apimachinery::time;
use serde_json::Value;

use super::Finding;
use crate::join;
use crate::rest::Error;

/// `lease`: that of the controllers, who say by it which scope holds.
pub(super) fn config(
    found: Result<Option<Value>, Error>,
    namespace: &str,
    lease: Option<&Value>,
) -> Finding {
    const CHECK: &str = "kubefedconfig";
    let told = lease.and_then(join::told_scope);
    match found {
        Ok(Some(config)) if scope(&config) == "Namespaced" && told == Some("Cluster") => {
            let text = "scope Namespaced, but the controllers serve all namespaces, in which they have rights";
            Finding::ok(CHECK, format!("{namespace}/kubefed, {text}"))
        }
        Ok(Some(config)) => {
            Finding::ok(CHECK, format!("{namespace}/kubefed, scope {}", scope(&config)))
        }
        Ok(None) => {
            let scope = scope(&kubefedconfig::default_config(namespace)).to_owned();
            Finding::ok(CHECK, format!("{namespace} has none: the defaults hold, scope {scope}"))
        }
        Err(error) => Finding::fail(CHECK, error.to_string(), "see whether you may read it"),
    }
}

fn scope(config: &Value) -> &str {
    config["spec"]["scope"].as_str().unwrap_or("unknown")
}

pub(super) fn leader(found: Result<Option<Value>, Error>, now: Timestamp) -> Finding {
    const CHECK: &str = "leader";
    const REMEDY: &str = "see whether kubefed-controller-manager runs, and its log";
    let lease = match found {
        Ok(Some(lease)) => lease,
        Ok(None) => {
            return Finding::fail(
                CHECK,
                "no controller manager has ever led here",
                "name the namespace of the control plane by --kubefed-namespace, or see whether kubefed-controller-manager runs",
            );
        }
        Err(error) => {
            return Finding::fail(CHECK, error.to_string(), "see whether you may read leases");
        }
    };
    let spec = &lease["spec"];
    let holder = spec["holderIdentity"].as_str().unwrap_or("");
    let seconds = spec["leaseDurationSeconds"].as_i64().unwrap_or(0);
    let age = spec["renewTime"]
        .as_str()
        .and_then(time::parse)
        .map(|renewed| now.as_second() - renewed.as_second());
    match age {
        _ if holder.is_empty() => Finding::fail(CHECK, "no controller manager leads", REMEDY),
        Some(age) if age <= seconds => {
            Finding::ok(CHECK, format!("{holder} renewed its lease {} s ago", age.max(0)))
        }
        Some(age) => {
            Finding::fail(CHECK, format!("{holder} last renewed its lease {age} s ago"), REMEDY)
        }
        None => Finding::fail(CHECK, format!("{holder} never renewed its lease"), REMEDY),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_scope_that_limits_nothing_is_told() {
        let config = |scope: &str| Ok(Some(json!({"spec": {"scope": scope}})));
        let lease = |scope: &str| json!({"metadata": {"annotations": {"kubefed.io/scope": scope}}});
        for (scope, told, all) in [
            ("Namespaced", Some(lease("Cluster")), true),
            ("Namespaced", Some(lease("Namespaced")), false),
            ("Namespaced", None, false),
            ("Cluster", Some(lease("Cluster")), false),
        ] {
            let message = super::config(config(scope), "here", told.as_ref()).message;
            assert_eq!(message.contains("serve all namespaces"), all, "{told:?}: {message}");
        }
    }

    #[test]
    fn a_leader_is_one_that_renews() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let lease = |holder: &str, renewed: &str| {
            Some(
                json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}}),
            )
        };
        for (lease, outcome) in [
            (None, Outcome::Fail),
            (lease("a", "2026-01-01T00:00:50.000000Z"), Outcome::Ok),
            (lease("a", "2026-01-01T00:00:30.000000Z"), Outcome::Fail),
            (lease("", "2026-01-01T00:00:59.000000Z"), Outcome::Fail),
        ] {
            assert_eq!(leader(Ok(lease.clone()), now).outcome, outcome, "{lease:?}");
        }
    }
}

//! Whether the federation reaches every namespace, or only that of its control plane.
//!
//! It is limited where the KubeFedConfig says so *and* the controllers have rights in no other namespace. The config
//! alone limits nothing: it may come long after objects were placed, and controllers that took it up at their next start
//! would leave all of them as they are, without a word to those who wrote them.

use std::time::Duration;

use kubefed_api::kubefedconfig;
use serde_json::Value;

use crate::client::Client;

/// The pause after the federation could not be asked.
const RETRY: Duration = Duration::from_millis(500);
/// What no controller does without, whatever kinds are federated: the records of all namespaces. This is asked by
/// reading one; a review would have to be asked of another server where the federation extends a host.
const RECORDS: &str = "/apis/core.kubefed.io/v1alpha1/propagatedversions?limit=1";

/// Whether the controllers have rights in all namespaces; waits for the federation.
pub(crate) async fn reaches_all(federation: &Client) -> bool {
    loop {
        match federation.get(RECORDS).await {
            Ok(_) => return true,
            Err(error) if error.is_forbidden() => return false,
            Err(error) => tracing::warn!(%error, "the federation cannot be asked for rights yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether the federation is limited to the namespace of its control plane.
pub(crate) fn is_limited(config: &Value, reaches_all: bool) -> bool {
    kubefedconfig::is_namespaced(config) && !reaches_all
}

/// What is to be told of a config where it does not say what holds: a reason, and the same in words. `limited`: whether
/// the controllers that run are.
pub(crate) fn differs(
    config: &Value,
    reaches_all: bool,
    limited: bool,
) -> Option<(&'static str, String)> {
    let namespaced = kubefedconfig::is_namespaced(config);
    let [scope, other] =
        if namespaced { ["Namespaced", "Cluster"] } else { ["Cluster", "Namespaced"] };
    let (reason, text) = match (namespaced, reaches_all, limited) {
        (true, true, _) => (
            "ScopeNotLimited",
            "The scope is Namespaced, but the controllers have rights in all namespaces, so all are served: take those rights away and start the controller manager anew to limit them".to_owned(),
        ),
        (true, false, false) | (false, _, true) => (
            "RestartNeeded",
            format!(
                "The scope {scope} holds from the next start of the controller manager on; until then it is {other}"
            ),
        ),
        (false, false, false) => (
            "RightsMissing",
            "The scope is Cluster, but the controllers have no rights in all namespaces: give them those, or limit the scope to Namespaced".to_owned(),
        ),
        (true, false, true) | (false, true, false) => return None,
    };
    Some((reason, text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(scope: &str) -> Value {
        json!({"spec": {"scope": scope}})
    }

    #[test]
    fn a_scope_is_limited_by_the_config_and_the_rights_together() {
        for (scope, reaches_all, limited, told) in [
            ("Cluster", true, false, None),
            ("Cluster", false, false, Some("RightsMissing")),
            ("Namespaced", true, false, Some("ScopeNotLimited")),
            ("Namespaced", false, true, None),
        ] {
            let config = config(scope);
            assert_eq!(is_limited(&config, reaches_all), limited, "{scope}");
            let found = differs(&config, reaches_all, limited).map(|(reason, _)| reason);
            assert_eq!(found, told, "{scope}, rights in all namespaces: {reaches_all}");
        }
    }

    #[test]
    fn another_scope_waits_for_the_next_start_only_where_it_changes_something() {
        for (scope, reaches_all, limited, told, words) in [
            ("Namespaced", false, false, "RestartNeeded", "The scope Namespaced holds"),
            ("Cluster", false, true, "RestartNeeded", "The scope Cluster holds"),
            ("Namespaced", true, false, "ScopeNotLimited", "The scope is Namespaced"),
        ] {
            let (reason, text) = differs(&config(scope), reaches_all, limited).expect(scope);
            assert_eq!(reason, told, "{scope}");
            assert!(text.starts_with(words), "{text}");
        }
    }
}

//! The federated kinds: served, run, and whether their objects are where they belong.

use kubefed_api::federatedtypeconfig::FederatedTypeConfig;
use kubefed_apimachinery::meta;
use serde_json::Value;

use super::Finding;
use crate::rest::Error;

/// How many objects of a kind are told one by one.
const MOST: usize = 10;

/// How objects go that only a sync lets go.
const STUCK: &str = "set spec.propagation of the FederatedTypeConfig to Enabled; or take the finalizer kubefed.io/sync-controller from them: members keep then what they have";

pub(super) fn findings(
    config: &FederatedTypeConfig,
    object: &Value,
    objects: &Result<Vec<Value>, Error>,
) -> Vec<Finding> {
    let check = format!("type {}", config.name);
    let federated = &config.federated;
    let objects = match objects {
        Ok(objects) => objects,
        Err(error) if error.code == 404 => {
            let message =
                format!("{} in {} is not served", federated.plural_name, federated.api_version());
            return vec![Finding::fail(
                check,
                message,
                "see the log of kubefed-apiserver; on a host cluster, kubefed enable leads the host to a further group",
            )];
        }
        Err(error) => {
            return vec![Finding::fail(check, error.to_string(), "see whether you may list them")];
        }
    };
    if !config.propagation {
        let mut message =
            format!("propagation is disabled; {} objects are left as they are", objects.len());
        let going = objects.iter().filter(|object| meta::deletion_timestamp(object).is_some());
        return vec![match going.count() {
            0 => Finding::ok(check, message),
            count => {
                message += &format!("; {count} of them are to be deleted and wait for it");
                Finding::warn(check, message, STUCK)
            }
        }];
    }
    if object["status"]["propagationController"] != "Running" {
        let remedy = "see whether kubefed-controller-manager leads, and its log";
        return vec![Finding::fail(check, "its controller does not run", remedy)];
    }
    let troubled: Vec<Finding> =
        objects.iter().filter_map(|object| trouble(&federated.kind, object)).collect();
    if troubled.is_empty() {
        return vec![Finding::ok(
            check,
            format!("{} of {} objects are propagated", objects.len(), objects.len()),
        )];
    }
    let well = objects.len() - troubled.len();
    let rest = troubled.len().saturating_sub(MOST);
    let mut message = format!("{well} of {} objects are propagated", objects.len());
    if rest > 0 {
        message += &format!("; {rest} more than the {MOST} told here are not");
    }
    let mut findings = vec![Finding::warn(check, message, "see below")];
    findings.extend(troubled.into_iter().take(MOST));
    findings
}

/// What keeps an object from being propagated.
fn trouble(kind: &str, object: &Value) -> Option<Finding> {
    let check = format!("{kind} {}/{}", meta::namespace(object), meta::name(object));
    let check = check.replace(" /", " ");
    let status = &object["status"];
    let conditions = status["conditions"].as_array();
    let propagation =
        conditions.into_iter().flatten().find(|condition| condition["type"] == "Propagation");
    let Some(propagation) = propagation else {
        return Some(Finding::warn(
            check,
            "it was not looked at yet",
            "wait, then see the log of kubefed-controller-manager",
        ));
    };
    if propagation["status"] == "True" {
        let observed = status["observedGeneration"].as_i64();
        return observed.is_some_and(|observed| observed < meta::generation(object)).then(|| {
            Finding::warn(
                check,
                "its last change was not looked at yet",
                "wait, then see the log of kubefed-controller-manager",
            )
        });
    }
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("").to_owned();
    let reason = text(propagation, "reason");
    let clusters: Vec<(String, String, String)> = status["clusters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cluster| (text(cluster, "name"), text(cluster, "status"), text(cluster, "message")))
        .filter(|(_, state, _)| !state.is_empty())
        .collect();
    let mut message = [reason.as_str(), text(propagation, "message").as_str()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(": ");
    for (name, state, why) in &clusters {
        message += &format!("; {name}: {state}");
        if !why.is_empty() {
            message += &format!(" ({why})");
        }
    }
    let states: Vec<&str> = clusters.iter().map(|(_, state, _)| state.as_str()).collect();
    Some(Finding::fail(check, message, remedy(&reason, &states)))
}

fn remedy(reason: &str, states: &[&str]) -> String {
    let first = states
        .iter()
        .find(|state| **state != "ClusterNotReady")
        .or_else(|| states.first())
        .copied();
    match (reason, first) {
        ("NamespaceNotFederated", _) => "create a FederatedNamespace in its namespace",
        ("ComputePlacementFailed", _) => "correct spec.placement, or what the message names",
        ("UnknownClusters", _) => "correct spec.placement.clusters, or join the cluster",
        (_, Some("ClusterNotReady")) => "bring the cluster back, or take it from spec.placement",
        (_, Some("ApplyOverridesFailed")) => "correct spec.overrides",
        (_, Some("AlreadyExists")) => {
            "delete the object in the cluster, or let syncController.adoptResources be Enabled"
        }
        (_, Some("ManagedLabelFalse")) => {
            "take the label kubefed.io/managed=false from the object in the cluster"
        }
        (_, Some("WaitingForRemoval")) => "see which finalizer holds the object in the cluster",
        _ => "see the events of the object",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Outcome;
    use super::*;

    fn config() -> (FederatedTypeConfig, Value) {
        let mut config = kubefed_api::federatedtypeconfig::defaults().remove(2);
        config["status"] = json!({"propagationController": "Running"});
        (FederatedTypeConfig::from_value(&config).unwrap(), config)
    }

    fn object(status: Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "shop", "generation": 2}, "status": status})
    }

    #[test]
    fn objects_that_do_not_propagate_are_told_with_their_clusters() {
        let (parsed, config) = config();
        let failed = object(json!({
            "conditions": [{"type": "Propagation", "status": "False", "reason": "CheckClusters"}],
            "clusters": [{"name": "a"}, {"name": "b", "status": "CreationFailed", "message": "denied"}],
        }));
        let well = object(
            json!({"observedGeneration": 2, "conditions": [{"type": "Propagation", "status": "True"}]}),
        );
        let found = findings(&parsed, &config, &Ok(vec![failed, well]));
        assert_eq!(found[0].message, "1 of 2 objects are propagated");
        assert_eq!(found[1].check, "FederatedDeployment shop/web");
        assert_eq!(found[1].message, "CheckClusters; b: CreationFailed (denied)");
        assert_eq!(found[1].outcome, Outcome::Fail);
    }

    #[test]
    fn a_change_that_nobody_looked_at_is_a_warning() {
        let stale = object(
            json!({"observedGeneration": 1, "conditions": [{"type": "Propagation", "status": "True"}]}),
        );
        assert_eq!(trouble("K", &stale).unwrap().outcome, Outcome::Warn);
        assert_eq!(trouble("K", &object(Value::Null)).unwrap().outcome, Outcome::Warn);
    }

    #[test]
    fn a_type_that_is_not_served_or_not_run_fails() {
        let (parsed, mut config) = config();
        let missing = Error { code: 404, message: String::new() };
        assert_eq!(findings(&parsed, &config, &Err(missing))[0].outcome, Outcome::Fail);
        config["status"] = Value::Null;
        assert_eq!(findings(&parsed, &config, &Ok(Vec::new()))[0].outcome, Outcome::Fail);
    }

    #[test]
    fn objects_that_cannot_go_without_propagation_are_told() {
        let (mut parsed, config) = config();
        parsed.propagation = false;
        let stays = object(Value::Null);
        let mut goes = stays.clone();
        goes["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let left = &findings(&parsed, &config, &Ok(vec![stays.clone()]))[0];
        assert_eq!((left.outcome, left.remedy.as_str()), (Outcome::Ok, ""));
        let stuck = &findings(&parsed, &config, &Ok(vec![stays, goes]))[0];
        assert_eq!(stuck.outcome, Outcome::Warn);
        assert!(stuck.message.contains("1 of them are to be deleted"), "{}", stuck.message);
        assert!(stuck.remedy.contains(kubefed_api::SYNC_FINALIZER), "{}", stuck.remedy);
    }

    #[test]
    fn long_lists_of_trouble_are_cut() {
        let (parsed, config) = config();
        let many = vec![object(Value::Null); MOST + 5];
        let found = findings(&parsed, &config, &Ok(many));
        assert_eq!(found.len(), MOST + 1);
        assert!(found[0].message.contains("5 more"));
    }
}

//! The members, as the controllers last saw them.

use jiff::Timestamp;
use kubefed_api::kubefedcluster;
use kubefed_apimachinery::time;
use serde_json::Value;

use super::Finding;
use crate::rest::Error;

/// Versions of members further apart than this are worth a warning: a template may mean different things in them.
const SKEW: i64 = 3;

pub(super) fn all(found: Result<Vec<Value>, Error>, now: Timestamp) -> Vec<Finding> {
    let clusters = match found {
        Ok(clusters) => clusters,
        Err(error) => {
            return vec![Finding::fail(
                "clusters",
                error.to_string(),
                "see whether you may list them",
            )];
        }
    };
    if clusters.is_empty() {
        return vec![Finding::warn(
            "clusters",
            "the federation has no member",
            "kubefed join CLUSTER",
        )];
    }
    let mut findings: Vec<Finding> = clusters.iter().map(|cluster| one(cluster, now)).collect();
    findings.extend(skew(&clusters));
    findings
}

fn one(cluster: &Value, now: Timestamp) -> Finding {
    let name = cluster["metadata"]["name"].as_str().unwrap_or("");
    let check = format!("cluster {name}");
    let conditions: Vec<&Value> =
        cluster["status"]["conditions"].as_array().into_iter().flatten().collect();
    if conditions.is_empty() {
        return Finding::fail(
            check,
            "nothing is known of it yet",
            "see whether kubefed-controller-manager leads",
        );
    }
    let since = conditions
        .iter()
        .find_map(|condition| condition["lastTransitionTime"].as_str())
        .and_then(time::parse);
    let since = since.map_or_else(String::new, |since| {
        format!(" for {}", time::human_age(now.as_second() - since.as_second()))
    });
    if kubefedcluster::is_ready(cluster) {
        return match cluster["status"]["kubernetesVersion"].as_str() {
            Some(version) if !version.is_empty() => {
                Finding::ok(check, format!("ready{since}, {version}"))
            }
            _ => Finding::warn(
                check,
                format!("ready{since}, but it tells no version"),
                "see whether its /version answers",
            ),
        };
    }
    let is = |kind: &str| {
        conditions
            .iter()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let messages: Vec<&str> =
        conditions.iter().filter_map(|condition| condition["message"].as_str()).collect();
    let message = format!("not ready{since}: {}", messages.join("; "));
    let remedy = if is("ConfigMalformed") {
        format!(
            "correct its KubeFedCluster and secret: kubefed join {name} --error-on-existing=false"
        )
    } else if is("Offline") {
        format!(
            "see whether {} can be reached from the controllers",
            cluster["spec"]["apiEndpoint"].as_str().unwrap_or("it")
        )
    } else {
        "see what its /healthz says".to_owned()
    };
    Finding::fail(check, message, remedy)
}

/// A warning if the versions of the members are far apart.
fn skew(clusters: &[Value]) -> Option<Finding> {
    let minors = clusters.iter().filter_map(|cluster| {
        let version = cluster["status"]["kubernetesVersion"].as_str()?;
        let minor = version.trim_start_matches('v').split('.').nth(1)?.parse::<i64>().ok()?;
        Some((minor, version))
    });
    let minors: Vec<(i64, &str)> = minors.collect();
    let (oldest, newest) = (minors.iter().min()?, minors.iter().max()?);
    (newest.0 - oldest.0 > SKEW).then(|| {
        Finding::warn(
            "versions",
            format!("the members are from {} to {}", oldest.1, newest.1),
            "update the oldest: a template may use what it doesn't know",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Outcome;
    use super::*;

    fn cluster(conditions: Value, version: &str) -> Value {
        json!({
            "metadata": {"name": "a"}, "spec": {"apiEndpoint": "https://a"},
            "status": {"conditions": conditions, "kubernetesVersion": version},
        })
    }

    #[test]
    fn a_cluster_is_told_by_its_conditions() {
        let now = Timestamp::UNIX_EPOCH;
        let ready = json!([{"type": "Ready", "status": "True", "message": "fine"}]);
        let offline = json!([{"type": "Offline", "status": "True", "message": "cluster is not reachable: refused"}]);
        assert_eq!(
            one(&cluster(ready, "v1.37.0"), now),
            Finding::ok("cluster a", "ready, v1.37.0")
        );
        let found = one(&cluster(offline, ""), now);
        assert_eq!(found.outcome, Outcome::Fail);
        assert_eq!(found.message, "not ready: cluster is not reachable: refused");
        assert!(found.remedy.contains("https://a"));
        assert_eq!(one(&json!({"metadata": {"name": "a"}}), now).outcome, Outcome::Fail);
    }

    #[test]
    fn versions_far_apart_are_a_warning() {
        let of = |version: &str| cluster(json!([]), version);
        assert_eq!(skew(&[of("v1.34.1"), of("v1.37.0")]), None);
        assert_eq!(skew(&[of("v1.33.1"), of("v1.37.0")]).unwrap().outcome, Outcome::Warn);
        assert_eq!(skew(&[of("")]), None);
    }
}

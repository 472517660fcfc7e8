//! Deployments, ReplicaSets, StatefulSets and Jobs as they are when nothing goes wrong.

use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{meta, time};
use kubefed_apiserver::loopback::Loopback;
use kubefed_apiserver::registry::Part;
use serde_json::{Value, json};

/// Brings the status of an object, and what a Deployment makes, to what they are to be.
pub(crate) async fn reconcile(
    loopback: &Loopback,
    group: &str,
    plural: &str,
    object: &Value,
) -> Result<(), Status> {
    if plural == "deployments" {
        replica_set(loopback, object).await?;
    }
    let now = time::rfc3339((loopback.server().clock)());
    let Some(status) = status(object, &now) else { return Ok(()) };
    loopback
        .update(group, plural, object, Part::Status, |live| live["status"] = status.clone())
        .await
}

/// The status that an object is to have, or `None` if it has it.
fn status(object: &Value, now: &str) -> Option<Value> {
    let generation = meta::generation(object);
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let mut status = match object["kind"].as_str()? {
        "Deployment" => json!({
            "observedGeneration": generation,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
            "availableReplicas": replicas,
            "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "Deployment has minimum availability."},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": "The replicas are available."},
            ],
        }),
        "ReplicaSet" => json!({
            "observedGeneration": generation,
            "replicas": replicas,
            "fullyLabeledReplicas": replicas,
            "readyReplicas": replicas,
            "availableReplicas": replicas,
        }),
        "StatefulSet" => json!({
            "observedGeneration": generation,
            "replicas": replicas,
            "readyReplicas": replicas,
            "currentReplicas": replicas,
            "updatedReplicas": replicas,
            "availableReplicas": replicas,
        }),
        "Job" if object["status"]["completionTime"].is_string() => return None,
        "Job" => json!({
            "startTime": now,
            "completionTime": now,
            "succeeded": object["spec"]["completions"].as_i64().unwrap_or(1),
            "conditions": [{"type": "Complete", "status": "True", "lastProbeTime": now}],
        }),
        _ => return None,
    };
    for condition in
        status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten()
    {
        let known = object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|k| k["type"] == condition["type"]);
        let since = known
            .filter(|known| known["status"] == condition["status"])
            .map(|known| known["lastTransitionTime"].clone());
        condition["lastTransitionTime"] = since.clone().unwrap_or_else(|| json!(now));
        if object["kind"] == "Deployment" {
            condition["lastUpdateTime"] = since.unwrap_or_else(|| json!(now));
        }
    }
    (object["status"] != status).then_some(status)
}

/// The ReplicaSet of a Deployment's template, with the Deployment's replicas; earlier ones go.
async fn replica_set(loopback: &Loopback, deployment: &Value) -> Result<(), Status> {
    let wanted = desired_replica_set(deployment);
    let (namespace, name) = (meta::namespace(deployment), meta::name(&wanted));
    for known in loopback.list("apps", "replicasets", namespace).await? {
        let owned = known["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        if meta::name(&known) != name
            && owned.into_iter().any(|owner| owner["uid"] == meta::uid(deployment))
        {
            loopback.delete("apps", "replicasets", namespace, meta::name(&known)).await?;
        }
    }
    loopback.create_if_missing("apps", "replicasets", wanted.clone()).await?;
    let replicas = &wanted["spec"]["replicas"];
    loopback
        .update("apps", "replicasets", &wanted, Part::Main, |live| {
            live["spec"]["replicas"] = replicas.clone()
        })
        .await
}

fn desired_replica_set(deployment: &Value) -> Value {
    let hash = template_hash(&deployment["spec"]["template"]);
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"]["pod-template-hash"] = json!(hash);
    let mut labels = template["metadata"]["labels"].clone();
    labels["pod-template-hash"] = json!(hash);
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", meta::name(deployment)),
            "namespace": meta::namespace(deployment),
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": meta::name(deployment),
                "uid": meta::uid(deployment), "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {"replicas": deployment["spec"]["replicas"], "selector": selector, "template": template},
    })
}

/// Ten letters that stand for a template: FNV-1a over its canonical form.
fn template_hash(template: &Value) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = template.to_string();
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..10)
        .map(|_| {
            let letter = ALPHABET[(hash % ALPHABET.len() as u64) as usize];
            hash /= ALPHABET.len() as u64;
            letter as char
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": 2},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}},
        })
    }

    #[test]
    fn a_deployment_is_available_as_soon_as_it_is_seen() {
        let mut object = deployment();
        let status = status(&object, "2024-01-01T00:00:00Z").unwrap();
        assert_eq!(status["availableReplicas"], 3);
        assert_eq!(status["observedGeneration"], 2);
        object["status"] = status;
        assert_eq!(super::status(&object, "2025-01-01T00:00:00Z"), None);
    }

    #[test]
    fn a_new_template_is_a_new_replica_set() {
        let one = desired_replica_set(&deployment());
        let mut changed = deployment();
        changed["spec"]["template"]["spec"] = json!({"containers": []});
        let two = desired_replica_set(&changed);
        assert_ne!(meta::name(&one), meta::name(&two));
        assert_eq!(
            one["spec"]["selector"]["matchLabels"],
            one["spec"]["template"]["metadata"]["labels"]
        );
    }

    #[test]
    fn a_job_completes_once() {
        let mut job = json!({"kind": "Job", "metadata": {}, "spec": {"completions": 2}});
        job["status"] = status(&job, "2024-01-01T00:00:00Z").unwrap();
        assert_eq!(job["status"]["succeeded"], 2);
        assert_eq!(status(&job, "2025-01-01T00:00:00Z"), None);
    }
}

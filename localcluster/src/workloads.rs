//! Brings workloads to where they are when nothing goes wrong: [`statuses`](crate::statuses) says where that is.

use kubefed_apimachinery::status::Status;
use kubefed_apimachinery::{meta, time};
use kubefed_apiserver::loopback::Loopback;
use kubefed_apiserver::registry::Part;
use serde_json::{Value, json};

use crate::statuses::{self, Facts, template_hash};
use crate::tell;

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
    let nodes = match plural {
        // Where no node is known, the cluster is one by itself.
        "daemonsets" => loopback.list("", "nodes", "").await?.len().max(1),
        _ => 0,
    };
    let facts = Facts {
        nodes: i64::try_from(nodes).unwrap_or(i64::MAX),
        now: &time::rfc3339((loopback.server().clock)()),
    };
    let Some(status) = statuses::status(object, &facts) else { return Ok(()) };
    loopback
        .update(group, plural, object, Part::Status, |live| live["status"] = status.clone())
        .await
}

/// A node more or less is a pod more or less of every DaemonSet.
pub(crate) async fn follow_nodes(loopback: Loopback) {
    loopback
        .follow("", "nodes", |_, _| async {
            let (group, plural) = ("apps", "daemonsets");
            match loopback.list(group, plural, "").await {
                Ok(sets) => {
                    for set in sets {
                        tell(plural, reconcile(&loopback, group, plural, &set).await);
                    }
                }
                Err(status) => tell(plural, Err(status)),
            }
        })
        .await;
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
}

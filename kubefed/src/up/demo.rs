//! `up --demo`: the main job of a federation, shown step by step. Each step is seen to be true or the demo fails.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::config::Kubeconfig;
use serde_json::{Value, json};

use super::FEDERATION;
use crate::rest::Cluster;
use crate::{plane, say};

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/test-namespace/deployments/test-deployment";
const FEDERATED: &str =
    "/apis/types.kubefed.io/v1beta1/namespaces/test-namespace/federateddeployments";
/// What the members are to have: the template says three, an override two for the first.
const REPLICAS: [i64; 2] = [2, 3];

pub(super) async fn run(
    config: &Kubeconfig,
    kubeconfig: &Path,
    members: &[String],
) -> anyhow::Result<()> {
    let [first, second, ..] = members else {
        bail!("the demo needs two local members (--members)")
    };
    let host = Cluster::connect(config, FEDERATION).await?;
    let clusters =
        [Cluster::connect(config, first).await?, Cluster::connect(config, second).await?];

    let joined = plane::core(kubefed_api::SYSTEM_NAMESPACE, "kubefedclusters");
    for name in [first, second] {
        let path = format!("{joined}/{name}");
        until(&format!("{name} is ready"), async || {
            host.get(&path).await.is_ok_and(|c| kubefed_api::kubefedcluster::is_ready(&c))
        })
        .await?;
    }
    step(&format!("{first} and {second} are joined and ready"));

    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test-namespace"}});
    host.apply("/api/v1/namespaces/test-namespace", &namespace).await?;
    host.apply(
        "/apis/types.kubefed.io/v1beta1/namespaces/test-namespace/federatednamespaces/test-namespace",
        &json!({
            "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedNamespace",
            "metadata": {"name": "test-namespace", "namespace": "test-namespace"},
            "spec": {"template": {}, "placement": {"clusters": [{"name": first}, {"name": second}]}},
        }),
    )
    .await?;
    step("FederatedNamespace test-namespace is applied");

    host.apply(&format!("{FEDERATED}/test-deployment"), &deployment(first, second)).await?;
    step(
        "FederatedDeployment test-deployment is applied: 3 replicas, an override makes it 2 in the first",
    );

    for ((cluster, name), wanted) in clusters.iter().zip([first, second]).zip(REPLICAS) {
        until(&format!("{name} has {wanted} replicas"), async || {
            replicas(cluster).await == Some(wanted)
        })
        .await?;
        step(&format!("{name} has Deployment test-deployment with {wanted} replicas"));
    }
    until("the federated object says so", async || {
        host.get(&format!("{FEDERATED}/test-deployment"))
            .await
            .is_ok_and(|object| propagated(&object))
    })
    .await?;
    step("its status says that it is propagated");

    clusters[0].delete(DEPLOYMENT).await?;
    until("the deployment is back", async || replicas(&clusters[0]).await == Some(REPLICAS[0]))
        .await?;
    step(&format!("a Deployment deleted by hand in {first} is back"));
    clusters[1].merge(DEPLOYMENT, &json!({"spec": {"replicas": 9}})).await?;
    until("the change is undone", async || replicas(&clusters[1]).await == Some(REPLICAS[1]))
        .await?;
    step(&format!("a change made by hand in {second} is undone"));

    say("");
    say("go on with:");
    say(&format!("  export KUBECONFIG={}", kubeconfig.display()));
    say("  kubectl get federateddeployments -A");
    say(&format!("  kubectl --context {first} -n test-namespace get deployments"));
    say("  kubectl -n test-namespace scale federateddeployment test-deployment --replicas 5");
    say("  kubefed check");
    Ok(())
}

fn step(text: &str) {
    say(&format!("✓ {text}"));
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let wait = async {
        while !check().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .with_context(|| format!("not seen within {PATIENCE:?}: {what}"))
}

async fn replicas(cluster: &Cluster) -> Option<i64> {
    cluster.get(DEPLOYMENT).await.ok()?["spec"]["replicas"].as_i64()
}

fn propagated(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
        && object["status"]["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Propagation" && c["status"] == "True"))
}

/// The guide's FederatedDeployment, for these members.
fn deployment(first: &str, second: &str) -> Value {
    json!({
        "apiVersion": "types.kubefed.io/v1beta1",
        "kind": "FederatedDeployment",
        "metadata": {"name": "test-deployment", "namespace": "test-namespace"},
        "spec": {
            "template": {
                "metadata": {"labels": {"app": "nginx"}},
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"app": "nginx"}},
                    "template": {
                        "metadata": {"labels": {"app": "nginx"}},
                        "spec": {"containers": [{"image": "nginx:1.17", "name": "nginx"}]},
                    },
                },
            },
            "placement": {"clusters": [{"name": first}, {"name": second}]},
            "overrides": [{"clusterName": first, "clusterOverrides": [{"path": "/spec/replicas", "value": 2}]}],
        },
    })
}

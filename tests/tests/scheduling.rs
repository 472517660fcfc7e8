//! How many replicas each member has: by weights, by strategies, and by what the members can run.

use kubefed_controllers::client::Client;
use kubefed_tests::{
    Federation, NAMESPACE, a_federation_of, a_namespace_everywhere, a_still_member, eventually,
    guide, join,
};
use serde_json::{Value, json};

const CLUSTERS: &str =
    "/apis/core.kubefed.io/v1beta1/namespaces/kube-federation-system/kubefedclusters";
const PREFERENCES: &str =
    "/apis/scheduling.kubefed.io/v1alpha1/namespaces/test-namespace/replicaschedulingpreferences";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/test-namespace/deployments";
const PODS: &str = "/api/v1/namespaces/test-namespace/pods";
const NAME: &str = "test-deployment";

fn federated(plural: &str) -> String {
    format!("/apis/types.kubefed.io/v1beta1/namespaces/test-namespace/{plural}/{NAME}")
}

async fn with_a_namespace(members: &[&str]) -> Federation {
    let federation = a_federation_of(members).await;
    a_namespace_everywhere(&federation.admin(), "test-namespace").await;
    federation
}

/// The replicas that an object asks of each cluster, as long as it is placed in just these.
fn asked(object: &Value) -> Option<Vec<(String, i64)>> {
    let placed = object["spec"]["placement"]["clusters"].as_array()?.iter();
    let of = |cluster: &str| {
        let entry = object["spec"]["overrides"].as_array()?.iter();
        let entry = entry.into_iter().find(|entry| entry["clusterName"] == cluster)?;
        let mut changes = entry["clusterOverrides"].as_array()?.iter();
        changes.find(|change| change["path"] == "/spec/replicas")?["value"].as_i64()
    };
    placed
        .map(|entry| {
            let name = entry["name"].as_str()?;
            Some((name.to_owned(), of(name)?))
        })
        .collect()
}

/// Waits until an object asks for these replicas, and until the members have them.
async fn divided(federation: &Federation, kind: &str, wanted: &[(&str, i64)]) -> Value {
    let admin = federation.admin();
    let wanted: Vec<(String, i64)> =
        wanted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let object = eventually(&format!("{wanted:?} are asked for"), async || {
        let object = admin.get(&federated(&format!("federated{kind}"))).await.ok()?;
        (asked(&object)? == wanted).then_some(object)
    })
    .await;
    for (name, count) in wanted {
        let Some((_, member)) = federation.members.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let member = member.admin();
        eventually(&format!("{name} has {count}"), async || {
            let path = format!("/apis/apps/v1/namespaces/test-namespace/{kind}/{NAME}");
            let found = member.get(&path).await.ok()?;
            (found["spec"]["replicas"] == count).then_some(())
        })
        .await;
    }
    object
}

async fn told(admin: &Client, reason: &str) -> String {
    eventually(&format!("{reason} is told"), async || {
        let events = admin.get("/api/v1/namespaces/test-namespace/events").await.ok()?;
        let mut events = events["items"].as_array()?.iter();
        let event = events.find(|event| {
            event["reason"] == reason
                && event["involvedObject"]["kind"] == "ReplicaSchedulingPreference"
        })?;
        Some(event["message"].as_str()?.to_owned())
    })
    .await
}

fn preference(kind: &str, spec: &Value) -> Value {
    let mut preference = json!({
        "apiVersion": "scheduling.kubefed.io/v1alpha1", "kind": "ReplicaSchedulingPreference",
        "metadata": {"name": NAME}, "spec": spec,
    });
    preference["spec"]["targetKind"] = json!(kind);
    preference
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_preference_divides_its_deployment() {
    let federation = with_a_namespace(&["cluster1", "cluster2"]).await;
    let (admin, kubectl) = (federation.admin(), federation.api.kubectl());
    for section in ["6.2", "6.1"] {
        kubectl.ok("apply -f -", &guide(section)).await;
    }
    let text = told(&admin, "TargetNotFound").await;
    assert!(text.contains("FederatedDeployment test-namespace/test-deployment"), "{text}");

    // Nine are wanted, but no cluster may have more than four.
    kubectl.ok("apply -f -", &guide("4.2")).await;
    divided(&federation, "deployments", &[("cluster1", 4), ("cluster2", 4)]).await;
    let text = told(&admin, "NotAllPlaced").await;
    assert!(text.starts_with("8 of 9 replicas are placed"), "{text}");

    // What a user overrides beside the replicas is his, and stays.
    let path = federated("federateddeployments");
    let mut object = admin.get(&path).await.unwrap();
    let image = json!({"path": "/spec/template/spec/containers/0/image", "value": "nginx:1.18"});
    let overrides = object["spec"]["overrides"].as_array_mut().unwrap();
    let of_first = overrides.iter_mut().find(|entry| entry["clusterName"] == "cluster1").unwrap();
    of_first["clusterOverrides"].as_array_mut().unwrap().insert(0, image.clone());
    let patch = json!({"spec": {"overrides": object["spec"]["overrides"]}});
    let written = admin.merge(&path, &patch).await.unwrap();

    // By weights two to one; only what is different was written, once.
    let preference = format!("{PREFERENCES}/{NAME}");
    admin.merge(&preference, &json!({"metadata": {"labels": {"touched": "yes"}}})).await.unwrap();
    // Replicas may be moved from here on: else what the template asks for in between would be kept where it ran.
    let six = json!({"spec": {"totalReplicas": 6, "rebalance": true}});
    admin.merge(&preference, &six).await.unwrap();
    let object = divided(&federation, "deployments", &[("cluster1", 4), ("cluster2", 2)]).await;
    let generation = |object: &Value| object["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&object), generation(&written) + 1);
    let entries = object["spec"]["overrides"].as_array().unwrap();
    let of_first = entries.iter().find(|entry| entry["clusterName"] == "cluster1").unwrap();
    assert_eq!(of_first["clusterOverrides"][0], image);
    let member = federation.member("cluster1").admin();
    eventually("the member has the image too", async || {
        let found = member.get(&format!("{DEPLOYMENTS}/{NAME}")).await.ok()?;
        (found["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1.18").then_some(())
    })
    .await;

    // What a user does to the replicas is undone, and to the placement.
    let clusters = json!([{"name": "cluster1"}, {"name": "cluster2"}, {"name": "cluster3"}]);
    let other = json!({"spec": {"placement": {"clusters": clusters}, "overrides": []}});
    admin.merge(&path, &other).await.unwrap();
    divided(&federation, "deployments", &[("cluster1", 4), ("cluster2", 2)]).await;

    // Without a strategy of that name nothing is moved; the guide's spreads over regions, of which there is one.
    let spec = json!({"spec": {"strategyName": "test-stragety", "clusters": null}});
    admin.merge(&preference, &spec).await.unwrap();
    let text = told(&admin, "StrategyNotFound").await;
    assert!(text.contains("test-stragety"), "{text}");
    admin.merge(&preference, &json!({"spec": {"strategyName": "test-strategy"}})).await.unwrap();
    divided(&federation, "deployments", &[("cluster1", 3), ("cluster2", 3)]).await;

    let config = format!(
        "/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs/deployments.apps"
    );
    admin.merge(&config, &json!({"spec": {"propagation": "Disabled"}})).await.unwrap();
    told(&admin, "TypeNotEnabled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_cluster_that_leaves_go_to_the_others() {
    let federation = with_a_namespace(&["eu1", "eu2", "us1"]).await;
    let admin = federation.admin();
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {
            "scope": "Cluster",
            "controllerDuration": {"availableDelay": "100ms", "unavailableDelay": "200ms"},
            "clusterHealthCheck": {"period": "500ms", "timeout": "5s", "failureThreshold": 2},
        },
    });
    let configs = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedconfigs");
    admin.create(&configs, &config).await.unwrap();
    for (name, region) in [("eu1", "eu"), ("eu2", "eu"), ("us1", "us")] {
        let labels = json!({"metadata": {"labels": {"topology.kubernetes.io/region": region}}});
        admin.merge(&format!("{CLUSTERS}/{name}"), &labels).await.unwrap();
    }
    let template = json!({"spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}},
    }});
    let object = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedReplicaSet",
        "metadata": {"name": NAME}, "spec": {"template": template, "placement": {"clusters": []}},
    });
    let path = federated("federatedreplicasets");
    admin.create(path.rsplit_once('/').unwrap().0, &object).await.unwrap();
    federation.api.kubectl().ok("apply -f -", &guide("6.2")).await;
    let spec = json!({"totalReplicas": 8, "rebalance": true, "strategyName": "test-strategy"});
    admin.create(PREFERENCES, &preference("FederatedReplicaSet", &spec)).await.unwrap();

    let all = [("eu1", 2), ("eu2", 2), ("us1", 4)];
    divided(&federation, "replicasets", &all).await;
    // By the weights of the preference it is another thing.
    let preference = format!("{PREFERENCES}/{NAME}");
    let spec = json!({"spec": {"strategyName": null, "clusters": {"*": {"weight": 1}, "eu1": {"weight": 2}}}});
    admin.merge(&preference, &spec).await.unwrap();
    divided(&federation, "replicasets", &[("eu1", 4), ("eu2", 2), ("us1", 2)]).await;
    let spec = json!({"spec": {"strategyName": "test-strategy", "clusters": null}});
    admin.merge(&preference, &spec).await.unwrap();
    divided(&federation, "replicasets", &all).await;

    // Only where the object's own selector would place it.
    let eu = json!({"matchLabels": {"topology.kubernetes.io/region": "eu"}});
    let selector = json!({"spec": {"placement": {"clusterSelector": eu}}});
    admin.merge(&path, &selector).await.unwrap();
    let intersects = |on: bool| json!({"spec": {"intersectWithClusterSelector": on}});
    admin.merge(&preference, &intersects(true)).await.unwrap();
    let object = divided(&federation, "replicasets", &[("eu1", 4), ("eu2", 4)]).await;
    assert_eq!(object["spec"]["placement"]["clusterSelector"], eu);
    admin.merge(&preference, &intersects(false)).await.unwrap();
    divided(&federation, "replicasets", &all).await;

    federation.member("us1").stop().await;
    eventually("the replicas are all in the other region", async || {
        let object = admin.get(&path).await.ok()?;
        let four = |name: &str| (name.to_owned(), 4);
        (asked(&object)? == [four("eu1"), four("eu2")]).then_some(())
    })
    .await;
    admin.delete(&format!("{CLUSTERS}/eu2"), &json!({})).await.unwrap();
    divided(&federation, "replicasets", &[("eu1", 8)]).await;
}

/// A pod that no node can take since long, or that is ready.
fn pod(number: usize, waits: bool) -> (Value, Value) {
    let name = format!("pod{number}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "nginx"}},
        "spec": {"containers": [{"name": "nginx", "image": "nginx:1.17"}]},
    });
    let (phase, condition) = if waits {
        let refused = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "2024-01-01T00:00:00Z",
        });
        ("Pending", refused)
    } else {
        ("Running", json!({"type": "Ready", "status": "True"}))
    };
    (pod, json!({"status": {"phase": phase, "conditions": [condition]}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_go_where_their_pods_find_a_node() {
    let federation = with_a_namespace(&["cluster1"]).await;
    let still = a_still_member().await;
    join(&federation.api, "full", &still.url(), &still).await;
    federation.wait_ready("full").await;
    let (admin, member) = (federation.admin(), still.admin());
    federation.api.kubectl().ok("apply -f -", &guide("4.2")).await;
    let spec = json!({"totalReplicas": 10, "rebalance": true});
    admin.create(PREFERENCES, &preference("FederatedDeployment", &spec)).await.unwrap();
    divided(&federation, "deployments", &[("cluster1", 5), ("full", 5)]).await;

    // Three run, and two wait for a node. These go to the other cluster; here they wait on, so that it is seen when
    // there is room.
    let there = format!("{DEPLOYMENTS}/{NAME}");
    eventually("the deployment is there", async || {
        let found = member.get(&there).await.ok()?;
        (found["spec"]["replicas"] == 5).then_some(())
    })
    .await;
    for number in 0..5 {
        let (pod, status) = pod(number, number >= 3);
        member.create(PODS, &pod).await.unwrap();
        member.merge(&format!("{PODS}/pod{number}/status"), &status).await.unwrap();
    }
    let ready = |count: i64| json!({"status": {"replicas": 5, "readyReplicas": count}});
    member.merge(&format!("{there}/status"), &ready(3)).await.unwrap();
    divided(&federation, "deployments", &[("cluster1", 7), ("full", 5)]).await;

    // They find a node, and each cluster has its half again.
    for number in 3..5 {
        let (_, status) = pod(number, false);
        member.merge(&format!("{PODS}/pod{number}/status"), &status).await.unwrap();
    }
    member.merge(&format!("{there}/status"), &ready(5)).await.unwrap();
    divided(&federation, "deployments", &[("cluster1", 5), ("full", 5)]).await;
}

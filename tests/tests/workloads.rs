//! Workloads in a local member: what a cluster without trouble makes of them.

use kubefed_tests::{a_member, eventually};
use serde_json::{Value, json};

fn workload(kind: &str, spec: &Value) -> Value {
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "before"}]},
    });
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_sees_every_rollout_end() {
    let member = a_member().await;
    let kubectl = member.kubectl();
    for (kind, spec) in [
        ("Deployment", json!({"replicas": 3})),
        ("StatefulSet", json!({"replicas": 2, "serviceName": "web"})),
        ("DaemonSet", json!({})),
    ] {
        let object = workload(kind, &spec);
        kubectl.ok("-n default apply -f -", &object.to_string()).await;
        let name = format!("{}/web", kind.to_lowercase());
        kubectl.ok(&format!("-n default rollout status {name} --timeout=30s"), "").await;
        let image = format!("-n default set image {name} web=after");
        kubectl.ok(&image, "").await;
        kubectl.ok(&format!("-n default rollout status {name} --timeout=30s"), "").await;
    }
    let scale = "-n default scale statefulset/web --replicas=5";
    kubectl.ok(scale, "").await;
    kubectl.ok("-n default wait statefulset/web --for=jsonpath={.status.readyReplicas}=5 --timeout=30s", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_on_every_node_that_there_is() {
    let member = a_member().await;
    let admin = member.admin();
    let sets = "/apis/apps/v1/namespaces/default/daemonsets";
    let created = admin.create(sets, &workload("DaemonSet", &json!({}))).await.unwrap();
    assert_eq!(created["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 1);
    let runs_on = async |nodes: i64| {
        eventually(&format!("the set is on {nodes} nodes"), async || {
            let set = admin.get(&format!("{sets}/web")).await.ok()?;
            (set["status"]["numberReady"] == nodes).then_some(())
        })
        .await;
    };
    runs_on(1).await;
    for node in ["a", "b", "c"] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
        admin.create("/api/v1/nodes", &node).await.unwrap();
    }
    runs_on(3).await;
    admin.delete("/api/v1/nodes/b", &json!({})).await.unwrap();
    runs_on(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_suspended_waits_until_it_is_resumed() {
    let member = a_member().await;
    let kubectl = member.kubectl();
    let mut job = workload("Job", &json!({"suspend": true}));
    job["apiVersion"] = json!("batch/v1");
    job["spec"].as_object_mut().unwrap().remove("selector");
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    kubectl.ok("-n default apply -f -", &job.to_string()).await;
    kubectl.ok("-n default wait job/web --for=condition=Suspended --timeout=30s", "").await;
    let completed = "-n default get job/web -o jsonpath={.status.completionTime}";
    assert_eq!(kubectl.ok(completed, "").await, "");
    kubectl.ok(r#"-n default patch job/web --type=merge -p {"spec":{"suspend":false}}"#, "").await;
    kubectl.ok("-n default wait job/web --for=condition=Complete --timeout=30s", "").await;
    assert_ne!(kubectl.ok(completed, "").await, "");
}

//! The KubeFedConfig, in the federation and in a file, while a controller manager runs.

use kubefed_tests::{
    Federation, NAMESPACE, a_federation_of, a_namespace_everywhere, eventually, guide,
};
use serde_json::{Value, json};

fn core(plural: &str, name: &str) -> String {
    format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/{plural}/{name}")
}

/// Waits until the syncs of Deployments run, or do not.
async fn deployments_are(federation: &Federation, state: &str) {
    let admin = federation.admin();
    eventually(&format!("the sync is {state}"), async || {
        let config = admin.get(&core("federatedtypeconfigs", "deployments.apps")).await.ok()?;
        (config["status"]["propagationController"] == state).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feature_gates_are_taken_up_at_once_in_both_spellings() {
    let federation = a_federation_of(&["cluster1", "cluster2"]).await;
    let (admin, kubectl) = (federation.admin(), federation.api.kubectl());
    let types = "/apis/types.kubefed.io/v1beta1/namespaces/test-namespace";
    a_namespace_everywhere(&admin, "test-namespace").await;
    let collects = json!({"spec": {"statusCollection": "Enabled"}});
    admin.merge(&core("federatedtypeconfigs", "deployments.apps"), &collects).await.expect("done");
    kubectl.ok("apply -f -", &guide("4.2")).await;
    let told = async |wanted: &dyn Fn(&Value) -> bool| {
        eventually("the status is told", async || {
            let path = format!("{types}/federateddeployments/test-deployment");
            let object = admin.get(&path).await.ok()?;
            let well = object["status"]["conditions"][0]["status"] == "True";
            (well && wanted(&object["status"]["clusters"][0]["remoteStatus"])).then_some(())
        })
        .await;
    };
    told(&|remote| remote.is_null()).await;

    kubectl.ok("apply -f -", &guide("2.2").replace("Namespaced", "Cluster")).await;
    let gates = |gates: Value| json!({"spec": {"featureGates": gates}});
    let on = gates(json!([{"name": "RawResourceStatusCollection", "enabled": true}]));
    let path = core("kubefedconfigs", "kubefed");
    admin.merge(&path, &on).await.expect("changed");
    told(&|remote| remote["readyReplicas"].is_i64()).await;

    let off = gates(json!([{"name": "PushReconciler", "configuration": "Disabled"}]));
    admin.merge(&path, &off).await.expect("changed");
    deployments_are(&federation, "NotRunning").await;
    admin.delete(&path, &json!({})).await.expect("deleted");
    deployments_are(&federation, "Running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_of_a_file_counts_alone_and_is_followed() {
    let mut federation = a_federation_of(&[]).await;
    federation.stop_manager().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.yaml");
    let config = |gates: &str| {
        format!(
            "apiVersion: core.kubefed.io/v1beta1\nkind: KubeFedConfig\nspec: {{scope: Cluster, featureGates: [{gates}]}}\n"
        )
    };
    // Whole or not at all, as Kubernetes changes what it mounts.
    let write = |text: String| {
        let partial = dir.path().join("partial");
        std::fs::write(&partial, text).expect("written");
        std::fs::rename(&partial, &file).expect("renamed");
    };
    write(config("{name: PushReconciler, configuration: Disabled}"));
    federation.start_manager_with(Some(file.clone()));
    deployments_are(&federation, "NotRunning").await;
    write(config("{name: PushReconciler, enabled: true}"));
    deployments_are(&federation, "Running").await;
}

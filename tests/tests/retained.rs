//! What a real Kubernetes gives an object, and what others write into it, stays there when its template changes.

use std::process::Command;

use kubefed_controllers::client::Client;
use kubefed_tests::control_plane::{ControlPlane, a_control_plane};
use kubefed_tests::scene::{MANAGED, TYPES, is_gone, told};
use kubefed_tests::{
    Federation, NAMESPACE, a_federation_of, a_namespace_everywhere, binary, eventually,
};
use serde_json::{Value, json};

/// A federation whose one member, `real`, is a real Kubernetes.
struct Scene {
    federation: Federation,
    real: ControlPlane,
}

impl Scene {
    async fn new() -> Option<Self> {
        let real = a_control_plane().await?;
        let federation = a_federation_of(&[]).await;
        let here = federation.api.kubeconfig("federation", "admin", &["system:masters"]);
        let there = real.kubeconfig("real", "member-admin", &["system:masters"]);
        let mut command = Command::new(binary("kubefed"));
        command.args(["join", "real", "--host-cluster-context=federation"]);
        command.env("KUBECONFIG", format!("{}:{}", here.display(), there.display()));
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
        let output = output.expect("kubefed starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        federation.wait_ready("real").await;
        a_namespace_everywhere(&federation.admin(), "ns").await;
        Some(Scene { federation, real })
    }

    fn member(&self) -> Client {
        self.real.admin()
    }

    /// Federates an object and waits until it is propagated; the path of the federated one.
    async fn federate(&self, kind: &str, name: &str, spec: Value) -> String {
        let object = json!({
            "apiVersion": "types.kubefed.io/v1beta1", "kind": format!("Federated{kind}"),
            "metadata": {"name": name}, "spec": spec,
        });
        let collection = format!("{TYPES}/federated{}s", kind.to_lowercase());
        let admin = self.federation.admin();
        eventually(&format!("{collection} are served"), async || admin.get(&collection).await.ok())
            .await;
        admin.create(&collection, &object).await.expect("created");
        let path = format!("{collection}/{name}");
        told(&self.federation, &path, "True").await;
        path
    }

    /// Changes a federated object, and waits until that is propagated.
    async fn change(&self, path: &str, spec: Value) {
        let patch = json!({"spec": spec});
        self.federation.admin().merge(path, &patch).await.expect("changed");
        told(&self.federation, path, "True").await;
    }

    async fn find(&self, path: &str) -> Value {
        self.member().get(path).await.expect("the member has it")
    }

    /// What others write in the member.
    async fn write(&self, path: &str, patch: Value) {
        self.member().merge(path, &patch).await.expect("written");
    }
}

fn pod() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web"}], "restartPolicy": "Always"},
    })
}

fn placed(template: Value) -> Value {
    json!({"template": template, "placement": {"clusterSelector": {}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_and_others_give_an_object_stays_when_the_template_changes() {
    let Some(scene) = Scene::new().await else { return };
    services(&scene).await;
    accounts_and_metadata(&scene).await;
    claims_and_jobs(&scene).await;
    replicas(&scene).await;
}

async fn services(scene: &Scene) {
    let given = |service: &Value| {
        let spec = &service["spec"];
        let fields = ["clusterIP", "clusterIPs", "healthCheckNodePort", "ipFamilies"];
        let mut given: Vec<Value> = fields.map(|field| spec[field].clone()).into();
        given.push(spec["ports"][0]["nodePort"].clone());
        assert!(given.iter().all(|value| !value.is_null()), "{spec}");
        given
    };
    let ports = json!([{"name": "http", "port": 80}]);
    let template = json!({"spec": {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "web"}, "ports": ports,
    }});
    let path = scene.federate("Service", "web", placed(template)).await;
    let there = "/api/v1/namespaces/ns/services/web";
    let before = scene.find(there).await;
    scene.change(&path, json!({"template": {"spec": {"sessionAffinity": "ClientIP"}}})).await;
    let after = scene.find(there).await;
    assert_eq!(after["spec"]["sessionAffinity"], "ClientIP");
    assert_eq!(given(&after), given(&before));

    // One that was there before keeps its address, whichever the template names: it could not be changed.
    let mine = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kept"}, "spec": {"ports": ports}});
    let created =
        scene.member().create("/api/v1/namespaces/ns/services", &mine).await.expect("created");
    let template = json!({"spec": {"clusterIP": "10.0.200.200", "ports": ports}});
    scene.federate("Service", "kept", placed(template)).await;
    let taken = scene.find("/api/v1/namespaces/ns/services/kept").await;
    assert_eq!(taken["metadata"]["labels"][MANAGED], "true");
    assert_eq!(taken["spec"]["clusterIP"], created["spec"]["clusterIP"]);
}

async fn accounts_and_metadata(scene: &Scene) {
    let path = scene
        .federate("ServiceAccount", "robot", placed(json!({"automountServiceAccountToken": true})))
        .await;
    let there = "/api/v1/namespaces/ns/serviceaccounts/robot";
    scene.write(there, json!({"secrets": [{"name": "robot-token"}]})).await;
    scene.change(&path, json!({"template": {"automountServiceAccountToken": false}})).await;
    let found = scene.find(there).await;
    assert_eq!(found["automountServiceAccountToken"], false);
    assert_eq!(found["secrets"], json!([{"name": "robot-token"}]));

    let path =
        scene.federate("ConfigMap", "noted", placed(json!({"data": {"key": "first"}}))).await;
    let there = "/api/v1/namespaces/ns/configmaps/noted";
    let metadata = json!({
        "annotations": {"by": "others"}, "labels": {"team": "a"}, "finalizers": ["example.com/hold"],
    });
    scene.write(there, json!({"metadata": metadata, "data": {"theirs": "too"}})).await;
    scene.change(&path, json!({"template": {"data": {"key": "second"}}})).await;
    let found = scene.find(there).await;
    assert_eq!(found["data"], json!({"key": "second", "theirs": "too"}));
    for field in ["annotations", "finalizers"] {
        assert_eq!(found["metadata"][field], metadata[field]);
    }
    assert_eq!(found["metadata"]["labels"]["team"], "a");
    // What the template no longer says goes.
    scene.change(&path, json!({"template": {"data": {"key": null}}})).await;
    assert_eq!(scene.find(there).await["data"], json!({"theirs": "too"}));
    scene.write(there, json!({"metadata": {"finalizers": null}})).await;
}

async fn claims_and_jobs(scene: &Scene) {
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "FederatedTypeConfig",
        "metadata": {"name": "persistentvolumeclaims"},
        "spec": {
            "targetType": {"version": "v1", "kind": "PersistentVolumeClaim", "pluralName": "persistentvolumeclaims", "scope": "Namespaced"},
            "federatedType": {"group": "types.kubefed.io", "version": "v1beta1", "kind": "FederatedPersistentVolumeClaim", "pluralName": "federatedpersistentvolumeclaims", "scope": "Namespaced"},
            "propagation": "Enabled",
        },
    });
    let configs =
        format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs");
    scene.federation.admin().create(&configs, &config).await.expect("created");
    let label = || json!({"template": {"metadata": {"labels": {"tier": "data"}}}});
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let path = scene.federate("PersistentVolumeClaim", "disk", placed(claim)).await;
    let there = "/api/v1/namespaces/ns/persistentvolumeclaims/disk";
    // As the binder does.
    scene.write(there, json!({"spec": {"volumeName": "volume-7"}})).await;
    scene.change(&path, label()).await;
    let found = scene.find(there).await;
    assert_eq!(found["metadata"]["labels"]["tier"], "data");
    assert_eq!(found["spec"]["volumeName"], "volume-7");

    let mut pod = pod();
    pod["spec"]["restartPolicy"] = json!("Never");
    let path = scene.federate("Job", "once", placed(json!({"spec": {"template": pod}}))).await;
    let there = "/apis/batch/v1/namespaces/ns/jobs/once";
    let before = scene.find(there).await;
    scene.change(&path, label()).await;
    let found = scene.find(there).await;
    assert_eq!(found["metadata"]["labels"]["tier"], "data");
    assert!(before["spec"]["selector"].is_object());
    assert_eq!(found["spec"]["selector"], before["spec"]["selector"]);
}

async fn replicas(scene: &Scene) {
    let template = json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": pod()}});
    let mut spec = placed(template);
    spec["retainReplicas"] = json!(true);
    let path = scene.federate("Deployment", "scaled", spec).await;
    let there = "/apis/apps/v1/namespaces/ns/deployments/scaled";
    // As an autoscaler does.
    scene.write(&format!("{there}/scale"), json!({"spec": {"replicas": 7}})).await;
    scene.change(&path, json!({"template": {"metadata": {"labels": {"tier": "web"}}}})).await;
    let found = scene.find(there).await;
    assert_eq!(found["metadata"]["labels"]["tier"], "web");
    assert_eq!(found["spec"]["replicas"], 7);
    let four = json!([{"clusterName": "real", "clusterOverrides": [{"path": "/spec/replicas", "value": 4}]}]);
    scene.change(&path, json!({"overrides": four})).await;
    assert_eq!(scene.find(there).await["spec"]["replicas"], 4, "an override counts more");

    // The options of a deletion are the cluster's garbage collector's to follow.
    let sets = "/apis/apps/v1/namespaces/ns/replicasets";
    let set = eventually("there is a ReplicaSet", async || {
        let list = scene.member().get(sets).await.ok()?;
        Some(list["items"].get(0)?["metadata"]["name"].as_str()?.to_owned())
    })
    .await;
    let admin = scene.federation.admin();
    let options = json!({"metadata": {"annotations": {"kubefed.io/deleteoption": r#"{"propagationPolicy": "Orphan"}"#}}});
    admin.merge(&path, &options).await.expect("changed");
    admin.delete(&path, &json!({})).await.expect("deleted");
    is_gone(&scene.federation.api, &path).await;
    let gone = scene.member().get(there).await;
    assert!(gone.is_err_and(|error| error.is_not_found()));
    let left = scene.find(&format!("{sets}/{set}")).await;
    assert_eq!(left["metadata"]["ownerReferences"], Value::Null);
}

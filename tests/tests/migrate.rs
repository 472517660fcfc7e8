//! `kubefed migrate`: another control plane's federation goes on here, and its members do not notice.

use std::path::PathBuf;

use kubefed_api::federatedtypeconfig::{self, FederatedTypeConfig};
use kubefed_api::versions::{object_version, overrides_hash, template_hash};
use kubefed_api::{SYNC_FINALIZER, placement, template};
use kubefed_apimachinery::meta;
use kubefed_apiserver::audit;
use kubefed_controllers::client::Client;
use kubefed_tests::cli::Kubefed;
use kubefed_tests::scene::{MANAGED, is_gone};
use kubefed_tests::{
    Cluster, Federation, NAMESPACE, a_federation, a_federation_of, a_member_with, eventually,
    federated_namespace, join,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const CORE: &str = "/apis/core.kubefed.io/v1beta1/namespaces/kube-federation-system";
const TYPES: &str = "/apis/types.kubefed.io/v1beta1/namespaces/ns";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ns/deployments";
const MEMBERS: [&str; 3] = ["c1", "c2", "c3"];

/// A control plane as KubeFed leaves it, and its members with their audit logs.
struct Scene {
    old: Cluster,
    members: Vec<(String, Cluster)>,
    logs: Vec<PathBuf>,
    /// How much of the logs is KubeFed's.
    marks: Vec<usize>,
}

async fn a_scene() -> Scene {
    let old = a_federation().await;
    let admin = old.admin();
    let mut configs = federatedtypeconfig::defaults();
    for config in &mut configs {
        config["metadata"]["namespace"] = json!(NAMESPACE);
        if config["metadata"]["name"] == "services" {
            config["spec"]["statusCollection"] = json!("Enabled");
        }
        admin.create(&format!("{CORE}/federatedtypeconfigs"), config).await.expect("created");
    }
    let kubefed = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {"scope": "Cluster", "clusterHealthCheck": {"period": "2s"}},
    });
    admin.create(&format!("{CORE}/kubefedconfigs"), &kubefed).await.expect("created");
    let (mut members, mut logs) = (Vec::new(), Vec::new());
    for name in MEMBERS {
        let mut log = PathBuf::new();
        let member = a_member_with(|config| {
            log = config.tls.cert.with_file_name("audit.log");
            config.audit = Some(audit::Options {
                path: log.clone(),
                max_size: u64::MAX,
                max_backups: 0,
                policy: audit::Policy::default(),
            });
        })
        .await;
        join(&old, name, &member.url(), &member).await;
        members.push((name.to_owned(), member));
        logs.push(log);
    }
    let mut scene = Scene { old, members, logs, marks: vec![0; MEMBERS.len()] };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    scene.propagate("namespaces", federated_namespace("ns")).await;
    for number in 0..10 {
        let data = json!({"data": {"key": format!("{number} < 10"), "c2": "no"}});
        let change = json!([{"path": "/data/c2", "value": "yes"}]);
        scene.propagate("configmaps", federated("FederatedConfigMap", number, data, change)).await;
        let labels = json!({"app": "web", "first": "x"});
        let workload = json!({
            "metadata": {"labels": labels},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "c"}]}},
            },
        });
        let change = json!([{"path": "/spec/replicas", "value": 1}]);
        let deployment = federated("FederatedDeployment", number, workload, change);
        scene.propagate("deployments.apps", deployment).await;
        let service = json!({"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        let change = json!([{"op": "add", "path": "/spec/sessionAffinity", "value": "ClientIP"}]);
        scene.propagate("services", federated("FederatedService", number, service, change)).await;
        let role = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
        let mut role = federated("FederatedClusterRole", number, role, json!([]));
        role["metadata"].as_object_mut().expect("metadata").remove("namespace");
        role["spec"].as_object_mut().expect("a spec").remove("overrides");
        scene.propagate("clusterroles.rbac.authorization.k8s.io", role).await;
    }
    let preference = json!({
        "apiVersion": "scheduling.kubefed.io/v1alpha1", "kind": "ReplicaSchedulingPreference",
        "metadata": {"name": "a0"}, "spec": {"targetKind": "FederatedReplicaSet", "totalReplicas": 9},
    });
    let preferences =
        "/apis/scheduling.kubefed.io/v1alpha1/namespaces/ns/replicaschedulingpreferences";
    admin.create(preferences, &preference).await.expect("created");
    scene.marks = scene.logs.iter().map(|log| lines(log).len()).collect();
    scene
}

/// A federated object for the first two members, with an override for the second.
fn federated(kind: &str, number: usize, template: Value, change: Value) -> Value {
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": kind,
        "metadata": {"name": format!("a{number}"), "namespace": "ns"},
        "spec": {
            "template": template,
            "placement": {"clusters": [{"name": "c1"}, {"name": "c2"}]},
            "overrides": [{"clusterName": "c2", "clusterOverrides": change}],
        },
    })
}

fn lines(log: &PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

impl Scene {
    /// Does with a federated object what KubeFed does: it is held, put into the members, and what they have is noted.
    async fn propagate(&self, config: &str, mut object: Value) {
        let admin = self.old.admin();
        let config =
            admin.get(&format!("{CORE}/federatedtypeconfigs/{config}")).await.expect("one");
        let config = FederatedTypeConfig::from_value(&config).expect("readable");
        object["metadata"]["finalizers"] = json!([SYNC_FINALIZER]);
        let at = |api: &str, plural: &str, namespace: &str| match namespace {
            "" => format!("/{api}/{plural}"),
            namespace => format!("/{api}/namespaces/{namespace}/{plural}"),
        };
        let namespace = meta::namespace(&object).to_owned();
        let federated = &config.federated;
        let api = format!("apis/{}", federated.api_version());
        let object = admin.create(&at(&api, &federated.plural_name, &namespace), &object).await;
        let object = object.expect("created");
        let clusters: Vec<placement::Cluster> = MEMBERS
            .iter()
            .map(|name| placement::Cluster { name: (*name).into(), labels: Default::default() })
            .collect();
        let selected = placement::selected(&object, &clusters).expect("placed");
        let mut versions = Vec::new();
        for (name, member) in self.members.iter().filter(|(name, _)| selected.contains(name)) {
            let desired = template::desired(&object, &config, name, None).expect("an object");
            let target = &config.target;
            let root = if target.group.is_empty() { "api" } else { "apis" };
            let there = meta::namespace(&desired).to_owned();
            let api = format!("{root}/{}", target.api_version());
            let path = at(&api, &target.plural_name, &there);
            let path = format!("{path}?fieldManager=controller-manager");
            let made = member.admin().create(&path, &desired).await.expect("created");
            let version = object_version(meta::generation(&made), meta::resource_version(&made));
            versions.push(json!({"clusterName": name, "version": version}));
        }
        let (kind, plural) = match config.federated_is_namespaced() {
            true => ("PropagatedVersion", "propagatedversions"),
            false => ("ClusterPropagatedVersion", "clusterpropagatedversions"),
        };
        let name = kubefed_api::propagatedversion::name(&config.target.kind, meta::name(&object));
        let record = json!({
            "apiVersion": "core.kubefed.io/v1alpha1", "kind": kind,
            "metadata": {"name": name, "ownerReferences": [{
                "apiVersion": object["apiVersion"], "kind": object["kind"],
                "name": meta::name(&object), "uid": meta::uid(&object),
            }]},
        });
        let status = json!({
            "templateVersion": template_hash(&object), "overridesVersion": overrides_hash(&object),
            "clusterVersions": versions,
        });
        let records = at("apis/core.kubefed.io/v1alpha1", plural, &namespace);
        admin.create(&records, &record).await.expect("created");
        let path = format!("{records}/{name}/status");
        admin.merge(&path, &json!({"status": status})).await.expect("noted");
    }

    /// The names of the objects that were written in the members since KubeFed was left.
    fn written(&self) -> Vec<String> {
        let mut written = Vec::new();
        for (log, mark) in self.logs.iter().zip(&self.marks) {
            for line in lines(log).iter().skip(*mark) {
                let verb = line["verb"].as_str().unwrap_or("");
                if !["get", "list", "watch"].contains(&verb) {
                    let object = &line["objectRef"];
                    let text = |field: &str| object[field].as_str().unwrap_or("?").to_owned();
                    written.push(format!("{verb} {}/{}", text("resource"), text("name")));
                }
            }
        }
        written
    }

    /// Whether the controllers have looked into the members.
    fn is_looked_at(&self) -> bool {
        let watches = |(log, mark): (&PathBuf, &usize)| {
            lines(log).iter().skip(*mark).any(|line| line["verb"] == "watch")
        };
        self.logs.iter().zip(&self.marks).all(watches)
    }

    /// Runs `kubefed` with the old control plane and a new one as its contexts: what it says, if it ends well.
    async fn kubefed(&self, new: &Cluster, arguments: &str) -> Result<String, String> {
        let all = ["system:masters"];
        let files = [new.kubeconfig("new", "boss", &all), self.old.kubeconfig("old", "root", &all)];
        let ended = Kubefed::new(&files).run(arguments, "").await;
        let said = ended.stdout + &ended.stderr;
        if ended.code == Some(0) { Ok(said) } else { Err(said) }
    }

    /// The lock of KubeFed's controller manager, which is renewed until the token is cancelled.
    async fn lead(&self) -> CancellationToken {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        let lock = |count: u64| {
            let said = json!({"holderIdentity": "kubefed_1", "leaseDurationSeconds": 2, "renewTime": format!("at {count}")});
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "kubefed-controller-manager", "annotations": {
                    "control-plane.alpha.kubernetes.io/leader": said.to_string(),
                }},
            })
        };
        let (admin, token) = (self.old.admin(), CancellationToken::new());
        admin.create(&path, &lock(0)).await.expect("created");
        tokio::spawn(token.clone().run_until_cancelled_owned(async move {
            let mut renewals = tokio::time::interval(std::time::Duration::from_millis(100));
            for count in 1.. {
                renewals.tick().await;
                admin
                    .merge(&format!("{path}/kubefed-controller-manager"), &lock(count))
                    .await
                    .expect("renewed");
            }
        }));
        token
    }
}

/// Waits until all federated objects are told to be where they are to be.
async fn all_is_told(new: &Client) {
    for path in [
        format!("{TYPES}/federatednamespaces"),
        format!("{TYPES}/federatedconfigmaps"),
        format!("{TYPES}/federateddeployments"),
        format!("{TYPES}/federatedservices"),
        "/apis/types.kubefed.io/v1beta1/federatedclusterroles".to_owned(),
    ] {
        eventually(&format!("all of {path} is told"), async || {
            let list = new.get(&path).await.ok()?;
            let items = list["items"].as_array()?;
            let is_told = |item: &Value| {
                let status = &item["status"];
                let wanted = if item["kind"] == "FederatedNamespace" { 3 } else { 2 };
                status["conditions"][0]["status"] == "True"
                    && status["observedGeneration"] == item["metadata"]["generation"]
                    && status["clusters"].as_array().is_some_and(|all| all.len() == wanted)
            };
            (!items.is_empty() && items.iter().all(is_told)).then_some(())
        })
        .await;
    }
}

/// The versions of what a run could change in the new control plane.
async fn versions(new: &Client) -> Vec<Value> {
    let mut versions = Vec::new();
    for path in [
        format!("{CORE}/federatedtypeconfigs"),
        format!("{TYPES}/federatedconfigmaps"),
        "/apis/core.kubefed.io/v1alpha1/propagatedversions".to_owned(),
        format!("/api/v1/namespaces/{NAMESPACE}/secrets"),
    ] {
        let list = new.get(&path).await.expect("a list");
        for item in list["items"].as_array().expect("items") {
            versions.push(json!([item["metadata"]["name"], item["metadata"]["resourceVersion"]]));
        }
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federation_moves_under_running_controllers_and_no_member_is_written() {
    let scene = a_scene().await;
    let new: Federation = a_federation_of(&[]).await;
    let (api, admin) = (&new.api, new.admin());
    let migrate = "migrate --from-context old";

    let before = versions_without_objects(&admin).await;
    let leads = scene.lead().await;
    let refused = scene.kubefed(api, migrate).await.expect_err("KubeFed still works");
    assert!(refused.contains("kubefed_1") && refused.contains("--replicas=0"), "{refused}");
    let shown = scene.kubefed(api, &format!("{migrate} --dry-run")).await.expect("a dry run");
    assert!(shown.starts_with("not yet: "), "{shown}");
    assert!(shown.contains("FederatedDeployment: 10 to be moved, 0 unchanged"), "{shown}");
    assert_eq!(versions_without_objects(&admin).await, before, "nothing was done");
    assert_eq!(admin.get(&format!("{CORE}/kubefedclusters")).await.unwrap()["items"], json!([]));
    leads.cancel();

    let going = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedSecret",
        "metadata": {"name": "going", "finalizers": [SYNC_FINALIZER]}, "spec": {"template": {}},
    });
    let old = scene.old.admin();
    old.create(&format!("{TYPES}/federatedsecrets"), &going).await.expect("created");
    old.delete(&format!("{TYPES}/federatedsecrets/going"), &json!({})).await.expect("deleted");
    let said = scene.kubefed(api, migrate).await.expect_err("one is left");
    assert!(said.contains("FederatedSecret ns/going is being deleted"), "{said}");
    assert!(said.ends_with("error: 1 object is left\n"), "{said}");
    for moved in [
        "FederatedConfigMap: 10 moved, 0 unchanged",
        "FederatedClusterRole: 10 moved, 0 unchanged",
        "KubeFedCluster: 3 moved, 0 unchanged",
        "FederatedTypeConfig: 1 moved, 9 unchanged",
        "ReplicaSchedulingPreference: 1 moved, 0 unchanged",
    ] {
        assert!(said.contains(moved), "{said}");
    }
    all_is_told(&admin).await;
    eventually("the controllers look into every member", async || {
        scene.is_looked_at().then_some(())
    })
    .await;
    assert_eq!(scene.written(), Vec::<String>::new());
    let services = admin.get(&format!("{CORE}/federatedtypeconfigs/services")).await.unwrap();
    assert_eq!(services["spec"]["statusCollection"], "Enabled", "nobody else had said otherwise");
    assert_eq!(services["spec"]["propagation"], "Enabled");

    let finalizers = json!({"metadata": {"finalizers": null}});
    old.merge(&format!("{TYPES}/federatedsecrets/going"), &finalizers).await.expect("let go");
    let before = versions(&admin).await;
    let again = scene.kubefed(api, migrate).await.expect("nothing is left");
    assert!(again.contains("FederatedConfigMap: 0 moved, 10 unchanged"), "{again}");
    assert!(again.contains("kubefed.io/orphan"), "it says how to take the old away: {again}");
    assert_eq!(versions(&admin).await, before);

    // From now on it is ours: a label that the template no longer has goes, although KubeFed has set it.
    let path = format!("{TYPES}/federateddeployments/a3");
    let change = json!({"spec": {"template": {"metadata": {"labels": {"first": null}}, "spec": {"replicas": 5}}}});
    admin.merge(&path, &change).await.expect("changed");
    for (name, replicas) in [("c1", 5), ("c2", 1)] {
        let there = scene.member(name).admin();
        eventually(&format!("the change is in {name}"), async || {
            let found = there.get(&format!("{DEPLOYMENTS}/a3")).await.ok()?;
            let labels = json!({"app": "web", MANAGED: "true"});
            (found["metadata"]["labels"] == labels && found["spec"]["replicas"] == replicas)
                .then_some(())
        })
        .await;
    }
    let said = scene.kubefed(api, migrate).await.expect_err("one differs");
    assert!(
        said.contains("FederatedDeployment ns/a3 is there and differs in spec: it is left"),
        "{said}"
    );
    let changed = admin.get(&path).await.unwrap();
    assert_eq!(changed["spec"]["template"]["spec"]["replicas"], 5);
    admin.delete(&format!("{TYPES}/federatedconfigmaps/a4"), &json!({})).await.expect("deleted");
    for name in ["c1", "c2"] {
        is_gone(scene.member(name), "/api/v1/namespaces/ns/configmaps/a4").await;
    }
    is_gone(api, "/apis/core.kubefed.io/v1alpha1/namespaces/ns/propagatedversions/configmap-a4")
        .await;
    for written in scene.written() {
        assert!(
            written == "patch deployments/a3" || written == "delete configmaps/a4",
            "{written} was not asked for"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federation_moves_by_way_of_a_file() {
    let scene = a_scene().await;
    let mut new: Federation = a_federation_of(&[]).await;
    new.stop_manager().await;
    let file = new.api.dir.path().join("kubefed.jsonl");
    let shown = file.display();
    let migrate = format!("migrate --from-context old --to-file {shown}");
    let kept = scene.kubefed(&new.api, &migrate).await.expect("kept");
    assert!(kept.contains("objects are kept in "), "{kept}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let admin = new.admin();
    assert_eq!(admin.get(&format!("{CORE}/kubefedclusters")).await.unwrap()["items"], json!([]));

    // One that was cut off is not believed.
    let text = std::fs::read_to_string(&file).unwrap();
    let cut = new.api.dir.path().join("cut.jsonl");
    std::fs::write(&cut, &text[..text.trim_end().rfind('\n').unwrap()]).unwrap();
    let migrate = format!("migrate --from-file {}", cut.display());
    let refused = scene.kubefed(&new.api, &migrate).await.expect_err("it is not whole");
    assert!(refused.contains("is not whole"), "{refused}");

    // What can be moved only in part is not propagated, and nothing in the members is let go.
    let namespace = "/api/v1/namespaces/ns";
    let held = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "ns", "finalizers": ["example.com/hold"]},
    });
    admin.create("/api/v1/namespaces", &held).await.expect("created");
    admin.delete(namespace, &json!({})).await.expect("going");
    let migrate = format!("migrate --from-file {shown}");
    let refused = scene.kubefed(&new.api, &migrate).await.expect_err("the namespace is going");
    assert!(refused.contains("FederatedDeployment ns/a0: "), "{refused}");
    assert!(refused.contains("32 objects were refused"), "{refused}");
    new.start_manager();
    for name in MEMBERS {
        new.wait_ready(name).await;
    }
    let configs = admin.get(&format!("{CORE}/federatedtypeconfigs")).await.unwrap();
    for config in configs["items"].as_array().unwrap() {
        assert_eq!(config["spec"]["propagation"], "Disabled", "{config}");
    }
    new.stop_manager().await;
    let finalizers = json!({"metadata": {"finalizers": null}});
    admin.merge(namespace, &finalizers).await.expect("let go");
    is_gone(&new.api, namespace).await;

    let said = scene.kubefed(&new.api, &migrate).await.expect("moved");
    assert!(said.contains("FederatedDeployment: 10 moved, 0 unchanged"), "{said}");
    assert!(said.contains("FederatedClusterRole: 0 moved, 10 unchanged"), "{said}");
    new.start_manager();
    all_is_told(&admin).await;
    eventually("the controllers look into every member", async || {
        scene.is_looked_at().then_some(())
    })
    .await;
    assert_eq!(scene.written(), Vec::<String>::new());
}

/// The versions of what is there before anything is moved.
async fn versions_without_objects(new: &Client) -> Value {
    let list = new.get(&format!("{CORE}/federatedtypeconfigs")).await.expect("a list");
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| item["spec"].clone()).collect()
}

impl Scene {
    fn member(&self, name: &str) -> &Cluster {
        &self.members.iter().find(|(known, _)| known == name).expect("a member").1
    }
}

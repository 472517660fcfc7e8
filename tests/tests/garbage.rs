//! What the controllers of a real host do to our objects: its garbage collector follows owners across the host and us,
//! its namespace controller empties namespaces.

use std::time::Duration;

use kubefed_api::federatedtypeconfig;
use kubefed_controllers::client::Client;
use kubefed_tests::control_plane::{ControlPlane, a_control_plane};
use kubefed_tests::{Cluster, Kubectl, NAMESPACE, eventually, eventually_within};
use serde_json::{Value, json};

const CORE: &str = "core.kubefed.io/v1beta1";
/// Holds an object until the test lets it go.
const HOLD: &str = "example.com/hold";
/// The garbage collector looks for new kinds every 30 s, and then lists them.
const DISCOVERED: Duration = Duration::from_secs(120);

struct Kind {
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const OURS: Kind = Kind {
    api_version: "types.kubefed.io/v1beta1",
    kind: "FederatedConfigMap",
    plural: "federatedconfigmaps",
};
const HOSTS: Kind = Kind { api_version: "v1", kind: "ConfigMap", plural: "configmaps" };

/// Owner and dependent.
const PAIRS: [(&str, &Kind, &Kind); 3] = [
    ("the-hosts-of-ours", &OURS, &HOSTS),
    ("ours-of-the-hosts", &HOSTS, &OURS),
    ("ours-of-ours", &OURS, &OURS),
];
const POLICIES: [&str; 3] = ["background", "foreground", "orphan"];

impl Kind {
    fn path(&self, namespace: &str) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        format!("/{root}/{}/namespaces/{namespace}/{}", self.api_version, self.plural)
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.path("a"))
    }

    fn object(&self, name: &str) -> Value {
        let mut object = json!({
            "apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": name},
        });
        if self.kind == OURS.kind {
            object["spec"] = json!({"template": {"data": {}}, "placement": {"clusters": []}});
        }
        object
    }

    /// A reference to an object of this kind that waits for its dependents.
    fn reference(&self, name: &str, uid: &str) -> Value {
        json!({
            "apiVersion": self.api_version, "kind": self.kind, "name": name, "uid": uid,
            "blockOwnerDeletion": true,
        })
    }
}

struct Scene {
    admin: Client,
    kubectl: Kubectl,
    _extension: Cluster,
    _host: ControlPlane,
}

impl Scene {
    /// An extension that the host leads to, which serves FederatedConfigMaps, and a namespace `a`.
    async fn new() -> Option<Self> {
        let host = a_control_plane().await?;
        let extension = host.extension().await;
        let past = host.client_past(&extension, "admin", &["system:masters"]);
        let configs = format!("/apis/{CORE}/namespaces/{NAMESPACE}/federatedtypeconfigs");
        past.create(&configs, &config("configmaps", NAMESPACE)).await.expect("created");
        host.register(&extension).await;
        let admin = host.admin();
        let kubectl = host.kubectl("admin", &["system:masters"]);
        kubectl.ok("create namespace a", "").await;
        eventually("our kind is served", async || admin.get(&OURS.path("a")).await.ok()).await;
        Some(Scene { admin, kubectl, _extension: extension, _host: host })
    }

    /// Creates an object of namespace `a`; its uid.
    async fn create(&self, kind: &Kind, name: &str, metadata: Value) -> String {
        let mut object = kind.object(name);
        object["metadata"] = metadata;
        object["metadata"]["name"] = json!(name);
        let created = self.admin.create(&kind.path("a"), &object).await.expect("created");
        created["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }

    async fn create_owned(&self, kind: &Kind, name: &str, owner: Value) {
        self.create(kind, name, json!({"ownerReferences": [owner]})).await;
    }

    async fn get(&self, kind: &Kind, name: &str) -> Value {
        self.admin.get(&kind.at(name)).await.expect("it is there")
    }

    async fn until_gone(&self, kind: &Kind, name: &str) {
        self.until_gone_within(kubefed_tests::PATIENCE, kind, name).await;
    }

    async fn until_gone_within(&self, patience: Duration, kind: &Kind, name: &str) {
        eventually_within(patience, &format!("the end of {} {name}", kind.kind), async || {
            let found = self.admin.get(&kind.at(name)).await;
            found.is_err_and(|error| error.is_not_found()).then_some(())
        })
        .await;
    }

    /// Waits until the garbage collector has seen all that is there now: it takes in what the watches tell one after the
    /// other, of each kind in its order, and these it sees last.
    async fn until_seen(&self) {
        let nobody = HOSTS.reference("nobody", "6a0e2f4c-0000-4000-8000-000000000000");
        for kind in [&OURS, &HOSTS] {
            self.create_owned(kind, "last", nobody.clone()).await;
        }
        for kind in [&OURS, &HOSTS] {
            self.until_gone_within(DISCOVERED, kind, "last").await;
        }
    }

    /// Lets an object go that is held.
    async fn release(&self, path: &str) {
        let patch = json!({"metadata": {"finalizers": null}});
        self.admin.merge(path, &patch).await.expect("released");
    }

    /// Deletes an owner as a kubectl does, or by the options of a request.
    async fn delete(&self, kind: &Kind, name: &str, policy: &str, by_kubectl: bool) {
        if by_kubectl {
            let what = format!("{} {name}", kind.plural);
            let line = format!("-n a delete {what} --cascade={policy} --wait=false");
            self.kubectl.ok(&line, "").await;
        } else {
            let (first, rest) = policy.split_at(1);
            let policy = format!("{}{rest}", first.to_uppercase());
            let options =
                json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
            self.admin.delete(&kind.at(name), &options).await.expect("deleted");
        }
    }
}

/// A FederatedTypeConfig of KubeFed's chart.
fn config(name: &str, namespace: &str) -> Value {
    let mut configs = federatedtypeconfig::defaults().into_iter();
    let mut config =
        configs.find(|config| config["metadata"]["name"] == name).expect("a default of that name");
    config["metadata"]["namespace"] = json!(namespace);
    config
}

fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn is_ending(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_controllers_clean_up_here_as_there() {
    let Some(scene) = Scene::new().await else { return };
    owners_that_never_were(&scene).await;
    owners_that_go(&scene).await;
    a_namespace_that_goes(&scene).await;
}

/// A dependent goes whose owner is not there; also where another has the owner's name.
async fn owners_that_never_were(scene: &Scene) {
    scene.until_seen().await;
    let mut left = Vec::new();
    for (n, owner) in [&OURS, &HOSTS].into_iter().enumerate() {
        let uid = scene.create(owner, "namesake", json!({})).await;
        for dependent in [&OURS, &HOSTS] {
            for (name, owners_name) in [("of-nobody", "nobody"), ("of-namesake", "namesake")] {
                let name = format!("{name}-{n}");
                let absent = "6a0e2f4c-1111-4000-8000-000000000000";
                scene.create_owned(dependent, &name, owner.reference(owners_name, absent)).await;
                left.push((dependent, name));
            }
            // One of two owners is enough to stay for.
            let owners = [
                owner.reference("nobody", "6a0e2f4c-2222-4000-8000-000000000000"),
                owner.reference("namesake", &uid),
            ];
            scene
                .create(dependent, &format!("of-both-{n}"), json!({"ownerReferences": owners}))
                .await;
        }
    }
    for (dependent, name) in left {
        scene.until_gone(dependent, &name).await;
    }
    for (n, owner) in [&OURS, &HOSTS].into_iter().enumerate() {
        for dependent in [&OURS, &HOSTS] {
            eventually("the owner that is not there is taken off", async || {
                let there = scene.get(dependent, &format!("of-both-{n}")).await;
                let owners = there["metadata"]["ownerReferences"].as_array()?;
                (owners.len() == 1 && owners[0]["name"] == "namesake").then_some(())
            })
            .await;
        }
        assert!(!is_ending(&scene.get(owner, "namesake").await));
    }
}

/// Each policy, asked for by kubectl and by the options of a request, between us and the host in both directions.
async fn owners_that_go(scene: &Scene) {
    let cases = || {
        PAIRS.into_iter().flat_map(|(pair, owner, dependent)| {
            POLICIES.into_iter().flat_map(move |policy| {
                [true, false].map(|by_kubectl| {
                    let way = if by_kubectl { "kubectl" } else { "request" };
                    let name = format!("{pair}-{policy}-{way}");
                    (owner, dependent, policy, by_kubectl, format!("{name}-owner"), name)
                })
            })
        })
    };
    for (owner, dependent, policy, _, owners_name, name) in cases() {
        let uid = scene.create(owner, &owners_name, json!({})).await;
        let held: &[&str] = if policy == "foreground" { &[HOLD] } else { &[] };
        let references = [owner.reference(&owners_name, &uid)];
        let metadata = json!({"ownerReferences": references, "finalizers": held});
        scene.create(dependent, &name, metadata).await;
    }
    scene.until_seen().await;
    for (owner, _, policy, by_kubectl, owners_name, _) in cases() {
        scene.delete(owner, &owners_name, policy, by_kubectl).await;
    }
    for (owner, dependent, policy, _, owners_name, name) in cases() {
        match policy {
            "background" => {
                scene.until_gone(owner, &owners_name).await;
                scene.until_gone(dependent, &name).await;
            }
            "foreground" => {
                eventually(&format!("the deletion of {name}"), async || {
                    is_ending(&scene.get(dependent, &name).await).then_some(())
                })
                .await;
                let waits = scene.get(owner, &owners_name).await;
                assert!(is_ending(&waits), "{owners_name}: {waits}");
                assert_eq!(finalizers(&waits), ["foregroundDeletion"], "{owners_name}");
                scene.release(&dependent.at(&name)).await;
                scene.until_gone(dependent, &name).await;
                scene.until_gone(owner, &owners_name).await;
            }
            _ => {
                scene.until_gone(owner, &owners_name).await;
                let stays = scene.get(dependent, &name).await;
                assert!(stays["metadata"]["ownerReferences"].is_null(), "{name}: {stays}");
                assert!(!is_ending(&stays), "{name}");
            }
        }
    }
}

/// A namespace goes with all that is in it of us, as soon as nothing holds that; what is in no namespace stays.
async fn a_namespace_that_goes(scene: &Scene) {
    scene.kubectl.ok("create namespace b", "").await;
    let mut held = OURS.object("held");
    held["metadata"]["finalizers"] = json!([HOLD]);
    let named = |api_version: &str, kind: &str, spec: Value| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "one"}, "spec": spec});
    let cluster = json!({"apiEndpoint": "https://one.example.com", "secretRef": {"name": "one"}});
    let in_namespace =
        |api_version: &str, plural: &str| format!("/apis/{api_version}/namespaces/b/{plural}");
    let (alpha, scheduling) = ("core.kubefed.io/v1alpha1", "scheduling.kubefed.io/v1alpha1");
    let preference = json!({"targetKind": "FederatedDeployment", "totalReplicas": 1});
    let content = [
        (OURS.path("b"), held),
        (OURS.path("b"), OURS.object("free")),
        (in_namespace(CORE, "kubefedclusters"), named(CORE, "KubeFedCluster", cluster)),
        (in_namespace(CORE, "federatedtypeconfigs"), config("secrets", "b")),
        (in_namespace(alpha, "propagatedversions"), named(alpha, "PropagatedVersion", json!({}))),
        (
            in_namespace(scheduling, "replicaschedulingpreferences"),
            named(scheduling, "ReplicaSchedulingPreference", preference),
        ),
    ];
    for (path, object) in &content {
        scene.admin.create(path, object).await.expect(path);
    }
    let elsewhere = format!("/apis/{alpha}/clusterpropagatedversions");
    let record = named(alpha, "ClusterPropagatedVersion", json!({}));
    scene.admin.create(&elsewhere, &record).await.expect("created");

    scene.kubectl.ok("delete namespace b --wait=false", "").await;
    let says = |namespace: &Value, condition: &str, what: &str| {
        let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|found| {
            let message = found["message"].as_str().unwrap_or_default();
            found["type"] == condition && found["status"] == "True" && message.contains(what)
        })
    };
    eventually("the namespace says what it waits for", async || {
        let namespace = scene.admin.get("/api/v1/namespaces/b").await.ok()?;
        let left = "federatedconfigmaps.types.kubefed.io has 1 resource instances";
        (says(&namespace, "NamespaceContentRemaining", left)
            && says(&namespace, "NamespaceFinalizersRemaining", &format!("{HOLD} in 1 resource")))
        .then_some(())
    })
    .await;
    for (path, _) in &content {
        let left = scene.admin.get(path).await.expect("a list");
        let names =
            left["items"].as_array().into_iter().flatten().map(|item| &item["metadata"]["name"]);
        let wanted: &[&str] = if *path == OURS.path("b") { &["held"] } else { &[] };
        assert_eq!(names.collect::<Vec<_>>(), wanted, "{path}");
    }
    scene.release(&format!("{}/held", OURS.path("b"))).await;
    eventually_within(DISCOVERED, "the end of the namespace", async || {
        let found = scene.admin.get("/api/v1/namespaces/b").await;
        found.is_err_and(|error| error.is_not_found()).then_some(())
    })
    .await;
    let stays = scene.admin.get(&format!("{elsewhere}/one")).await.expect("it is there");
    assert!(!is_ending(&stays), "{stays}");
}

//! Whole federations: an API server, members that are joined, and a controller manager.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_controllers::client::Client;
use kubefed_controllers::manager::Endpoints;
use kubefed_controllers::metrics::Metrics;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::{Cluster, NAMESPACE, a_federation, a_member, eventually};

/// A federation with members and a controller manager.
pub struct Federation {
    pub api: Cluster,
    pub members: Vec<(String, Cluster)>,
    /// Of all controller managers in this process.
    pub metrics: Arc<Metrics>,
    managers: CancellationToken,
    tracker: TaskTracker,
}

impl Drop for Federation {
    fn drop(&mut self) {
        self.managers.cancel();
    }
}

/// A federation whose members have these names, joined and ready, with KubeFed's federated kinds.
pub async fn a_federation_of(names: &[&str]) -> Federation {
    let api = a_federation().await;
    let admin = api.admin();
    for mut config in kubefed_api::federatedtypeconfig::defaults() {
        config["metadata"]["namespace"] = json!(NAMESPACE);
        let path =
            format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/federatedtypeconfigs");
        admin.create(&path, &config).await.expect("a FederatedTypeConfig");
    }
    let mut members = Vec::new();
    for name in names {
        let member = a_member().await;
        join(&api, name, &member.url(), &member).await;
        members.push(((*name).to_owned(), member));
    }
    let federation = Federation {
        api,
        members,
        metrics: Arc::default(),
        managers: CancellationToken::new(),
        tracker: TaskTracker::new(),
    };
    federation.start_manager();
    for name in names {
        federation.wait_ready(name).await;
    }
    federation
}

/// The FederatedTypeConfig of KubeFed's chart with this name.
pub fn federated_config(name: &str) -> Value {
    let mut defaults = kubefed_api::federatedtypeconfig::defaults().into_iter();
    let found = defaults.find(|config| config["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no FederatedTypeConfig is called {name}"))
}

/// What brings a namespace to every member.
pub fn federated_namespace(name: &str) -> Value {
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedNamespace",
        "metadata": {"name": name, "namespace": name},
        "spec": {"template": {}, "placement": {"clusterSelector": {}}},
    })
}

/// Makes a namespace that is in every member.
pub async fn a_namespace_everywhere(admin: &Client, name: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    let path = format!("/apis/types.kubefed.io/v1beta1/namespaces/{name}/federatednamespaces");
    admin.create(&path, &federated_namespace(name)).await.expect("created");
}

/// Joins a member under a name, reached at `url`.
pub async fn join(api: &Cluster, name: &str, url: &str, member: &Cluster) {
    join_by(&api.admin().into(), name, url, member).await;
}

/// The same, with the secret in the host and the rest in the federation.
pub async fn join_by(endpoints: &Endpoints, name: &str, url: &str, member: &Cluster) {
    let there = member.admin();
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    match there.create("/api/v1/namespaces", &namespace).await {
        // A control plane that is a member of itself has it.
        Err(error) if error.is_conflict() => {}
        created => drop(created.expect("a namespace")),
    }
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "kubefed"}});
    there
        .create(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &account)
        .await
        .expect("an account");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "kubefed"},
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "kubefed", "namespace": NAMESPACE}],
    });
    there
        .create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding)
        .await
        .expect("a binding");
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/kubefed/token");
    let token = there.create(&path, &request).await.expect("a token");
    let token = token["status"]["token"].as_str().expect("a token").to_owned();

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": token}});
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    endpoints.host.create(&secrets, &secret).await.expect("a secret");
    let ca = BASE64_STANDARD.encode(std::fs::read(member.ca_file()).expect("the CA"));
    let cluster = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedCluster",
        "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"apiEndpoint": url, "caBundle": ca, "secretRef": {"name": name}},
    });
    let path = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters");
    endpoints.federation.create(&path, &cluster).await.expect("a cluster");
}

impl Federation {
    /// Starts a controller manager, in this process.
    pub fn start_manager(&self) {
        self.start_manager_with(None);
    }

    /// The same, with the KubeFedConfig of a file.
    pub fn start_manager_with(&self, config: Option<PathBuf>) {
        self.start_manager_as("system:kubefed-controller-manager", config);
    }

    /// The same, as another user.
    pub fn start_manager_as(&self, user: &str, config: Option<PathBuf>) {
        let client = self.api.client(user, &[]);
        self.tracker.spawn(kubefed_controllers::manager::run(
            client.into(),
            NAMESPACE.into(),
            config,
            Arc::clone(&self.metrics),
            self.managers.clone(),
        ));
    }

    /// Ends the controller managers in this process, and waits until they have.
    pub async fn stop_manager(&mut self) {
        self.managers.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.tracker.reopen();
        self.managers = CancellationToken::new();
    }

    pub fn admin(&self) -> Client {
        self.api.admin()
    }

    pub fn member(&self, name: &str) -> &Cluster {
        &self.members.iter().find(|(known, _)| known == name).expect("a member of that name").1
    }

    /// Waits until the controllers call a cluster ready.
    pub async fn wait_ready(&self, name: &str) {
        let admin = self.admin();
        let path =
            format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters/{name}");
        eventually("the cluster is ready", async || {
            let cluster = admin.get(&path).await.ok()?;
            kubefed_api::kubefedcluster::is_ready(&cluster).then_some(())
        })
        .await;
    }

    /// Joins a member that accepts connections and never says anything, for as long as the token lives.
    pub async fn join_silent(&self, name: &str) -> DropGuard {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = silent.local_addr().expect("an address");
        let token = CancellationToken::new();
        tokio::spawn(token.clone().run_until_cancelled_owned(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = silent.accept().await {
                held.push(stream);
            }
        }));
        let admin = self.admin();
        let path = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters");
        let like = &self.members.first().expect("a member").0;
        let mut cluster = admin.get(&format!("{path}/{like}")).await.expect("a cluster");
        cluster["metadata"] = json!({"name": name});
        cluster["spec"]["apiEndpoint"] = json!(format!("https://{address}"));
        admin.create(&path, &cluster).await.expect("a cluster");
        token.drop_guard()
    }
}

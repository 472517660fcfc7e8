//! Fixtures: whole servers in this process, on free ports of the loopback, with their own certificates.

pub mod balancer;
pub mod cli;
pub mod control_plane;
pub mod etcd;
pub mod front;
pub mod installed;
pub mod kubernetes;
pub mod load;
pub mod manifests;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod replicas;
pub mod scene;
pub mod up;
pub mod webhook;
pub mod widgets;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_apiserver::kinds;
use kubefed_apiserver::server::{Config, Server, Serving};
use kubefed_certs::{Authority, ClientTls, Clients, ServerFiles};
use kubefed_controllers::client::{Access, Client};
use kubefed_controllers::manager::Endpoints;
use kubefed_controllers::metrics::Metrics;
use kubefed_storage::embedded;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The namespace of the control plane in tests.
pub const NAMESPACE: &str = kubefed_api::SYSTEM_NAMESPACE;

/// A server, and what is needed to reach it.
pub struct Cluster {
    pub server: Arc<Server>,
    pub dir: TempDir,
    authority: Authority,
    token: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// A federation API server over a store in memory.
pub async fn a_federation() -> Cluster {
    a_federation_with(|_| {}).await
}

/// The same, with a configuration that `change` has changed.
pub async fn a_federation_with(change: impl FnOnce(&mut Config)) -> Cluster {
    let mut served = kinds::control_plane();
    served.extend(kubefed_api::kinds());
    let parts = Parts::new();
    let mut config = parts.config(served, Some(NAMESPACE.into()));
    change(&mut config);
    let server = Server::start(config, parts.token.clone()).await.expect("the server starts");
    parts.cluster(server)
}

/// A local member over a store in memory.
pub async fn a_member() -> Cluster {
    a_member_with(|_| {}).await
}

/// The same, with a configuration that `change` has changed.
pub async fn a_member_with(change: impl FnOnce(&mut Config)) -> Cluster {
    let parts = Parts::new();
    let mut config = parts.config(kinds::cluster(), None);
    change(&mut config);
    let ca = parts.dir.path().join("ca.crt");
    let server = kubefed_localcluster::start(config, &ca, parts.token.clone())
        .await
        .expect("the member starts");
    parts.cluster(server)
}

/// A member in which nothing happens by itself: what its controllers would write, the test writes.
pub async fn a_still_member() -> Cluster {
    let parts = Parts::new();
    let config = parts.config(kinds::cluster(), None);
    let server = Server::start(config, parts.token.clone()).await.expect("the member starts");
    parts.cluster(server)
}

struct Parts {
    dir: TempDir,
    authority: Authority,
    token: CancellationToken,
    key: (Vec<u8>, Vec<u8>),
}

impl Parts {
    fn new() -> Self {
        kubefed_certs::install_crypto_provider();
        let dir = TempDir::new().expect("a temporary directory");
        let authority = Authority::new("tests").expect("an authority");
        let serving =
            authority.issue_server("tests", &["127.0.0.1", "localhost"]).expect("a certificate");
        let write =
            |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        write("ca.crt", &authority.cert_pem().expect("PEM"));
        write("tls.crt", &serving.cert_pem);
        write("tls.key", &serving.key_pem);
        let (private, public) = kubefed_certs::service_account_key().expect("a key");
        let key = (private.into_bytes(), public.into_bytes());
        Parts { dir, authority, token: CancellationToken::new(), key }
    }

    fn config(
        &self,
        kinds: Vec<kubefed_apimachinery::definition::Definition>,
        federation: Option<String>,
    ) -> Config {
        let path = |name: &str| self.dir.path().join(name);
        Config {
            store: embedded::in_memory(),
            kinds,
            federation,
            host: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: ServerFiles {
                cert: path("tls.crt"),
                key: path("tls.key"),
                clients: Clients::Verified(path("ca.crt")),
            },
            serving: Serving::default(),
            service_account_key: Some(self.key.clone()),
            audit: None,
            version: "v1.37.0".into(),
        }
    }

    fn cluster(self, server: Arc<Server>) -> Cluster {
        Cluster { server, dir: self.dir, authority: self.authority, token: self.token }
    }
}

impl Cluster {
    /// Ends the server, and waits until it has ended.
    pub async fn stop(&self) {
        self.token.cancel();
        self.server.drained().await;
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// A kubeconfig for a user of these groups, with one context called `context`.
    pub fn kubeconfig(&self, context: &str, user: &str, groups: &[&str]) -> PathBuf {
        write_kubeconfig(self.dir.path(), &self.authority, &self.url(), (context, user, groups))
    }

    /// The kubectl on the PATH, as an administrator.
    pub fn kubectl(&self) -> Kubectl {
        self.kubectl_at("kubectl".into())
    }

    /// Another kubectl, as an administrator.
    pub fn kubectl_at(&self, program: PathBuf) -> Kubectl {
        Kubectl {
            program,
            kubeconfig: self.kubeconfig("federation", "admin", &["system:masters"]),
            cache: tempfile::tempdir_in(self.dir.path()).expect("a directory").keep(),
        }
    }
}

/// A kubectl with its kubeconfig.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// Runs kubectl with `arguments`, words separated by spaces, and `input` on its standard input.
    pub async fn run(&self, arguments: &str, input: &str) -> Output {
        use std::io::Write as _;
        let mut command = self.command(arguments);
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("kubectl is on the PATH");
            child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads");
            child.wait_with_output().expect("kubectl ends")
        })
        .await
        .expect("the thread ends")
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments.split_whitespace())
            .env("KUBE_EDITOR", "sed -i s/before/after/")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command
    }

    /// The standard output of a run that succeeds.
    pub async fn ok(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "kubectl {arguments}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs kubectl until a line of its standard output holds `wanted`.
    pub async fn until(&self, arguments: &str, wanted: &'static str) {
        use tokio::io::{AsyncBufReadExt as _, BufReader};
        let mut child = tokio::process::Command::from(self.command(arguments))
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl is on the PATH");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let seen = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                if line.contains(wanted) {
                    return true;
                }
            }
            false
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await.expect("kubectl says it in time");
        assert!(seen, "kubectl {arguments} ends without {wanted:?}");
    }

    /// What a run that fails says.
    pub async fn fails(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input).await;
        assert!(
            !output.status.success(),
            "kubectl {arguments} should fail: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// Writes a kubeconfig for a user of these groups, with one context, into the directory that holds `ca.crt`.
fn write_kubeconfig(
    dir: &Path,
    authority: &Authority,
    url: &str,
    (context, user, groups): (&str, &str, &[&str]),
) -> PathBuf {
    let client = authority.issue_client(user, groups).expect("a certificate");
    let file = |name: String, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let cert = file(format!("{context}-{user}.crt"), &client.cert_pem);
    let key = file(format!("{context}-{user}.key"), &client.key_pem);
    let ca = dir.join("ca.crt");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": context,
        "clusters": [{"name": context, "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": user, "user": {"client-certificate": cert, "client-key": key}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user, "namespace": NAMESPACE}}],
    });
    file(format!("{context}-{user}.kubeconfig"), &config.to_string())
}

/// A binary of the workspace. `make test` builds them; cargo puts them beside the tests.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let dir = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let binary = dir.join(name);
    assert!(binary.exists(), "{} is missing: cargo build --workspace --bins", binary.display());
    binary
}

/// A manifest of the guide, unchanged.
pub fn guide(section: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/testdata/guide");
    let mut entries = std::fs::read_dir(&dir).expect("the guide's manifests");
    let file = entries.find_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.starts_with(section).then_some(path)
    });
    std::fs::read_to_string(
        file.unwrap_or_else(|| panic!("the guide has no manifest in {section}")),
    )
    .expect("readable")
}

/// How long a test waits for what is to happen. Long enough for a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `check` gives something.
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, check).await
}

/// The same, for what somebody else does in his own time.
pub async fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not happen within {patience:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Cluster {
    /// A client with a certificate of this user and groups.
    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        let client = self.authority.issue_client(user, groups).expect("a certificate");
        let identity = Some((client.cert_pem.into_bytes(), client.key_pem.into_bytes()));
        let ca_pem = std::fs::read(self.ca_file()).expect("the CA");
        let tls = ClientTls { ca_pem, identity, alpn: Vec::new() };
        Client::new(Access { url: self.url(), tls, ..Access::default() }).expect("a client")
    }

    /// A client that may do everything.
    pub fn admin(&self) -> Client {
        self.client("admin", &["system:masters"])
    }
}

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

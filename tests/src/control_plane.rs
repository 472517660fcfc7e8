//! A real Kubernetes control plane as plain processes on free ports of the loopback, gone with the value: etcd,
//! kube-apiserver and those controllers of kube-controller-manager that need no node.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apiserver::host::{self, Host};
use kubefed_apiserver::server::{Config, Server, Serving};
use kubefed_certs::{Authority, ClientTls, Clients, KeyPairPem, ServerFiles};
use kubefed_controllers::client::{Access, Client};
use kubefed_storage::embedded;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::etcd::{Etcd, an_etcd, free_ports};
use crate::proxy::Proxy;
use crate::raw::{self, Raw};
use crate::{Cluster, Kubectl, NAMESPACE, eventually, kubernetes};

/// A port that was free may be taken when the server opens it.
const ATTEMPTS: usize = 3;
/// How long a start may take on a machine that is busy with other tests.
const START: std::time::Duration = std::time::Duration::from_secs(90);
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// The controllers that work without nodes.
const CONTROLLERS: &[&str] = &[
    "namespace-controller",
    "garbage-collector-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "job-controller",
    "resourcequota-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "persistentvolumeclaim-protection-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
];

/// A cluster.
pub struct ControlPlane {
    pub dir: TempDir,
    /// Of its clients and of its own certificate.
    pub authority: Authority,
    pub front_proxy: Authority,
    address: SocketAddr,
    program: PathBuf,
    flags: Vec<String>,
    apiserver: Child,
    controllers: Option<Child>,
    etcd: Etcd,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for child in self.controllers.iter_mut().chain([&mut self.apiserver]) {
            let _ended_already = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A control plane that answers; `None` where it can't be built.
pub async fn a_control_plane() -> Option<ControlPlane> {
    let binary = kubernetes::binary("kubernetes").await?;
    for _ in 0..ATTEMPTS {
        let mut plane = ControlPlane::start(&binary, an_etcd().await?);
        if plane.is_ready().await {
            plane.start_controllers(&binary);
            plane.wait_for_controllers().await;
            return Some(plane);
        }
    }
    panic!("kube-apiserver does not start");
}

impl ControlPlane {
    fn start(binary: &Path, etcd: Etcd) -> Self {
        kubefed_certs::install_crypto_provider();
        let dir = TempDir::new().expect("a temporary directory");
        let authority = Authority::new("kubernetes").expect("an authority");
        let front_proxy = Authority::new("front-proxy").expect("an authority");
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc", "10.0.0.1"];
        let serving = authority.issue_server("kube-apiserver", &names).expect("a certificate");
        let proxy = front_proxy.issue_client("front-proxy-client", &[]).expect("a certificate");
        let (private, public) = kubefed_certs::service_account_key().expect("a key");
        file("ca.crt", &authority.cert_pem().expect("PEM"));
        file("front-proxy-ca.crt", &front_proxy.cert_pem().expect("PEM"));
        file("sa.key", &private);
        file("sa.pub", &public);
        for (name, pair) in [("server", serving), ("proxy", proxy)] {
            file(&format!("{name}.crt"), &pair.cert_pem);
            file(&format!("{name}.key"), &pair.key_pem);
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports(1)[0]));
        let flags = vec![
            format!("--etcd-servers={}", etcd.options().endpoints.join(",")),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", address.port()),
            format!("--tls-cert-file={}", path("server.crt")),
            format!("--tls-private-key-file={}", path("server.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--requestheader-client-ca-file={}", path("front-proxy-ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-uid-headers=X-Remote-Uid".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            format!("--proxy-client-cert-file={}", path("proxy.crt")),
            format!("--proxy-client-key-file={}", path("proxy.key")),
            // So the aggregator follows a Service of type ExternalName, which may lead to the loopback.
            "--enable-aggregator-routing=false".into(),
            "--service-cluster-ip-range=10.0.0.0/16".into(),
            "--authorization-mode=RBAC".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            // Endpoints may not be on the loopback; nobody publishes this address.
            "--endpoint-reconciler-type=none".into(),
            "--advertise-address=198.51.100.1".into(),
        ];
        let apiserver = run(binary, "kube-apiserver", &flags, dir.path());
        ControlPlane {
            dir,
            authority,
            front_proxy,
            address,
            program: binary.to_owned(),
            flags,
            apiserver,
            controllers: None,
            etcd,
        }
    }

    /// Waits until it is ready; false if it ends instead.
    async fn is_ready(&mut self) -> bool {
        let client = self.admin();
        let began = Instant::now();
        while client
            .get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
            .await
            .is_err()
            || client
                .get("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:auth-delegator")
                .await
                .is_err()
        {
            if self.apiserver.try_wait().expect("a child").is_some() {
                return false;
            }
            assert!(began.elapsed() < START, "kube-apiserver: {}", self.log("kube-apiserver"));
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    fn start_controllers(&mut self, binary: &Path) {
        let kubeconfig =
            self.kubeconfig("controllers", "system:kube-controller-manager", &["system:masters"]);
        let kubeconfig = kubeconfig.display();
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let flags = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".into(),
            "--secure-port=0".into(),
            "--leader-elect=false".into(),
            format!("--service-account-private-key-file={}", path("sa.key")),
            format!("--root-ca-file={}", path("ca.crt")),
            "--use-service-account-credentials=true".into(),
            format!("--controllers={}", CONTROLLERS.join(",")),
        ];
        self.controllers = Some(run(binary, "kube-controller-manager", &flags, self.dir.path()));
    }

    async fn wait_for_controllers(&self) {
        let client = self.admin();
        let began = Instant::now();
        while client.get("/api/v1/namespaces/default/serviceaccounts/default").await.is_err() {
            let log = || self.log("kube-controller-manager");
            assert!(began.elapsed() < START, "kube-controller-manager: {}", log());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn log(&self, program: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("{program}.log"))).unwrap_or_default()
    }

    /// Where its etcd is.
    pub fn etcd_servers(&self) -> Vec<String> {
        self.etcd.options().endpoints
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A road to kube-apiserver.
    pub async fn road(&self) -> Proxy {
        Proxy::start(self.address).await
    }

    /// Ends kube-apiserver without a word.
    pub fn fall(&mut self) {
        self.apiserver.kill().expect("it runs");
        self.apiserver.wait().expect("it has ended");
    }

    /// Stops kube-apiserver, which keeps its connections and says nothing, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let id = self.apiserver.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill runs");
        assert!(status.success(), "kill {signal}");
    }

    /// Starts kube-apiserver again, and waits until it is ready.
    pub async fn come_back(&mut self) {
        self.apiserver = run(&self.program, "kube-apiserver", &self.flags, self.dir.path());
        assert!(self.is_ready().await, "kube-apiserver: {}", self.log("kube-apiserver"));
    }

    /// A connection that shows this certificate.
    pub async fn raw(&self, shown: &KeyPairPem, protocol: &str) -> Raw {
        let ca_pem = self.authority.cert_pem().expect("PEM").into_bytes();
        Raw::over(raw::stream(self.address, ca_pem, Some(shown), protocol).await).await
    }

    /// A client with a certificate of this user and groups.
    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        self.client_of(self.url(), &self.authority, user, groups)
    }

    /// The same user at an extension, past this cluster.
    pub fn client_past(&self, extension: &Cluster, user: &str, groups: &[&str]) -> Client {
        self.client_of(extension.url(), &extension.authority, user, groups)
    }

    /// A user of this cluster at a server that another authority vouches for.
    pub fn client_of(&self, url: String, ca: &Authority, user: &str, groups: &[&str]) -> Client {
        let pair = self.authority.issue_client(user, groups).expect("a certificate");
        let identity = Some((pair.cert_pem.into_bytes(), pair.key_pem.into_bytes()));
        let ca_pem = ca.cert_pem().expect("PEM").into_bytes();
        let tls = ClientTls { ca_pem, identity, ..ClientTls::default() };
        Client::new(Access { url, tls, ..Access::default() }).expect("a client")
    }

    pub fn admin(&self) -> Client {
        self.client("admin", &["system:masters"])
    }

    /// A kubeconfig for a user of these groups.
    pub fn kubeconfig(&self, context: &str, user: &str, groups: &[&str]) -> PathBuf {
        self.kubeconfig_by(&self.url(), context, user, groups)
    }

    fn kubeconfig_by(&self, url: &str, context: &str, user: &str, groups: &[&str]) -> PathBuf {
        crate::write_kubeconfig(self.dir.path(), &self.authority, url, (context, user, groups))
    }

    /// A kubeconfig that leads to an extension, past this cluster, for a user of this cluster.
    pub fn kubeconfig_past(&self, extension: &Cluster, user: &str, groups: &[&str]) -> PathBuf {
        let whom = ("extension", user, groups);
        crate::write_kubeconfig(extension.dir.path(), &self.authority, &extension.url(), whom)
    }

    /// The kubectl on the PATH, as this user.
    pub fn kubectl(&self, user: &str, groups: &[&str]) -> Kubectl {
        Kubectl {
            program: "kubectl".into(),
            kubeconfig: self.kubeconfig("host-cluster", user, groups),
            cache: tempfile::tempdir_in(self.dir.path()).expect("a directory").keep(),
        }
    }

    /// What an extension of this cluster is made of: its server listens on a free port, and is known by the name of a
    /// Service in the control plane's namespace.
    pub async fn extension(&self) -> Cluster {
        self.extension_with(|_| {}).await
    }

    /// The same, with a configuration that `change` has changed.
    pub async fn extension_with(&self, change: impl FnOnce(&mut Config)) -> Cluster {
        self.extension_by(&self.url(), change).await
    }

    /// The same, which reaches this cluster by another URL.
    pub async fn extension_by(&self, url: &str, change: impl FnOnce(&mut Config)) -> Cluster {
        self.let_an_extension_in().await;
        self.another_extension(url, change).await
    }

    /// An extension where one was made before, with the rights that it was given.
    pub async fn another_extension(&self, url: &str, change: impl FnOnce(&mut Config)) -> Cluster {
        let dir = TempDir::new().expect("a directory");
        let authority = Authority::new("kubefed").expect("an authority");
        let service = format!("{SERVICE}.{NAMESPACE}.svc");
        let serving = authority
            .issue_server(&service, &[&service, "127.0.0.1", "localhost"])
            .expect("a certificate");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("a file");
            path
        };
        file("ca.crt", &authority.cert_pem().expect("PEM"));
        let tls = ServerFiles {
            cert: file("tls.crt", &serving.cert_pem),
            key: file("tls.key", &serving.key_pem),
            clients: Clients::Asked,
        };
        let options = host::Options {
            kubeconfig: Some(self.kubeconfig_by(url, "host", EXTENSION, &[])),
            ..host::Options::default()
        };
        let token = CancellationToken::new();
        let mut config = Config {
            store: embedded::in_memory(),
            kinds: kubefed_api::kinds(),
            federation: Some(NAMESPACE.into()),
            host: Some(Host::connect(options).await.expect("the host answers")),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls,
            serving: Serving::default(),
            service_account_key: None,
            audit: None,
            version: "v1.37.0".into(),
        };
        change(&mut config);
        let server = Server::start(config, token.clone()).await.expect("the server starts");
        Cluster { server: Arc::clone(&server), dir, authority, token }
    }

    /// Gives an extension its rights, and the namespace of the control plane.
    pub async fn let_an_extension_in(&self) {
        let admin = self.admin();
        for object in rights_of_an_extension() {
            let path = collection(&object);
            admin.create(&path, &object).await.expect("created");
        }
    }

    /// Gives an extension another certificate of the same authority, as its files.
    pub fn renew(&self, extension: &Cluster) -> KeyPairPem {
        let service = format!("{SERVICE}.{NAMESPACE}.svc");
        let names = [&service, "127.0.0.1", "localhost"];
        let pair = extension.authority.issue_server(&service, &names).expect("a certificate");
        let file = |name: &str| extension.dir.path().join(name);
        fs::write(file("tls.key"), &pair.key_pem).expect("a file");
        fs::write(file("tls.crt"), &pair.cert_pem).expect("a file");
        pair
    }

    /// Leads the federation's groups to an extension, and waits until the host calls them available.
    pub async fn register(&self, extension: &Cluster) {
        let ca = fs::read(extension.ca_file()).expect("the CA");
        self.register_at(extension.server.address.port(), &ca).await;
    }

    /// The same, to a port of the loopback.
    pub async fn register_at(&self, port: u16, ca: &[u8]) {
        let admin = self.admin();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        admin.create(&collection(&service), &service).await.expect("created");
        for GroupVersion { group, version } in kubefed_api::group_versions() {
            let name = format!("{version}.{group}");
            let object = json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
                "spec": {
                    "group": group, "version": version,
                    "groupPriorityMinimum": 1000, "versionPriority": 15,
                    "caBundle": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, ca),
                    "service": {"name": SERVICE, "namespace": NAMESPACE, "port": port},
                },
            });
            let path = collection(&object);
            admin.create(&path, &object).await.expect("created");
            eventually(&format!("{name} is available"), async || {
                let object = admin.get(&format!("{path}/{name}")).await.ok()?;
                let conditions = object["status"]["conditions"].as_array()?;
                let available = |c: &Value| c["type"] == "Available" && c["status"] == "True";
                if !conditions.iter().any(available) {
                    return None;
                }
                // Another controller of the host opens the road, in its own time.
                admin.get(&format!("/apis/{group}/{version}")).await.ok()
            })
            .await;
        }
    }
}

/// The Service that leads to an extension, whose name is in its certificate.
pub const SERVICE: &str = "kubefed-apiserver";
/// The user that an extension is to its host.
pub const EXTENSION: &str = "kubefed-apiserver";

/// The namespace of the control plane, and what an extension may do in its host.
fn rights_of_an_extension() -> Vec<Value> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    let subjects =
        json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": EXTENSION}]);
    let role = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": EXTENSION},
            "rules": [
                {"apiGroups": [""], "resources": ["namespaces", "resourcequotas"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": [""], "resources": ["resourcequotas/status"], "verbs": ["update"]},
                {
                    "apiGroups": ["admissionregistration.k8s.io"],
                    "resources": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
                    "verbs": ["list", "watch"],
                },
                {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["list", "watch"]},
                {"apiGroups": [""], "resources": ["services"], "verbs": ["get"]},
                {
                    "apiGroups": ["admissionregistration.k8s.io"],
                    "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
                    "verbs": ["list", "watch"],
                },
                {"apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"], "verbs": ["patch"]},
            ],
        }),
        json!({
            "apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": EXTENSION},
            "roleRef": role("ClusterRole", EXTENSION), "subjects": subjects,
        }),
        json!({
            "apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": format!("{EXTENSION}-auth")},
            "roleRef": role("ClusterRole", "system:auth-delegator"), "subjects": subjects,
        }),
        json!({
            "apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": EXTENSION, "namespace": "kube-system"},
            "roleRef": role("Role", "extension-apiserver-authentication-reader"), "subjects": subjects,
        }),
    ]
}

/// Where objects like this one are created.
fn collection(object: &Value) -> String {
    let api_version = object["apiVersion"].as_str().unwrap_or("");
    let root = if api_version.contains('/') { "/apis" } else { "/api" };
    let plural = format!("{}s", object["kind"].as_str().unwrap_or("").to_lowercase());
    match object["metadata"]["namespace"].as_str() {
        None => format!("{root}/{api_version}/{plural}"),
        Some(namespace) => format!("{root}/{api_version}/namespaces/{namespace}/{plural}"),
    }
}

fn run(binary: &Path, program: &str, flags: &[String], dir: &Path) -> Child {
    let log = dir.join(format!("{program}.log"));
    let log = File::options().create(true).append(true).open(log).expect("a log file");
    Command::new(binary)
        .arg(program)
        .args(flags)
        // It ends when this end of the pipe is closed.
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log)
        .spawn()
        .expect("it starts")
}

//! Fixtures: whole servers in this process, on free ports of the loopback, with their own certificates.

pub mod balancer;
pub mod cli;
pub mod control_plane;
pub mod etcd;
pub mod federation;
pub mod front;
pub mod installed;
pub mod kubectl;
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
use std::sync::Arc;
use std::time::Duration;

use kubefed_apiserver::kinds;
use kubefed_apiserver::server::{Config, Server, Serving};
use kubefed_certs::{Authority, ClientTls, Clients, ServerFiles};
use kubefed_controllers::client::{Access, Client};
use kubefed_storage::embedded;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub use federation::{
    Federation, a_federation_of, a_namespace_everywhere, federated_config, federated_namespace,
    join, join_by,
};
pub use kubectl::Kubectl;

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

//! Fixtures: whole servers in this process, on free ports of the loopback, with their own certificates.

pub mod etcd;
pub mod kubernetes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use kubefed_apiserver::kinds;
use kubefed_apiserver::server::{Config, Server};
use kubefed_certs::{Authority, ServerFiles};
use kubefed_storage::embedded;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

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
    let mut served = kinds::control_plane();
    served.extend(kubefed_api::kinds());
    let parts = Parts::new();
    let config = parts.config(served, Some(NAMESPACE.into()));
    let server = Server::start(config, parts.token.clone()).await.expect("the server starts");
    parts.cluster(server)
}

/// A local member over a store in memory.
pub async fn a_member() -> Cluster {
    let parts = Parts::new();
    let config = parts.config(kinds::cluster(), None);
    let ca = parts.dir.path().join("ca.crt");
    let server = kubefed_localcluster::start(config, &ca, parts.token.clone())
        .await
        .expect("the member starts");
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
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: ServerFiles {
                cert: path("tls.crt"),
                key: path("tls.key"),
                client_ca: Some(path("ca.crt")),
            },
            service_account_key: Some(self.key.clone()),
            version: "v1.37.0".into(),
        }
    }

    fn cluster(self, server: Arc<Server>) -> Cluster {
        Cluster { server, dir: self.dir, authority: self.authority, token: self.token }
    }
}

impl Cluster {
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// A kubeconfig for a user of these groups, with one context called `context`.
    pub fn kubeconfig(&self, context: &str, user: &str, groups: &[&str]) -> PathBuf {
        let client = self.authority.issue_client(user, groups).expect("a certificate");
        let file = |name: String, text: &str| {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let cert = file(format!("{context}-{user}.crt"), &client.cert_pem);
        let key = file(format!("{context}-{user}.key"), &client.key_pem);
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": context, "cluster": {"server": self.url(), "certificate-authority": self.ca_file()}}],
            "users": [{"name": user, "user": {"client-certificate": cert, "client-key": key}}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": user, "namespace": NAMESPACE}}],
        });
        file(format!("{context}-{user}.kubeconfig"), &config.to_string())
    }

    /// kubectl as an administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl {
            kubeconfig: self.kubeconfig("federation", "admin", &["system:masters"]),
            cache: self.dir.path().join("cache"),
        }
    }
}

/// The kubectl on the PATH.
pub struct Kubectl {
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// Runs kubectl with `arguments`, words separated by spaces, and `input` on its standard input.
    pub async fn run(&self, arguments: &str, input: &str) -> Output {
        use std::io::Write as _;
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments.split_whitespace())
            .env("KUBECTL_INTERACTIVE_DELETE", "false")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("kubectl is on the PATH");
            child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads");
            child.wait_with_output().expect("kubectl ends")
        })
        .await
        .expect("the thread ends")
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

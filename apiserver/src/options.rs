//! The flags of the server, and from flags to a [`Config`](crate::server::Config).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{ArgAction, Parser, ValueEnum};
use kubefed_apimachinery::duration;
use kubefed_certs::{Clients, ServerFiles};
use kubefed_component::ProcessOptions;
use kubefed_storage::{Store, embedded, etcd};

use crate::host::Host;
use crate::server::{Config, Serving};
use crate::{audit, kinds};

mod host;
mod selfsigned;

pub use host::HostFlags;

/// Where objects are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageBackend {
    Etcd3,
    Embedded,
}

/// The flags that every server here has.
#[derive(Clone, Debug, Parser)]
pub struct ServingOptions {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub bind_address: IpAddr,
    /// The port to serve HTTPS on; 0 takes a free one
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// PEM file of the serving certificate
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file of the serving certificate's key
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The directory of apiserver.crt and apiserver.key, which are made, self-signed, and used where no
    /// --tls-cert-file is given
    #[arg(long, default_value = "apiserver.local.config/certificates")]
    pub cert_dir: PathBuf,
    /// PEM file of the authorities whose client certificates are believed
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// PEM file of the key that service-account tokens are signed with
    #[arg(long, requires = "service_account_key_file")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// PEM file of the public half of that key
    #[arg(long)]
    pub service_account_key_file: Option<PathBuf>,
    /// Paths that need no rights; a star at the end stands for whatever begins so
    #[arg(long, value_delimiter = ',', default_values_t = Serving::default().open_paths)]
    pub authorization_always_allow_paths: Vec<String>,
    /// How many requests that read are answered at a time; 0: any number
    #[arg(long, default_value_t = Serving::default().max_reading)]
    pub max_requests_inflight: usize,
    /// How many requests that write are answered at a time; 0: any number
    #[arg(long, default_value_t = Serving::default().max_writing)]
    pub max_mutating_requests_inflight: usize,
    /// How long a server that is told to end goes on, with /readyz failing, so that load balancers see it
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    pub shutdown_delay_duration: Duration,
    /// Only false is possible: there are no profiles to be had over HTTP
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = false, default_missing_value = "true")]
    pub profiling: bool,
    /// A file that every request is recorded in, one JSON line for each; - is standard output
    #[arg(long)]
    pub audit_log_path: Option<PathBuf>,
    /// A Policy of audit.k8s.io/v1: what is recorded; without one, everything but probes and bodies
    #[arg(long, requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// The size in megabytes at which that file is put aside and a new one begun
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxsize: u64,
    /// How many files put aside are kept
    #[arg(long, default_value_t = 10)]
    pub audit_log_maxbackup: usize,
    /// A file to write the address to once the server listens
    #[arg(long)]
    pub endpoint_file: Option<PathBuf>,
    #[command(flatten)]
    pub process: ProcessOptions,
}

/// The flags of `kubefed-apiserver`.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubefed-apiserver", version, about = "The API server of the federation")]
pub struct Options {
    #[command(flatten)]
    pub serving: ServingOptions,
    /// The store
    #[arg(long, value_enum, default_value = "etcd3")]
    pub storage_backend: StorageBackend,
    /// The directory of the embedded store
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// The etcd servers, https://host:port, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// What the keys in etcd begin with
    #[arg(long, default_value = "/kubefed")]
    pub etcd_prefix: String,
    /// PEM file of the authority of etcd's certificates
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// PEM file of the client certificate for etcd
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// PEM file of the key of that certificate
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// The namespace of the control plane: where FederatedTypeConfigs and clusters have effect
    #[arg(long, default_value = "kube-federation-system")]
    pub kubefed_namespace: String,
    #[command(flatten)]
    pub host: HostFlags,
}

impl Options {
    /// What the flags ask for, with the store opened.
    ///
    /// # Errors
    /// Says which flag or file is wrong.
    pub async fn complete(&self) -> anyhow::Result<Config> {
        let store: Arc<dyn Store> = match (self.storage_backend, &self.data_dir) {
            (StorageBackend::Embedded, Some(dir)) => open_embedded(dir).await?,
            (StorageBackend::Embedded, None) => {
                bail!("--storage-backend=embedded needs --data-dir")
            }
            (StorageBackend::Etcd3, _) if self.etcd_servers.is_empty() => {
                bail!("--etcd-servers must be given, or --storage-backend=embedded with --data-dir")
            }
            (StorageBackend::Etcd3, _) => {
                let options = etcd::Options {
                    prefix: self.etcd_prefix.trim_end_matches('/').to_owned(),
                    ca: self.etcd_cafile.clone(),
                    cert: self.etcd_certfile.clone(),
                    key: self.etcd_keyfile.clone(),
                    ..etcd::Options::new(&self.etcd_servers)
                };
                etcd::connect(options).await.context("cannot reach etcd (--etcd-servers)")?
            }
        };
        let federation = Some(self.kubefed_namespace.clone());
        let version = format!("v{}", env!("CARGO_PKG_VERSION"));
        let Some(host) = self.host.options(self.serving.client_ca_file.as_ref()) else {
            let mut kinds = kinds::control_plane();
            kinds.extend(kubefed_api::kinds());
            return self.serving.config(store, kinds, federation, &version);
        };
        let mut config = self.serving.config(store, kubefed_api::kinds(), federation, &version)?;
        config.tls.clients = Clients::Asked;
        config.host = Some(Host::connect(host).await?);
        Ok(config)
    }
}

/// Opens the embedded store of a directory.
///
/// # Errors
/// If the directory can't be used.
pub async fn open_embedded(dir: &Path) -> anyhow::Result<Arc<dyn Store>> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the directory {} (--data-dir)", dir.display()))?;
    embedded::open(dir)
        .await
        .with_context(|| format!("cannot open the store in {} (--data-dir)", dir.display()))
}

impl ServingOptions {
    /// The configuration of a server with these flags.
    ///
    /// # Errors
    /// Says which flag or file is wrong.
    pub fn config(
        &self,
        store: Arc<dyn Store>,
        kinds: Vec<kubefed_apimachinery::definition::Definition>,
        federation: Option<String>,
        version: &str,
    ) -> anyhow::Result<Config> {
        let read = |flag: &str, path: &Path| {
            std::fs::read(path).with_context(|| format!("cannot read {} ({flag})", path.display()))
        };
        if self.profiling {
            bail!("--profiling can only be false: look at the process from outside, with perf");
        }
        for path in &self.authorization_always_allow_paths {
            if !path.starts_with('/') || path[..path.len() - 1].contains('*') {
                bail!(
                    "{path:?} in --authorization-always-allow-paths must begin with a slash and have no star but at its end"
                );
            }
        }
        let (cert, key) = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            _ => selfsigned::pair(&self.cert_dir, self.bind_address)?,
        };
        let service_account_key =
            match (&self.service_account_signing_key_file, &self.service_account_key_file) {
                (Some(private), Some(public)) => Some((
                    read("--service-account-signing-key-file", private)?,
                    read("--service-account-key-file", public)?,
                )),
                _ => None,
            };
        let policy = match &self.audit_policy_file {
            Some(path) => audit::Policy::read(&read("--audit-policy-file", path)?)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("cannot use {} (--audit-policy-file)", path.display()))?,
            None => audit::Policy::default(),
        };
        Ok(Config {
            store,
            kinds,
            federation,
            host: None,
            address: SocketAddr::new(self.bind_address, self.secure_port),
            tls: ServerFiles {
                cert,
                key,
                clients: self.client_ca_file.clone().map_or(Clients::Unasked, Clients::Verified),
            },
            serving: Serving {
                max_reading: self.max_requests_inflight,
                max_writing: self.max_mutating_requests_inflight,
                open_paths: self.authorization_always_allow_paths.clone(),
                shutdown_delay: self.shutdown_delay_duration,
                ..Serving::default()
            },
            service_account_key,
            audit: self.audit_log_path.clone().map(|path| audit::Options {
                path,
                max_size: self.audit_log_maxsize.saturating_mul(1024 * 1024),
                max_backups: self.audit_log_maxbackup,
                policy,
            }),
            version: version.into(),
        })
    }

    /// Tells where the server listens: to the endpoint file, written whole or not at all.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn tell_endpoint(&self, address: SocketAddr) -> anyhow::Result<()> {
        let Some(path) = &self.endpoint_file else { return Ok(()) };
        write_whole(path, 0o644, &format!("{address}\n"))
            .with_context(|| format!("cannot write {} (--endpoint-file)", path.display()))
    }
}

/// Writes a file as a whole: whoever reads it, or starts after a crash, finds no half of it.
fn write_whole(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&partial)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests;

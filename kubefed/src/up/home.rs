//! The directory of a federation: who runs in it, certificates, kubeconfigs, and where its processes listen.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_api::SYSTEM_NAMESPACE;
use kubefed_certs::{Authority, KeyPairPem, service_account_key};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::FEDERATION;

/// The directory, held as long as this value lives.
pub(super) struct Home {
    pub(super) dir: PathBuf,
    _lock: File,
}

/// A server's own directory, with what it needs to serve.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    /// Where it listens, once it does.
    pub(super) endpoint: Option<String>,
    authority: Authority,
}

/// The process that runs in a directory, if one does.
pub(super) fn holder(dir: &Path) -> anyhow::Result<Option<i32>> {
    let Ok(lock) = File::open(dir.join("lock")) else { return Ok(None) };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(None);
    }
    let text = fs::read_to_string(dir.join("pid"))
        .with_context(|| format!("{} is in use", dir.display()))?;
    text.trim().parse().map(Some).context("the pid file holds no number")
}

impl Home {
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        make_dir(dir)?;
        let dir = dir.canonicalize()?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("lock"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "a federation runs in {} already (kubefed down --dir {})",
                dir.display(),
                dir.display()
            );
        }
        write(&dir.join("pid"), &std::process::id().to_string())?;
        make_dir(&dir.join("logs"))?;
        Ok(Home { dir, _lock: lock })
    }

    /// The local members that ran here before.
    pub(super) fn members(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let places = entries.filter(|entry| entry.path().join("sa.key").exists());
        let names = places.filter_map(|entry| entry.file_name().into_string().ok());
        let mut members: Vec<String> = names.filter(|name| name != FEDERATION).collect();
        members.sort();
        members
    }

    /// The place of a server; what is missing is made.
    pub(super) fn place(&self, name: &str) -> anyhow::Result<Place> {
        let dir = self.dir.join(name);
        make_dir(&dir)?;
        let authority = authority(&dir, name)?;
        let serving = authority.issue_server(name, &["127.0.0.1", "localhost"])?;
        // Made anew at every start: they last a year.
        write_pair(&dir, "tls", &serving)?;
        if !dir.join("sa.key").exists() {
            let (private, public) = service_account_key()?;
            write(&dir.join("sa.pub"), &public)?;
            write(&dir.join("sa.key"), &private)?;
        }
        Ok(Place { name: name.to_owned(), dir, endpoint: None, authority })
    }

    /// The kubeconfig of the federation's user: a context for each place.
    pub(super) fn write_kubeconfig(&self, places: &[Place]) -> anyhow::Result<PathBuf> {
        let path = self.dir.join("kubeconfig");
        let mut all = kubeconfig(&places[0], "kubefed-admin", &["system:masters"])?;
        for place in &places[1..] {
            let one = kubeconfig(place, "kubefed-admin", &["system:masters"])?;
            for list in ["clusters", "users", "contexts"] {
                if let (Some(all), Some(one)) = (all[list].as_array_mut(), one[list].as_array()) {
                    all.extend(one.iter().cloned());
                }
            }
        }
        write(&path, &serde_saphyr::to_string(&all)?)?;
        Ok(path)
    }

    /// The kubeconfig of the controller manager, who has just the rights of one.
    pub(super) fn write_manager_kubeconfig(&self, federation: &Place) -> anyhow::Result<PathBuf> {
        let path = federation.dir.join("controller-manager.kubeconfig");
        let config = kubeconfig(federation, "system:kubefed-controller-manager", &[])?;
        write(&path, &serde_saphyr::to_string(&config)?)?;
        Ok(path)
    }
}

impl Place {
    /// The flags that every server here takes.
    pub(super) fn serving_flags(&self) -> Vec<String> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        vec![
            format!("--tls-cert-file={}", file("tls.crt")),
            format!("--tls-private-key-file={}", file("tls.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--service-account-key-file={}", file("sa.pub")),
            "--exit-with-parent".into(),
        ]
    }
}

fn kubeconfig(place: &Place, user: &str, groups: &[&str]) -> anyhow::Result<Value> {
    let client = place.authority.issue_client(user, groups)?;
    let endpoint = place.endpoint.as_deref().context("the server does not listen yet")?;
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let name = &place.name;
    let mut context = json!({"cluster": name, "user": format!("{name}-admin")});
    if name == FEDERATION {
        context["namespace"] = json!(SYSTEM_NAMESPACE);
    }
    Ok(json!({
        "apiVersion": "v1", "kind": "Config", "current-context": FEDERATION, "preferences": {},
        "clusters": [{"name": name, "cluster": {
            "server": format!("https://{endpoint}"), "certificate-authority-data": encode(&place.authority.cert_pem()?),
        }}],
        "users": [{"name": format!("{name}-admin"), "user": {
            "client-certificate-data": encode(&client.cert_pem), "client-key-data": encode(&client.key_pem),
        }}],
        "contexts": [{"name": name, "context": context}],
    }))
}

fn authority(dir: &Path, name: &str) -> anyhow::Result<Authority> {
    let (cert, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    if let (Ok(cert_pem), Ok(key_pem)) = (fs::read_to_string(&cert), fs::read_to_string(&key)) {
        return Authority::from_pem(&KeyPairPem { cert_pem, key_pem })
            .with_context(|| format!("{}", dir.display()));
    }
    let authority = Authority::new(&format!("kubefed {name}"))?;
    write_pair(dir, "ca", &authority.to_pem()?)?;
    Ok(authority)
}

fn write_pair(dir: &Path, name: &str, pair: &KeyPairPem) -> anyhow::Result<()> {
    write(&dir.join(format!("{name}.key")), &pair.key_pem)?;
    write(&dir.join(format!("{name}.crt")), &pair.cert_pem)
}

/// Nobody else may look into it: there are keys in it.
fn make_dir(dir: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make {}", dir.display()))
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

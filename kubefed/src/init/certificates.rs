//! The certificates of a control plane: which Secrets there are to be, and which of them must be made. What is good stays
//! as it is, whoever made it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_certs::{Authorities, Authority, ClientTls, KeyPairPem, client_config, not_after};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};

use super::manifests::labels;

const DAY: u64 = 24 * 3600;
/// A certificate that ends sooner is made anew: a run each month keeps all of them good.
const LEFT: u64 = 45 * DAY;
/// The same for an authority, which must outlast what it signs.
const LEFT_OF_AUTHORITY: u64 = 400 * DAY;

/// The data of Secrets by name.
pub(crate) type Known = BTreeMap<&'static str, BTreeMap<String, String>>;

/// The Secrets that may be known already.
pub(crate) const NAMES: &[&str] = &[
    "kubefed-ca",
    "kubefed-apiserver-tls",
    "kubefed-etcd-ca",
    "kubefed-etcd-tls",
    "kubefed-etcd-client",
];

/// What is to be in the host.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// PEM of the authority of the API server's certificate.
    pub(crate) ca: String,
    /// Secrets to be written; none if all are good.
    pub(crate) secrets: Vec<Value>,
}

/// A certificate that a Secret holds: the keys of it and of its key begin with `stem`.
struct Leaf {
    secret: &'static str,
    stem: &'static str,
    purpose: Purpose,
}

enum Purpose {
    Server(Vec<String>),
    Client(&'static str),
}

/// Completes what is `known`, at a time in seconds since 1970.
///
/// # Errors
/// If an authority that is known cannot sign.
pub(crate) fn complete(
    namespace: &str,
    with_etcd: bool,
    known: &Known,
    now: u64,
) -> anyhow::Result<Certificates> {
    let names_of = |name: &str| {
        ["", ".svc", ".svc.cluster.local"]
            .map(|end| format!("{name}.{namespace}{end}"))
            .into_iter()
            .chain([name.to_owned()])
    };
    let local = || ["localhost", "127.0.0.1"].map(String::from);
    let server =
        |secret, names: Vec<String>| Leaf { secret, stem: "tls", purpose: Purpose::Server(names) };
    let mut secrets = Vec::new();
    let apiserver =
        server("kubefed-apiserver-tls", names_of("kubefed-apiserver").chain(local()).collect());
    let ca = family(namespace, "kubefed-ca", &[apiserver], known, now, &mut secrets)?;
    if with_etcd {
        let members =
            (0..3).map(|member| format!("kubefed-etcd-{member}.kubefed-etcd.{namespace}.svc"));
        let names = members.chain(names_of("kubefed-etcd")).chain(local()).collect();
        let leaves = [
            server("kubefed-etcd-tls", names),
            Leaf {
                secret: "kubefed-etcd-tls",
                stem: "client",
                purpose: Purpose::Client("kubefed-etcd"),
            },
            Leaf {
                secret: "kubefed-etcd-client",
                stem: "tls",
                purpose: Purpose::Client("kubefed-apiserver"),
            },
        ];
        family(namespace, "kubefed-etcd-ca", &leaves, known, now, &mut secrets)?;
    }
    Ok(Certificates { ca, secrets })
}

/// Completes the certificates of one authority; returns its own.
fn family(
    namespace: &str,
    authority: &'static str,
    leaves: &[Leaf],
    known: &Known,
    now: u64,
    secrets: &mut Vec<Value>,
) -> anyhow::Result<String> {
    let empty = BTreeMap::new();
    let data = |secret: &str| known.get(secret).unwrap_or(&empty);
    let pair = |secret: &str, stem: &str| {
        let text = |end: &str| data(secret).get(&format!("{stem}.{end}")).cloned();
        Some(KeyPairPem { cert_pem: text("crt")?, key_pem: text("key")? })
    };
    let trusted = data(leaves[0].secret).get("ca.crt").cloned().unwrap_or_default();
    let is_good = |leaf: &Leaf, ca: &str| {
        data(leaf.secret).get("ca.crt").is_some_and(|known| known == ca)
            && pair(leaf.secret, leaf.stem)
                .is_some_and(|pair| leaf.purpose.is_served_by(&pair, ca, now + LEFT))
    };
    if leaves.iter().all(|leaf| is_good(leaf, &trusted)) {
        return Ok(trusted);
    }
    let old =
        pair(authority, "tls").filter(|pair| ends_after(&pair.cert_pem, now + LEFT_OF_AUTHORITY));
    let signer = match &old {
        Some(pair) if fit_together(pair) => Authority::from_pem(pair)
            .with_context(|| format!("Secret {authority} cannot sign: delete it for a new one"))?,
        Some(_) => {
            bail!("Secret {authority} has the key of another certificate: delete it for a new one")
        }
        None => Authority::new(authority)?,
    };
    let own = signer.to_pem()?;
    if old.is_none() {
        let data =
            [("ca.crt", &own.cert_pem), ("tls.crt", &own.cert_pem), ("tls.key", &own.key_pem)];
        secrets.push(secret(
            namespace,
            authority,
            &data.map(|(key, text)| (key.into(), text.clone())).into(),
        ));
    }
    let mut made: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for leaf in leaves {
        let kept = pair(leaf.secret, leaf.stem).filter(|_| is_good(leaf, &own.cert_pem));
        let pair = match kept {
            Some(pair) => pair,
            None => leaf.purpose.issue(&signer)?,
        };
        let data = made.entry(leaf.secret).or_default();
        data.insert("ca.crt".into(), own.cert_pem.clone());
        data.insert(format!("{}.crt", leaf.stem), pair.cert_pem);
        data.insert(format!("{}.key", leaf.stem), pair.key_pem);
    }
    let changed = made.iter().filter(|(name, made)| data(name) != *made);
    secrets.extend(changed.map(|(name, data)| secret(namespace, name, data)));
    Ok(own.cert_pem)
}

fn secret(namespace: &str, name: &str, data: &BTreeMap<String, String>) -> Value {
    let data = data.iter().map(|(key, text)| (key.clone(), json!(BASE64_STANDARD.encode(text))));
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace, "labels": labels()},
        "data": data.collect::<serde_json::Map<_, _>>(),
    })
}

fn certificate(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

fn ends_after(pem: &str, time: u64) -> bool {
    let end = certificate(pem).and_then(|certificate| not_after(&certificate));
    end.and_then(|end| u64::try_from(end).ok()).is_some_and(|end| end > time)
}

/// Whether a key is that of a certificate.
fn fit_together(pair: &KeyPairPem) -> bool {
    let identity = Some((pair.cert_pem.clone().into_bytes(), pair.key_pem.clone().into_bytes()));
    let tls = ClientTls { ca_pem: pair.cert_pem.clone().into_bytes(), identity, alpn: Vec::new() };
    client_config(&tls).is_ok()
}

impl Purpose {
    fn issue(&self, authority: &Authority) -> anyhow::Result<KeyPairPem> {
        Ok(match self {
            Purpose::Server(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                authority.issue_server(names[0], &names)?
            }
            Purpose::Client(user) => authority.issue_client(user, &[])?,
        })
    }

    /// Whether a certificate does for this, of this authority, until a time.
    fn is_served_by(&self, pair: &KeyPairPem, ca: &str, until: u64) -> bool {
        let (Some(leaf), Some(root)) = (certificate(&pair.cert_pem), certificate(ca)) else {
            return false;
        };
        if !fit_together(pair) {
            return false;
        }
        match self {
            Purpose::Server(names) => {
                let mut roots = RootCertStore::empty();
                let provider = rustls::crypto::aws_lc_rs::default_provider();
                if roots.add(root).is_err() {
                    return false;
                }
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots.into(), provider.into())
                        .build();
                let Ok(verifier) = verifier else { return false };
                let time = UnixTime::since_unix_epoch(Duration::from_secs(until));
                names.iter().all(|name| {
                    ServerName::try_from(name.as_str()).is_ok_and(|name| {
                        verifier.verify_server_cert(&leaf, &[], &name, &[], time).is_ok()
                    })
                })
            }
            Purpose::Client(_) => {
                let until = i64::try_from(until).unwrap_or(i64::MAX);
                Authorities::from_pem(ca.as_bytes())
                    .is_ok_and(|authorities| authorities.vouch_for(&[leaf], until))
            }
        }
    }
}

/// The data of a Secret as text; what is not text is as if it were not there.
pub(crate) fn data(secret: &Value) -> BTreeMap<String, String> {
    let entries = secret["data"].as_object().into_iter().flatten();
    let decoded = entries.filter_map(|(key, value)| {
        let bytes = BASE64_STANDARD.decode(value.as_str()?).ok()?;
        Some((key.clone(), String::from_utf8(bytes).ok()?))
    });
    decoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> u64 {
        u64::try_from(jiff::Timestamp::now().as_second()).unwrap()
    }

    fn taken_up(known: &Known, certificates: &Certificates) -> Known {
        let mut known = known.clone();
        for secret in &certificates.secrets {
            let name = NAMES.iter().find(|name| secret["metadata"]["name"] == **name).unwrap();
            known.insert(name, data(secret));
        }
        known
    }

    fn names(certificates: &Certificates) -> Vec<&str> {
        certificates
            .secrets
            .iter()
            .map(|secret| secret["metadata"]["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn what_is_good_is_kept_and_what_ends_soon_is_made_anew() {
        kubefed_certs::install_crypto_provider();
        let first = complete("ns", true, &Known::new(), now()).unwrap();
        assert_eq!(names(&first).len(), NAMES.len());
        let known = taken_up(&Known::new(), &first);
        let second = complete("ns", true, &known, now()).unwrap();
        assert_eq!((names(&second).len(), &second.ca), (0, &first.ca));
        // In eleven months.
        let later = complete("ns", true, &known, now() + 330 * DAY).unwrap();
        assert_eq!(
            names(&later),
            ["kubefed-apiserver-tls", "kubefed-etcd-client", "kubefed-etcd-tls"]
        );
        assert_eq!(later.ca, first.ca);
    }

    #[test]
    fn a_certificate_for_another_place_or_with_another_key_is_made_anew() {
        kubefed_certs::install_crypto_provider();
        let mut known =
            taken_up(&Known::new(), &complete("ns", false, &Known::new(), now()).unwrap());
        let moved = complete("elsewhere", false, &known, now()).unwrap();
        assert_eq!(names(&moved), ["kubefed-apiserver-tls"]);
        let key = Authority::new("other").unwrap().to_pem().unwrap().key_pem;
        known.get_mut("kubefed-apiserver-tls").unwrap().insert("tls.key".into(), key.clone());
        assert_eq!(
            names(&complete("ns", false, &known, now()).unwrap()),
            ["kubefed-apiserver-tls"]
        );
        known.get_mut("kubefed-ca").unwrap().insert("tls.key".into(), key);
        let error = complete("ns", false, &known, now()).unwrap_err().to_string();
        assert!(error.contains("Secret kubefed-ca"), "{error}");
    }

    #[test]
    fn a_certificate_of_somebody_elses_authority_is_kept_while_it_is_good() {
        kubefed_certs::install_crypto_provider();
        let made = taken_up(&Known::new(), &complete("ns", false, &Known::new(), now()).unwrap());
        let theirs =
            Known::from([("kubefed-apiserver-tls", made["kubefed-apiserver-tls"].clone())]);
        let kept = complete("ns", false, &theirs, now()).unwrap();
        assert_eq!(names(&kept), [""; 0]);
        assert_eq!(kept.ca, made["kubefed-ca"]["tls.crt"]);
    }
}

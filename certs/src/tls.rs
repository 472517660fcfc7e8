//! TLS configurations: for a server whose files change under it, and for clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::authorities::Asked;
use crate::lenient::{Lenient, Unchecked};

/// How often the files are looked at. Kubernetes swaps links under a mounted secret, which no file watch sees reliably.
pub const POLL: Duration = Duration::from_secs(10);

/// Makes aws-lc-rs the crypto library of the process; the first thing that every `main` does.
pub fn install_crypto_provider() {
    // A second call finds it installed.
    let _installed = aws_lc_rs::default_provider().install_default();
}

/// The files of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub clients: Clients,
}

/// What clients show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients<File = PathBuf> {
    /// No certificate.
    Unasked,
    /// A certificate of an authority in this file, or none: another ends the connection.
    Verified(File),
    /// Any certificate, which nobody has vouched for: see [`Authorities`](crate::Authorities).
    Asked,
}

/// The TLS configuration of a server; connections take the newest.
pub struct ServerTls {
    config: ArcSwap<ServerConfig>,
    verifies: bool,
    /// The authorities that clients are told of, where any certificate is taken.
    named: watch::Sender<Vec<Vec<u8>>>,
}

impl ServerTls {
    /// Reads the files, and again `every` so often, until `token` is cancelled.
    ///
    /// # Errors
    /// If the files do not make a configuration; later changes that do not are logged and passed over.
    pub async fn follow(
        files: ServerFiles,
        every: Duration,
        token: CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let mut known = (read(&files).await?, Vec::new());
        let (named, mut names) = watch::channel(Vec::new());
        let tls = Arc::new(ServerTls {
            config: ArcSwap::new(known.0.config(&known.1)?),
            verifies: matches!(files.clients, Clients::Verified(_)),
            named,
        });
        let followed = Arc::clone(&tls);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = token.cancelled() => return,
                    // It cannot be closed: its sender is in `followed`.
                    _ = names.changed() => {}
                    () = tokio::time::sleep(every) => {}
                }
                let Ok(contents) = read(&files).await else { continue };
                let found = (contents, names.borrow_and_update().clone());
                if found == known {
                    continue;
                }
                match found.0.config(&found.1) {
                    Ok(config) => {
                        if found.0 != known.0 {
                            tracing::info!(cert = %files.cert.display(), "took up new certificates");
                        }
                        followed.config.store(config);
                        known = found;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the new certificates can't be used, the old ones stay")
                    }
                }
            }
        });
        Ok(tls)
    }

    /// Tells clients, where any certificate is taken, of which authorities it had better be: a client with several
    /// chooses by that. Holds for connections that begin a moment later.
    pub fn name_authorities(&self, names: Vec<Vec<u8>>) {
        self.named.send_if_modified(|known| {
            let is_new = *known != names;
            *known = names;
            is_new
        });
    }

    /// Whether the certificate of a client that is connected has been vouched for.
    pub fn verifies(&self) -> bool {
        self.verifies
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

#[derive(PartialEq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    /// With the contents of the file in place of its path.
    clients: Clients<Vec<u8>>,
}

async fn read(files: &ServerFiles) -> Result<Contents, Error> {
    let read = |path: PathBuf| async move {
        tokio::fs::read(&path)
            .await
            .map_err(|error| Error::Malformed(format!("{}: {error}", path.display())))
    };
    let clients = match &files.clients {
        Clients::Unasked => Clients::Unasked,
        Clients::Verified(path) => Clients::Verified(read(path.clone()).await?),
        Clients::Asked => Clients::Asked,
    };
    Ok(Contents {
        cert: read(files.cert.clone()).await?,
        key: read(files.key.clone()).await?,
        clients,
    })
}

impl Contents {
    fn config(&self, names: &[Vec<u8>]) -> Result<Arc<ServerConfig>, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Build(error.to_string()))?;
        let builder = match &self.clients {
            Clients::Unasked => builder.with_no_client_auth(),
            Clients::Asked => builder.with_client_cert_verifier(Asked::new(names)),
            Clients::Verified(ca) => {
                let roots = Arc::new(roots(ca)?);
                let provider = Arc::new(aws_lc_rs::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| Error::Build(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, key(&self.key)?)
            .map_err(|error| Error::Build(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// What a client trusts and shows.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// PEM of the authorities that are trusted; without it none is.
    pub ca_pem: Vec<u8>,
    /// PEM of a certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The protocols offered, in order.
    pub alpn: Vec<Vec<u8>>,
}

/// The TLS configuration of a client.
///
/// # Errors
/// If some PEM is none.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfig, Error> {
    lenient_client_config(tls, Unchecked::default())
}

/// The TLS configuration of a client that leaves out checks of the server's certificate.
///
/// # Errors
/// If some PEM is none.
pub fn lenient_client_config(tls: &ClientTls, unchecked: Unchecked) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Build(error.to_string()))?;
    let builder = if unchecked == Unchecked::default() {
        builder.with_root_certificates(roots(&tls.ca_pem)?)
    } else {
        let trusted =
            if unchecked.everything { RootCertStore::empty() } else { roots(&tls.ca_pem)? };
        let verifier = Lenient::new(unchecked, trusted, algorithms);
        builder.dangerous().with_custom_certificate_verifier(verifier)
    };
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key_pem)) => builder
            .with_client_auth_cert(certificates(cert)?, key(key_pem)?)
            .map_err(|error| Error::Build(error.to_string()))?,
    };
    config.alpn_protocols.clone_from(&tls.alpn);
    Ok(config)
}

pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| Error::Malformed(format!("a certificate authority: {error}")))?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::Malformed("there is no certificate in the PEM".into())),
        Err(error) => Err(Error::Malformed(format!("the PEM can't be read: {error}"))),
    }
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| Error::Malformed(format!("the key can't be read: {error}")))
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::{Authority, Identity};

    fn contents(ca: &Authority) -> Contents {
        let server = ca.issue_server("server", &["localhost", "127.0.0.1"]).unwrap();
        let clients = Clients::Verified(ca.cert_pem().unwrap().into_bytes());
        Contents { cert: server.cert_pem.into_bytes(), key: server.key_pem.into_bytes(), clients }
    }

    /// Shakes hands in memory; the server then knows the client's certificate.
    fn shake(
        server: &Contents,
        client: &ClientTls,
        name: &'static str,
    ) -> Result<Option<Identity>, rustls::Error> {
        shake_leniently(server, client, name, Unchecked::default())
    }

    fn shake_leniently(
        server: &Contents,
        client: &ClientTls,
        name: &'static str,
        unchecked: Unchecked,
    ) -> Result<Option<Identity>, rustls::Error> {
        let mut server = ServerConnection::new(server.config(&[]).unwrap()).unwrap();
        let config = Arc::new(lenient_client_config(client, unchecked).unwrap());
        let mut client = ClientConnection::new(config, name.try_into().unwrap()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut reader = wire.as_slice();
            while !reader.is_empty() {
                server.read_tls(&mut reader).unwrap();
            }
            server.process_new_packets()?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut reader = wire.as_slice();
            while !reader.is_empty() {
                client.read_tls(&mut reader).unwrap();
            }
            client.process_new_packets()?;
        }
        Ok(server.peer_certificates().and_then(|chain| Identity::of(&chain[0])))
    }

    #[test]
    fn a_client_certificate_carries_its_user_and_every_group() {
        let ca = Authority::new("ca").unwrap();
        let client = ca.issue_client("alice, of \"ops\"", &["group-a", "group-b"]).unwrap();
        let tls = ClientTls {
            ca_pem: ca.cert_pem().unwrap().into_bytes(),
            identity: Some((client.cert_pem.into_bytes(), client.key_pem.into_bytes())),
            alpn: Vec::new(),
        };
        for name in ["localhost", "127.0.0.1"] {
            let identity = shake(&contents(&ca), &tls, name).unwrap().unwrap();
            assert_eq!(identity.common_name, "alice, of \"ops\"");
            let mut groups = identity.organizations;
            groups.sort();
            assert_eq!(groups, ["group-a", "group-b"]);
        }
        assert!(shake(&contents(&ca), &tls, "example.com").is_err());
    }

    #[test]
    fn a_certificate_of_another_authority_is_refused() {
        let (ca, other) = (Authority::new("ca").unwrap(), Authority::new("ca").unwrap());
        let client = other.issue_client("alice", &[]).unwrap();
        let identity = Some((client.cert_pem.into_bytes(), client.key_pem.into_bytes()));
        let trusts = |ca: &Authority| ca.cert_pem().unwrap().into_bytes();
        let forged = ClientTls { ca_pem: trusts(&ca), identity, alpn: Vec::new() };
        assert!(shake(&contents(&ca), &forged, "localhost").is_err());
        let misled = ClientTls { ca_pem: trusts(&other), identity: None, alpn: Vec::new() };
        assert!(shake(&contents(&ca), &misled, "localhost").is_err());
        let anonymous = ClientTls { ca_pem: trusts(&ca), identity: None, alpn: Vec::new() };
        assert_eq!(shake(&contents(&ca), &anonymous, "localhost").unwrap(), None);
    }

    #[test]
    fn an_authority_comes_back_from_its_files() {
        let ca = Authority::new("ca").unwrap();
        let again = Authority::from_pem(&ca.to_pem().unwrap()).unwrap();
        let tls = ClientTls {
            ca_pem: ca.cert_pem().unwrap().into_bytes(),
            identity: None,
            alpn: Vec::new(),
        };
        assert_eq!(shake(&contents(&again), &tls, "localhost").unwrap(), None);
    }

    #[test]
    fn a_check_that_is_left_out_lets_pass_just_what_it_is_for() {
        let (ca, other) = (Authority::new("ca").unwrap(), Authority::new("ca").unwrap());
        let hour = Duration::from_secs(3600);
        let now = std::time::SystemTime::now();
        let server = |ca: &Authority, name: &str, from, until| {
            let pair = ca.issue_server_between(name, from, until).unwrap();
            let (cert, key) = (pair.cert_pem.into_bytes(), pair.key_pem.into_bytes());
            Contents { cert, key, clients: Clients::Unasked }
        };
        let (past, future) = ((now - 2 * hour, now - hour), (now + hour, now + 2 * hour));
        let current = (now - hour, now + hour);
        let servers = [
            server(&ca, "localhost", current.0, current.1),
            server(&ca, "elsewhere", current.0, current.1),
            server(&ca, "localhost", past.0, past.1),
            server(&ca, "localhost", future.0, future.1),
            server(&ca, "elsewhere", past.0, past.1),
            server(&other, "localhost", current.0, current.1),
        ];
        let (everything, name, validity) = (true, true, true);
        let unchecked = Unchecked::default();
        let tls = ClientTls {
            ca_pem: ca.cert_pem().unwrap().into_bytes(),
            identity: None,
            alpn: Vec::new(),
        };
        for (unchecked, passing) in [
            (unchecked, [true, false, false, false, false, false]),
            (Unchecked { name, ..unchecked }, [true, true, false, false, false, false]),
            (Unchecked { validity, ..unchecked }, [true, false, true, true, false, false]),
            (Unchecked { name, validity, ..unchecked }, [true, true, true, true, true, false]),
            (Unchecked { everything, ..unchecked }, [true; 6]),
        ] {
            let passed = servers
                .each_ref()
                .map(|s| shake_leniently(s, &tls, "localhost", unchecked).is_ok());
            assert_eq!(passed, passing, "{unchecked:?}");
        }
        let trusts_nobody = ClientTls::default();
        let everything = Unchecked { everything, ..unchecked };
        assert!(shake_leniently(&servers[5], &trusts_nobody, "localhost", everything).is_ok());
    }

    /// The names of authorities that a server with this configuration tells of.
    fn told(config: Arc<ServerConfig>) -> Vec<Vec<u8>> {
        #[derive(Debug, Default)]
        struct Heard(std::sync::OnceLock<Vec<Vec<u8>>>);
        impl rustls::client::ResolvesClientCert for Heard {
            fn resolve(
                &self,
                names: &[&[u8]],
                _: &[rustls::SignatureScheme],
            ) -> Option<Arc<rustls::sign::CertifiedKey>> {
                self.0.set(names.iter().map(|name| name.to_vec()).collect()).unwrap();
                None
            }
            fn has_certs(&self) -> bool {
                true
            }
        }
        let mut server = ServerConnection::new(config).unwrap();
        let everything = Unchecked { everything: true, ..Unchecked::default() };
        let mut config = lenient_client_config(&ClientTls::default(), everything).unwrap();
        let heard = Arc::new(Heard::default());
        config.client_auth_cert_resolver = Arc::clone(&heard) as _;
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        while heard.0.get().is_none() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut reader = wire.as_slice();
            while !reader.is_empty() {
                client.read_tls(&mut reader).unwrap();
            }
            client.process_new_packets().unwrap();
        }
        heard.0.get().unwrap().clone()
    }

    #[tokio::test]
    async fn clients_are_told_of_the_newest_authorities() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new("ca").unwrap();
        let pair = ca.issue_server("server", &["localhost"]).unwrap();
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        std::fs::write(&cert, &pair.cert_pem).unwrap();
        std::fs::write(&key, &pair.key_pem).unwrap();
        let files = ServerFiles { cert, key, clients: Clients::Asked };
        let token = CancellationToken::new();
        // No file changes, so none need be looked at.
        let tls = ServerTls::follow(files, POLL * 1000, token.clone()).await.unwrap();
        assert!(told(tls.config()).is_empty());
        let names = |ca: &Authority| {
            let pem = ca.cert_pem().unwrap();
            crate::Authorities::from_pem(pem.as_bytes()).unwrap().names()
        };
        let both = [names(&ca), names(&Authority::new("other").unwrap())].concat();
        assert_eq!(both.len(), 2);
        for names in [both.clone(), both[1..].to_vec(), Vec::new()] {
            let before = tls.config();
            tls.name_authorities(names.clone());
            let change = async {
                while Arc::ptr_eq(&before, &tls.config()) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), change).await.expect("a change");
            assert_eq!(told(tls.config()), names);
        }
        token.cancel();
    }
}

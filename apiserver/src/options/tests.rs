//! From flags to a server.

use std::os::unix::fs::PermissionsExt as _;

use kubefed_certs::{ClientTls, client_config};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::Server;

/// The configuration by these flags, words separated by spaces, over stores in `dir`.
async fn config(dir: &Path, flags: &str) -> anyhow::Result<Config> {
    kubefed_certs::install_crypto_provider();
    let (data, certs) = (dir.join("data"), dir.join("certs"));
    let program = ["kubefed-apiserver", "--secure-port=0", "--storage-backend=embedded"];
    let places =
        [format!("--data-dir={}", data.display()), format!("--cert-dir={}", certs.display())];
    let places = places.iter().map(String::as_str);
    let arguments = program.into_iter().chain(places).chain(flags.split_whitespace());
    Options::try_parse_from(arguments)?.complete().await
}

async fn refused(dir: &Path, flags: &str) -> String {
    match config(dir, flags).await {
        Ok(_) => panic!("{flags} should be refused"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn without_a_certificate_one_is_made_once_and_can_be_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let files = config(dir.path(), "").await.unwrap().tls;
    assert_eq!(files.cert, dir.path().join("certs/apiserver.crt"));
    let mode = std::fs::metadata(&files.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let cert = std::fs::read(&files.cert).unwrap();

    let again = config(dir.path(), "").await.unwrap();
    assert_eq!(std::fs::read(&again.tls.cert).unwrap(), cert);
    let token = CancellationToken::new();
    let server = Server::start(again, token.clone()).await.unwrap();
    let tls = ClientTls { ca_pem: cert, ..ClientTls::default() };
    let connector = TlsConnector::from(Arc::new(client_config(&tls).unwrap()));
    for name in ["localhost", "127.0.0.1"] {
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        connector.connect(ServerName::try_from(name).unwrap(), stream).await.unwrap();
    }
    token.cancel();
    server.drained().await;

    // Half a pair is none.
    std::fs::remove_file(&files.key).unwrap();
    selfsigned::pair(&dir.path().join("certs"), server.address.ip()).unwrap();
    assert!(files.key.exists());
    assert_ne!(std::fs::read(&files.cert).unwrap(), tls.ca_pem);
    let half = refused(dir.path(), "--tls-cert-file=x").await;
    assert!(half.contains("--tls-private-key-file"), "{half}");
}

#[tokio::test]
async fn flags_say_how_requests_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "--max-requests-inflight=7 --max-mutating-requests-inflight=0 --shutdown-delay-duration=1m10s \
                 --authorization-always-allow-paths=/metrics,/openapi/* --profiling=false";
    let serving = config(dir.path(), flags).await.unwrap().serving;
    assert_eq!((serving.max_reading, serving.max_writing), (7, 0));
    assert_eq!(serving.shutdown_delay, Duration::from_secs(70));
    assert_eq!(serving.open_paths, ["/metrics", "/openapi/*"]);
    let serving = config(dir.path(), "").await.unwrap().serving;
    assert_eq!((serving.max_reading, serving.max_writing), (400, 200));
    assert!(serving.open_paths.contains(&"/livez".to_owned()));
    for (flags, named) in [
        ("--profiling", "--profiling"),
        ("--shutdown-delay-duration=soon", "--shutdown-delay-duration"),
        ("--authorization-always-allow-paths=/a*b", "--authorization-always-allow-paths"),
        ("--authorization-always-allow-paths=metrics", "--authorization-always-allow-paths"),
        ("--authorization-always-allow-paths=", "--authorization-always-allow-paths"),
    ] {
        let error = refused(dir.path(), flags).await;
        assert!(error.contains(named), "{flags}: {error}");
    }
}

#[tokio::test]
async fn a_policy_with_a_slip_is_refused_by_the_name_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    let log = dir.path().join("audit.log");
    let flag = format!("--audit-policy-file={}", policy.display());
    let flags = format!("--audit-log-path={} {flag}", log.display());
    std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Most}]")
        .unwrap();
    let error = refused(dir.path(), &flags).await;
    assert!(
        error.contains("policy.yaml (--audit-policy-file)") && error.contains("Most"),
        "{error}"
    );
    std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]")
        .unwrap();
    let options = config(dir.path(), &flags).await.unwrap().audit.unwrap();
    assert_ne!(options.policy, audit::Policy::default());
    let alone = refused(dir.path(), &flag).await;
    assert!(alone.contains("--audit-log-path"), "{alone}");
}

//! The API server: reached, ready, and how long its certificates are good.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kubefed_certs::ClientTls;
use rustls::ClientConnection;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};

use super::Finding;
use crate::rest::{Cluster, Error};

const TIMEOUT: Duration = Duration::from_secs(5);
const DAY: i64 = 24 * 3600;
/// A certificate with less than this left is worth a warning.
const SOON: i64 = 14 * DAY;

pub(super) async fn api_server(cluster: &Cluster) -> Finding {
    const CHECK: &str = "api server";
    let began = Instant::now();
    match cluster.get("/version").await {
        Ok(version) => {
            let version = version["gitVersion"].as_str().unwrap_or("of no version");
            Finding::ok(
                CHECK,
                format!("{version}, answered within {} ms", began.elapsed().as_millis()),
            )
        }
        Err(error) if error.code == 401 => {
            Finding::fail(CHECK, error.to_string(), "renew the credentials in the kubeconfig")
        }
        Err(error) => Finding::fail(
            CHECK,
            error.to_string(),
            "see whether it runs and can be reached from here",
        ),
    }
}

/// What `/readyz?verbose` says: each check that fails is on a line of its own.
pub(super) fn ready(answer: Result<String, Error>) -> Vec<Finding> {
    const CHECK: &str = "ready";
    let Err(error) = answer else {
        return vec![Finding::ok(CHECK, "the server is ready and its store answers")];
    };
    let failed = error.message.lines().filter_map(|line| line.trim().strip_prefix("[-]"));
    let findings: Vec<Finding> = failed
        .map(|failed| {
            let (name, why) = failed.split_once(' ').unwrap_or((failed, "failed"));
            Finding::fail(format!("{CHECK}: {name}"), why, remedy(name))
        })
        .collect();
    if findings.is_empty() {
        let remedy = "see whether you may GET /readyz, and the log of the API server";
        return vec![Finding::fail(CHECK, error.message, remedy)];
    }
    findings
}

/// What helps against a check of `/readyz` that fails: ours, and those of a host cluster that are as likely.
fn remedy(check: &str) -> &'static str {
    match check {
        "store" => {
            "see whether the store runs and has space: etcd by --etcd-servers, or the disk of --data-dir"
        }
        "etcd" | "etcd-readiness" => "see whether the etcd of this cluster runs and has space",
        "informer-sync" => {
            "wait until the server has read its objects; if it does not come to that, its log names the kinds"
        }
        "poststarthook/rbac" | "poststarthook/rbac/bootstrap-roles" => {
            "wait until the server has read its roles and bindings; if it does not come to that, see its log"
        }
        "shutdown" => "it is ending: see that it is started anew, or ask another one",
        _ => "see the log of the API server for this check",
    }
}

/// Those that the kubeconfig holds and the one that the server shows.
pub(super) async fn certificates(cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(left) = cluster.certificate.as_deref().and_then(seconds_left) {
        findings.push(certificate("yours", left, "get a new one and put it into the kubeconfig"));
    }
    let Some(ca) = cluster.authorities() else { return findings };
    if let Some(left) = seconds_left(&ca) {
        findings.push(certificate(
            "the authority's",
            left,
            "make a new authority and spread it before the old one ends",
        ));
    }
    let entry = &cluster.entry;
    if let (Some(server), None, None | Some(false)) =
        (&entry.server, &entry.proxy_url, entry.insecure_skip_tls_verify)
    {
        let server = server.clone();
        let shown = tokio::task::spawn_blocking(move || shown_certificate(&server, ca)).await;
        // Whether it can be reached at all is told elsewhere.
        if let Ok(Ok(left)) = shown {
            findings.push(certificate(
                "the API server's",
                left,
                "renew it: the server takes up the new files by itself",
            ));
        }
    }
    findings
}

/// How long the first certificate of a PEM is still good; negative if it has ended.
fn seconds_left(pem: &[u8]) -> Option<i64> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    Some(kubefed_certs::not_after(&der)? - Timestamp::now().as_second())
}

fn certificate(what: &str, left: i64, remedy: &str) -> Finding {
    let check = "certificates";
    let days = left / DAY;
    match left {
        ..0 => Finding::fail(check, format!("{what}: ended {} days ago", -days), remedy),
        0..SOON => Finding::warn(check, format!("{what}: ends in {days} days"), remedy),
        _ => Finding::ok(check, format!("{what}: good for {days} days")),
    }
}

/// How long the certificate that a server shows is good.
fn shown_certificate(server: &str, ca_pem: Vec<u8>) -> io::Result<i64> {
    let uri: http::Uri = server.parse().map_err(io::Error::other)?;
    let host = uri.host().unwrap_or("").trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let address = (host.as_str(), port).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let config =
        kubefed_certs::client_config(&ClientTls { ca_pem, identity: None, alpn: Vec::new() })
            .map_err(io::Error::other)?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    connection.complete_io(&mut stream)?;
    connection
        .peer_certificates()
        .and_then(|chain| kubefed_certs::not_after(chain.first()?))
        .map(|end| end - Timestamp::now().as_second())
        .ok_or_else(|| io::Error::other("it shows no certificate"))
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_certificate_is_told_by_how_long_it_is_good() {
        for (left, outcome) in
            [(-1, Outcome::Fail), (13 * DAY, Outcome::Warn), (15 * DAY, Outcome::Ok)]
        {
            assert_eq!(certificate("it", left, "renew").outcome, outcome, "{left}");
        }
    }

    #[test]
    fn what_is_not_ready_is_named() {
        let text = "Error from server (Failed): [+]ping ok\n[-]store failed: reason withheld\n\
                    [-]poststarthook/other failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n";
        let findings = ready(Err(Error { code: 500, message: text.into() }));
        let told: Vec<(&str, &str)> = findings
            .iter()
            .map(|finding| {
                assert_eq!(finding.outcome, Outcome::Fail);
                assert_eq!(finding.message, "failed: reason withheld");
                (finding.check.as_str(), finding.remedy.as_str())
            })
            .collect();
        let [("ready: store", of_store), ("ready: poststarthook/other", of_other)] = told[..]
        else {
            panic!("{told:?}")
        };
        assert!(of_store.contains("--etcd-servers") && of_other.contains("log"), "{told:?}");
    }

    #[test]
    fn a_server_that_does_not_tell_is_told_of() {
        let error = Error { code: 403, message: "you may not".into() };
        let [finding] = &ready(Err(error))[..] else { panic!("one") };
        assert_eq!((finding.check.as_str(), finding.message.as_str()), ("ready", "you may not"));
        let [finding] = &ready(Ok("ok".into()))[..] else { panic!("one") };
        assert_eq!(finding.outcome, Outcome::Ok);
    }
}

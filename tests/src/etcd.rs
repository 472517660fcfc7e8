//! A real etcd on free ports of the loopback, gone with the value.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubefed_certs::Authority;
use kubefed_storage::{Store, etcd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::{eventually, kubernetes};

/// How long a member may take until it answers, on a busy machine.
const START: Duration = Duration::from_secs(60);
/// A port that was free may be taken when the member opens it.
const ATTEMPTS: usize = 5;

/// An etcd cluster.
pub struct Etcd {
    members: Vec<Member>,
    dir: TempDir,
    tls: bool,
}

struct Member {
    process: Process,
    url: String,
}

/// An etcd of one member; `None` where it can't be built.
pub async fn an_etcd() -> Option<Etcd> {
    start(1, false).await
}

/// An etcd that wants TLS with client certificates.
pub async fn an_etcd_with_tls() -> Option<Etcd> {
    start(1, true).await
}

/// An etcd of several members.
pub async fn an_etcd_of(members: usize) -> Option<Etcd> {
    start(members, false).await
}

async fn start(members: usize, tls: bool) -> Option<Etcd> {
    let binary = kubernetes::binary("kubernetes").await?;
    for _ in 0..ATTEMPTS {
        let mut etcd = Etcd::new(&binary, members, tls);
        etcd.members.iter_mut().for_each(|member| member.process.start());
        if etcd.is_ready().await {
            return Some(etcd);
        }
    }
    panic!("etcd does not start");
}

impl Etcd {
    fn new(binary: &Path, members: usize, tls: bool) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        if tls {
            write_certificates(dir.path());
        }
        let scheme = if tls { "https" } else { "http" };
        // All at once, so that no two are the same.
        let ports = free_ports(members * 2);
        let peers: Vec<String> = ports[..members]
            .iter()
            .enumerate()
            .map(|(number, port)| format!("m{number}=http://127.0.0.1:{port}"))
            .collect();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let members = (0..members).map(|number| {
            let url = format!("{scheme}://127.0.0.1:{}", ports[members + number]);
            let peer = format!("http://127.0.0.1:{}", ports[number]);
            let mut flags = vec![
                "etcd".to_owned(),
                format!("--name=m{number}"),
                format!("--data-dir={}", path(&format!("m{number}"))),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                // No power cut happens here, and a killed process loses nothing so.
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
            ];
            if tls {
                flags.extend([
                    "--client-cert-auth".to_owned(),
                    format!("--trusted-ca-file={}", path("ca.crt")),
                    format!("--cert-file={}", path("server.crt")),
                    format!("--key-file={}", path("server.key")),
                ]);
            }
            let log = dir.path().join(format!("m{number}.log"));
            Member { process: Process::new(binary.to_owned(), flags, log), url }
        });
        Self { members: members.collect(), dir, tls }
    }

    /// How to reach it.
    pub fn options(&self) -> etcd::Options {
        let path = |name: &str| self.tls.then(|| self.dir.path().join(name));
        let mut options = etcd::Options::new(self.members.iter().map(|member| &member.url));
        options.ca = path("ca.crt");
        options.cert = path("client.crt");
        options.key = path("client.key");
        // Only the tests of it want it.
        options.compaction_interval = None;
        options
    }

    /// A store in it.
    pub async fn store(&self) -> Arc<dyn Store> {
        etcd::connect(self.options()).await.expect("etcd can be reached")
    }

    /// Kills a member.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process.kill();
    }

    /// The member that leads, of a cluster without TLS.
    pub async fn leader(&mut self) -> usize {
        eventually("etcd has a leader", async || {
            for (number, member) in self.members.iter_mut().enumerate() {
                if !member.process.is_running() {
                    continue;
                }
                if metrics(&member.url).await.ok()?.contains("\netcd_server_is_leader 1\n") {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// Starts a member again, with its data and on its ports.
    pub async fn restart(&mut self, member: usize) {
        self.members[member].process.start();
        assert!(self.is_ready().await, "a member does not start again");
    }

    /// Halts a member: it is there but does not answer.
    pub async fn freeze(&self, member: usize) {
        self.members[member].process.halt().await;
    }

    /// Lets a halted member go on.
    pub fn thaw(&self, member: usize) {
        self.members[member].process.signal("CONT");
    }

    /// Waits until every running member answers; false if one ends instead.
    async fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + START;
        let options = self.options();
        for member in &mut self.members {
            if !member.process.was_started() {
                continue;
            }
            let options = etcd::Options { endpoints: vec![member.url.clone()], ..options.clone() };
            loop {
                if !member.process.is_running() {
                    return false;
                }
                if let Ok(store) = etcd::connect(options.clone()).await
                    && store.current_revision().await.is_ok()
                {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "etcd does not answer: {}",
                    member.process.log()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        true
    }
}

/// Ports that are free, no two the same.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

fn write_certificates(dir: &Path) {
    let authority = Authority::new("etcd").expect("an authority");
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("a file");
    write("ca.crt", &authority.cert_pem().expect("PEM"));
    let server = authority.issue_server("etcd", &["127.0.0.1"]).expect("a certificate");
    let client = authority.issue_client("tests", &[]).expect("a certificate");
    for (name, pair) in [("server", server), ("client", client)] {
        write(&format!("{name}.crt"), &pair.cert_pem);
        write(&format!("{name}.key"), &pair.key_pem);
    }
}

/// What a member says of itself.
async fn metrics(url: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

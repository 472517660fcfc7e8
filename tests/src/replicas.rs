//! The programs of a federation, more than one of each, over one etcd: as they run where it must not fail.

use std::net::SocketAddr;

use kubefed_certs::{Authority, ClientTls, service_account_key};
use kubefed_controllers::client::{Access, Client};
use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::control_plane::{ControlPlane, EXTENSION, SERVICE};
use crate::etcd::free_ports;
use crate::process::Process;
use crate::{NAMESPACE, PATIENCE, binary, eventually, write_kubeconfig};

/// API servers behind a balancer.
pub struct Replicas {
    pub apiservers: Vec<Process>,
    pub addresses: Vec<SocketAddr>,
    pub balancer: Balancer,
    pub dir: TempDir,
    /// Of their certificates; where they stand alone, of their clients' as well.
    pub authority: Authority,
}

impl Replicas {
    /// Servers that stand alone, all started at once.
    pub async fn standing_alone(count: usize, etcd: &[String]) -> Self {
        Self::start(count, etcd, |dir| {
            let (private, public) = service_account_key().expect("a key");
            let file = |name: &str| dir.path().join(name).display().to_string();
            for (name, text) in [("sa.key", private), ("sa.pub", public)] {
                std::fs::write(file(name), text).expect("a file");
            }
            vec![
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--service-account-signing-key-file={}", file("sa.key")),
                format!("--service-account-key-file={}", file("sa.pub")),
            ]
        })
        .await
    }

    /// Servers that extend a host, and keep their objects in its etcd. They end after `delay`.
    pub async fn extending(host: &ControlPlane, count: usize, delay: &str) -> Self {
        host.let_an_extension_in().await;
        let kubeconfig = host.kubeconfig("host", EXTENSION, &[]);
        Self::start(count, &host.etcd_servers(), |_| {
            vec![
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--shutdown-delay-duration={delay}"),
            ]
        })
        .await
    }

    async fn start(
        count: usize,
        etcd: &[String],
        more: impl FnOnce(&TempDir) -> Vec<String>,
    ) -> Self {
        kubefed_certs::install_crypto_provider();
        let dir = TempDir::new().expect("a directory");
        let authority = Authority::new("kubefed").expect("an authority");
        let service = format!("{SERVICE}.{NAMESPACE}.svc");
        let names = [&service, "127.0.0.1", "localhost"];
        let serving = authority.issue_server(&service, &names).expect("a certificate");
        let ca_pem = authority.cert_pem().expect("PEM");
        let file = |name: &str| dir.path().join(name);
        for (name, text) in
            [("ca.crt", &ca_pem), ("tls.crt", &serving.cert_pem), ("tls.key", &serving.key_pem)]
        {
            std::fs::write(file(name), text).expect("a file");
        }
        let mut flags = vec![
            format!("--etcd-servers={}", etcd.join(",")),
            format!("--tls-cert-file={}", file("tls.crt").display()),
            format!("--tls-private-key-file={}", file("tls.key").display()),
            "--exit-with-parent".into(),
        ];
        flags.extend(more(&dir));
        let ports = free_ports(count);
        let apiservers = ports.iter().map(|port| {
            let mut flags = flags.clone();
            flags.push(format!("--secure-port={port}"));
            let log = file(&format!("apiserver-{port}.log"));
            Process::new(binary("kubefed-apiserver"), flags, log)
        });
        let mut apiservers: Vec<Process> = apiservers.collect();
        apiservers.iter_mut().for_each(Process::start);
        let addresses = ports.iter().map(|&port| SocketAddr::from(([127, 0, 0, 1], port)));
        let addresses: Vec<SocketAddr> = addresses.collect();
        let balancer = Balancer::start(&addresses, ca_pem.as_bytes()).await;
        let mut replicas = Replicas { apiservers, addresses, balancer, dir, authority };
        for server in 0..count {
            replicas.wait_ready(server).await;
        }
        replicas
    }

    /// Waits until a server is ready, which must not end instead.
    pub async fn wait_ready(&mut self, server: usize) {
        let ca_pem = self.authority.cert_pem().expect("PEM").into_bytes();
        let tls = ClientTls { ca_pem, ..ClientTls::default() };
        let url = format!("https://{}", self.addresses[server]);
        let client = Client::new(Access { url, tls, ..Access::default() }).expect("a client");
        let process = &mut self.apiservers[server];
        eventually("the server is ready", async || {
            assert!(process.is_running(), "{}", process.log());
            client.text("/readyz", PATIENCE).await.ok()
        })
        .await;
    }

    /// An administrator of servers that stand alone, at one of them.
    pub fn admin_at(&self, server: usize) -> Client {
        self.admin_of(format!("https://{}", self.addresses[server]))
    }

    /// The same, at whichever is ready.
    pub fn admin(&self) -> Client {
        self.admin_of(self.balancer.url())
    }

    fn admin_of(&self, url: String) -> Client {
        let pair =
            self.authority.issue_client("admin", &["system:masters"]).expect("a certificate");
        let identity = Some((pair.cert_pem.into_bytes(), pair.key_pem.into_bytes()));
        let ca_pem = self.authority.cert_pem().expect("PEM").into_bytes();
        let tls = ClientTls { ca_pem, identity, ..ClientTls::default() };
        Client::new(Access { url, tls, ..Access::default() }).expect("a client")
    }

    /// A controller manager of servers that stand alone, started.
    pub fn manager(&self, name: &str) -> Process {
        let user = ("federation", "system:kubefed-controller-manager", [].as_slice());
        let url = self.balancer.url();
        let kubeconfig = write_kubeconfig(self.dir.path(), &self.authority, &url, user);
        let flags = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--healthz-addr=127.0.0.1:0".into(),
            "--metrics-addr=127.0.0.1:0".into(),
            "--exit-with-parent".into(),
        ];
        let log = self.dir.path().join(format!("{name}.log"));
        let mut manager = Process::new(binary("kubefed-controller-manager"), flags, log);
        manager.start();
        manager
    }
}

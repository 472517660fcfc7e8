//! What a Service does: a new connection goes to one of the servers that are ready. Those that are there stay where they
//! are, and break with their server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kubefed_certs::ClientTls;
use kubefed_controllers::client::{Access, Client};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often a server is asked whether it is ready.
const PROBE: Duration = Duration::from_millis(20);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Balancer {
    pub address: SocketAddr,
    _ends: DropGuard,
}

struct Server {
    address: SocketAddr,
    is_ready: AtomicBool,
}

impl Balancer {
    /// A road to these servers, which `ca_pem` vouches for.
    pub async fn start(servers: &[SocketAddr], ca_pem: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let token = CancellationToken::new();
        let ends = token.clone().drop_guard();
        let servers: Vec<Arc<Server>> = servers
            .iter()
            .map(|&address| Arc::new(Server { address, is_ready: AtomicBool::new(false) }))
            .collect();
        for server in &servers {
            let tls = ClientTls { ca_pem: ca_pem.to_vec(), ..ClientTls::default() };
            let url = format!("https://{}", server.address);
            let client = Client::new(Access { url, tls, ..Access::default() }).expect("a client");
            let probing = probe(client, Arc::clone(server));
            tokio::spawn(token.clone().run_until_cancelled_owned(probing));
        }
        tokio::spawn(token.clone().run_until_cancelled_owned(async move {
            let mut turn = 0;
            while let Ok((mut here, _)) = listener.accept().await {
                turn += 1;
                let mut candidates = servers.clone();
                candidates.rotate_left(turn % servers.len());
                tokio::spawn(token.clone().run_until_cancelled_owned(async move {
                    for server in candidates {
                        if server.is_ready.load(Ordering::SeqCst)
                            && let Ok(mut there) = TcpStream::connect(server.address).await
                        {
                            let _broken =
                                tokio::io::copy_bidirectional(&mut here, &mut there).await;
                            return;
                        }
                    }
                }));
            }
        }));
        Balancer { address, _ends: ends }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

async fn probe(client: Client, server: Arc<Server>) {
    loop {
        let is_ready = client.text("/readyz", PROBE_TIMEOUT).await.is_ok();
        server.is_ready.store(is_ready, Ordering::SeqCst);
        tokio::time::sleep(PROBE).await;
    }
}

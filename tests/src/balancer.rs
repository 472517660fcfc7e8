//! What a Service does: a new connection goes to one of the servers that are ready. Those that are there stay where they
//! are, and break with their server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kubefed_certs::ClientTls;
use kubefed_controllers::client::{Access, Client, Error};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often a server is asked whether it is ready.
const PROBE: Duration = Duration::from_millis(20);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// After so many probes without an answer it is not. One that says so is believed at once.
const SILENT: u32 = 3;

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
                            forward(&mut here, &mut there).await;
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

/// Each direction for itself: where a side takes no more, what it has said still arrives.
async fn forward(here: &mut TcpStream, there: &mut TcpStream) {
    let ((mut from_here, mut to_here), (mut from_there, mut to_there)) =
        (here.split(), there.split());
    tokio::join!(copy(&mut from_here, &mut to_there), copy(&mut from_there, &mut to_here));
}

async fn copy(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) {
    let _broken = tokio::io::copy(from, to).await;
    let _broken = to.shutdown().await;
}

async fn probe(client: Client, server: Arc<Server>) {
    let mut silent = 0;
    loop {
        let answer = client.text("/readyz", PROBE_TIMEOUT).await;
        silent = if matches!(answer, Err(Error::Transport(_))) { silent + 1 } else { 0 };
        if silent == 0 || silent >= SILENT {
            server.is_ready.store(answer.is_ok(), Ordering::SeqCst);
        }
        tokio::time::sleep(PROBE).await;
    }
}

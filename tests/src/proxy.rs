//! A road to a server that can be blocked: what is on it then neither arrives nor is refused.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    _ends: DropGuard,
}

impl Proxy {
    /// A road to `target`, open at first.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (open, is_open) = watch::channel(true);
        let token = CancellationToken::new();
        let ends = token.clone().drop_guard();
        tokio::spawn(token.run_until_cancelled_owned(async move {
            while let Ok((here, _)) = listener.accept().await {
                let Ok(there) = TcpStream::connect(target).await else { continue };
                let ((from_here, to_here), (from_there, to_there)) =
                    (here.into_split(), there.into_split());
                tokio::spawn(carry(from_here, to_there, is_open.clone()));
                tokio::spawn(carry(from_there, to_here, is_open.clone()));
            }
        }));
        Proxy { address, open, _ends: ends }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn block(&self) {
        self.open.send_replace(false);
    }

    pub fn unblock(&self) {
        self.open.send_replace(true);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let opened = open.wait_for(|open| *open).await.is_ok();
        if !opened || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

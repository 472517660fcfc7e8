//! A road to a server that can be blocked: what is on it then neither arrives nor is refused. And a proxy as companies
//! have them, that is asked by `CONNECT` for a road.

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

/// A `CONNECT` proxy that leads to one server, whatever host it is asked for, and lets nobody pass without credentials.
pub struct ConnectProxy {
    pub address: SocketAddr,
    /// What it was asked for, by those that it let pass.
    pub asked: watch::Receiver<Vec<String>>,
    _ends: DropGuard,
}

impl ConnectProxy {
    /// A proxy that wants these credentials in a `Proxy-Authorization` header.
    pub async fn start(target: SocketAddr, authorization: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (tell, asked) = watch::channel(Vec::new());
        let token = CancellationToken::new();
        let ends = token.clone().drop_guard();
        let authorization = format!("proxy-authorization: {}", authorization.to_lowercase());
        tokio::spawn(token.run_until_cancelled_owned(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let Some(request) = read_head(&mut here).await else { continue };
                let host = request.split(' ').nth(1).unwrap_or("").to_owned();
                let allowed = request.lines().any(|line| line.to_lowercase() == authorization);
                if !request.starts_with("CONNECT ") || !allowed {
                    let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                    let _gone_already = here.write_all(refusal).await;
                    continue;
                }
                tell.send_modify(|asked| asked.push(host));
                let Ok(mut there) = TcpStream::connect(target).await else { continue };
                if here.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
                    tokio::spawn(async move {
                        let _either_end_closed =
                            tokio::io::copy_bidirectional(&mut here, &mut there).await;
                    });
                }
            }
        }));
        ConnectProxy { address, asked, _ends: ends }
    }
}

/// A request up to the blank line behind its headers.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

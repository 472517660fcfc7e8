//! A road to a server that can be blocked: what is on it then neither arrives nor is refused. Or cut: whoever is on it
//! or comes is turned away. And proxies as companies have them, which are asked for a road.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_certs::{Clients, POLL, ServerFiles, ServerTls};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Cluster;

type Tell = watch::Sender<Vec<String>>;

pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    turned_away: Arc<AtomicUsize>,
    _ends: DropGuard,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    Blocked,
    Cut,
}

impl Proxy {
    /// A road to `target`, open at first.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (state, now) = watch::channel(State::Open);
        let turned_away = Arc::new(AtomicUsize::new(0));
        let token = CancellationToken::new();
        let ends = token.clone().drop_guard();
        let count = Arc::clone(&turned_away);
        tokio::spawn(token.run_until_cancelled_owned(async move {
            while let Ok((here, _)) = listener.accept().await {
                if *now.borrow() == State::Cut {
                    count.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let Ok(there) = TcpStream::connect(target).await else { continue };
                let ((from_here, to_here), (from_there, to_there)) =
                    (here.into_split(), there.into_split());
                tokio::spawn(carry(from_here, to_there, now.clone()));
                tokio::spawn(carry(from_there, to_here, now.clone()));
            }
        }));
        Proxy { address, state, turned_away, _ends: ends }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn block(&self) {
        self.state.send_replace(State::Blocked);
    }

    pub fn unblock(&self) {
        self.state.send_replace(State::Open);
    }

    /// Ends all connections, and each that comes, until the road is mended.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub fn mend(&self) {
        self.state.send_replace(State::Open);
    }

    /// How many connections came while the road was cut.
    pub fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::SeqCst)
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let (mut of_road, mut of_bytes) = (state.clone(), state);
    let carrying = async {
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let opened = of_bytes.wait_for(|state| *state == State::Open).await.is_ok();
            if !opened || to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = carrying => {}
        _ = of_road.wait_for(|state| *state == State::Cut) => {}
    }
}

/// A proxy that leads to one server, whatever host it is asked for, and lets nobody pass but `me` with the password
/// `p@ss`.
pub struct AskedProxy {
    pub address: SocketAddr,
    /// What it was asked for, by those that it let pass.
    pub asked: watch::Receiver<Vec<String>>,
    _ends: DropGuard,
}

/// How a proxy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// By `CONNECT`.
    Http,
    /// By `CONNECT` over TLS, with the certificate of the server behind.
    Https,
    Socks5,
}

impl AskedProxy {
    pub async fn start(target: &Cluster, language: Language) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (tell, asked) = watch::channel(Vec::new());
        let token = CancellationToken::new();
        let ends = token.clone().drop_guard();
        let file = |name: &str| target.dir.path().join(name);
        let files =
            ServerFiles { cert: file("tls.crt"), key: file("tls.key"), clients: Clients::Unasked };
        let tls = ServerTls::follow(files, POLL, token.clone()).await.expect("certificates");
        let target = target.server.address;
        tokio::spawn(token.run_until_cancelled_owned(async move {
            while let Ok((here, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(tls.config());
                let tell = tell.clone();
                tokio::spawn(async move {
                    match language {
                        Language::Http => connect(here, target, &tell).await,
                        Language::Https => {
                            connect(acceptor.accept(here).await.ok()?, target, &tell).await
                        }
                        Language::Socks5 => socks(here, target, &tell).await,
                    }
                });
            }
        }));
        AskedProxy { address, asked, _ends: ends }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Answers a `CONNECT`, and carries what follows.
async fn connect(mut here: impl Stream, target: SocketAddr, tell: &Tell) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(here.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let allowed = format!("proxy-authorization: basic {}", BASE64_STANDARD.encode("me:p@ss"));
    let asked = head.strip_prefix("CONNECT ")?.split(' ').next()?;
    if !head.lines().any(|line| line.eq_ignore_ascii_case(&allowed)) {
        here.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.ok()?;
        return None;
    }
    tell.send_modify(|all| all.push(asked.to_owned()));
    here.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    pass(here, target).await
}

/// Answers by SOCKS5 (RFC 1928, RFC 1929), and carries what follows.
async fn socks(mut here: impl Stream, target: SocketAddr, tell: &Tell) -> Option<()> {
    let [5, methods] = take(&mut here).await? else { return None };
    some(&mut here, methods).await?;
    here.write_all(&[5, 2]).await.ok()?;
    let [1, length] = take(&mut here).await? else { return None };
    let user = some(&mut here, length).await?;
    let [length] = take(&mut here).await?;
    let allowed = user == b"me" && some(&mut here, length).await? == b"p@ss";
    here.write_all(&[1, u8::from(!allowed)]).await.ok()?;
    // A host by its name, as the proxy is to resolve it.
    let [5, 1, 0, 3, length] = take(&mut here).await? else { return None };
    let host = String::from_utf8(some(&mut here, length).await?).ok()?;
    let port = u16::from_be_bytes(take(&mut here).await?);
    tell.send_modify(|all| all.push(format!("{host}:{port}")));
    here.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    pass(here, target).await
}

async fn take<const N: usize>(here: &mut impl Stream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    here.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

async fn some(here: &mut impl Stream, length: u8) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length.into()];
    here.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

async fn pass(mut here: impl Stream, target: SocketAddr) -> Option<()> {
    let mut there = TcpStream::connect(target).await.ok()?;
    tokio::io::copy_bidirectional(&mut here, &mut there).await.ok().map(drop)
}

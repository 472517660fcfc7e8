//! Requests as somebody sends them who does not mean well: any header, any path, nothing put right on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubefed_certs::{ClientTls, KeyPairPem, client_config};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Cluster, PATIENCE};

/// Who a connection's certificate says that it is.
pub type Shown<'a> = Option<(&'a str, &'a [&'a str])>;

/// An administrator.
pub const ADMIN: Shown<'static> = Some(("admin", &["system:masters"]));

pub const HTTP1: &str = "http/1.1";
pub const HTTP2: &str = "h2";

/// One connection.
pub enum Raw {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The bytes of a connection over TLS that speaks `protocol` (`h2`, `http/1.1`), to a server of the loopback that the
/// authority `ca_pem` vouches for.
pub async fn stream(
    address: SocketAddr,
    ca_pem: Vec<u8>,
    shown: Option<&KeyPairPem>,
    protocol: &str,
) -> TlsStream<TcpStream> {
    let identity = shown.map(|p| (p.cert_pem.clone().into_bytes(), p.key_pem.clone().into_bytes()));
    let tls = ClientTls { ca_pem, identity, alpn: vec![protocol.as_bytes().to_vec()] };
    let connector = TlsConnector::from(Arc::new(client_config(&tls).expect("certificates")));
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, stream).await.expect("a handshake")
}

impl Cluster {
    /// The bytes of a connection over TLS that speaks `protocol`.
    pub async fn stream(&self, shown: Shown<'_>, protocol: &str) -> TlsStream<TcpStream> {
        let pair = shown.map(|(user, groups)| {
            self.authority.issue_client(user, groups).expect("a certificate")
        });
        self.stream_of(pair.as_ref(), protocol).await
    }

    /// The same, with a certificate of any authority.
    pub async fn stream_of(
        &self,
        shown: Option<&KeyPairPem>,
        protocol: &str,
    ) -> TlsStream<TcpStream> {
        let ca_pem = std::fs::read(self.ca_file()).expect("the CA");
        stream(self.server.address, ca_pem, shown, protocol).await
    }

    /// A connection by HTTP/1.1.
    pub async fn raw(&self, shown: Shown<'_>) -> Raw {
        Raw::over(self.stream(shown, HTTP1).await).await
    }

    /// A connection by HTTP/2.
    pub async fn raw_h2(&self, shown: Shown<'_>) -> Raw {
        Raw::over(self.stream(shown, HTTP2).await).await
    }
}

impl Raw {
    /// A connection that speaks what the handshake agreed on.
    pub async fn over(stream: TlsStream<TcpStream>) -> Self {
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2.as_bytes());
        let io = TokioIo::new(stream);
        if is_h2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("a connection");
            tokio::spawn(connection);
            Raw::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.expect("a connection");
            tokio::spawn(connection);
            Raw::Http1(sender)
        }
    }

    /// Sends a request as it is and reads the whole answer.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let uri = match self {
            Raw::Http1(_) => path.to_owned(),
            Raw::Http2(_) => format!("https://localhost{path}"),
        };
        let method: Method = method.parse().expect("a method");
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self, Raw::Http1(_)) {
            request = request.header("host", "localhost");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let exchange = async {
            let response = match self {
                Raw::Http1(sender) => {
                    sender.ready().await.expect("an open connection");
                    sender.send_request(request).await
                }
                Raw::Http2(sender) => sender.send_request(request).await,
            };
            let (parts, body) = response.expect("an answer").into_parts();
            let body = body.collect().await.expect("the whole answer").to_bytes();
            Answer { code: parts.status.as_u16(), headers: parts.headers, body }
        };
        tokio::time::timeout(PATIENCE.max(Duration::from_secs(30)), exchange)
            .await
            .expect("an answer in time")
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Sends a JSON document.
    pub async fn json(&mut self, method: &str, path: &str, document: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, document.to_string()).await
    }

    /// Creates an object that the server must take.
    pub async fn create(&mut self, path: &str, object: &Value) {
        let answer = self.json("POST", path, object).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.json());
    }
}

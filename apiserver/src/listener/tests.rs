//! How a server that ends treats those who come last.

use axum::routing::get;
use kubefed_certs::{Authority, ClientTls, Clients, ServerFiles, client_config};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;

#[tokio::test]
async fn connections_that_wait_to_be_accepted_when_the_server_ends_are_served() {
    kubefed_certs::install_crypto_provider();
    let authority = Authority::new("test").unwrap();
    let pair = authority.issue_server("localhost", &["localhost"]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    std::fs::write(&cert, pair.cert_pem).unwrap();
    std::fs::write(&key, pair.key_pem).unwrap();
    let token = CancellationToken::new();
    let files = ServerFiles { cert, key, clients: Clients::Unasked };
    let tls = ServerTls::follow(files, Duration::from_secs(60), token.clone()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |_| std::net::TcpStream::connect(address).unwrap();
    let connections: Vec<_> = (0..20).map(connect).collect();
    token.cancel();
    let app = Router::new().route("/", get(|| async { "served" }));
    let server = tokio::spawn(serve(listener, tls, app, token));

    let ca_pem = authority.cert_pem().unwrap().into_bytes();
    let client = client_config(&ClientTls { ca_pem, ..ClientTls::default() }).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    for connection in connections {
        connection.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(connection).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("served"), "{answer}");
    }
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

//! An admission webhook: an HTTPS server that a test answers for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kubefed_certs::{Authority, Clients, POLL, ServerFiles, ServerTls};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What it answers to the `request` of an AdmissionReview.
pub enum Said {
    /// This `response`, to which the uid is added.
    Response(Value),
    /// This code and body, and where else to go.
    Raw(u16, String, Option<&'static str>),
    /// Nothing, ever.
    Nothing,
}

type Answer = dyn Fn(&str, &Value) -> Said + Send + Sync;

/// A webhook server, gone with the value.
pub struct Webhook {
    pub address: SocketAddr,
    authority: Authority,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    _dir: TempDir,
    _ends: DropGuard,
}

impl Webhook {
    /// A server with a certificate for these names, which answers by path and request.
    pub async fn start(
        names: &[&str],
        answer: impl Fn(&str, &Value) -> Said + Send + Sync + 'static,
    ) -> Self {
        let dir = TempDir::new().expect("a directory");
        let authority = Authority::new("webhooks").expect("an authority");
        let pair = authority.issue_server("webhook", names).expect("a certificate");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let files = ServerFiles {
            cert: file("tls.crt", &pair.cert_pem),
            key: file("tls.key", &pair.key_pem),
            clients: Clients::Unasked,
        };
        let token = CancellationToken::new();
        let ends = token.clone().drop_guard();
        let tls = ServerTls::follow(files, POLL, token.clone()).await.expect("certificates");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, shared): (Arc<Answer>, _) = (Arc::new(answer), Arc::clone(&asked));
        tokio::spawn(token.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer, asked) = (tls.config(), Arc::clone(&answer), Arc::clone(&shared));
                let service = service_fn(move |request| {
                    let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                    async move { Ok::<_, Infallible>(serve(request, &*answer, &asked).await) }
                });
                tokio::spawn(token.clone().run_until_cancelled_owned(async move {
                    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
                    let _ended = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }));
            }
        }));
        Webhook { address, authority, asked, _dir: dir, _ends: ends }
    }

    /// Whom a client has to trust, as `caBundle` has it.
    pub fn ca_bundle(&self) -> String {
        BASE64_STANDARD.encode(self.authority.cert_pem().expect("PEM"))
    }

    /// The requests that came to a path, and takes them away.
    pub fn take(&self, path: &str) -> Vec<Value> {
        let mut asked = self.asked.lock();
        asked.extract_if(.., |(at, _)| at == path).map(|(_, request)| request).collect()
    }
}

async fn serve(
    request: Request<Incoming>,
    answer: &Answer,
    asked: &Mutex<Vec<(String, Value)>>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    let said = answer(&path, &review["request"]);
    asked.lock().push((path, review["request"].clone()));
    let (code, body, location) = match said {
        Said::Response(mut response) => {
            response["uid"] = review["request"]["uid"].clone();
            let review = json!({
                "kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response,
            });
            (200, review.to_string(), None)
        }
        Said::Raw(code, body, location) => (code, body, location),
        Said::Nothing => std::future::pending().await,
    };
    let mut response = Response::builder().status(code);
    if let Some(location) = location {
        response = response.header(http::header::LOCATION, location);
    }
    response.body(Full::new(body.into())).expect("an answer")
}

/// A response that lets a write pass, with a JSON patch.
pub fn patch(operations: &Value) -> Said {
    let patch = BASE64_STANDARD.encode(operations.to_string());
    Said::Response(json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// A response that refuses a write.
pub fn deny(code: u16, message: &str) -> Said {
    Said::Response(json!({"allowed": false, "status": {"code": code, "message": message}}))
}

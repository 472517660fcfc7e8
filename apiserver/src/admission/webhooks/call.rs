//! The way to a webhook: over TLS, to where the host itself would go, within bounds, and never further than asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Error;
use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kubefed_certs::ClientTls;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::hook::{Hook, Target};
use crate::filters;

/// Questions that are under way at a time, to all webhooks together: one that hangs must not gather connections without
/// end. As many as writes that are taken at a time, and then some.
const AT_A_TIME: usize = 256;
/// An answer holds at most a patch of one object, so it is no longer than a request may be.
const MAX_ANSWER: usize = filters::body::LIMIT;
/// A connection that is silent this long while a question is open is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Client = HyperClient<HttpsConnector<Road>, Full<Bytes>>;

/// Calls webhooks, over connections that are used again.
pub(super) struct Caller {
    host: kube::Client,
    clients: Mutex<HashMap<(bool, Vec<u8>), Client>>,
    permits: Semaphore,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// What the webhook answered instead, as HTTP says it; 0 if nothing.
    pub(super) code: u16,
}

impl Failure {
    fn new(reason: impl Into<String>) -> Self {
        Failure { reason: reason.into(), code: 0 }
    }
}

impl Caller {
    pub(super) fn new(host: kube::Client) -> Self {
        Caller { host, clients: Mutex::default(), permits: Semaphore::new(AT_A_TIME) }
    }

    /// Lets connections go that are not used at the moment: another configuration may not need them.
    pub(super) fn forget(&self) {
        self.clients.lock().clear();
    }

    /// The body of a webhook's answer.
    pub(super) async fn call(&self, hook: &Hook, body: Bytes) -> Result<Bytes, Failure> {
        let target = hook.target.as_ref().map_err(Failure::new)?;
        let seconds = hook.timeout.as_secs();
        let path = target.uri.path();
        let shown = format!(
            "https://{}{path}?timeout={seconds}s",
            target.uri.authority().map_or("", |authority| authority.as_str())
        );
        let within =
            |what: &str| Failure::new(format!("failed to call webhook: Post {shown:?}: {what}"));
        let uri: Uri = shown.parse().map_err(|_| within("it is no URL"))?;
        let asking = async {
            let _permit = self.permits.acquire().await.map_err(|_| within("the server ends"))?;
            let client = self.client(target).map_err(|why| within(&why))?;
            let request = Request::builder()
                .method(Method::POST)
                .uri(uri)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json, */*")
                .header(header::USER_AGENT, "kubefed-apiserver-admission")
                .body(Full::new(body))
                .map_err(|error| within(&error.to_string()))?;
            let response = client.request(request).await;
            let response =
                response.map_err(|error| within(&format!("{:#}", Error::from(error))))?;
            let code = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => within(&format!("the answer is longer than {MAX_ANSWER} bytes")),
                None => within(&format!("the answer broke off: {error}")),
            })?;
            // A redirect is no answer either: it would lead to where nobody configured.
            if !code.is_success() {
                let reason = format!(
                    "failed to call webhook: the server responded with the status code {} but did not return more information",
                    code.as_u16()
                );
                return Err(Failure { reason, code: code.as_u16() });
            }
            Ok(body.to_bytes())
        };
        tokio::time::timeout(hook.timeout, asking)
            .await
            .unwrap_or_else(|_| Err(within("context deadline exceeded")))
    }

    fn client(&self, target: &Target) -> Result<Client, String> {
        let mut clients = self.clients.lock();
        let key = (target.is_service, target.ca.clone());
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let mut straight = HttpConnector::new();
        straight.enforce_http(false);
        straight.set_nodelay(true);
        let services = target.is_service.then(|| self.host.clone());
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust(&target.ca)?)
            .https_only()
            .enable_all_versions()
            .wrap_connector(Road { straight, services });
        let client = HyperClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .build(connector);
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// Trusts an authority, or those that the system trusts.
fn trust(ca: &[u8]) -> Result<ClientConfig, String> {
    if !ca.is_empty() {
        let tls = ClientTls { ca_pem: ca.to_vec(), ..ClientTls::default() };
        return kubefed_certs::client_config(&tls)
            .map_err(|error| format!("its caBundle: {error}"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = builder.with_native_roots().map_err(|error| {
        format!("it has no caBundle, and the system trusts nobody that could be read: {error}")
    })?;
    Ok(builder.with_no_client_auth())
}

/// Connects to the host of a URI, which may be the name of a Service: TLS goes by that name, the connection to where
/// the host cluster says that the Service is. There may be no DNS of the cluster where this server runs.
#[derive(Clone)]
struct Road {
    straight: HttpConnector,
    services: Option<kube::Client>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Uri> for Road {
    type Response = TokioIo<TcpStream>;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failed>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.straight.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut straight = self.straight.clone();
        let services = self.services.clone();
        Box::pin(async move {
            let uri = match services {
                Some(host) => resolve(host, &uri).await?,
                None => uri,
            };
            Ok(tower::Service::call(&mut straight, uri).await?)
        })
    }
}

/// Where a Service is, as kube-apiserver itself resolves it: its cluster IP, or the name outside that it stands for.
async fn resolve(host: kube::Client, uri: &Uri) -> Result<Uri, Failed> {
    let mut names = uri.host().unwrap_or("").split('.');
    let (name, namespace) = (names.next().unwrap_or(""), names.next().unwrap_or(""));
    let port = uri.port_u16().unwrap_or(443);
    let services: Api<Service> = Api::namespaced(host, namespace);
    let service = services.get(name).await?;
    let address = address(&service, port)?;
    Ok(format!("https://{address}:{port}/").parse()?)
}

/// The address of a Service, as it stands in a URI.
fn address(service: &Service, port: u16) -> Result<String, String> {
    let spec = service.spec.as_ref().ok_or("the service has no spec")?;
    let name = service.metadata.name.as_deref().unwrap_or("");
    if spec.type_.as_deref() == Some("ExternalName") {
        let external = spec.external_name.clone().unwrap_or_default();
        return if external.is_empty() {
            Err(format!("service {name:?} names nothing"))
        } else {
            Ok(external)
        };
    }
    let has_port = |known: &_| i32::from(port) == *known;
    if !spec.ports.iter().flatten().map(|it| it.port).any(|known| has_port(&known)) {
        return Err(format!("no service port {port} found for service {name:?}"));
    }
    match spec.cluster_ip.as_deref().map(str::parse) {
        Some(Ok(IpAddr::V4(address))) => Ok(address.to_string()),
        Some(Ok(IpAddr::V6(address))) => Ok(format!("[{address}]")),
        _ => Err(format!("service {name:?} has no cluster IP")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_service_is_where_the_host_would_look_for_it() {
        for (spec, wanted) in [
            (json!({"clusterIP": "10.0.0.7", "ports": [{"port": 443}]}), Ok("10.0.0.7")),
            (
                json!({"clusterIP": "fd00::7", "ports": [{"port": 80}, {"port": 443}]}),
                Ok("[fd00::7]"),
            ),
            (json!({"type": "ExternalName", "externalName": "a.example.com"}), Ok("a.example.com")),
            (json!({"type": "ExternalName"}), Err("names nothing")),
            (json!({"clusterIP": "10.0.0.7", "ports": [{"port": 80}]}), Err("no service port 443")),
            (json!({"clusterIP": "None", "ports": [{"port": 443}]}), Err("no cluster IP")),
            (Value::Null, Err("no spec")),
        ] {
            let service = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec}));
            let found = address(&service.expect("a service"), 443);
            match (&found, wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{found}"),
                _ => panic!("{spec}: {found:?}, not {wanted:?}"),
            }
        }
    }
}

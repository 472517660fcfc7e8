//! A client for one API server: one HTTP/2 connection, JSON, a deadline for every request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kubefed_apimachinery::status::Status;
use kubefed_certs::{ClientTls, Unchecked, lenient_client_config};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

mod proxy;
mod rate;

pub use proxy::Proxy;
use proxy::Road;
use rate::Limiter;
pub use rate::Rate;

/// Under this name we apply.
pub(crate) const FIELD_MANAGER: &str = "kubefed";
/// A request that is not answered by then has failed.
const DEADLINE: Duration = Duration::from_secs(10);
/// A connection that says nothing for so long is asked whether it lives, and given up if it does not answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A member is hostile input: no answer may be larger, nor a line of a watch.
const MAX_BODY: usize = 256 * 1024 * 1024;
const MAX_LINE: usize = 4 * 1024 * 1024;
const PAGE: usize = 500;
/// A token in a file is read anew after this long: those of service accounts are rotated.
const TOKEN_AGE: Duration = Duration::from_secs(60);

/// Metadata alone, for lists and watches.
pub const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
pub(crate) const JSON: &str = "application/json";

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused it.
    #[error("{0}")]
    Status(Box<Status>),
    /// An answer that is no API server's, from it or from what stands before it.
    #[error("HTTP {code}: {text}")]
    Answer { code: u16, text: String, retry_after: Option<Duration> },
    /// The server was not reached, or did not answer as an API server does.
    #[error("{0}")]
    Transport(String),
}

impl Error {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Status(status) if status.is_not_found())
    }

    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Status(status) if status.code == 409)
    }

    pub fn is_forbidden(&self) -> bool {
        matches!(self, Error::Status(status) if status.code == 403)
    }

    /// Whether this tells of the server rather than of what it was asked.
    pub fn is_outage(&self) -> bool {
        let code = match self {
            Error::Transport(_) => return true,
            Error::Status(status) => status.code,
            Error::Answer { code, .. } => *code,
        };
        code == 429 || code >= 500
    }

    /// How long the server wishes to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Transport(_) => None,
            Error::Status(status) => {
                let seconds = status.details.as_ref()?.retry_after_seconds?;
                Some(Duration::from_secs(seconds.into()))
            }
            Error::Answer { retry_after, .. } => *retry_after,
        }
    }

    pub fn is_expired(&self) -> bool {
        matches!(self, Error::Status(status) if status.code == 410)
    }
}

/// Where a server is, and who we are to it.
#[derive(Clone, Default)]
pub struct Access {
    pub url: String,
    pub tls: ClientTls,
    /// Checks of the server's certificate that are left out.
    pub unchecked: Unchecked,
    /// What stands between us and the server.
    pub proxy: Option<Proxy>,
    /// How many requests may be sent, if that is limited.
    pub rate: Option<Rate>,
    pub token: Option<String>,
    /// A file with a token that changes.
    pub token_file: Option<PathBuf>,
}

/// One API server.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: HyperClient<HttpsConnector<Road>, Full<Bytes>>,
    limiter: Option<Limiter>,
    url: String,
    token: Option<String>,
    token_file: Option<PathBuf>,
    /// What the file held, and when.
    token_read: Mutex<Option<(String, Instant)>>,
}

impl Inner {
    fn token(&self) -> Option<String> {
        let Some(file) = &self.token_file else { return self.token.clone() };
        let mut read = self.token_read.lock();
        if let Some((token, at)) = &*read
            && at.elapsed() < TOKEN_AGE
        {
            return Some(token.clone());
        }
        match std::fs::read_to_string(file) {
            Ok(token) => *read = Some((token.trim().to_owned(), Instant::now())),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the token cannot be read");
            }
        }
        read.as_ref().map(|(token, _)| token.clone())
    }
}

impl Client {
    /// # Errors
    /// If the certificates can't be used.
    pub fn new(access: Access) -> Result<Self, String> {
        let config = lenient_client_config(&access.tls, access.unchecked)
            .map_err(|error| error.to_string())?;
        let road = Road::new(access.proxy.as_ref(), &config);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http2()
            .wrap_connector(road);
        let http = HyperClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_only(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        Ok(Client(Arc::new(Inner {
            http,
            limiter: access.rate.map(Limiter::new),
            url: access.url,
            token: access.token,
            token_file: access.token_file,
            token_read: Mutex::new(None),
        })))
    }

    /// A client over the same connection whose requests nothing limits.
    pub(crate) fn unlimited(&self) -> Client {
        Client(Arc::new(Inner {
            http: self.0.http.clone(),
            limiter: None,
            url: self.0.url.clone(),
            token: self.0.token.clone(),
            token_file: self.0.token_file.clone(),
            token_read: Mutex::new(None),
        }))
    }

    /// Whether this is the very same client, with the same credentials.
    pub(crate) fn is(&self, other: &Client) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<http::Response<Incoming>, Error> {
        let uri: Uri = format!("{}{path}", self.0.url)
            .parse()
            .map_err(|error| Error::Transport(format!("{path}: {error}")))?;
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request = request.header(header::USER_AGENT, "kubefed-controller-manager");
        if let Some(token) = self.0.token() {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Error::Transport("the token is no header value".into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| Error::Transport(error.to_string()))?;
        if let Some(limiter) = &self.0.limiter {
            tokio::time::sleep_until(limiter.next(Instant::now())).await;
        }
        let answer = tokio::time::timeout(DEADLINE, self.0.http.request(request))
            .await
            .map_err(|_| Error::Transport(format!("no answer within {DEADLINE:?}")))?;
        answer.map_err(|error| Error::Transport(chain(error)))
    }

    async fn read(response: http::Response<Incoming>) -> Result<Bytes, Error> {
        let code = response.status();
        // As seconds; as a date nobody sends it.
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        let body = tokio::time::timeout(
            DEADLINE * 6,
            Limited::new(response.into_body(), MAX_BODY).collect(),
        )
        .await
        .map_err(|_| Error::Transport("the answer broke off".into()))?
        .map_err(|error| Error::Transport(error.to_string()))?
        .to_bytes();
        if code.is_success() {
            return Ok(body);
        }
        // Redirects too: following one would carry our token to where a member wants it.
        Err(match serde_json::from_slice::<Status>(&body) {
            Ok(mut status) if !status.message.is_empty() => {
                if let Some(seconds) = retry_after {
                    let details = status.details.get_or_insert_default();
                    details.retry_after_seconds.get_or_insert(seconds);
                }
                Error::Status(Box::new(Status { code: code.as_u16(), ..status }))
            }
            _ => Error::Answer {
                code: code.as_u16(),
                text: String::from_utf8_lossy(&body).chars().take(200).collect(),
                retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())),
            },
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Value, Error> {
        let headers = [(header::ACCEPT, JSON), (header::CONTENT_TYPE, content_type)];
        json(&Self::read(self.send(method, path, &headers, body).await?).await?)
    }

    /// The text at a path, at most `timeout` long in coming.
    pub async fn text(&self, path: &str, timeout: Duration) -> Result<String, Error> {
        let bytes = self.get_within(path, &[], timeout).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is at a path in the form `accept`, at most `timeout` long in coming.
    pub(crate) async fn get_as(
        &self,
        path: &str,
        accept: &str,
        timeout: Duration,
    ) -> Result<Value, Error> {
        json(&self.get_within(path, &[(header::ACCEPT, accept)], timeout).await?)
    }

    async fn get_within(
        &self,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        timeout: Duration,
    ) -> Result<Bytes, Error> {
        let answer =
            async { Self::read(self.send(Method::GET, path, headers, Bytes::new()).await?).await };
        tokio::time::timeout(timeout, answer)
            .await
            .map_err(|_| Error::Transport(format!("no answer within {timeout:?}")))?
    }

    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(Method::GET, path, JSON, Bytes::new()).await
    }

    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.call(Method::POST, path, JSON, object.to_string().into()).await
    }

    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.call(Method::PUT, path, JSON, object.to_string().into()).await
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value, Error> {
        self.call(Method::PATCH, path, "application/merge-patch+json", patch.to_string().into())
            .await
    }

    /// Server-side apply under our name.
    pub async fn apply(&self, path: &str, object: &Value, force: bool) -> Result<Value, Error> {
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&force={force}");
        self.call(Method::PATCH, &path, "application/apply-patch+yaml", object.to_string().into())
            .await
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, Error> {
        self.call(Method::DELETE, path, JSON, options.to_string().into()).await
    }

    /// Every object of a collection, page by page, handed to `each`; returns the resource version to watch from.
    pub async fn list(
        &self,
        path: &str,
        query: &str,
        accept: &str,
        mut each: impl FnMut(Value),
    ) -> Result<String, Error> {
        let mut next = String::new();
        loop {
            let page = format!("{path}?limit={PAGE}{query}{next}");
            let headers = [(header::ACCEPT, accept)];
            let bytes =
                Self::read(self.send(Method::GET, &page, &headers, Bytes::new()).await?).await?;
            let mut list = json(&bytes)?;
            if let Some(items) = list["items"].as_array_mut() {
                items.drain(..).for_each(&mut each);
            }
            match list["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => next = format!("&continue={token}"),
                None => {
                    return Ok(list["metadata"]["resourceVersion"]
                        .as_str()
                        .unwrap_or("")
                        .to_owned());
                }
            }
        }
    }

    /// Watches a collection from a resource version on.
    pub async fn watch(
        &self,
        path: &str,
        query: &str,
        accept: &str,
        from: &str,
    ) -> Result<Watch, Error> {
        let path = format!("{path}?watch=1&allowWatchBookmarks=true&resourceVersion={from}{query}");
        let response =
            self.send(Method::GET, &path, &[(header::ACCEPT, accept)], Bytes::new()).await?;
        if !response.status().is_success() {
            Self::read(response).await?;
            return Err(Error::Transport("the watch was not begun".into()));
        }
        Ok(Watch { body: response.into_body(), buffer: BytesMut::new() })
    }
}

fn json(answer: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(answer)
        .map_err(|error| Error::Transport(format!("the answer is no JSON: {error}")))
}

/// The reasons of an error, outermost first.
fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

/// A watch that goes on.
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
}

impl Watch {
    /// The next event, `{type, object}`; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Result<Value, Error>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(
                    serde_json::from_slice(&line)
                        .map_err(|e| Error::Transport(format!("the watch: {e}"))),
                );
            }
            if self.buffer.len() > MAX_LINE {
                return Some(Err(Error::Transport("an event of the watch is too large".into())));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Err(error) => return Some(Err(Error::Transport(chain(error)))),
            }
        }
    }
}

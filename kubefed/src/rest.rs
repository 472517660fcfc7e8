//! Requests to a cluster of a kubeconfig, with objects as trees.

use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Method, Request, header};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::Instant;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before a collection that is not served yet is tried again.
const LOOK: Duration = Duration::from_millis(100);
/// How many objects of a list are asked for at a time.
const PAGE: usize = 500;

/// A cluster, by a context of a kubeconfig.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    /// The namespace of the context.
    pub(crate) namespace: String,
    /// The cluster's entry in the kubeconfig.
    pub(crate) entry: kube::config::Cluster,
    /// PEM of the certificate that we show.
    pub(crate) certificate: Option<Vec<u8>>,
}

/// Why a request failed: the code is 0 where the server was not reached.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) code: u16,
    pub(crate) message: String,
}

/// A collection that is read page by page.
pub(crate) struct Pages<'a> {
    cluster: &'a Cluster,
    path: String,
    /// The token of the next page; none after the last.
    next: Option<String>,
    /// Whether there has to be such a collection.
    is_needed: bool,
}

impl Pages<'_> {
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Value>>, Error> {
        let Some(token) = self.next.take() else { return Ok(None) };
        let path = format!("{}?limit={PAGE}&continue={token}", self.path);
        let mut page = match self.cluster.get(&path).await {
            Err(error) if error.code == 404 && !self.is_needed => return Ok(None),
            page => page?,
        };
        let next = page["metadata"]["continue"].as_str().filter(|next| !next.is_empty());
        self.next = next.map(escape);
        match page["items"].take() {
            Value::Array(objects) => Ok(Some(objects)),
            _ => Ok(Some(Vec::new())),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The kubeconfig at a path, else that of `KUBECONFIG` or the home directory.
pub(crate) fn kubeconfig(path: Option<&std::path::Path>) -> anyhow::Result<Kubeconfig> {
    match path {
        Some(path) => Kubeconfig::read_from(path)
            .with_context(|| format!("cannot read {} (--kubeconfig)", path.display())),
        None => Kubeconfig::read()
            .context("cannot read a kubeconfig: set KUBECONFIG or give --kubeconfig"),
    }
}

/// The context that a flag names, else the current one.
pub(crate) fn host_context<'a>(
    config: &'a Kubeconfig,
    flag: Option<&'a str>,
) -> anyhow::Result<&'a str> {
    flag.or(config.current_context.as_deref())
        .context("the kubeconfig has no current context: give --host-cluster-context")
}

impl Cluster {
    pub(crate) async fn connect(config: &Kubeconfig, context: &str) -> anyhow::Result<Self> {
        let named = config
            .contexts
            .iter()
            .find(|known| known.name == context)
            .and_then(|known| known.context.as_ref());
        let named = named.with_context(|| {
            let known: Vec<&str> =
                config.contexts.iter().map(|context| context.name.as_str()).collect();
            format!("the kubeconfig has no context {context:?}; it has: {}", known.join(", "))
        })?;
        let entry = config
            .clusters
            .iter()
            .find(|known| known.name == named.cluster)
            .and_then(|known| known.cluster.clone());
        let entry =
            entry.with_context(|| format!("the kubeconfig has no cluster {:?}", named.cluster))?;
        let options =
            KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(config.clone(), &options)
            .await
            .with_context(|| format!("context {context:?} can't be used"))?;
        let user = &config.auth_info;
        let certificate = pem(&user.client_certificate_data, &user.client_certificate);
        let namespace = config.default_namespace.clone();
        Ok(Cluster { client: Client::try_from(config)?, namespace, entry, certificate })
    }

    /// The cluster of a context of the kubeconfig at a path, both as flags give them or leave them out.
    pub(crate) async fn of_flags(
        path: Option<&std::path::Path>,
        context: Option<&str>,
    ) -> anyhow::Result<Self> {
        let config = kubeconfig(path)?;
        Cluster::connect(&config, host_context(&config, context)?).await
    }

    /// PEM of the authorities that are trusted to speak for the cluster.
    pub(crate) fn authorities(&self) -> Option<Vec<u8>> {
        pem(&self.entry.certificate_authority_data, &self.entry.certificate_authority)
    }

    /// The text at a path.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Error> {
        self.send(Method::GET, path, "", Vec::new()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(Method::GET, path, "", None).await
    }

    /// The object, or `None` if it is not there.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>, Error> {
        match self.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object of a collection. One that is not there is an error.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, Error> {
        let mut pages = Pages { is_needed: true, ..self.pages(path) };
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await? {
            objects.extend(page);
        }
        Ok(objects)
    }

    /// The objects of a collection, page by page; one that is not there has none.
    pub(crate) fn pages(&self, path: &str) -> Pages<'_> {
        Pages { cluster: self, path: path.to_owned(), next: Some(String::new()), is_needed: false }
    }

    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.call(Method::POST, path, "application/json", Some(object)).await
    }

    /// Creates an object whose kind may come to be served only within a time.
    pub(crate) async fn create_served(
        &self,
        path: &str,
        object: &Value,
        within: Duration,
    ) -> Result<Value, Error> {
        let deadline = Instant::now() + within;
        loop {
            match self.create(path, object).await {
                Err(error) if error.code == 404 && Instant::now() < deadline => {
                    tokio::time::sleep(LOOK).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Writes the whole object, which has the resource version that it takes the place of.
    pub(crate) async fn replace(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.call(Method::PUT, path, "application/json", Some(object)).await
    }

    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Result<Value, Error> {
        self.call(Method::PATCH, path, "application/merge-patch+json", Some(patch)).await
    }

    pub(crate) async fn apply(&self, path: &str, object: &Value) -> Result<Value, Error> {
        let path = format!("{path}?fieldManager=kubefed&force=true");
        self.call(Method::PATCH, &path, "application/apply-patch+yaml", Some(object)).await
    }

    /// Deletes; that it is gone already is fine.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        match self.call(Method::DELETE, path, "", None).await {
            Err(error) if error.code != 404 => Err(error),
            _ => Ok(()),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let text = self.send(method, path, content_type, body).await?;
        serde_json::from_str(&text).map_err(|error| Error {
            code: 0,
            message: format!("{path}: the answer is no JSON: {error}"),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<String, Error> {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request =
            request.body(body).map_err(|error| Error { code: 0, message: error.to_string() })?;
        let answer = tokio::time::timeout(TIMEOUT, self.client.request_text(request)).await;
        let answer = answer.map_err(|_| Error {
            code: 0,
            message: format!("the server cannot be reached: no answer within {TIMEOUT:?}"),
        })?;
        answer.map_err(|error| match error {
            kube::Error::Api(status) => {
                let reason = Some(status.reason.as_str())
                    .filter(|reason| !reason.is_empty())
                    .unwrap_or("Unknown");
                Error {
                    code: status.code,
                    message: format!("Error from server ({reason}): {}", status.message),
                }
            }
            error => Error {
                code: 0,
                message: format!("the server cannot be reached: {}", causes(&error)),
            },
        })
    }
}

/// The innermost causes of an error say most; the outer ones are names of layers.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let inner = cause.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = cause.source();
    }
    text
}

/// A continue token as part of a query.
fn escape(token: &str) -> String {
    token.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
        text
    })
}

/// PEM that a kubeconfig holds, or names the file of.
fn pem(data: &Option<String>, file: &Option<String>) -> Option<Vec<u8>> {
    match (data, file) {
        (Some(data), _) => BASE64_STANDARD.decode(data).ok(),
        (None, Some(file)) => std::fs::read(file).ok(),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_survives_the_query() {
        assert_eq!(escape("aZ9-_=+/"), "aZ9-_%3D%2B%2F");
    }
}

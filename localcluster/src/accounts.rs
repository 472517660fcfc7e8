//! Service accounts: one called `default` in each namespace, and tokens in the secrets that ask for one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_apimachinery::meta;
use kubefed_apimachinery::status::Status;
use kubefed_apiserver::authn::tokens::{Grant, Reference};
use kubefed_apiserver::loopback::Loopback;
use kubefed_apiserver::registry::Part;
use serde_json::{Value, json};

use crate::{tell, text};

const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub(crate) async fn follow_namespaces(loopback: Loopback) {
    loopback
        .follow("", "namespaces", |namespace, gone| {
            let loopback = &loopback;
            async move {
                if gone || namespace.index.deletion_timestamp.is_some() {
                    return;
                }
                let account = json!({
                    "apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"name": "default", "namespace": namespace.index.name},
                });
                tell(
                    "service account",
                    loopback.create_if_missing("", "serviceaccounts", account).await,
                );
            }
        })
        .await;
}

pub(crate) async fn follow_secrets(loopback: Loopback, ca: Vec<u8>) {
    loopback
        .follow("", "secrets", |secret, gone| {
            let (loopback, ca) = (&loopback, &ca);
            async move {
                if !gone && secret.index.field("type") == Some(TOKEN_TYPE) {
                    let filled = match secret.value() {
                        Ok(secret) => fill(loopback, &secret, ca).await,
                        Err(error) => Err(Status::internal(error)),
                    };
                    tell("token", filled);
                }
            }
        })
        .await;
}

/// Puts a token into a secret that has none.
async fn fill(loopback: &Loopback, secret: &Value, ca: &[u8]) -> Result<(), Status> {
    if secret["data"]["token"].is_string() {
        return Ok(());
    }
    let server = loopback.server();
    let (Some(tokens), Some(name)) = (&server.tokens, meta::annotation(secret, ACCOUNT)) else {
        return Ok(());
    };
    let namespace = meta::namespace(secret);
    let account = loopback.get("", "serviceaccounts", namespace, name).await?;
    let reference = |object: &Value| Reference {
        name: meta::name(object).into(),
        uid: meta::uid(object).into(),
    };
    let token = tokens.issue(Grant {
        namespace,
        service_account: reference(&account),
        secret: Some(reference(secret)),
        audiences: Vec::new(),
        now: (server.clock)().as_second(),
        lifetime: None,
    })?;
    let encode = |bytes: &[u8]| json!(BASE64_STANDARD.encode(bytes));
    let uid = text(&account["metadata"], "uid");
    loopback
        .update("", "secrets", secret, Part::Main, |live| {
            live["metadata"]["annotations"][ACCOUNT_UID] = json!(uid);
            if !live["data"].is_object() {
                live["data"] = json!({});
            }
            live["data"]["token"] = encode(token.as_bytes());
            live["data"]["ca.crt"] = encode(ca);
            live["data"]["namespace"] = encode(namespace.as_bytes());
        })
        .await
}

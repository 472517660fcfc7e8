//! The members, reached as the controllers reach them: by KubeFedCluster and secret.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::config::{
    AuthInfo, Cluster as Entry, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use kubefed_api::kubefedcluster;
use kubefed_apimachinery::meta;
use serde_json::Value;

use crate::plane;
use crate::rest::{Cluster, Error};

/// The clusters that are ready, by name; or why one can't be asked.
pub(crate) async fn ready(
    host: &Cluster,
    namespace: &str,
) -> Result<Vec<(String, anyhow::Result<Cluster>)>, Error> {
    let mut members = Vec::new();
    for cluster in host.list(&plane::core(namespace, "kubefedclusters")).await? {
        if kubefedcluster::is_ready(&cluster) {
            let reached = reach(host, namespace, &cluster).await;
            members.push((meta::name(&cluster).to_owned(), reached));
        }
    }
    Ok(members)
}

async fn reach(host: &Cluster, namespace: &str, cluster: &Value) -> anyhow::Result<Cluster> {
    let secret = cluster["spec"]["secretRef"]["name"].as_str().unwrap_or("");
    let secret = host.get(&format!("/api/v1/namespaces/{namespace}/secrets/{secret}")).await?;
    Cluster::connect(&kubeconfig(&cluster["spec"], &secret)?, NAME).await
}

const NAME: &str = "member";

/// What a KubeFedCluster and its secret say, as a kubeconfig.
fn kubeconfig(spec: &Value, secret: &Value) -> anyhow::Result<Kubeconfig> {
    let text = |field: &str| spec[field].as_str().filter(|text| !text.is_empty());
    let server = kubefedcluster::endpoint_url(text("apiEndpoint").unwrap_or(""));
    let server = server.map_err(|why| anyhow::anyhow!("spec.apiEndpoint: {why}"))?;
    let token = secret["data"]["token"].as_str().unwrap_or("");
    let token = BASE64_STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
    let token = token.context("its secret has no token")?;
    let disabled: Vec<&Value> =
        spec["disabledTLSValidations"].as_array().into_iter().flatten().collect();
    let insecure = disabled.iter().any(|check| **check == "*");
    // A token goes to nobody who was not checked as far as was asked for, and no further.
    if !insecure && !disabled.is_empty() {
        bail!("spec.disabledTLSValidations: only \"*\" can be followed from here");
    }
    let entry = Entry {
        server: Some(server),
        certificate_authority_data: text("caBundle").filter(|_| !insecure).map(str::to_owned),
        insecure_skip_tls_verify: insecure.then_some(true),
        proxy_url: text("proxyURL").map(str::to_owned),
        ..Entry::default()
    };
    let user = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    let context = Context { cluster: NAME.into(), user: Some(NAME.into()), ..Context::default() };
    Ok(Kubeconfig {
        clusters: vec![NamedCluster {
            name: NAME.into(),
            cluster: Some(entry),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: NAME.into(),
            auth_info: Some(user),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: NAME.into(),
            context: Some(context),
            ..NamedContext::default()
        }],
        ..Kubeconfig::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_is_checked_as_far_as_its_cluster_asks_for() {
        let secret = json!({"data": {"token": BASE64_STANDARD.encode("t0k3n\n")}});
        let entry = |spec: Value| {
            let config = kubeconfig(&spec, &secret)?;
            anyhow::Ok(config.clusters[0].cluster.clone().unwrap())
        };
        let checked = entry(json!({"apiEndpoint": "a:6443", "caBundle": "Q0E="})).unwrap();
        assert_eq!(checked.server.as_deref(), Some("https://a:6443"));
        assert_eq!(checked.certificate_authority_data.as_deref(), Some("Q0E="));
        assert_eq!(checked.insecure_skip_tls_verify, None);
        let unchecked = entry(json!({"apiEndpoint": "a", "disabledTLSValidations": ["*"]}));
        assert_eq!(unchecked.unwrap().insecure_skip_tls_verify, Some(true));
        let partly = json!({"apiEndpoint": "a", "disabledTLSValidations": ["SubjectName"]});
        assert!(entry(partly).unwrap_err().to_string().contains("disabledTLSValidations"));
        assert!(kubeconfig(&json!({"apiEndpoint": "a"}), &json!({})).is_err());
    }
}

//! `join`: a service account in the member for us, and a KubeFedCluster that says how to use it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use kube::config::Kubeconfig;
use kubefed_api::{SCOPE_ANNOTATION, kubefedconfig};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};

use crate::plane::{self, DryRun, PlaneOptions};
use crate::rest::{self, Cluster, Error};

/// How long the member's token controller may take.
const TOKEN_WAIT: Duration = Duration::from_secs(30);
const TOKEN_LOOK: Duration = Duration::from_millis(50);

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Flags that join and unjoin share.
#[derive(Args, Clone, Debug)]
pub(crate) struct EndsOptions {
    #[command(flatten)]
    pub(crate) plane: PlaneOptions,
    /// The name of the host in generated names; its context's name if left out
    #[arg(long)]
    pub(crate) host_cluster_name: Option<String>,
    /// The context of the cluster; its name if left out
    #[arg(long)]
    pub(crate) cluster_context: Option<String>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// Flags of `join`.
#[derive(Args, Clone, Debug)]
pub(crate) struct JoinOptions {
    /// The name of the cluster in the federation
    pub(crate) cluster_name: String,
    #[command(flatten)]
    pub(crate) ends: EndsOptions,
    /// The name of the secret in the federation that keeps the token; a generated one if left out
    #[arg(long)]
    pub(crate) secret_name: Option<String>,
    /// Refuse to join a cluster that was joined before
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) error_on_existing: bool,
}

/// Both ends of a join.
pub(crate) struct Ends {
    pub(crate) host: Cluster,
    pub(crate) namespace: String,
    pub(crate) config: Kubeconfig,
    pub(crate) context: String,
    /// The service account and all that is made for it.
    pub(crate) account: String,
}

pub(crate) async fn ends(
    name: &str,
    options: &EndsOptions,
    config: Kubeconfig,
) -> anyhow::Result<Ends> {
    let host_context =
        rest::host_context(&config, options.plane.host.host_cluster_context.as_deref())?;
    let host_name = options.host_cluster_name.as_deref().unwrap_or(host_context);
    if host_name.contains([':', '/']) {
        bail!("{host_name:?} cannot be part of a name: give --host-cluster-name");
    }
    let host = Cluster::connect(&config, host_context).await?;
    let context = options.cluster_context.clone().unwrap_or_else(|| name.to_owned());
    let account = format!("{name}-{host_name}");
    Ok(Ends { host, namespace: options.plane.kubefed_namespace.clone(), config, context, account })
}

/// Joins a cluster.
pub(crate) async fn join(options: &JoinOptions) -> anyhow::Result<()> {
    join_in(rest::kubeconfig(options.ends.plane.host.kubeconfig.as_deref())?, options).await
}

/// Joins a cluster of a kubeconfig that was read already.
pub(crate) async fn join_in(config: Kubeconfig, options: &JoinOptions) -> anyhow::Result<()> {
    let name = &options.cluster_name;
    let ends = ends(name, &options.ends, config).await?;
    let namespace = &ends.namespace;
    let namespaced = is_namespaced(&ends).await?;
    let member = Cluster::connect(&ends.config, &ends.context).await?;
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let joined = member
        .find(&format!("{accounts}/{}", ends.account))
        .await
        .with_context(|| format!("cluster {name}"))?;
    if joined.is_some() && options.error_on_existing {
        bail!(
            "service account {namespace}/{} exists in cluster {name:?}: it was joined before (--error-on-existing=false takes it up)",
            ends.account
        );
    }
    let clusters = clusters(namespace);
    let known = ends.host.find(&format!("{clusters}/{name}")).await.context("the federation")?;
    if known.is_some() && options.error_on_existing {
        bail!(
            "the federation has a KubeFedCluster {namespace}/{name}: it was joined before (--error-on-existing=false takes it up)"
        );
    }
    if options.ends.dry_run.on {
        return Ok(());
    }
    tracing::info!(
        "Creating service account {namespace}/{} and its rights in cluster {name:?}",
        ends.account
    );
    create_rights(&member, &ends, namespaced).await.with_context(|| format!("cluster {name}"))?;
    let (token, ca) = token(&member, &ends).await.with_context(|| format!("cluster {name}"))?;
    tracing::info!("Registering cluster {name:?} with the federation");
    register(&ends, options, &member, known, &token, ca).await.context("the federation")?;
    Ok(())
}

/// Where the KubeFedClusters are.
pub(crate) fn clusters(namespace: &str) -> String {
    plane::core(namespace, "kubefedclusters")
}

/// The scope that holds, as the controllers last told it.
pub(crate) fn told_scope(lease: &Value) -> Option<&str> {
    lease["metadata"]["annotations"][SCOPE_ANNOTATION].as_str()
}

/// Whether the federation reaches only the namespace of its control plane. The controllers know that, by their rights;
/// where they never led, or we may not read what they tell, the config says what they are going to be asked for.
async fn is_namespaced(ends: &Ends) -> anyhow::Result<bool> {
    let namespace = &ends.namespace;
    let path = format!(
        "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/kubefed-controller-manager"
    );
    match ends.host.find(&path).await {
        Ok(lease) => {
            if let Some(scope) = lease.as_ref().and_then(told_scope) {
                return Ok(scope == "Namespaced");
            }
        }
        Err(error) if error.code == 403 => {}
        Err(error) => return Err(error).context("the federation"),
    }
    let path = format!("{}/{}", plane::core(namespace, "kubefedconfigs"), kubefedconfig::NAME);
    if let Some(config) = ends.host.find(&path).await.context("the federation")? {
        return Ok(kubefedconfig::is_namespaced(&config));
    }
    // The defaults hold then, but not for whoever has mistaken the namespace.
    let home = ends.host.find(&format!("/api/v1/namespaces/{namespace}")).await;
    if home.context("the federation")?.is_none() {
        bail!(
            "the federation has no namespace {namespace:?}: name that of its control plane by --kubefed-namespace"
        );
    }
    Ok(kubefedconfig::is_namespaced(&kubefedconfig::default_config(namespace)))
}

/// The objects in a member that give an account its rights: path of the collection, and object.
pub(crate) fn rights(namespace: &str, account: &str, namespaced: bool) -> Vec<(String, Value)> {
    let api = "rbac.authorization.k8s.io/v1";
    let subjects = json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let pair = |scope: &str, name: String, rules: Value| {
        let plural = |kind: &str| match scope {
            "Role" => format!("{RBAC}/namespaces/{namespace}/{kind}"),
            _ => format!("{RBAC}/cluster{kind}"),
        };
        let reference =
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": scope, "name": name});
        [
            (
                plural("roles"),
                json!({"apiVersion": api, "kind": scope, "metadata": {"name": name}, "rules": rules}),
            ),
            (
                plural("rolebindings"),
                json!({"apiVersion": api, "kind": format!("{scope}Binding"), "metadata": {"name": name}, "roleRef": reference, "subjects": subjects}),
            ),
        ]
    };
    let name = format!("kubefed-controller-manager:{account}");
    if !namespaced {
        let mut rules = everything;
        rules
            .as_array_mut()
            .expect("a list")
            .push(json!({"nonResourceURLs": ["*"], "verbs": ["get"]}));
        return pair("ClusterRole", name, rules).into();
    }
    let health = format!("kubefed-controller-manager:{namespace}:healthcheck-{account}");
    let health_rules = json!([
        {"nonResourceURLs": ["/healthz", "/version"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
    ]);
    pair("Role", name, everything)
        .into_iter()
        .chain(pair("ClusterRole", health, health_rules))
        .collect()
}

async fn create_rights(member: &Cluster, ends: &Ends, namespaced: bool) -> Result<(), Error> {
    let (namespace, account) = (&ends.namespace, &ends.account);
    let mut objects = vec![
        (
            "/api/v1/namespaces".to_owned(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        ),
        (
            format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": account, "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
                "automountServiceAccountToken": false,
            }),
        ),
        (
            format!("/api/v1/namespaces/{namespace}/secrets"),
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
                "metadata": {"name": account, "annotations": {"kubernetes.io/service-account.name": account}},
            }),
        ),
    ];
    objects.extend(rights(namespace, account, namespaced));
    for (path, object) in objects {
        let path = format!("{path}/{}", meta::name(&object));
        // To which role a binding binds cannot be changed.
        if object["roleRef"].is_object() {
            let found = member.find(&path).await?;
            if found.is_some_and(|found| found["roleRef"] != object["roleRef"]) {
                member.delete(&path).await?;
            }
        }
        member.apply(&path, &object).await?;
    }
    Ok(())
}

/// The token that the member's controller puts into the secret, and the member's CA beside it.
async fn token(member: &Cluster, ends: &Ends) -> anyhow::Result<(String, Option<String>)> {
    let path = format!("/api/v1/namespaces/{}/secrets/{}", ends.namespace, ends.account);
    let deadline = tokio::time::Instant::now() + TOKEN_WAIT;
    loop {
        let secret = member.get(&path).await?;
        if let Some(token) = secret["data"]["token"].as_str().filter(|token| !token.is_empty()) {
            return Ok((token.to_owned(), secret["data"]["ca.crt"].as_str().map(str::to_owned)));
        }
        if tokio::time::Instant::now() >= deadline {
            bail!(
                "no token came into secret {}/{} within {TOKEN_WAIT:?}: does the cluster run the token controller?",
                ends.namespace,
                ends.account
            );
        }
        tokio::time::sleep(TOKEN_LOOK).await;
    }
}

/// Keeps the token in the federation, and says there how the member is reached.
async fn register(
    ends: &Ends,
    options: &JoinOptions,
    member: &Cluster,
    known: Option<Value>,
    token: &str,
    ca: Option<String>,
) -> anyhow::Result<()> {
    let (namespace, name) = (&ends.namespace, &options.cluster_name);
    let clusters = clusters(namespace);
    let known_secret = known
        .as_ref()
        .and_then(|known| known["spec"]["secretRef"]["name"].as_str())
        .map(str::to_owned);
    let secret = match options.secret_name.clone().or(known_secret) {
        Some(secret) => {
            let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "data": {"token": token}});
            ends.host
                .apply(&format!("/api/v1/namespaces/{namespace}/secrets/{secret}"), &object)
                .await?;
            secret
        }
        None => {
            let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": format!("{name}-")}, "data": {"token": token}});
            let created = ends
                .host
                .create(&format!("/api/v1/namespaces/{namespace}/secrets"), &object)
                .await?;
            created["metadata"]["name"].as_str().context("the secret has no name")?.to_owned()
        }
    };
    let entry = &member.entry;
    let from_file = || {
        entry
            .certificate_authority
            .as_ref()
            .map(|path| std::fs::read(path).map(|pem| BASE64_STANDARD.encode(pem)))
    };
    let bundle = match (&entry.certificate_authority_data, from_file()) {
        (Some(data), _) => Some(data.clone()),
        (None, Some(read)) => {
            Some(read.context("cannot read the certificate-authority of the kubeconfig")?)
        }
        (None, None) => ca,
    };
    let mut spec = json!({
        "apiEndpoint": entry.server.clone().context("the kubeconfig has no server for the cluster")?,
        "secretRef": {"name": secret},
    });
    if let Some(bundle) = bundle {
        spec["caBundle"] = json!(bundle);
    }
    if entry.insecure_skip_tls_verify == Some(true) {
        spec["disabledTLSValidations"] = json!(["*"]);
    }
    if let Some(proxy) = &entry.proxy_url {
        spec["proxyURL"] = json!(proxy);
    }
    let object = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedCluster",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    });
    match known {
        Some(_) => {
            ends.host.merge(&format!("{clusters}/{name}"), &json!({"spec": object["spec"]})).await?
        }
        None => ends.host.create(&clusters, &object).await?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(namespaced: bool) -> Vec<String> {
        let rights = rights("fed", "a-host", namespaced);
        rights.iter().map(|(path, object)| format!("{path}/{}", meta::name(object))).collect()
    }

    #[test]
    fn an_account_has_the_rights_of_its_scope() {
        let name = "kubefed-controller-manager:a-host";
        let everywhere =
            [format!("{RBAC}/clusterroles/{name}"), format!("{RBAC}/clusterrolebindings/{name}")];
        assert_eq!(names(false), everywhere);
        let health = "kubefed-controller-manager:fed:healthcheck-a-host";
        let within = [
            format!("{RBAC}/namespaces/fed/roles/{name}"),
            format!("{RBAC}/namespaces/fed/rolebindings/{name}"),
            format!("{RBAC}/clusterroles/{health}"),
            format!("{RBAC}/clusterrolebindings/{health}"),
        ];
        assert_eq!(names(true), within);
        for (_, object) in
            rights("fed", "a-host", true).iter().chain(&rights("fed", "a-host", false))
        {
            // Kubernetes knows no verb `Get`, which KubeFed asked for.
            assert!(!object["rules"].to_string().contains("Get"), "{object}");
            let account = json!([{"kind": "ServiceAccount", "name": "a-host", "namespace": "fed"}]);
            assert!(object["roleRef"].is_null() || object["subjects"] == account, "{object}");
        }
    }
}

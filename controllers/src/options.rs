//! The flags of the controller manager, and who we are to the federation by a kubeconfig.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Parser;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kubefed_certs::ClientTls;
use kubefed_component::ProcessOptions;
use secrecy::ExposeSecret as _;

use crate::client::{Access, Client, Rate};
use crate::manager::Endpoints;

/// The flags of `kubefed-controller-manager`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubefed-controller-manager",
    disable_version_flag = true,
    about = "Keeps the members of the federation as they are to be"
)]
pub struct Options {
    /// The kubeconfig of the host, which leads to the federation; in a pod its service account does without
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig of the federation's own endpoint, for all of its kinds: the host is asked for Leases, Events,
    /// Secrets and Namespaces alone, and need not lead to the federation
    #[arg(long)]
    pub federation_kubeconfig: Option<PathBuf>,
    /// The URL of the host, instead of the kubeconfig's
    #[arg(long)]
    pub master: Option<String>,
    /// The namespace of the control plane; in a pod the pod's own, else kube-federation-system
    #[arg(long)]
    pub kubefed_namespace: Option<String>,
    /// Where to answer health probes
    #[arg(long, default_value = ":8080")]
    pub healthz_addr: String,
    /// Where to answer with metrics
    #[arg(long, default_value = ":9090")]
    pub metrics_addr: String,
    /// A KubeFedConfig, YAML or JSON, instead of the one in the federation
    #[arg(long)]
    pub kubefed_config: Option<PathBuf>,
    /// Requests to the host in a second, and to the federation; without it, or with 0 or less, nothing limits them
    #[arg(long, allow_negative_numbers = true)]
    pub rest_config_qps: Option<f32>,
    /// Requests at once where --rest-config-qps limits them
    #[arg(long, default_value_t = 200)]
    pub rest_config_burst: u32,
    /// Print the version and end
    #[arg(long)]
    pub version: bool,
    #[command(flatten)]
    pub process: ProcessOptions,
}

impl Options {
    /// The namespace of the control plane.
    pub fn namespace(&self) -> String {
        let pods = || std::fs::read_to_string(format!("{SERVICE_ACCOUNT}/namespace")).ok();
        let given = self.kubefed_namespace.clone().or_else(pods);
        let given = given.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        given.unwrap_or_else(|| kubefed_api::SYSTEM_NAMESPACE.to_owned())
    }

    /// Whom the controllers ask.
    ///
    /// # Errors
    /// What a kubeconfig lacks.
    pub fn endpoints(&self) -> anyhow::Result<Endpoints> {
        let mut host = match &self.kubeconfig {
            Some(file) => of_file(file, "--kubeconfig")?,
            None => in_cluster().context("without --kubeconfig this must run in a pod")?,
        };
        if let Some(master) = &self.master {
            master.clone_into(&mut host.url);
        }
        let rate = self.rest_config_qps.and_then(|qps| Rate::new(qps, self.rest_config_burst));
        let client =
            |access: Access| Client::new(Access { rate, ..access }).map_err(anyhow::Error::msg);
        let host = client(host).context("cannot use what --kubeconfig says of the host")?;
        let Some(file) = &self.federation_kubeconfig else { return Ok(host.into()) };
        const FLAG: &str = "--federation-kubeconfig";
        let federation = client(of_file(file, FLAG)?)
            .with_context(|| format!("cannot use {} ({FLAG})", file.display()))?;
        Ok(Endpoints { host, federation })
    }
}

/// What KubeFed prints as its version, so that whoever reads it there can read it here.
pub fn version() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "KubeFed controller-manager version: version.Info{{Version:\"v{}\", GitCommit:\"{}\", GitTreeState:\"{}\", BuildDate:\"{}\", GoVersion:\"none\", Compiler:\"rustc\", Platform:\"{}/{architecture}\"}}",
        env!("CARGO_PKG_VERSION"),
        option_env!("KUBEFED_GIT_COMMIT").unwrap_or("unknown"),
        option_env!("KUBEFED_GIT_TREE_STATE").unwrap_or("unknown"),
        option_env!("KUBEFED_BUILD_DATE").unwrap_or("unknown"),
        std::env::consts::OS,
    )
}

/// Where a pod finds who it is.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How a pod reaches the cluster that it runs in.
fn in_cluster() -> anyhow::Result<Access> {
    let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let (host, port) = (var("KUBERNETES_SERVICE_HOST")?, var("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let ca = format!("{SERVICE_ACCOUNT}/ca.crt");
    let ca_pem = std::fs::read(&ca).with_context(|| format!("cannot read {ca}"))?;
    Ok(Access {
        url: format!("https://{host}:{port}"),
        tls: ClientTls { ca_pem, ..ClientTls::default() },
        token_file: Some(format!("{SERVICE_ACCOUNT}/token").into()),
        ..Access::default()
    })
}

/// How the server of the kubeconfig of a flag is reached.
fn of_file(file: &Path, flag: &str) -> anyhow::Result<Access> {
    let config = Kubeconfig::read_from(file)
        .with_context(|| format!("cannot read {} ({flag})", file.display()))?;
    access(&config, &KubeConfigOptions::default())
        .with_context(|| format!("cannot use {} ({flag})", file.display()))
}

/// How the server of a kubeconfig's context is reached.
///
/// # Errors
/// What the context lacks.
pub fn access(config: &Kubeconfig, options: &KubeConfigOptions) -> anyhow::Result<Access> {
    let name = options
        .context
        .as_ref()
        .or(config.current_context.as_ref())
        .context("the kubeconfig has no current context")?;
    let context = config
        .contexts
        .iter()
        .find(|context| context.name == *name)
        .and_then(|context| context.context.as_ref());
    let context = context.with_context(|| format!("the kubeconfig has no context {name:?}"))?;
    let cluster = config
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.cluster)
        .and_then(|c| c.cluster.as_ref());
    let cluster =
        cluster.with_context(|| format!("the kubeconfig has no cluster {:?}", context.cluster))?;
    let user = config
        .auth_infos
        .iter()
        .find(|user| Some(&user.name) == context.user.as_ref())
        .and_then(|u| u.auth_info.as_ref());

    let bytes = |data: &Option<String>, file: &Option<String>| -> anyhow::Result<Option<Vec<u8>>> {
        match (data, file) {
            (Some(data), _) => Ok(Some(
                BASE64_STANDARD
                    .decode(data)
                    .context("the kubeconfig holds data that is not base64")?,
            )),
            (None, Some(file)) => {
                Ok(Some(std::fs::read(file).with_context(|| format!("cannot read {file}"))?))
            }
            (None, None) => Ok(None),
        }
    };
    let ca_pem = bytes(&cluster.certificate_authority_data, &cluster.certificate_authority)?
        .with_context(|| {
            format!("cluster {:?} of the kubeconfig has no certificate-authority", context.cluster)
        })?;
    let (mut identity, mut token, mut changing) = (None, None, None);
    if let Some(user) = user {
        use kube::config::AuthInfo;
        let AuthInfo {
            client_certificate,
            client_certificate_data,
            client_key,
            token: given,
            token_file,
            ..
        } = user;
        let key_data = user.client_key_data.as_ref().map(|key| key.expose_secret().to_owned());
        let cert = bytes(client_certificate_data, client_certificate)?;
        let key = bytes(&key_data, client_key)?;
        identity = cert.zip(key);
        token = given.as_ref().map(|token| token.expose_secret().to_owned());
        changing = token_file.as_ref().filter(|_| token.is_none()).map(PathBuf::from);
    }
    if identity.is_none() && token.is_none() && changing.is_none() {
        bail!("the user of context {name:?} has neither a client certificate nor a token");
    }
    let url = cluster
        .server
        .clone()
        .with_context(|| format!("cluster {:?} has no server", context.cluster))?;
    Ok(Access {
        url: url.trim_end_matches('/').into(),
        tls: ClientTls { ca_pem, identity, alpn: Vec::new() },
        token,
        token_file: changing,
        ..Access::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_named_whose_kubeconfig_is_wrong() {
        let missing = "/nowhere/kubeconfig";
        for flag in ["--kubeconfig", "--federation-kubeconfig"] {
            let options = Options::parse_from(["kubefed-controller-manager", flag, missing]);
            let file = options.federation_kubeconfig.as_deref().or(options.kubeconfig.as_deref());
            let error = of_file(file.expect("given"), flag).map(drop).expect_err("there is none");
            assert_eq!(error.to_string(), format!("cannot read {missing} ({flag})"));
        }
    }

    #[test]
    fn the_flags_of_kubefeds_manifests_are_taken() {
        let of = |flags: &[&str]| {
            Options::parse_from(std::iter::once(&"kubefed-controller-manager").chain(flags))
        };
        let options = of(&["--rest-config-qps=100.0", "--rest-config-burst=200", "--v=2"]);
        let rate = |options: &Options| {
            options.rest_config_qps.and_then(|qps| Rate::new(qps, options.rest_config_burst))
        };
        assert_eq!(rate(&options), Rate::new(100.0, 200));
        assert_eq!(rate(&of(&[])), None);
        assert_eq!(rate(&of(&["--rest-config-qps=-1"])), None);
        assert!(of(&["--version"]).version && !options.version);
        assert!(
            version().starts_with("KubeFed controller-manager version: version.Info{Version:\"v")
        );
    }
}

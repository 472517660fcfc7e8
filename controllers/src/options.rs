//! The flags of the controller manager, and who we are to the federation by a kubeconfig.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Parser, ValueEnum};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kubefed_certs::ClientTls;
use secrecy::ExposeSecret as _;

use crate::client::Access;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoggingFormat {
    Text,
    Json,
}

/// The flags of `kubefed-controller-manager`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubefed-controller-manager",
    version,
    about = "Keeps the members of the federation as they are to be"
)]
pub struct Options {
    /// The kubeconfig of the federation
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// The URL of the federation, instead of the kubeconfig's
    #[arg(long)]
    pub master: Option<String>,
    /// The namespace of the control plane
    #[arg(long, default_value = kubefed_api::SYSTEM_NAMESPACE)]
    pub kubefed_namespace: String,
    /// Where to answer health probes
    #[arg(long, default_value = ":8080")]
    pub healthz_addr: String,
    /// End when standard input does: the parent is gone
    #[arg(long)]
    pub exit_with_parent: bool,
    /// The form of log lines
    #[arg(long, value_enum, default_value = "text")]
    pub logging_format: LoggingFormat,
    /// How much is logged: 0 to 3 informs, from 4 on more
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

impl Options {
    /// How the federation is reached.
    ///
    /// # Errors
    /// What the kubeconfig lacks.
    pub fn access(&self) -> anyhow::Result<Access> {
        let config = Kubeconfig::read_from(&self.kubeconfig)
            .with_context(|| format!("cannot read {} (--kubeconfig)", self.kubeconfig.display()))?;
        let mut access = access(&config, &KubeConfigOptions::default())?;
        if let Some(master) = &self.master {
            master.clone_into(&mut access.url);
        }
        Ok(access)
    }
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
    let (mut identity, mut token) = (None, None);
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
        if let Some(file) = token_file.as_ref().filter(|_| token.is_none()) {
            token = Some(
                std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read {file}"))?
                    .trim()
                    .to_owned(),
            );
        }
    }
    if identity.is_none() && token.is_none() {
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
    })
}

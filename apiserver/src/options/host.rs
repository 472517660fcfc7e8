//! The flags of a server that extends a host, as those of Kubernetes' own extension servers.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::host;

/// With any of the kubeconfigs the server extends that host, without one it stands alone.
#[derive(Args, Clone, Debug, Default)]
pub struct HostFlags {
    /// The kubeconfig of the host cluster, whose namespaces are ours
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig to let the host review tokens with; without it --kubeconfig
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// The kubeconfig to ask the host for rights with; without it --kubeconfig
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Don't ask the host whom to trust: the flags say it all
    #[arg(long)]
    pub authentication_skip_lookup: bool,
    /// PEM file of the authorities of the host's front proxy, instead of what the host says
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// The names that the front proxy's certificate may have
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// The headers that name the user
    #[arg(long, value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// The headers that give the user's uid
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// The headers that name the user's groups
    #[arg(long, value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// What headers begin with that say more of the user
    #[arg(long, value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

impl HostFlags {
    /// How the host is reached, if there is one.
    pub(super) fn options(&self, client_ca: Option<&PathBuf>) -> Option<host::Options> {
        let mut options = host::Options {
            kubeconfig: self.kubeconfig.clone(),
            authentication_kubeconfig: self.authentication_kubeconfig.clone(),
            authorization_kubeconfig: self.authorization_kubeconfig.clone(),
            skip_lookup: self.authentication_skip_lookup,
            ..host::Options::default()
        };
        let lists = [
            ("requestheader-allowed-names", &self.requestheader_allowed_names),
            ("requestheader-username-headers", &self.requestheader_username_headers),
            ("requestheader-uid-headers", &self.requestheader_uid_headers),
            ("requestheader-group-headers", &self.requestheader_group_headers),
            ("requestheader-extra-headers-prefix", &self.requestheader_extra_headers_prefix),
        ];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            options.trust.insert(key.into(), json!(list).to_string());
        }
        let files = [
            ("client-ca-file", client_ca),
            ("requestheader-client-ca-file", self.requestheader_client_ca_file.as_ref()),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                options.trust_files.insert(key.into(), file.clone());
            }
        }
        options.is_given().then_some(options)
    }
}

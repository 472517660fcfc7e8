//! `unjoin`: takes away in the member what `join` has made there, and the KubeFedCluster.

use anyhow::Context as _;
use clap::Args;
use kubefed_apimachinery::meta;
use serde_json::Value;

use crate::join::{Ends, EndsOptions, clusters, ends, rights};
use crate::rest::{self, Cluster};

/// Flags of `unjoin`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The name of the cluster in the federation
    cluster_name: String,
    #[command(flatten)]
    ends: EndsOptions,
    /// Go on although the cluster cannot be reached
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force: bool,
}

/// Takes a cluster out. What was propagated stays there.
pub(crate) async fn unjoin(options: &Options) -> anyhow::Result<()> {
    let name = &options.cluster_name;
    let ends =
        ends(name, &options.ends, rest::kubeconfig(options.ends.plane.host.kubeconfig.as_deref())?)
            .await?;
    let namespace = &ends.namespace;
    let path = format!("{}/{name}", clusters(namespace));
    let cluster = ends.host.get(&path).await.context("the federation")?;
    if options.ends.dry_run.on {
        return Ok(());
    }
    let cleaned = async {
        let member = Cluster::connect(&ends.config, &ends.context).await?;
        clean(&member, &ends).await?;
        anyhow::Ok(())
    };
    if let Err(error) = cleaned.await {
        let error = error.context(format!("cluster {name}"));
        if !options.force {
            return Err(error.context(
                "nothing was taken out of the federation (--force does so all the same)",
            ));
        }
        tracing::warn!("{error:#}");
    }
    if let Some(secret) = cluster["spec"]["secretRef"]["name"].as_str() {
        ends.host.delete(&format!("/api/v1/namespaces/{namespace}/secrets/{secret}")).await?;
    }
    ends.host.delete(&path).await?;
    Ok(())
}

async fn clean(member: &Cluster, ends: &Ends) -> anyhow::Result<()> {
    let namespace = &ends.namespace;
    // Bindings before roles; both scopes, whichever was used to join.
    let mut objects = rights(namespace, &ends.account, true);
    objects.extend(rights(namespace, &ends.account, false));
    objects.reverse();
    for (path, object) in objects {
        member.delete(&format!("{path}/{}", meta::name(&object))).await?;
    }
    member
        .delete(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{}", ends.account))
        .await?;
    member.delete(&format!("/api/v1/namespaces/{namespace}/secrets/{}", ends.account)).await?;
    let uid = |found: Option<Value>| found.map(|found| found["metadata"]["uid"].clone());
    let path = format!("/api/v1/namespaces/{namespace}");
    let (here, there) = (uid(ends.host.find(&path).await?), uid(member.find(&path).await?));
    if there.is_none() || here == there {
        return Ok(());
    }
    // The accounts of other federations live there too.
    let accounts = member.list(&format!("{path}/serviceaccounts")).await?;
    let others = accounts.iter().filter_map(|account| account["metadata"]["name"].as_str());
    match others.into_iter().find(|name| *name != "default" && *name != ends.account) {
        Some(other) => {
            tracing::info!("Namespace {namespace} stays: service account {other} is in it")
        }
        None => member.delete(&path).await?,
    }
    Ok(())
}

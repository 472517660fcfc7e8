//! `deinit`: takes a federation out of its host cluster. Members keep what they have, unless they are told otherwise.

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum as _};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

use crate::init::InstallOptions;
use crate::init::manifests::{self, Overlay};
use crate::rest::Cluster;
use crate::{plane, say};

const LOOK: Duration = Duration::from_millis(200);

/// Flags of `deinit`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    install: InstallOptions,
    /// Delete every federated object first, so that the controllers delete what they have put into the members
    #[arg(long)]
    delete_propagated: bool,
    /// Print what would be deleted and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Takes a federation away, with all that it has stored.
pub(crate) async fn deinit(options: &Options) -> anyhow::Result<()> {
    let namespace = &options.install.plane.kubefed_namespace;
    let host = options.install.connect().await?;
    let deadline = Instant::now() + options.install.timeout;
    if options.delete_propagated && !options.dry_run {
        delete_propagated(&host, namespace, deadline).await.context(
            "nothing of the control plane was deleted (without --delete-propagated the members keep what they have)",
        )?;
    }
    for object in ours(&host, namespace).await.context("the host cluster")? {
        say(&format!(
            "{}{}",
            manifests::title(&object),
            if options.dry_run { "" } else { " deleted" }
        ));
        if !options.dry_run {
            let deleted = host.delete(&manifests::path(&object)).await;
            deleted.with_context(|| manifests::title(&object))?;
        }
    }
    if options.dry_run {
        return Ok(());
    }
    let home = format!("/api/v1/namespaces/{namespace}");
    while let Some(left) = host.find(&home).await.context("the host cluster")? {
        if !manifests::is_ours(&left) {
            say(&format!("Namespace {namespace} stays: kubefed init has not made it"));
            break;
        }
        if Instant::now() >= deadline {
            let conditions = left["status"]["conditions"].as_array().into_iter().flatten();
            let why: Vec<&str> = conditions
                .filter(|condition| condition["status"] == "True")
                .filter_map(|condition| condition["message"].as_str())
                .collect();
            bail!(
                "after {:?} (--timeout) Namespace {namespace} is not gone: {}; the host goes on deleting it",
                options.install.timeout,
                why.join("; ")
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What there is of any overlay, in the order in which it goes: first what runs, then the road to it, so that nothing
/// asks a server that is going; the namespace last, with all that is left in it.
async fn ours(host: &Cluster, namespace: &str) -> anyhow::Result<Vec<Value>> {
    let mut wanted: Vec<Value> = Vec::new();
    for overlay in Overlay::value_variants() {
        for object in manifests::render(*overlay, namespace, None)? {
            if !wanted.iter().any(|known| manifests::path(known) == manifests::path(&object)) {
                wanted.push(object);
            }
        }
    }
    let mut found = Vec::new();
    for object in wanted {
        // Somebody else's that has the same name is not ours to delete.
        if host
            .find(&manifests::path(&object))
            .await?
            .is_some_and(|found| manifests::is_ours(&found))
        {
            found.push(object);
        }
    }
    // And what was made when kinds were enabled.
    for kind in ["APIService", "ClusterRole", "ClusterRoleBinding"] {
        for object in manifests::all_of_ours(host, kind).await? {
            if !found.iter().any(|known| manifests::path(known) == manifests::path(&object)) {
                found.push(object);
            }
        }
    }
    found.sort_by_key(|object| match object["kind"].as_str() {
        Some("Deployment" | "StatefulSet" | "CronJob") => 0,
        Some("APIService") => 1,
        Some("Namespace") => 3,
        _ => 2,
    });
    Ok(found)
}

/// Deletes the federated objects of every kind, and waits until the controllers have let go of them.
async fn delete_propagated(
    host: &Cluster,
    namespace: &str,
    deadline: Instant,
) -> anyhow::Result<()> {
    let kinds = plane::read_type_configs(host, namespace).await.context("the federation")?;
    loop {
        let mut left = Vec::new();
        for kind in &kinds {
            let api_version = kind.federated.api_version();
            let path = format!("/apis/{api_version}/{}", kind.federated.plural_name);
            for mut object in host.list(&path).await.context("the federation")? {
                // Items of a list need not say what they are.
                object["apiVersion"] = api_version.clone().into();
                object["kind"] = kind.federated.kind.clone().into();
                left.push(object);
            }
        }
        let Some(first) = left.first() else { return Ok(()) };
        if Instant::now() >= deadline {
            bail!(
                "{} federated objects are not deleted, {} the first of them: see kubefed check",
                left.len(),
                manifests::title(first)
            );
        }
        for object in &left {
            if object["metadata"]["deletionTimestamp"].is_null() {
                host.delete(&manifests::path(object)).await.context("the federation")?;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

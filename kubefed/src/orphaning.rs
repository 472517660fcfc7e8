//! `orphaning-deletion`: whether members keep their objects when a federated object is deleted.

use anyhow::Context as _;
use clap::{ArgAction, Args, Subcommand};
use kubefed_api::{ORPHAN_ANNOTATION, TYPES_GROUP};
use kubefed_apimachinery::meta;
use serde_json::{Value, json};

use crate::discovery::{self, Resource};
use crate::plane::HostOptions;
use crate::{say, warn};

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Let members keep what was propagated when the federated object is deleted
    Enable(Options),
    /// Let what was propagated be deleted with the federated object
    Disable(Options),
    /// Print Enabled or Disabled
    Status(Options),
}

/// Flags of the commands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The kind of the federated object
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Its name
    name: String,
    #[command(flatten)]
    host: HostOptions,
    /// Its namespace; that of the context if left out
    #[arg(short, long)]
    namespace: Option<String>,
    /// Has no meaning here; scripts give it to every command
    #[arg(long, hide = true)]
    kubefed_namespace: Option<String>,
    /// Do nothing
    #[arg(long, hide = true, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dry_run: bool,
}

/// Reads or sets whether members keep their objects.
pub(crate) async fn run(command: &Command) -> anyhow::Result<()> {
    let (Command::Enable(options) | Command::Disable(options) | Command::Status(options)) = command;
    let host = options.host.connect().await?;
    let kinds = discovery::kinds(&host).await.context("the host cluster")?;
    let kind = discovery::on_host(&kinds, &options.kind)?;
    if !is_federated(&kind) {
        let name = format!("{}/{}", kind.api.qualified_name(), kind.api.version);
        warn(&format!("{name} might not be a federated resource"));
    }
    let namespace = options.namespace.as_deref().unwrap_or(&host.namespace);
    let path = kind.api.path(namespace, &options.name);
    let title = || format!("{} {:?}", kind.api.kind, options.name);
    let object = host.get(&path).await.with_context(title)?;
    let enabled = meta::annotation(&object, ORPHAN_ANNOTATION) == Some("true");
    let wanted = match command {
        Command::Status(_) => {
            say(if enabled { "Enabled" } else { "Disabled" });
            return Ok(());
        }
        Command::Enable(_) => json!("true"),
        Command::Disable(_) => Value::Null,
    };
    let known = meta::annotation(&object, ORPHAN_ANNOTATION).map_or(Value::Null, Value::from);
    if known != wanted && !options.dry_run {
        let patch = json!({"metadata": {"annotations": {ORPHAN_ANNOTATION: wanted}}});
        host.merge(&path, &patch).await.with_context(title)?;
    }
    Ok(())
}

fn is_federated(kind: &Resource) -> bool {
    kind.api.kind.starts_with("Federated") && kind.api.group == TYPES_GROUP
}

//! `migrate`: brings what a KubeFed control plane has over to a federation.
//!
//! The members are not written: the records of what each of them has come along, so our controllers see that nothing
//! differs. They must not see half of it, for an object without its FederatedNamespace is to be deleted, and one without
//! its federated object to be let go. So no type is propagated from before the first cluster is there until all is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::task::JoinSet;

use crate::plane::{DryRun, PlaneOptions};
use crate::rest::{self, Cluster};
use crate::say;

mod file;
mod leader;
mod new;
mod old;
mod piece;

use new::{Federation, Outcome};
use old::{Found, Old};
use piece::Item;

/// Objects that are moved at a time.
const AT_A_TIME: usize = 16;

/// Flags of `migrate`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The context of the KubeFed control plane
    #[arg(long, required_unless_present = "from_file")]
    from_context: Option<String>,
    /// Bring over what an earlier run has kept in this file
    #[arg(long, conflicts_with = "from_context")]
    from_file: Option<PathBuf>,
    /// Keep what is to be brought over in this file, tokens included, and bring nothing over yet
    #[arg(long, conflicts_with_all = ["from_file", "on"])]
    to_file: Option<PathBuf>,
    #[command(flatten)]
    plane: PlaneOptions,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Where all comes from.
enum Source {
    ControlPlane(Box<Old>),
    File(PathBuf),
}

/// What came of a walk over all that there is.
#[derive(Default)]
struct Summary {
    /// By kind: what was moved, and what was there already.
    kinds: BTreeMap<String, [usize; 2]>,
    /// What is not moved, and why.
    left: Vec<String>,
    /// What could not be moved.
    failed: Vec<String>,
    /// What is worth telling.
    told: Vec<String>,
    is_reconfigured: bool,
}

/// Brings a control plane over.
pub(crate) async fn migrate(options: &Options) -> anyhow::Result<()> {
    let PlaneOptions { host, kubefed_namespace } = &options.plane;
    let source = match (&options.from_context, &options.from_file) {
        (_, Some(file)) => Source::File(file.clone()),
        (context, None) => {
            let context = context.clone().unwrap_or_default();
            let config = rest::kubeconfig(host.kubeconfig.as_deref())?;
            let cluster = Cluster::connect(&config, &context).await?;
            Source::ControlPlane(Box::new(Old::new(cluster, context, kubefed_namespace)))
        }
    };
    if let Source::ControlPlane(old) = &source
        && let Some(trouble) = old.still_leads().await.context("the old control plane")?
    {
        if !options.dry_run.on {
            bail!(trouble);
        }
        say(&format!("not yet: {trouble}"));
    }
    if let Some(path) = &options.to_file {
        return keep(&source, path).await;
    }
    let cluster = host.connect().await?;
    if let Source::ControlPlane(old) = &source
        && old.cluster.entry.server == cluster.entry.server
    {
        bail!(
            "the old control plane and the federation are at the same address, where only one of them is seen: give --to-file while it is KubeFed, and --from-file after kubefed init"
        );
    }
    let new = Arc::new(Federation::new(cluster, kubefed_namespace));
    let summary = bring_over(&source, &new, options.dry_run.on).await?;
    if let Source::ControlPlane(old) = &source
        && !options.dry_run.on
    {
        old.say_farewell();
    }
    match summary.left.len() + summary.failed.len() {
        0 => Ok(()),
        1 => bail!("1 object is left"),
        count => bail!("{count} objects are left"),
    }
}

/// Moves what is not there yet, and tells of it.
async fn bring_over(
    source: &Source,
    new: &Arc<Federation>,
    dry_run: bool,
) -> anyhow::Result<Summary> {
    let seen = pass(source, new, true).await?;
    let nothing_to_do = seen.kinds.values().all(|[moved, _]| *moved == 0);
    let is_paused = new.is_paused().await.context("the federation")?;
    if dry_run || nothing_to_do && !is_paused {
        seen.tell(if dry_run { "to be moved" } else { "moved" });
        return Ok(seen);
    }
    let runs = new.is_led().await.context("the federation")?;
    new.pause(runs).await?;
    let done = pass(source, new, false).await?;
    if !done.failed.is_empty() {
        done.tell("moved");
        bail!(
            "{} objects were refused. Until all are moved no type is propagated, and the members stay as they are: correct these objects in the old control plane, then run it again",
            done.failed.len()
        );
    }
    if done.is_reconfigured && runs {
        bail!(
            "all is moved, but the controller manager runs with another scope than the KubeFedConfig says now. No type is propagated yet: start it anew (kubectl rollout restart deployment kubefed-controller-manager), then run this again"
        );
    }
    new.resume(runs).await?;
    done.tell("moved");
    Ok(done)
}

/// Looks at all that there is, and unless it is a `dry` look, moves what is not there.
async fn pass(source: &Source, new: &Arc<Federation>, dry: bool) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let mut tasks: JoinSet<(Item, Result<Outcome, rest::Error>)> = JoinSet::new();
    let each = async |found: Found| {
        let item = match found {
            Found::Item(item) => item,
            Found::Going(title) => {
                summary.left.push(format!(
                    "{title} is being deleted: it is not moved; members that have it keep what they have, without the mark"
                ));
                return Ok(());
            }
        };
        // What others hang on comes before them.
        if !item.is_leaf() {
            let outcome = new.settle(&item, dry).await;
            return summary.add(&item, outcome);
        }
        if tasks.len() >= AT_A_TIME
            && let Some(done) = tasks.join_next().await
        {
            let (item, outcome) = done?;
            summary.add(&item, outcome)?;
        }
        let new = Arc::clone(new);
        tasks.spawn(async move {
            let outcome = new.settle(&item, dry).await;
            (item, outcome)
        });
        Ok(())
    };
    match source {
        Source::ControlPlane(old) => old.walk(each).await?,
        Source::File(path) => file::read(path, each).await?,
    }
    while let Some(done) = tasks.join_next().await {
        let (item, outcome) = done?;
        summary.add(&item, outcome)?;
    }
    summary.left.sort();
    summary.failed.sort();
    Ok(summary)
}

async fn keep(source: &Source, path: &std::path::Path) -> anyhow::Result<()> {
    let Source::ControlPlane(old) = source else { bail!("--to-file wants --from-context") };
    let mut writer = file::Writer::create(path)?;
    let mut going = Vec::new();
    old.walk(async |found| match found {
        Found::Item(item) => writer.write(&item),
        Found::Going(title) => {
            going.push(title);
            Ok(())
        }
    })
    .await?;
    let count = writer.finish()?;
    say(&format!(
        "{count} objects are kept in {}; it holds the tokens of the clusters",
        path.display()
    ));
    going.iter().for_each(|title| say(&format!("{title} is being deleted: it is not kept")));
    Ok(())
}

impl Summary {
    fn add(&mut self, item: &Item, outcome: Result<Outcome, rest::Error>) -> anyhow::Result<()> {
        let title = item.piece.title();
        let counts = self.kinds.entry(item.piece.kind().to_owned()).or_default();
        match outcome {
            Ok(Outcome::Moved(lost)) => {
                counts[0] += 1;
                if !lost.is_empty() {
                    self.told.push(format!(
                        "{title} is moved without what the federation does not know in: {}",
                        lost.join(", ")
                    ));
                }
                self.is_reconfigured |= item.piece.kind() == "KubeFedConfig"
                    && kubefed_api::kubefedconfig::is_namespaced(&item.piece.object);
            }
            Ok(Outcome::Unchanged) => counts[1] += 1,
            Ok(Outcome::Differs(parts)) if item.piece.kind() == "KubeFedConfig" => {
                bail!(
                    "{title} is there and differs in {}: where objects may be depends on it. Make the two alike, then run it again",
                    parts.join(", ")
                );
            }
            Ok(Outcome::Differs(parts)) => {
                let parts = parts.join(", ");
                self.left.push(format!("{title} is there and differs in {parts}: it is left"));
            }
            Err(error) => self.failed.push(format!("{title}: {error}")),
        }
        Ok(())
    }

    fn tell(&self, what: &str) {
        for (kind, [moved, unchanged]) in &self.kinds {
            say(&format!("{kind}: {moved} {what}, {unchanged} unchanged"));
        }
        self.told.iter().chain(&self.left).chain(&self.failed).for_each(|line| say(line));
    }
}

//! `up`: a federation on this machine, as child processes on the loopback; `down` ends it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kubefed_api::{SYSTEM_NAMESPACE, federatedtypeconfig};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::join::{self, EndsOptions, JoinOptions};
use crate::plane::{self, DryRun, HostOptions, PlaneOptions};
use crate::rest::{self, Cluster};
use crate::say;

mod children;
mod demo;
mod home;
mod ready;

use children::{Children, Program};
use home::{Home, Place};

/// The name of the federation's own context and process.
const FEDERATION: &str = "federation";
/// The local members of a new directory.
const DEFAULT_MEMBERS: &[&str] = &["cluster1", "cluster2"];
/// How long a start may take, and an end.
const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(10);

/// Flags of `up`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where everything is kept: data, certificates, logs, the kubeconfig
    #[arg(long, default_value = ".kubefed")]
    dir: PathBuf,
    /// The local members, separated by commas; those that the directory has, in a new one cluster1,cluster2
    #[arg(long, value_delimiter = ',')]
    members: Vec<String>,
    /// Join the cluster of this context of your kubeconfig instead of local members; may be repeated
    #[arg(long)]
    member_context: Vec<String>,
    /// Keep the federation's objects in this etcd instead of a file
    #[arg(long, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// Show what a federation does, and check that it does
    #[arg(long)]
    demo: bool,
    /// End when done instead of at Ctrl-C
    #[arg(long)]
    exit: bool,
}

/// Flags of `down`.
#[derive(Args, Debug)]
pub(crate) struct DownOptions {
    /// The directory of the federation
    #[arg(long, default_value = ".kubefed")]
    dir: PathBuf,
}

/// Runs a federation until Ctrl-C, or until it has shown what it can.
pub(crate) async fn up(options: Options) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let home = Home::open(&options.dir)?;
    let mut children = Children::default();
    let outcome = tokio::select! {
        outcome = run(&options, &home, &mut children) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    children.end(END).await;
    outcome
}

async fn run(options: &Options, home: &Home, children: &mut Children) -> anyhow::Result<()> {
    let members = &local_members(options, home.members());
    for (at, name) in members.iter().enumerate() {
        if name == FEDERATION || !kubefed_apimachinery::names::dns1123_label(name).is_empty() {
            bail!("{name:?} cannot be the name of a cluster (--members)");
        }
        if members[..at].contains(name) {
            bail!("{name:?} is named twice (--members)");
        }
    }
    let federation = home.place(FEDERATION)?;
    let mut places: Vec<Place> = vec![federation];
    for name in members {
        places.push(home.place(name)?);
    }
    let mut programs = vec![apiserver(&places[0], &options.etcd_servers)];
    programs.extend(places[1..].iter().map(localcluster));
    for (program, place) in programs.into_iter().zip(&mut places) {
        place.endpoint = Some(children.start(program, home, START).await?);
    }
    let kubeconfig = home.write_kubeconfig(&places)?;
    let config = rest::kubeconfig(Some(&kubeconfig))?;
    let host = Cluster::connect(&config, FEDERATION).await?;
    prepare(&host).await?;

    let manager = Program {
        name: "controller-manager".into(),
        binary: "kubefed-controller-manager",
        arguments: vec![
            "--kubeconfig".into(),
            home.write_manager_kubeconfig(&places[0])?.display().to_string(),
            "--healthz-addr=127.0.0.1:0".into(),
            "--metrics-addr=127.0.0.1:0".into(),
            "--exit-with-parent".into(),
        ],
        serves_in: None,
    };
    children.start(manager, home, START).await.map(drop)?;
    for name in members {
        let all = rest::kubeconfig(Some(&kubeconfig))?;
        join::join_in(all, &join_options(name, name))
            .await
            .with_context(|| format!("cannot join {name}"))?;
    }
    let mut joined = members.clone();
    for context in &options.member_context {
        let mine = rest::kubeconfig(None)?;
        let all = mine.merge(rest::kubeconfig(Some(&kubeconfig))?)?;
        let name = context.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_lowercase();
        join::join_in(all, &join_options(&name, context))
            .await
            .with_context(|| format!("cannot join {context}"))?;
        joined.push(name);
    }
    ready::wait(&host, &joined).await.with_context(|| {
        format!("the federation does not get ready (logs: {})", home.dir.join("logs").display())
    })?;
    say(&format!("federation ready: KUBECONFIG={}", kubeconfig.display()));
    if options.demo {
        demo::run(&config, &kubeconfig, members).await?;
    }
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    if options.exit || (options.demo && ci) {
        return Ok(());
    }
    std::future::pending().await
}

/// The members to run: those that are asked for, else those that ran before.
fn local_members(options: &Options, known: Vec<String>) -> Vec<String> {
    if !options.members.is_empty() {
        options.members.clone()
    } else if !known.is_empty() {
        known
    } else if options.member_context.is_empty() {
        DEFAULT_MEMBERS.iter().map(|&name| name.into()).collect()
    } else {
        Vec::new()
    }
}

fn join_options(name: &str, context: &str) -> JoinOptions {
    JoinOptions {
        cluster_name: name.to_owned(),
        ends: EndsOptions {
            plane: PlaneOptions {
                host: HostOptions {
                    kubeconfig: None,
                    host_cluster_context: Some(FEDERATION.into()),
                },
                kubefed_namespace: SYSTEM_NAMESPACE.into(),
            },
            host_cluster_name: None,
            cluster_context: Some(context.to_owned()),
            dry_run: DryRun::default(),
        },
        secret_name: None,
        error_on_existing: false,
    }
}

fn apiserver(place: &Place, etcd_servers: &[String]) -> Program {
    let mut arguments = place.serving_flags();
    if etcd_servers.is_empty() {
        arguments.push("--storage-backend=embedded".into());
        arguments.push(format!("--data-dir={}", place.dir.join("data").display()));
    } else {
        arguments.push("--storage-backend=etcd3".into());
        arguments.push(format!("--etcd-servers={}", etcd_servers.join(",")));
    }
    server(place, "kubefed-apiserver", arguments)
}

fn localcluster(place: &Place) -> Program {
    let mut arguments = place.serving_flags();
    arguments.push(format!("--name={}", place.name));
    arguments.push(format!("--dir={}", place.dir.join("data").display()));
    arguments.push(format!("--root-ca-file={}", place.dir.join("ca.crt").display()));
    server(place, "kubefed-localcluster", arguments)
}

fn server(place: &Place, binary: &'static str, arguments: Vec<String>) -> Program {
    let serves_in = Some(place.dir.clone());
    Program { name: place.name.clone(), binary, arguments, serves_in }
}

/// What a new control plane begins with. A KubeFedConfig is not among it: its scope could not be changed any longer.
async fn prepare(host: &Cluster) -> anyhow::Result<()> {
    let path = plane::type_configs(SYSTEM_NAMESPACE);
    for config in federatedtypeconfig::defaults() {
        match host.create(&path, &config).await {
            Err(error) if error.code != 409 => return Err(error).context("the federation"),
            _ => {}
        }
    }
    Ok(())
}

/// Ends the federation of a directory.
pub(crate) async fn down(options: &DownOptions) -> anyhow::Result<()> {
    let Some(pid) = home::holder(&options.dir)? else {
        say(&format!("no federation runs in {}", options.dir.display()));
        return Ok(());
    };
    if !is_kubefed(pid) {
        bail!(
            "process {pid}, which {} names, is no kubefed: nothing was ended",
            options.dir.join("pid").display()
        );
    }
    let process = Pid::from_raw(pid).context("no such process")?;
    kill_process(process, Signal::TERM)
        .with_context(|| format!("process {pid} cannot be ended"))?;
    let deadline = tokio::time::Instant::now() + END + Duration::from_secs(2);
    while home::holder(&options.dir)?.is_some() {
        if tokio::time::Instant::now() >= deadline {
            bail!("process {pid} did not end");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Whether a process is one of ours: a process id is given anew when its process is gone.
fn is_kubefed(pid: i32) -> bool {
    let name = |path: &Path| path.file_name().map(std::ffi::OsStr::to_owned);
    let theirs = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let ours = std::env::current_exe().ok();
    // A binary that was built anew meanwhile shows as deleted.
    match (theirs.as_deref().and_then(name), ours.as_deref().and_then(name)) {
        (Some(theirs), Some(ours)) => {
            theirs.to_string_lossy().trim_end_matches(" (deleted)") == ours.to_string_lossy()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_directory_keeps_its_members() {
        let local = |flags: &[&str], known: &[&str]| {
            let line = Line::parse_from(std::iter::once(&"up").chain(flags));
            local_members(&line.options, known.iter().map(|&name| name.into()).collect())
        };
        assert_eq!(local(&[], &[]), ["cluster1", "cluster2"]);
        assert_eq!(local(&[], &["north"]), ["north"]);
        assert_eq!(local(&["--members", "a,b"], &["north"]), ["a", "b"]);
        assert_eq!(local(&["--member-context", "kind"], &[]), [""; 0]);
    }
}

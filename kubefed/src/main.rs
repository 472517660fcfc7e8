//! `kubefed`: runs a federation, joins clusters to it, checks it.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod check;
mod complete;
mod deinit;
mod disable;
mod discovery;
mod enable;
mod federate;
mod init;
mod join;
mod members;
mod migrate;
mod names;
mod orphaning;
mod plane;
mod rest;
mod unjoin;
mod up;

/// Runs and manages a federation of Kubernetes clusters.
#[derive(Parser)]
#[command(name = "kubefed", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How much is told on standard error
    #[arg(short = 'v', long = "v", global = true, default_value_t = 0)]
    verbosity: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Run a federation on this machine
    Up(up::Options),
    /// End the federation that runs in a directory
    Down(up::DownOptions),
    /// Install a federation in a host cluster
    Init(init::Options),
    /// Take a federation out of its host cluster, with all that it has stored
    Deinit(deinit::Options),
    /// Join a cluster to the federation
    Join(join::JoinOptions),
    /// Take a cluster out of the federation
    Unjoin(unjoin::Options),
    /// Federate a kind
    Enable(enable::Options),
    /// End the federation of a kind
    Disable(disable::Options),
    /// Make a federated object of a plain one
    Federate(federate::Options),
    /// Say whether members keep their objects when a federated object is deleted
    #[command(subcommand)]
    OrphaningDeletion(orphaning::Command),
    /// Bring over what a KubeFed control plane has, without a write to its members
    Migrate(migrate::Options),
    /// Say what is well and what is not
    Check(check::Options),
    /// Print the version
    Version,
    /// Print a completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    kubefed_certs::install_crypto_provider();
    let mut arguments = std::env::args_os();
    let name = names::Name::of(&arguments.next().unwrap_or_default());
    let mut command = command(name);
    if name == names::Name::KubectlComplete {
        let words: Vec<String> =
            arguments.map(|word| word.to_string_lossy().into_owned()).collect();
        say(&complete::answer(command, &words));
        return ExitCode::SUCCESS;
    }
    let parsed = command.get_matches_mut();
    let cli =
        Cli::from_arg_matches(&parsed).unwrap_or_else(|error| error.format(&mut command).exit());
    let level = match cli.verbosity {
        0 | 1 => "warn",
        2..=3 => "info",
        _ => "debug",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(format!("kubefed={level}")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(cli.command, name).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The command line under the name that it was called by.
fn command(name: names::Name) -> clap::Command {
    Cli::command().bin_name(name.shown())
}

async fn run(command: Command, name: names::Name) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up::up(options).await,
        Command::Down(options) => up::down(&options).await,
        Command::Init(options) => init::init(&options).await,
        Command::Deinit(options) => deinit::deinit(&options).await,
        Command::Join(options) => join::join(&options).await,
        Command::Unjoin(options) => unjoin::unjoin(&options).await,
        Command::Enable(options) => enable::enable(&options).await,
        Command::Disable(options) => disable::disable(&options).await,
        Command::Federate(options) => federate::federate(&options).await,
        Command::OrphaningDeletion(command) => orphaning::run(&command).await,
        Command::Migrate(options) => migrate::migrate(&options).await,
        Command::Check(options) => check::check(&options).await,
        Command::Version => {
            say(&format!("{} version: {}", name.shown(), names::version()));
            Ok(())
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), name.file(), &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    }
}

/// A line on standard output. That nobody reads it is no error.
fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    let _nobody_reads = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A line on standard error.
fn complain(line: &str) {
    use std::io::Write as _;
    let _nobody_reads = writeln!(std::io::stderr(), "{line}");
}

/// A word on what may not be as the user thinks, as kubectl says it.
fn warn(line: &str) {
    complain(&format!("Warning: {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_guides_join_is_understood() {
        let line = "kubefed join cluster2 --cluster-context cluster2 --host-cluster-context host-cluster --v=2";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(cli.verbosity, 2);
        let Command::Join(options) = cli.command else { panic!("not join") };
        assert_eq!(options.cluster_name, "cluster2");
        assert_eq!(options.ends.plane.host.host_cluster_context.as_deref(), Some("host-cluster"));
    }

    #[test]
    fn kubefedctls_lines_are_understood() {
        for line in [
            "enable deployments.apps --federated-group fed.example.com --federated-version v1 --version v1 -o yaml",
            "enable -f directive.yaml --dry-run",
            "disable deployments.apps --delete-crd --version v1 --federated-group types.kubefed.io",
            "disable deployments --dry-run=false --kubefed-namespace fed --host-cluster-context host",
            "federate ns shop -c -t -s configmaps,apps --kubeconfig k",
            "federate deployment web -n shop -o yaml",
            "federate -f - --output=yaml",
            "orphaning-deletion enable FederatedDeployment web -n shop --dry-run --kubefed-namespace fed",
            "orphaning-deletion status fdeploy web --host-cluster-context host",
            "join a --dry-run --secret-name s",
            "unjoin a --force --dry-run=true",
            "version",
        ] {
            let words = std::iter::once("kubefedctl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "enable",
            "enable deployments -f directive.yaml",
            "enable deployments -o json",
            "disable",
            "disable deployments --version v1",
            "disable deployments --federated-group types.kubefed.io",
            "federate deployment",
            "federate deployment web -f file",
            "federate deployment web -t -o yaml",
            "orphaning-deletion",
            "orphaning-deletion enable fdeploy",
        ] {
            let words = std::iter::once("kubefedctl").chain(line.split(' '));
            let Err(error) = Cli::try_parse_from(words) else { panic!("{line} is understood") };
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn error_on_existing_takes_no_word_that_follows() {
        let parse = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Join(options) = cli.command else { panic!("not join") };
            (options.cluster_name, options.error_on_existing)
        };
        assert_eq!(parse("kubefed join a"), ("a".into(), true));
        assert_eq!(parse("kubefed join --error-on-existing a"), ("a".into(), true));
        assert_eq!(parse("kubefed join --error-on-existing=false a"), ("a".into(), false));
    }
}

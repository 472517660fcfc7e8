//! `kubefed`: runs a federation, joins clusters to it, checks it.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod check;
mod deinit;
mod init;
mod join;
mod rest;
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
    Unjoin(join::UnjoinOptions),
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
    let cli = Cli::parse();
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
    let outcome = match cli.command {
        Command::Up(options) => up::up(options).await,
        Command::Down(options) => up::down(&options).await,
        Command::Init(options) => init::init(&options).await,
        Command::Deinit(options) => deinit::deinit(&options).await,
        Command::Join(options) => join::join(&options).await,
        Command::Unjoin(options) => join::unjoin(&options).await,
        Command::Check(options) => check::check(&options).await,
        Command::Version => {
            say(&format!("kubefed version: v{}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubefed", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _nobody_reads = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A line on standard output. That nobody reads it is no error.
fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    let _nobody_reads = writeln!(out, "{line}").and_then(|()| out.flush());
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
        assert_eq!(options.host.host_cluster_context.as_deref(), Some("host-cluster"));
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

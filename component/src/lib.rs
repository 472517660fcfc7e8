//! What every server process of ours does around its work: log lines, an end by signal, an exit code.

use std::io::Read as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Libraries tell much that is of no use to who runs us.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,rustls=warn,tower=info";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoggingFormat {
    Text,
    Json,
}

/// The flags that every server process has.
#[derive(Args, Clone, Debug)]
pub struct ProcessOptions {
    /// End when standard input does: the parent is gone
    #[arg(long)]
    pub exit_with_parent: bool,
    /// The form of log lines
    #[arg(long, value_enum, default_value = "text")]
    pub logging_format: LoggingFormat,
    /// How much is logged: 0 to 3 informs, 4 to 6 tells every request, more tells all
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// Does the work of a process, and says on standard error what it failed of. The token that the work is given is
/// cancelled at SIGINT, at SIGTERM (a second one ends the process at once), and with
/// [`exit_with_parent`](ProcessOptions::exit_with_parent) when standard input ends.
pub async fn run<Work>(
    options: &ProcessOptions,
    work: impl FnOnce(CancellationToken) -> Work,
) -> ExitCode
where
    Work: Future<Output = anyhow::Result<()>>,
{
    init_logging(options);
    let token = CancellationToken::new();
    let done = match end_by_signal(options, &token) {
        Ok(()) => work(token).await,
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sends log lines to standard error.
fn init_logging(options: &ProcessOptions) {
    let level = match options.verbosity {
        0..=3 => "info",
        4..=6 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::new(format!("{level},{QUIET}"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.logging_format {
        LoggingFormat::Text => lines.with_ansi(false).init(),
        LoggingFormat::Json => lines.json().init(),
    }
}

fn end_by_signal(options: &ProcessOptions, token: &CancellationToken) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let signalled = token.clone();
    tokio::spawn(async move {
        let mut signal = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        signal().await;
        tracing::info!("ending: a signal came");
        signalled.cancel();
        signal().await;
        tracing::warn!("a second signal: what is under way is not waited for");
        std::process::exit(1);
    });
    if options.exit_with_parent {
        let orphaned = token.clone();
        // A thread of its own: the runtime waits for its threads, and a process that has failed must end although its
        // parent lives.
        std::thread::Builder::new().name("parent".into()).spawn(move || {
            let mut ignored = [0; 64];
            while std::io::stdin().read(&mut ignored).is_ok_and(|read| read > 0) {}
            orphaned.cancel();
        })?;
    }
    Ok(())
}

//! `kubefed-controller-manager`: flags, then the controllers, until a signal or the loss of the lease ends them.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use kubefed_controllers::client::Client;
use kubefed_controllers::health::{self, Answers};
use kubefed_controllers::manager;
use kubefed_controllers::metrics::Metrics;
use kubefed_controllers::options::{LoggingFormat, Options};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    kubefed_certs::install_crypto_provider();
    let options = Options::parse();
    let level = if options.verbosity >= 4 { "debug" } else { "info" };
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "{level},h2=info,hyper=info,hyper_util=info,rustls=warn"
    ));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.logging_format {
        LoggingFormat::Text => logs.with_ansi(false).init(),
        LoggingFormat::Json => logs.json().init(),
    }
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            tracing::error!("lost lease");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<bool> {
    let token = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (ending, with_parent) = (token.clone(), options.exit_with_parent);
    tokio::spawn(async move {
        let parent = async {
            let mut rest = Vec::new();
            let _ended = tokio::io::stdin().read_to_end(&mut rest).await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = parent, if with_parent => {}
        }
        ending.cancel();
    });
    let client = Client::new(options.access()?).map_err(anyhow::Error::msg)?;
    let metrics = Arc::new(Metrics::default());
    let (healthz, counted) = (Answers::Health, Answers::Metrics(Arc::clone(&metrics)));
    let healthz =
        health::serve(&options.healthz_addr, "--healthz-addr", healthz, token.clone()).await?;
    let counted =
        health::serve(&options.metrics_addr, "--metrics-addr", counted, token.clone()).await?;
    tracing::info!(
        %healthz,
        metrics = %counted,
        "KubeFed controller-manager version: {}",
        env!("CARGO_PKG_VERSION")
    );
    Ok(manager::run(client, options.namespace(), metrics, token).await)
}

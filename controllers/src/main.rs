//! `kubefed-controller-manager`: flags, then the controllers, until a signal or the loss of the lease ends them.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use kubefed_controllers::health::{self, Answers};
use kubefed_controllers::manager;
use kubefed_controllers::metrics::Metrics;
use kubefed_controllers::options::{self, Options};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    kubefed_certs::install_crypto_provider();
    let options = &Options::parse();
    // Whoever started us may not listen.
    let _told = writeln!(std::io::stdout(), "{}", options::version());
    if options.version {
        return ExitCode::SUCCESS;
    }
    kubefed_component::run(&options.process, async |token| run(options, token).await).await
}

async fn run(options: &Options, token: CancellationToken) -> anyhow::Result<()> {
    let endpoints = options.endpoints()?;
    let metrics = Arc::new(Metrics::default());
    let (healthz, counted) = (Answers::Health, Answers::Metrics(Arc::clone(&metrics)));
    let healthz =
        health::serve(&options.healthz_addr, "--healthz-addr", healthz, token.clone()).await?;
    let counted =
        health::serve(&options.metrics_addr, "--metrics-addr", counted, token.clone()).await?;
    tracing::info!(%healthz, metrics = %counted, "serving");
    let file = options.kubefed_config.clone();
    manager::run(endpoints, options.namespace(), file, metrics, token).await
}

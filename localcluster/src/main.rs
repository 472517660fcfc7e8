//! `kubefed-localcluster`: one local member.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kubefed_apiserver::kinds;
use kubefed_apiserver::options::{ServingOptions, open_embedded};
use tokio_util::sync::CancellationToken;

/// The flags of `kubefed-localcluster`.
#[derive(Parser)]
#[command(name = "kubefed-localcluster", version, about = "A small stand-in for a member cluster")]
struct Options {
    /// The name of the cluster, for its logs
    #[arg(long)]
    name: String,
    /// The directory of its data
    #[arg(long)]
    dir: PathBuf,
    /// PEM file of the authority that its workloads trust
    #[arg(long)]
    root_ca_file: PathBuf,
    #[command(flatten)]
    serving: ServingOptions,
}

#[tokio::main]
async fn main() -> ExitCode {
    kubefed_certs::install_crypto_provider();
    let options = Options::parse();
    options.serving.init_logging();
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let token = CancellationToken::new();
    options.serving.end_by_signal(&token)?;
    let store = open_embedded(&options.dir).await?;
    let config =
        options.serving.config(store, kinds::cluster(), None, kubefed_localcluster::VERSION)?;
    let server = kubefed_localcluster::start(config, &options.root_ca_file, token).await?;
    tracing::info!(name = options.name, address = %server.address, "serving");
    options.serving.tell_endpoint(server.address)?;
    server.drained().await;
    Ok(())
}

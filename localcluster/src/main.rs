//! `kubefed-localcluster`: one local member.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kubefed_apiserver::kinds;
use kubefed_apiserver::options::{ServingOptions, open_embedded};

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
    let options = &Options::parse();
    kubefed_component::run(&options.serving.process, async |token| {
        let store = open_embedded(&options.dir).await?;
        let version = kubefed_localcluster::VERSION;
        let config = options.serving.config(store, kinds::cluster(), None, version)?;
        let server = kubefed_localcluster::start(config, &options.root_ca_file, token).await?;
        tracing::info!(name = options.name, address = %server.address, "serving");
        options.serving.tell_endpoint(server.address)?;
        server.drained().await;
        Ok(())
    })
    .await
}

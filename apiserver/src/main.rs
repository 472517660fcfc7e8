//! `kubefed-apiserver`: flags, then the server, until a signal ends it.

use std::process::ExitCode;

use clap::Parser as _;
use kubefed_apiserver::options::Options;
use kubefed_apiserver::server::Server;
use tokio_util::sync::CancellationToken;

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
    let server = Server::start(options.complete().await?, token).await?;
    tracing::info!(address = %server.address, "serving");
    options.serving.tell_endpoint(server.address)?;
    server.drained().await;
    Ok(())
}

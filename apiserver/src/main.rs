//! `kubefed-apiserver`: flags, then the server, until a signal ends it.

use std::process::ExitCode;

use clap::Parser as _;
use kubefed_apiserver::options::Options;
use kubefed_apiserver::server::Server;

#[tokio::main]
async fn main() -> ExitCode {
    kubefed_certs::install_crypto_provider();
    let options = &Options::parse();
    kubefed_component::run(&options.serving.process, async |token| {
        let server = Server::start(options.complete().await?, token).await?;
        tracing::info!(address = %server.address, "serving");
        options.serving.tell_endpoint(server.address)?;
        server.drained().await;
        Ok(())
    })
    .await
}

//! `make bench`: what the API server costs beside its budget, and how fast a federation follows.
//!
//! A cost is CPU of the server's process for each operation, which a noisy machine hardly moves. The server is the real
//! binary with the embedded store on disk; its callers are ordinary users on the loopback, 32 over 4 connections of
//! HTTP/2 and TLS. Times of propagation are wall-clock, of a federation in this process. All of it ends within
//! [`LIMIT`]; nothing is compared with an earlier run.

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

mod load;
mod process;
mod propagation;
mod server;

const LIMIT: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    kubefed_certs::install_crypto_provider();
    println!("make bench (cargo run --release --package kubefed-tests --bin bench)");
    println!("{}", machine());
    let all = async {
        heading("CPU of kubefed-apiserver per operation, 10,000 FederatedDeployments");
        server::run().await?;
        heading("propagation, 2 members");
        propagation::run().await
    };
    tokio::time::timeout(LIMIT, all).await.with_context(|| format!("not done in {LIMIT:?}"))?
}

fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name))
        .unwrap_or("a CPU without a name");
    let date = Command::new("date").arg("+%F %T %Z").output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} × {model}, {}", date.unwrap_or_default().trim())
}

fn heading(text: &str) {
    println!("\n{text:<66}{:>12}{:>12}", "measured", "budget");
}

/// Prints one line of the table. What is more than its budget says by how much.
fn row(operation: &str, measured: f64, budget: f64, unit: &str) {
    let over = measured / budget;
    let over = if over > 1.0 { format!("  {over:.1} ×") } else { String::new() };
    let figure = |value: f64| {
        let digits = usize::from(value < 100.0);
        format!("{value:.digits$} {unit}")
    };
    println!("  {operation:<64}{:>12}{:>12}{over}", figure(measured), figure(budget));
}

//! The server as a process of its own, and what the kernel knows of it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use kubefed_certs::{Authority, ClientTls};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The unit of `/proc/PID/stat`, the same on every Linux: 10 ms.
const TICK: Duration = Duration::from_millis(10);

pub(crate) struct Process {
    pub(crate) address: String,
    authority: Authority,
    child: Child,
    pid: u32,
    // Deleted last.
    _dir: TempDir,
}

impl Process {
    /// Starts the `kubefed-apiserver` that was built beside this binary.
    pub(crate) async fn start() -> anyhow::Result<Process> {
        let dir = TempDir::new()?;
        let authority = Authority::new("bench")?;
        let path = |name: &str| dir.path().join(name);
        let serving = authority.issue_server("bench", &["127.0.0.1"])?;
        std::fs::write(path("ca.crt"), authority.cert_pem()?)?;
        std::fs::write(path("tls.crt"), &serving.cert_pem)?;
        std::fs::write(path("tls.key"), &serving.key_pem)?;
        let binary = std::env::current_exe()?.with_file_name("kubefed-apiserver");
        let child = Command::new(&binary)
            .args(["--storage-backend=embedded", "--secure-port=0", "--exit-with-parent"])
            .arg("--data-dir")
            .arg(path("data"))
            .arg("--tls-cert-file")
            .arg(path("tls.crt"))
            .arg("--tls-private-key-file")
            .arg(path("tls.key"))
            .arg("--client-ca-file")
            .arg(path("ca.crt"))
            .arg("--endpoint-file")
            .arg(path("endpoint"))
            .stdin(Stdio::piped())
            .stderr(std::fs::File::create(path("log"))?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start; use make bench", binary.display()))?;
        let pid = child.id().context("the server has ended")?;
        let address = endpoint(&path("endpoint")).await.with_context(|| {
            std::fs::read_to_string(path("log")).unwrap_or_else(|error| error.to_string())
        })?;
        Ok(Process { address, authority, child, pid, _dir: dir })
    }

    /// How a user of these groups is known to the server.
    pub(crate) fn tls(&self, user: &str, groups: &[&str]) -> anyhow::Result<ClientTls> {
        let pair = self.authority.issue_client(user, groups)?;
        Ok(ClientTls {
            ca_pem: self.authority.cert_pem()?.into_bytes(),
            identity: Some((pair.cert_pem.into_bytes(), pair.key_pem.into_bytes())),
            alpn: Vec::new(),
        })
    }

    /// The CPU time that the process has used, in user space and for it in the kernel.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name of the program is in parentheses and may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("a stat file without a name")?;
        let ticks: u32 =
            fields.split(' ').skip(11).take(2).map(|field| field.parse::<u32>().unwrap_or(0)).sum();
        Ok(TICK * ticks)
    }

    /// The resident memory, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
        Ok(kib.parse::<f64>()? * 1024.0)
    }

    /// Ends the server as a signal would: its standard input ends.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        self.child.wait().await?;
        Ok(())
    }
}

async fn endpoint(file: &Path) -> anyhow::Result<String> {
    for _ in 0..1000 {
        if let Ok(text) = tokio::fs::read_to_string(file).await {
            return Ok(text.trim().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("the server does not say where it listens")
}

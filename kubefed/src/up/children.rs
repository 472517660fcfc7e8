//! The processes of a federation: started, restarted when they crash, ended in order.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::home::Home;

/// The pause before a process that crashed is started anew; doubled while it goes on crashing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long a start is tried again: its predecessor, left alone by a crash, may still hold port and store.
const TRIES: Duration = Duration::from_secs(12);
/// One that ran so long did not crash at its start.
const SETTLED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// A process to run.
#[derive(Clone)]
pub(super) struct Program {
    /// The name of its log.
    pub(super) name: String,
    /// The binary beside ours.
    pub(super) binary: &'static str,
    pub(super) arguments: Vec<String>,
    /// Of a server: the directory that keeps its address.
    pub(super) serves_in: Option<PathBuf>,
}

impl Program {
    /// Where a server tells that it listens.
    fn listening(&self) -> Option<PathBuf> {
        self.serves_in.as_ref().map(|dir| dir.join("listening"))
    }

    /// Where the address that it once had is kept.
    fn endpoint(&self) -> Option<PathBuf> {
        self.serves_in.as_ref().map(|dir| dir.join("endpoint"))
    }

    /// The port that a server once had, so that kubeconfigs stay good; 0 for a new one.
    fn port(&self) -> u16 {
        let kept = self.endpoint().and_then(|path| std::fs::read_to_string(path).ok());
        let address = kept.and_then(|text| text.trim().parse::<SocketAddr>().ok());
        address.map_or(0, |address| address.port())
    }
}

/// The processes, in the order in which they were started.
#[derive(Default)]
pub(super) struct Children {
    running: Vec<Running>,
}

struct Running {
    name: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Children {
    /// Starts a process, and waits until it listens if it is a server; returns where.
    pub(super) async fn start(
        &mut self,
        program: Program,
        home: &Home,
        patience: Duration,
    ) -> anyhow::Result<String> {
        let log = home.dir.join("logs").join(format!("{}.log", program.name));
        let child = spawn(&program, &log)?;
        let (stop, stopped) = oneshot::channel();
        let failed = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(supervise(
            program.clone(),
            log.clone(),
            child,
            stopped,
            Arc::clone(&failed),
        ));
        self.running.push(Running { name: program.name.clone(), stop, task });
        let (Some(told), Some(kept)) = (program.listening(), program.endpoint()) else {
            return Ok(String::new());
        };
        let started = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&told) {
                std::fs::rename(&told, &kept)
                    .with_context(|| format!("cannot write {}", kept.display()))?;
                return Ok(text.trim().to_owned());
            }
            let limit = if failed.load(Ordering::Relaxed) { TRIES } else { patience };
            if started.elapsed() >= limit {
                // Somebody else may have the port by now: the next start takes another.
                let _was_there = std::fs::remove_file(&kept);
                bail!("{} did not start: {}", program.name, last_line(&log));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends every process, the last first; what is not gone within `patience` is killed.
    pub(super) async fn end(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for running in self.running.into_iter().rev() {
            let _gone_already = running.stop.send(());
            if tokio::time::timeout_at(deadline, running.task).await.is_err() {
                tracing::warn!("{} did not end in time", running.name);
            }
        }
    }
}

/// Starts a process. Its standard input is a pipe from us: it ends when we do, however that comes.
fn spawn(program: &Program, log: &PathBuf) -> anyhow::Result<Child> {
    let binary = std::env::current_exe()?.with_file_name(program.binary);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(&binary);
    if let Some(listening) = program.listening() {
        let _was_there = std::fs::remove_file(&listening);
        command.arg(format!("--secure-port={}", program.port()));
        command.arg("--endpoint-file").arg(listening);
    }
    command
        .args(&program.arguments)
        .stdin(Stdio::piped())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true)
        // A Ctrl-C at the terminal is for us; we end the others in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))
}

async fn supervise(
    program: Program,
    log: PathBuf,
    mut child: Child,
    mut stop: oneshot::Receiver<()>,
    failed: Arc<AtomicBool>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        // Held apart: waiting for the child would close it, and so end the child.
        let stdin = child.stdin.take();
        tokio::select! {
            _ = &mut stop => {
                drop(stdin);
                let _ended = child.wait().await;
                return;
            }
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::warn!("{} ended ({status}) and is started anew", program.name);
                failed.store(true, Ordering::Relaxed);
            }
        }
        if started.elapsed() > SETTLED {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            _ = &mut stop => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
        }
        match spawn(&program, &log) {
            Ok(again) => child = again,
            Err(error) => tracing::error!("{error:#}"),
        }
    }
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    format!("{line} ({})", log.display())
}

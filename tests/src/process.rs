//! A program beside the tests that can be killed, ended, halted and started again. It is gone with the value.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::eventually;

pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    /// A program that is not started yet; what it says goes to `log`.
    pub fn new(program: PathBuf, arguments: Vec<String>, log: PathBuf) -> Self {
        Process { program, arguments, log, child: None }
    }

    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let child = Command::new(&self.program)
            .args(&self.arguments)
            // It ends when this end of the pipe is closed.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        self.child = Some(child);
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended_already = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn end(&mut self) -> ExitStatus {
        self.signal("TERM");
        let child = self.child.as_mut().expect("it runs");
        let ended = eventually("it ends", async || child.try_wait().expect("a child")).await;
        self.child = None;
        ended
    }

    /// Halts it: it is there but does not answer.
    pub async fn halt(&self) {
        self.signal("STOP");
        // The signal only asks for it.
        while !self.is_halted() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        let status = Command::new("kill").args([format!("-{signal}"), id]).status();
        assert!(status.expect("kill runs").success(), "kill -{signal}");
    }

    /// Whether it was started and not killed or ended by the test.
    pub fn was_started(&self) -> bool {
        self.child.is_some()
    }

    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| child.try_wait().expect("a child").is_none())
    }

    /// What it has said, since it was first started.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Whether all of its threads have stopped, by Linux' word.
    fn is_halted(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).expect("its threads");
        threads.flatten().all(|thread| {
            fs::read_to_string(thread.path().join("status"))
                .is_ok_and(|status| status.contains("State:\tT"))
        })
    }
}

//! `kubefed` as a user runs it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::binary;

/// A `kubefed` with its kubeconfigs.
pub struct Kubefed {
    kubeconfigs: String,
}

/// How a run ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Kubefed {
    /// The current context is that of the first file.
    pub fn new(kubeconfigs: &[PathBuf]) -> Self {
        let files: Vec<String> =
            kubeconfigs.iter().map(|file| file.display().to_string()).collect();
        Kubefed { kubeconfigs: files.join(":") }
    }

    /// Runs it with `arguments`, words separated by spaces, and `input` on its standard input.
    pub async fn run(&self, arguments: &str, input: &str) -> Ended {
        let mut command = Command::new(binary("kubefed"));
        command
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", &self.kubeconfigs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("kubefed starts");
            // It need not read what it is given.
            let _unread = child.stdin.take().expect("piped").write_all(input.as_bytes());
            child.wait_with_output().expect("kubefed ends")
        })
        .await
        .expect("the thread ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The standard output of a run that succeeds.
    pub async fn ok(&self, arguments: &str) -> String {
        let ended = self.run(arguments, "").await;
        assert_eq!(ended.code, Some(0), "kubefed {arguments}: {}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// What a run says that fails with this exit code, without a result.
    pub async fn fails(&self, code: i32, arguments: &str) -> String {
        let ended = self.run(arguments, "").await;
        assert_eq!(ended.code, Some(code), "kubefed {arguments}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "kubefed {arguments}: {}", ended.stderr);
        ended.stderr
    }
}

//! Runs of kubectl.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::PATIENCE;

/// A kubectl with its kubeconfig.
pub struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) cache: PathBuf,
}

impl Kubectl {
    /// Runs kubectl with `arguments`, words separated by spaces, and `input` on its standard input.
    pub async fn run(&self, arguments: &str, input: &str) -> Output {
        use std::io::Write as _;
        let mut command = self.command(arguments);
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("kubectl is on the PATH");
            child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads");
            child.wait_with_output().expect("kubectl ends")
        })
        .await
        .expect("the thread ends")
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments.split_whitespace())
            .env("KUBE_EDITOR", "sed -i s/before/after/")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command
    }

    /// The standard output of a run that succeeds.
    pub async fn ok(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "kubectl {arguments}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs kubectl until a line of its standard output holds `wanted`.
    pub async fn until(&self, arguments: &str, wanted: &'static str) {
        use tokio::io::{AsyncBufReadExt as _, BufReader};
        let mut child = tokio::process::Command::from(self.command(arguments))
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl is on the PATH");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let seen = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                if line.contains(wanted) {
                    return true;
                }
            }
            false
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await.expect("kubectl says it in time");
        assert!(seen, "kubectl {arguments} ends without {wanted:?}");
    }

    /// What a run that fails says.
    pub async fn fails(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input).await;
        assert!(
            !output.status.success(),
            "kubectl {arguments} should fail: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

//! `kubefed up` as a user runs it: the binaries of the workspace, in a directory.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kubefed_controllers::client::Client;
use kubefed_controllers::options;

use crate::{Kubectl, binary};

/// An `up` that runs until it is dropped. It is killed then; its processes end because it is gone.
pub struct Up {
    child: Child,
    pub kubeconfig: PathBuf,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Up {
    /// Starts it, and waits until it says that the federation is ready.
    pub fn start(dir: &Path) -> Up {
        Up::start_with(dir, &[])
    }

    /// The same, with more flags.
    pub fn start_with(dir: &Path, flags: &[&str]) -> Up {
        let mut child = Command::new(binary("kubefed"))
            .args(["up", "--dir"])
            .arg(dir)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubefed starts");
        let mut first = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output.read_line(&mut first).expect("readable");
        let kubeconfig = first.trim().strip_prefix("federation ready: KUBECONFIG=").map(Into::into);
        let Some(kubeconfig) = kubeconfig else {
            let _ended_already = child.kill();
            panic!("kubefed up says {first:?}")
        };
        Up { child, kubeconfig }
    }

    /// Ends what runs in a directory, as a user does.
    pub fn down(dir: &Path) -> Output {
        let mut down = Command::new(binary("kubefed"));
        down.args(["down", "--dir"]).arg(dir).output().expect("kubefed starts")
    }

    /// A kubectl, in the context `federation` unless its arguments name another.
    pub fn kubectl_at(&self, program: PathBuf) -> Kubectl {
        let cache = tempfile::tempdir_in(self.kubeconfig.parent().expect("a directory"));
        let cache = cache.expect("a directory").keep();
        Kubectl { program, kubeconfig: self.kubeconfig.clone(), cache }
    }

    /// A client of one of the contexts.
    pub fn client(&self, context: &str) -> Client {
        let file = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let context =
            KubeConfigOptions { context: Some(context.into()), ..KubeConfigOptions::default() };
        Client::new(options::access(&file, &context).expect("a context")).expect("a client")
    }

    /// Kills those of its processes the hard way that have an argument, or a program, which ends so.
    pub fn kill(&self, word: &str) {
        let pids = self.processes(word);
        assert!(!pids.is_empty(), "{word} does not run");
        for pid in pids {
            assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
        }
    }

    fn processes(&self, word: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let children = tasks
            .expect("it runs")
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        let pids = children
            .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<String>>());
        pids.filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|&byte| byte == 0).any(|argument| argument.ends_with(word.as_bytes()))
        })
        .collect()
    }
}

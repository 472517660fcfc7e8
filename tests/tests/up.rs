//! `kubefed up` as a user runs it: the binaries, in a directory of their own.

use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use kubefed_tests::up::Up;
use kubefed_tests::{binary, guide};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

fn kubefed() -> Command {
    Command::new(binary("kubefed"))
}

/// What one does with an `up`.
trait Use {
    fn kubectl_with(&self, arguments: &str, input: &str) -> Output;
    fn kubectl(&self, arguments: &str) -> Output {
        self.kubectl_with(arguments, "")
    }
    fn check(&self) -> Output;
}

impl Use for Up {
    fn kubectl_with(&self, arguments: &str, input: &str) -> Output {
        let mut child = Command::new("kubectl")
            .args(arguments.split(' '))
            .arg("--cache-dir")
            .arg(self.kubeconfig.with_file_name("cache"))
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is on the PATH");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads");
        child.wait_with_output().expect("kubectl ends")
    }

    fn check(&self) -> Output {
        kubefed().arg("check").env("KUBECONFIG", &self.kubeconfig).output().expect("kubefed starts")
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Tries again until the command succeeds.
fn succeeds(what: &str, command: impl Fn() -> Output) -> String {
    let began = Instant::now();
    loop {
        let output = command();
        if output.status.success() {
            return text(&output);
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {}", text(&output));
        std::thread::sleep(LOOK);
    }
}

#[test]
fn the_demo_sees_every_step() {
    let dir = TempDir::new().expect("a directory");
    let output = kubefed()
        .args(["up", "--demo", "--exit", "--dir"])
        .arg(dir.path())
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("go on with"), "{}", text(&output));
}

/// Waits until a process ends.
fn ends(process: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = process.try_wait().expect("it can be waited for") {
            return status;
        }
        if began.elapsed() >= PATIENCE {
            let _ended_meanwhile = process.kill();
            panic!("it goes on");
        }
        std::thread::sleep(LOOK);
    }
}

/// A long time in which load balancers were to see it leave could not be cut short.
#[test]
fn a_second_signal_ends_a_server_at_once() {
    let dir = TempDir::new().expect("a directory");
    let file = |name: &str| dir.path().join(name);
    let mut server = Command::new(binary("kubefed-apiserver"))
        .args(["--storage-backend=embedded", "--secure-port=0", "--shutdown-delay-duration=1h"])
        .arg("--data-dir")
        .arg(file("data"))
        .arg("--cert-dir")
        .arg(file("certificates"))
        .arg("--endpoint-file")
        .arg(file("endpoint"))
        .spawn()
        .expect("it starts");
    let began = Instant::now();
    while !file("endpoint").exists() {
        assert!(began.elapsed() < PATIENCE, "it does not listen");
        std::thread::sleep(LOOK);
    }
    let id = server.id().to_string();
    let signal = || Command::new("kill").args(["-TERM", &id]).status().expect("kill").success();
    assert!(signal());
    // Two that come as one are one.
    std::thread::sleep(LOOK);
    assert!(server.try_wait().expect("it can be waited for").is_none(), "it waits");
    assert!(signal());
    assert_eq!(ends(&mut server).code(), Some(1));
}

/// It wrote its error and then waited for its parent: `up` could not start it anew.
#[test]
fn a_server_that_cannot_start_ends_while_its_parent_lives() {
    let dir = TempDir::new().expect("a directory");
    let no_directory = dir.path().join("file");
    std::fs::write(&no_directory, "").expect("written");
    let mut server = Command::new(binary("kubefed-apiserver"))
        .args(["--exit-with-parent", "--storage-backend=embedded"])
        .args(["--tls-cert-file=none", "--tls-private-key-file=none", "--data-dir"])
        .arg(&no_directory)
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Held open: this process is its parent, and lives.
    let stdin = server.stdin.take();
    let status = ends(&mut server);
    assert!(!status.success());
    drop(stdin);
}

#[test]
fn a_federation_heals_and_keeps_its_data() {
    let dir = TempDir::new().expect("a directory");
    let up = Up::start(dir.path());
    let kubeconfig = std::fs::read_to_string(&up.kubeconfig).expect("a kubeconfig");
    succeeds("check", || up.check());
    let refused = kubefed().args(["up", "--dir"]).arg(dir.path()).output().expect("kubefed starts");
    assert!(!refused.status.success());
    assert!(text(&refused).contains("kubefed down"), "{}", text(&refused));

    let labeled = up.kubectl("label namespace default kept=yes");
    assert!(labeled.status.success(), "{}", text(&labeled));
    up.kill("--name=cluster1");
    succeeds("the member is back", || up.kubectl("--context cluster1 get namespace default"));
    succeeds("check", || up.check());

    // Nobody tells the servers to end: they see it by themselves, while the next `up` waits for their ports and stores.
    drop(up);
    let up = Up::start(dir.path());
    let kept = text(&up.kubectl("get namespaces -l kept=yes -o name"));
    assert_eq!(kept.trim(), "namespace/default");
    let server = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("server:")).map(str::to_owned).collect()
    };
    let again = std::fs::read_to_string(&up.kubeconfig).expect("a kubeconfig");
    assert_eq!(server(&again), server(&kubeconfig), "kubeconfigs stay good");

    let began = Instant::now();
    let down = kubefed().args(["down", "--dir"]).arg(dir.path()).output().expect("kubefed starts");
    assert!(down.status.success(), "{}", text(&down));
    assert!(began.elapsed() < Duration::from_secs(10), "down took {:?}", began.elapsed());
    assert!(!up.check().status.success());
}

const FEDERATED_NAMESPACE: &str = r#"
apiVersion: types.kubefed.io/v1beta1
kind: FederatedNamespace
metadata: {name: test-namespace, namespace: test-namespace}
spec:
  template: {}
  placement: {clusterSelector: {}}
"#;

#[test]
fn the_guide_is_followed_on_a_running_federation() {
    let dir = TempDir::new().expect("a directory");
    let up = Up::start(dir.path());
    let absent = text(&up.kubectl("get kubefedconfigs -A"));
    assert!(absent.contains("No resources found"), "{absent}");
    let checked = succeeds("check", || up.check());
    assert!(checked.contains("the defaults hold, scope Cluster"), "{checked}");
    succeeds("the namespace", || up.kubectl("create namespace test-namespace"));

    // In the order of the guide: what section 4 places is looked at before section 6 divides it anew.
    for sections in [&["2.2", "4.1", "4.2"][..], &["5.1", "5.2", "6.1", "6.2"]] {
        for section in sections {
            let output = up.kubectl_with("apply --validate=strict -f -", &guide(section));
            assert!(output.status.success(), "{section}: {}", text(&output));
        }
        if sections.contains(&"4.2") {
            succeeds("the namespace is federated", || {
                up.kubectl_with("apply -f -", FEDERATED_NAMESPACE)
            });
            for (cluster, replicas) in [("cluster1", "2"), ("cluster2", "3")] {
                let get = "-n test-namespace get deployment test-deployment";
                let get = format!("--context {cluster} {get} -o jsonpath={{.spec.replicas}}");
                assert_eq!(succeeds(cluster, || up.kubectl(&get)), replicas, "{cluster}");
            }
        }
    }
    let refused = up.kubectl_with("apply --validate=strict -f -", &guide("3.1"));
    assert!(!refused.status.success());
    assert!(text(&refused).contains("spec.caBundle"), "{}", text(&refused));

    // The scope of the guide is another than that of the defaults, which holds until a restart.
    succeeds("the user is told so", || {
        let events = up.kubectl("get events --field-selector reason=RestartNeeded -o name");
        let told = !events.stdout.is_empty();
        if told { events } else { Command::new("false").output().expect("false") }
    });
    let checked = succeeds("check", || up.check());
    assert!(checked.contains("scope Namespaced"), "{checked}");
}

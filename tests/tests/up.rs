//! `kubefed up` as a user runs it: the binaries, in a directory of their own.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use kubefed_tests::up::Up;
use kubefed_tests::{Kubectl, binary, eventually, federated_namespace, guide};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(60);

fn kubefed() -> Command {
    Command::new(binary("kubefed"))
}

fn kubectl(up: &Up) -> Kubectl {
    up.kubectl_at("kubectl".into())
}

async fn check(up: &Up) -> Output {
    let mut check = kubefed();
    check.arg("check").env("KUBECONFIG", &up.kubeconfig);
    check.output().await.expect("kubefed starts")
}

/// What `kubefed check` says when all is well.
async fn all_is_well(up: &Up) -> String {
    eventually("check", async || {
        let output = check(up).await;
        output.status.success().then(|| text(&output))
    })
    .await
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What kubectl says once it succeeds.
async fn succeeds(kubectl: &Kubectl, arguments: &str, input: &str) -> String {
    eventually(arguments, async || {
        let output = kubectl.run(arguments, input).await;
        output.status.success().then(|| text(&output))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_sees_every_step() {
    let dir = TempDir::new().expect("a directory");
    let mut up = kubefed();
    up.args(["up", "--demo", "--exit", "--dir"]).arg(dir.path());
    let output = up.output().await.expect("kubefed starts");
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("go on with"), "{}", text(&output));
}

/// Waits until a process ends, and returns its exit code.
async fn ends(mut process: Child) -> Option<i32> {
    let status = tokio::time::timeout(PATIENCE, process.wait()).await.expect("it goes on");
    status.expect("it can be waited for").code()
}

/// A long time in which load balancers were to see it leave could not be cut short.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_server_at_once() {
    let dir = TempDir::new().expect("a directory");
    let mut server = Command::new(binary("kubefed-apiserver"))
        .args(["--storage-backend=embedded", "--secure-port=0", "--shutdown-delay-duration=1h"])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .arg("--cert-dir")
        .arg(dir.path().join("certificates"))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let id = server.id().expect("it runs").to_string();
    let signal = || std::process::Command::new("kill").args(["-TERM", &id]).status();
    let mut log = BufReader::new(server.stderr.take().expect("piped")).lines();
    let mut says = async |wanted: &str| {
        let line = async {
            while let Some(line) = log.next_line().await.expect("text") {
                if line.contains(wanted) {
                    return;
                }
            }
            panic!("it ends without {wanted:?}")
        };
        tokio::time::timeout(PATIENCE, line).await.expect("it says so");
    };
    says("serving").await;
    assert!(signal().expect("kill").success());
    // Two signals that come before the first is seen are one.
    says("a signal came").await;
    assert!(server.try_wait().expect("it can be waited for").is_none(), "it waits");
    assert!(signal().expect("kill").success());
    assert_eq!(ends(server).await, Some(1));
}

/// It wrote its error and then waited for its parent: `up` could not start it anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_ends_while_its_parent_lives() {
    let dir = TempDir::new().expect("a directory");
    let no_directory = dir.path().join("file");
    std::fs::write(&no_directory, "").expect("written");
    let mut server = Command::new(binary("kubefed-apiserver"))
        .args(["--exit-with-parent", "--storage-backend=embedded"])
        .args(["--tls-cert-file=none", "--tls-private-key-file=none", "--data-dir"])
        .arg(&no_directory)
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    // Held open: this process is its parent, and lives.
    let stdin = server.stdin.take();
    assert_eq!(ends(server).await, Some(1));
    drop(stdin);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federation_heals_and_keeps_its_data() {
    let dir = TempDir::new().expect("a directory");
    let up = Up::start(dir.path());
    let kubeconfig = std::fs::read_to_string(&up.kubeconfig).expect("a kubeconfig");
    all_is_well(&up).await;
    let mut second = kubefed();
    let refused = second.args(["up", "--dir"]).arg(dir.path()).output().await;
    let refused = refused.expect("kubefed starts");
    assert!(!refused.status.success());
    assert!(text(&refused).contains("kubefed down"), "{}", text(&refused));

    kubectl(&up).ok("label namespace default kept=yes", "").await;
    up.kill("--name=cluster1");
    // The member is back.
    succeeds(&kubectl(&up), "--context cluster1 get namespace default", "").await;
    all_is_well(&up).await;

    // Nobody tells the servers to end: they see it by themselves, while the next `up` waits for their ports and stores.
    drop(up);
    let up = Up::start(dir.path());
    let kept = kubectl(&up).ok("get namespaces -l kept=yes -o name", "").await;
    assert_eq!(kept.trim(), "namespace/default");
    let server = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("server:")).map(str::to_owned).collect()
    };
    let again = std::fs::read_to_string(&up.kubeconfig).expect("a kubeconfig");
    assert_eq!(server(&again), server(&kubeconfig), "kubeconfigs stay good");

    let began = Instant::now();
    let down = Up::down(dir.path());
    assert!(down.status.success(), "{}", text(&down));
    assert!(began.elapsed() < Duration::from_secs(10), "down took {:?}", began.elapsed());
    assert!(!check(&up).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_is_followed_on_a_running_federation() {
    let dir = TempDir::new().expect("a directory");
    let up = Up::start(dir.path());
    let kubectl = kubectl(&up);
    let absent = text(&kubectl.run("get kubefedconfigs -A", "").await);
    assert!(absent.contains("No resources found"), "{absent}");
    let checked = all_is_well(&up).await;
    assert!(checked.contains("the defaults hold, scope Cluster"), "{checked}");
    succeeds(&kubectl, "create namespace test-namespace", "").await;

    // In the order of the guide: what section 4 places is looked at before section 6 divides it anew.
    for sections in [&["2.2", "4.1", "4.2"][..], &["5.1", "5.2", "6.1", "6.2"]] {
        for section in sections {
            kubectl.ok("apply --validate=strict -f -", &guide(section)).await;
        }
        if sections.contains(&"4.2") {
            let federated = federated_namespace("test-namespace").to_string();
            succeeds(&kubectl, "apply -f -", &federated).await;
            for (cluster, replicas) in [("cluster1", "2"), ("cluster2", "3")] {
                let get = "-n test-namespace get deployment test-deployment";
                let get = format!("--context {cluster} {get} -o jsonpath={{.spec.replicas}}");
                assert_eq!(succeeds(&kubectl, &get, "").await, replicas, "{cluster}");
            }
        }
    }
    let refused = kubectl.fails("apply --validate=strict -f -", &guide("3.1")).await;
    assert!(refused.contains("spec.caBundle"), "{refused}");

    // The scope of the guide would leave out the namespace that the guide places its objects in.
    eventually("the user is told that it limits nothing", async || {
        let events = "get events --field-selector reason=ScopeNotLimited -o name";
        (!kubectl.run(events, "").await.stdout.is_empty()).then_some(())
    })
    .await;
    assert!(Up::down(dir.path()).status.success());
    drop(up);

    // The same after a restart of everything, also for a cluster that joins then.
    let up = Up::start_with(dir.path(), &["--members=cluster1,cluster2,cluster3"]);
    let kubectl = self::kubectl(&up);
    let checked = all_is_well(&up).await;
    assert!(checked.contains("scope Namespaced, but the controllers serve all"), "{checked}");
    let label = r#"{"spec":{"template":{"metadata":{"labels":{"after":"restart"}}}}}"#;
    let patch = "patch -n test-namespace federateddeployment test-deployment --type=merge";
    kubectl.ok(&format!("{patch} -p {label}"), "").await;
    let labelled = "-n test-namespace wait deployment test-deployment --for=jsonpath={.metadata.labels.after}=restart --timeout=30s";
    kubectl.ok(&format!("--context cluster1 {labelled}"), "").await;
    let everywhere = r#"{
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap",
        "metadata": {"name": "after", "namespace": "test-namespace"},
        "spec": {"template": {"data": {"a": "b"}}, "placement": {"clusterSelector": {}}}
    }"#;
    kubectl.ok("apply -f -", everywhere).await;
    for cluster in ["cluster1", "cluster3"] {
        let get = "-n test-namespace get configmap after";
        succeeds(&kubectl, &format!("--context {cluster} {get}"), "").await;
    }
}

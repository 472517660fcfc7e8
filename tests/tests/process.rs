//! The controller manager as a process: what those look at who ran KubeFed's.

use std::process::Stdio;

use kubefed_tests::{NAMESPACE, PATIENCE, a_federation, binary, eventually};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{ChildStderr, Command};

/// Reads log lines until one holds `wanted`; that line.
async fn until(log: &mut Lines<BufReader<ChildStderr>>, wanted: &str) -> String {
    let found = async {
        loop {
            let line = log.next_line().await.expect("text");
            let line = line.unwrap_or_else(|| panic!("it ends without {wanted:?}"));
            if line.contains(wanted) {
                return line;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("{wanted:?} is not said within {PATIENCE:?}"))
}

/// What stands behind `name=` in a log line.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("{name}=")).expect("the field");
    rest.split_whitespace().next().expect("a value")
}

/// The answer to a GET over plain HTTP.
async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_manager_says_what_kubefeds_said_and_ends_with_its_lease() {
    let federation = a_federation().await;
    let admin = federation.admin();
    // As KubeFed's own config/kubefedconfig.yaml has it.
    let config = json!({
        "apiVersion": "core.kubefed.io/v1beta1", "kind": "KubeFedConfig", "metadata": {"name": "kubefed"},
        "spec": {
            "scope": "Cluster",
            "leaderElect": {"leaseDuration": "1500ms", "renewDeadline": "1000ms", "retryPeriod": "500ms", "resourceLock": "configmaps"},
            "featureGates": [
                {"name": "PushReconciler", "configuration": "Enabled"},
                {"name": "RawResourceStatusCollection", "configuration": "Enabled"},
                {"name": "SchedulerPreferences", "configuration": "Enabled"},
            ],
        },
    });
    let configs = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedconfigs");
    admin.create(&configs, &config).await.expect("created");

    let user = "system:kubefed-controller-manager";
    let mut manager = Command::new(binary("kubefed-controller-manager"))
        .arg("--kubeconfig")
        .arg(federation.kubeconfig("federation", user, &[]))
        .args(["--healthz-addr=127.0.0.1:0", "--metrics-addr=127.0.0.1:0", "--v=2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut log = BufReader::new(manager.stderr.take().expect("piped")).lines();
    let serving = until(&mut log, "serving").await;
    assert!(get(field(&serving, "healthz"), "/healthz").await.ends_with("\r\n\r\nOK"));
    until(&mut log, "promoted as leader").await;
    let used = format!("Using valid KubeFedConfig \"{NAMESPACE}/kubefed\"");
    until(&mut log, &used).await;
    until(&mut log, "Starting cluster controller").await;
    let metrics = field(&serving, "metrics");
    eventually("the metrics tell that it leads", async || {
        let text = get(metrics, "/metrics").await;
        text.contains("leader_election_master_status 1").then_some(())
    })
    .await;

    let lease = format!(
        "/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kubefed-controller-manager"
    );
    let held = admin.get(&lease).await.expect("it is there");
    let holder = held["spec"]["holderIdentity"].as_str().expect("a holder");
    let (host, id) = holder.rsplit_once('_').expect("a host and an id");
    assert!(!host.is_empty() && id.len() == 36, "{holder}");
    let another = json!({"spec": {"holderIdentity": "another", "leaseDurationSeconds": 60}});
    admin.merge(&lease, &another).await.expect("taken");
    until(&mut log, "leader election lost").await;
    until(&mut log, "lost lease").await;
    let ended = tokio::time::timeout(PATIENCE, manager.wait_with_output()).await;
    let ended = ended.expect("it ends").expect("it ran");
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(told.starts_with("KubeFed controller-manager version: version.Info{"), "{told}");
}

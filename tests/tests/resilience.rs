//! What does not answer, and what is killed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use kubefed_tests::{Federation, NAMESPACE, a_federation_of, eventually};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const MAPS: &str = "/apis/types.kubefed.io/v1beta1/namespaces/many/federatedconfigmaps";
const CONFIG_MAPS: &str = "/api/v1/namespaces/many/configmaps";

async fn with_namespace(federation: &Federation) {
    let admin = federation.admin();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "many"}});
    admin.create("/api/v1/namespaces", &namespace).await.expect("created");
    let federated = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedNamespace",
        "metadata": {"name": "many"}, "spec": {"template": {}, "placement": {"clusterSelector": {}}},
    });
    let path = "/apis/types.kubefed.io/v1beta1/namespaces/many/federatednamespaces";
    admin.create(path, &federated).await.expect("created");
}

fn map(n: usize) -> Value {
    json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedConfigMap", "metadata": {"name": format!("map-{n}")},
        "spec": {"template": {"data": {"n": n.to_string()}}, "placement": {"clusterSelector": {}}},
    })
}

async fn wait_for_maps(federation: &Federation, cluster: &str, count: usize) {
    let member = federation.member(cluster).admin();
    eventually(&format!("{cluster} has {count} maps"), async || {
        let list = member
            .get(&format!("{CONFIG_MAPS}?labelSelector=kubefed.io/managed%3Dtrue"))
            .await
            .ok()?;
        (list["items"].as_array()?.len() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_never_answers_delays_no_other() {
    let federation = a_federation_of(&["cluster1", "cluster2"]).await;
    with_namespace(&federation).await;
    // It accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", silent.local_addr().unwrap());
    let _accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let admin = federation.admin();
    let known = format!("/apis/core.kubefed.io/v1beta1/namespaces/{NAMESPACE}/kubefedclusters");
    let mut cluster = admin.get(&format!("{known}/cluster1")).await.unwrap();
    cluster["metadata"] = json!({"name": "silent"});
    cluster["spec"]["apiEndpoint"] = json!(endpoint);
    admin.create(&known, &cluster).await.unwrap();

    for n in 0..100 {
        admin.create(MAPS, &map(n)).await.unwrap();
    }
    wait_for_maps(&federation, "cluster1", 100).await;
    wait_for_maps(&federation, "cluster2", 100).await;
    eventually("the status says which cluster is not there", async || {
        let object = admin.get(&format!("{MAPS}/map-0")).await.ok()?;
        let clusters = object["status"]["clusters"].as_array()?;
        clusters
            .iter()
            .any(|c| c["name"] == "silent" && c["status"] == "ClusterNotReady")
            .then_some(())
    })
    .await;
}

/// A binary of the workspace, built beside this test.
fn binary(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test has a path");
    let binary =
        here.parent().and_then(|deps| deps.parent()).expect("a target directory").join(name);
    assert!(binary.exists(), "{} is missing: cargo build --workspace --bins", binary.display());
    binary
}

/// A federation of processes that ends with the test.
struct Up {
    dir: tempfile::TempDir,
}

impl Up {
    async fn start() -> Up {
        let up = Up { dir: tempfile::tempdir().expect("a directory") };
        up.run().await;
        up
    }

    async fn run(&self) {
        let mut child = Command::new(binary("kubefed"))
            .args(["up", "--dir"])
            .arg(self.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubefed starts");
        let out = child.stdout.take().expect("piped");
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).map(|_| line)
        });
        let line = line.await.expect("the thread ends").expect("kubefed tells");
        assert!(line.starts_with("federation ready"), "{line}");
        // Its end is waited for by `kubefed down`.
        std::mem::drop(std::thread::spawn(move || child.wait()));
    }

    async fn kubectl(&self, context: &str, arguments: &str) -> Option<String> {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.dir.path().join("kubeconfig"))
            .arg("--context")
            .arg(context);
        command.args(arguments.split_whitespace());
        let output = tokio::task::spawn_blocking(move || command.output()).await.ok()?.ok()?;
        if !output.status.success() {
            // Shown only if the test fails.
            print!("kubectl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn down(&self) {
        let down =
            Command::new(binary("kubefed")).args(["down", "--dir"]).arg(self.dir.path()).status();
        assert!(down.expect("kubefed runs").success());
    }

    /// Kills one of the processes the hard way.
    fn kill(&self, name: &str) {
        let dir = self.dir.path().display().to_string();
        for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
            let Ok(command) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(name) && command.contains(&dir) && !command.contains("kubefed up") {
                let pid = entry.file_name().to_string_lossy().into_owned();
                Command::new("kill").args(["-9", &pid]).status().expect("kill runs");
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ended =
            Command::new(binary("kubefed")).args(["down", "--dir"]).arg(self.dir.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_object_is_lost_when_processes_are_killed() {
    let up = Up::start().await;
    let kubectl = async |context: &str, arguments: &str| {
        eventually(&format!("kubectl {arguments}"), async || up.kubectl(context, arguments).await)
            .await
    };
    kubectl("federation", "create namespace many").await;
    let dir = up.dir.path();
    let write = |name: &str, objects: &[Value]| {
        let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
        std::fs::write(dir.join(name), documents.join("\n")).unwrap();
    };
    let federated = json!({
        "apiVersion": "types.kubefed.io/v1beta1", "kind": "FederatedNamespace",
        "metadata": {"name": "many", "namespace": "many"},
        "spec": {"template": {}, "placement": {"clusterSelector": {}}},
    });
    write("namespace.json", &[federated]);
    kubectl("federation", &format!("apply -f {}", dir.join("namespace.json").display())).await;
    for (round, killed) in
        ["kubefed-apiserver", "kubefed-controller-manager", "kubefed-localcluster"]
            .iter()
            .enumerate()
    {
        let objects: Vec<Value> = (0..20).map(|n| map(round * 20 + n)).collect();
        write("maps.json", &objects);
        kubectl("federation", &format!("-n many apply -f {}", dir.join("maps.json").display()))
            .await;
        up.kill(killed);
    }
    // What was acknowledged is there, once, in both members; also after a restart of everything.
    for round in 0..2 {
        for cluster in ["cluster1", "cluster2"] {
            eventually("every map is there", async || {
                let maps = up
                    .kubectl(cluster, "-n many get configmaps -l kubefed.io/managed=true -o name")
                    .await?;
                (maps.lines().count() == 60).then_some(())
            })
            .await;
        }
        if round == 0 {
            up.down();
            up.run().await;
        }
    }
}

//! The etcd of `manifests/components/etcd` as processes of the test: its flags, and the certificates of `kubefed init`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kubefed_storage::etcd;
use kubefed_tests::control_plane::{ControlPlane, a_control_plane};
use kubefed_tests::etcd::free_ports;
use kubefed_tests::manifests::documents;
use kubefed_tests::{NAMESPACE, binary, eventually, kubernetes};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MEMBERS: usize = 3;

/// What `kubefed init` would apply.
async fn installation(host: &ControlPlane) -> Vec<Value> {
    let mut command = Command::new(binary("kubefed"));
    command.args(["init", "--dry-run"]);
    command.env("KUBECONFIG", host.kubeconfig("host", "admin", &["system:masters"]));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
    let output = output.expect("kubefed starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(String::from_utf8_lossy(&output.stdout).trim_start_matches("---\n"))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Writes a Secret as a pod has it.
fn mount(objects: &[Value], secret: &str, dir: &Path) {
    fs::create_dir_all(dir).expect("a directory");
    for (key, value) in find(objects, "Secret", secret)["data"].as_object().expect("data") {
        let bytes = BASE64_STANDARD.decode(value.as_str().expect("text")).expect("base64");
        fs::write(dir.join(key), bytes).expect("a file");
    }
}

/// Members that end with the test.
struct Members(Vec<Child>);

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ended_already = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Whether a probe of a pod would be content.
async fn answers(port: u16, path: &str) -> Option<()> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_find_each_other_and_believe_only_our_server() {
    let Some(program) = kubernetes::binary("kubernetes").await else { return };
    let Some(host) = a_control_plane().await else { return };
    let objects = installation(&host).await;
    let dir = TempDir::new().expect("a directory");
    mount(&objects, "kubefed-etcd-tls", &dir.path().join("tls"));
    mount(&objects, "kubefed-etcd-client", &dir.path().join("client"));
    // For each member those of clients, of peers and of metrics.
    let ports = free_ports(MEMBERS * 3);
    let set = find(&objects, "StatefulSet", "kubefed-etcd");
    assert_eq!(set["spec"]["replicas"], MEMBERS);
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let flags: Vec<&str> =
        container["args"].as_array().expect("flags").iter().filter_map(Value::as_str).collect();
    let mut members = Members(Vec::new());
    for member in 0..MEMBERS {
        let place = |flag: &str| {
            let mut flag = flag
                .replace("$(POD_NAME)", &format!("kubefed-etcd-{member}"))
                .replace("/etc/etcd/tls", &dir.path().join("tls").display().to_string())
                .replace(
                    "/var/lib/etcd/data",
                    &dir.path().join(format!("data-{member}")).display().to_string(),
                );
            for (which, port) in [2379, 2380, 2381].into_iter().enumerate() {
                for other in 0..MEMBERS {
                    let name = format!("kubefed-etcd-{other}.kubefed-etcd.{NAMESPACE}.svc:{port}");
                    flag = flag.replace(&name, &format!("127.0.0.1:{}", ports[other * 3 + which]));
                }
                let own = format!("127.0.0.1:{}", ports[member * 3 + which]);
                flag = flag.replace(&format!("0.0.0.0:{port}"), &own);
            }
            flag
        };
        let log = File::create(dir.path().join(format!("{member}.log"))).expect("a log");
        let mut command = Command::new(&program);
        command.arg("etcd").args(flags.iter().map(|flag| place(flag)));
        // It ends when this end of the pipe is closed.
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log);
        members.0.push(command.spawn().expect("etcd starts"));
    }
    for member in 0..MEMBERS {
        for path in ["/livez", "/readyz"] {
            eventually("probes are content", async || answers(ports[member * 3 + 2], path).await)
                .await;
        }
    }

    let urls: Vec<String> =
        (0..MEMBERS).map(|member| format!("https://127.0.0.1:{}", ports[member * 3])).collect();
    let client = dir.path().join("client");
    let ours = etcd::Options {
        ca: Some(client.join("ca.crt")),
        cert: Some(client.join("tls.crt")),
        key: Some(client.join("tls.key")),
        ..etcd::Options::new(&urls)
    };
    let store = etcd::connect(ours.clone()).await.expect("our server is believed");
    store.current_revision().await.expect("a quorum answers");
    let nobody = etcd::Options { cert: None, key: None, ..ours };
    let refused = match etcd::connect(nobody).await {
        Ok(store) => store.current_revision().await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a client without a certificate is let in");
}

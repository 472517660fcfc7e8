//! A federation that `kubefed init` has put into a real host. No node runs pods there: the servers are processes of the
//! test, with the certificates and the rights that their pods would have.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::manifests::overlay;
use crate::process::Process;
use crate::{NAMESPACE, binary, eventually};

/// Where an object is.
pub fn path(object: &Value) -> String {
    let api_version = object["apiVersion"].as_str().expect("a version");
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let kind = object["kind"].as_str().expect("a kind");
    let plural = kubefed_api::federatedtypeconfig::plural_name(kind);
    let name = object["metadata"]["name"].as_str().expect("a name");
    match object["metadata"]["namespace"].as_str() {
        None => format!("/{root}/{api_version}/{plural}/{name}"),
        Some(namespace) => format!("/{root}/{api_version}/namespaces/{namespace}/{plural}/{name}"),
    }
}

/// The API server with what its pod would have, and the host's Service led to it.
pub async fn serve(host: &ControlPlane, dir: &Path) -> Process {
    let admin = host.admin();
    let services: Vec<Value> = overlay("single-node")
        .into_iter()
        .filter(|object| object["kind"] == "APIService")
        .collect();
    for service in &services {
        eventually("all is applied", async || {
            admin
                .get(&path(service))
                .await
                .ok()
                .filter(|found| found["spec"]["service"].is_object())
        })
        .await;
    }
    let certificate = admin
        .get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/kubefed-apiserver-tls"))
        .await
        .expect("the certificate");
    for key in ["tls.crt", "tls.key"] {
        let bytes = BASE64_STANDARD.decode(certificate["data"][key].as_str().expect("data"));
        std::fs::write(dir.join(key), bytes.expect("base64")).expect("a file");
    }
    let kubeconfig = of_service_account(host, "kubefed-apiserver", dir).await;
    let endpoint = dir.join("endpoint");
    let server = start(
        "kubefed-apiserver",
        dir,
        vec![
            "--secure-port=0".to_owned(),
            format!("--endpoint-file={}", endpoint.display()),
            format!("--tls-cert-file={}", dir.join("tls.crt").display()),
            format!("--tls-private-key-file={}", dir.join("tls.key").display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            "--storage-backend=embedded".to_owned(),
            format!("--data-dir={}", dir.join("data").display()),
        ],
    );
    let address = eventually("the API server listens", async || {
        std::fs::read_to_string(&endpoint).ok().filter(|address| address.ends_with('\n'))
    })
    .await;
    let port: u16 =
        address.trim().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let service = format!("/api/v1/namespaces/{NAMESPACE}/services/kubefed-apiserver");
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "localhost"}});
    admin.merge(&service, &outside).await.expect("the Service is led elsewhere");
    for service in &services {
        let there = json!({"spec": {"service": {"port": port}}});
        admin.merge(&path(service), &there).await.expect("and another port is named");
    }
    server
}

/// The controller manager with what its pod would have.
pub async fn manage(host: &ControlPlane, dir: &Path) -> Process {
    let kubeconfig = of_service_account(host, "kubefed-controller-manager", dir).await;
    start(
        "kubefed-controller-manager",
        dir,
        vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--healthz-addr=127.0.0.1:0".to_owned(),
            "--metrics-addr=127.0.0.1:0".to_owned(),
        ],
    )
}

fn start(name: &str, dir: &Path, flags: Vec<String>) -> Process {
    let mut process = Process::new(binary(name), flags, dir.join(format!("{name}.log")));
    process.start();
    process
}

/// A kubeconfig such as pods have it, of a service account that `init` has made.
async fn of_service_account(host: &ControlPlane, name: &str, dir: &Path) -> PathBuf {
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    let answer = host.admin().create(&format!("{accounts}/{name}/token"), &request).await;
    let answer = answer.expect("a token");
    let token = dir.join(format!("{name}.token"));
    std::fs::write(&token, answer["status"]["token"].as_str().expect("a token")).expect("a file");
    let objects = overlay("production");
    let map = objects.iter().find(|object| object["kind"] == "ConfigMap").expect("a ConfigMap");
    let text = map["data"]["kubeconfig"].as_str().expect("a kubeconfig");
    let service_account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let text = text
        .replace("https://kubernetes.default.svc", &host.url())
        .replace(
            &format!("{service_account}/ca.crt"),
            &host.dir.path().join("ca.crt").display().to_string(),
        )
        .replace(&format!("{service_account}/token"), &token.display().to_string());
    let file = dir.join(format!("{name}.kubeconfig"));
    std::fs::write(&file, text).expect("a file");
    file
}

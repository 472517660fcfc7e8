//! What is in `manifests/`, as kubectl renders it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The overlays that can be installed.
pub const OVERLAYS: &[&str] = &["production", "single-node"];

/// The text that `kubectl kustomize` makes of a directory below `manifests/`.
pub fn kustomize(dir: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(dir);
    let output = Command::new("kubectl")
        .arg("kustomize")
        .arg(&dir)
        .output()
        .expect("kubectl is on the PATH");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The objects of an overlay.
pub fn overlay(name: &str) -> Vec<Value> {
    documents(&kustomize(&format!("overlays/{name}")))
}

/// The documents of a YAML text.
pub fn documents(text: &str) -> Vec<Value> {
    let read = |document: &str| {
        let decoded = kubefed_apimachinery::decode::yaml(document.as_bytes()).expect("YAML");
        assert!(decoded.duplicates.is_empty(), "{:?}", decoded.duplicates);
        decoded.value
    };
    text.split("\n---\n").map(read).filter(|document| !document.is_null()).collect()
}

//! Which crate may use which: the arrows of ARCHITECTURE.md.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What each crate may use of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("kubefed-apimachinery", &[]),
    ("kubefed-api", &["kubefed-apimachinery"]),
    ("kubefed-storage", &["kubefed-apimachinery"]),
    ("kubefed-certs", &[]),
    ("kubefed-component", &[]),
    (
        "kubefed-apiserver",
        &[
            "kubefed-apimachinery",
            "kubefed-api",
            "kubefed-storage",
            "kubefed-certs",
            "kubefed-component",
        ],
    ),
    (
        "kubefed-controllers",
        &["kubefed-apimachinery", "kubefed-api", "kubefed-certs", "kubefed-component"],
    ),
    (
        "kubefed-localcluster",
        &[
            "kubefed-apimachinery",
            "kubefed-apiserver",
            "kubefed-certs",
            "kubefed-component",
            "kubefed-storage",
        ],
    ),
    ("kubefed", &["kubefed-apimachinery", "kubefed-api", "kubefed-certs"]),
];

/// Crates from outside that one of ours alone may name.
const RESERVED: &[(&str, &str)] = &[
    ("etcd-client", "kubefed-storage"),
    ("redb", "kubefed-storage"),
    ("x509-cert", "kubefed-certs"),
    ("x509-parser", "kubefed-certs"),
];

/// What the pure crates must not name: they do no I/O.
const PURE: &[&str] = &["kubefed-apimachinery", "kubefed-api"];
const IMPURE: &[&str] = &["tokio", "hyper", "kube"];

#[test]
fn every_crate_uses_only_what_it_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("a name");
            let of_ours = arrows.get(name).is_none_or(|may| may.contains(&used))
                || !used.starts_with("kubefed");
            let reserved = RESERVED.iter().all(|(crate_, owner)| *crate_ != used || *owner == name);
            let pure = !PURE.contains(&name) || !IMPURE.contains(&used);
            if !(of_ours && reserved && pure) {
                wrong.push(format!("{name} -> {used}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "see ARCHITECTURE.md for the arrows");
    assert!(packages.len() > ARROWS.len());
}

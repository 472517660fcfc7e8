//! Programs of Kubernetes, built from the Go modules below `tests/`.
//!
//! Each is built once for each state of its module, into a cache outside of the
//! tree. Without Go the tests that need it are skipped, but in CI.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The binary of the module in `tests/<module>`; `None` without Go.
pub async fn binary(module: &'static str) -> Option<PathBuf> {
    tokio::task::spawn_blocking(move || find_or_build(module)).await.expect("the build ends")
}

fn find_or_build(module: &str) -> Option<PathBuf> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
    let cache = cache().join(format!("{:016x}", hash(&module).expect("the module is complete")));
    fs::create_dir_all(&cache).expect("the cache can be written");
    let lock = File::create(cache.join("lock")).expect("the cache can be written");
    lock.lock().expect("the cache can be locked");
    let binary = cache.join("program");
    if binary.exists() {
        return Some(binary);
    }
    if Command::new("go").arg("version").output().is_err() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "Go is missing: the tests against real programs of Kubernetes can't run"
        );
        // Not by a macro: the test harness would hide it.
        let _ = io::stderr().write_all(
            b"\nSKIPPED: Go is missing, so the tests against real programs of Kubernetes do not run.\n\n",
        );
        return None;
    }
    build(&module, &binary);
    Some(binary)
}

fn build(module: &Path, binary: &Path) {
    let unfinished = binary.with_extension("unfinished");
    let output = Command::new("go")
        .args(["build", "-trimpath"])
        .arg(format!("-ldflags=-s -w {}", version(module)))
        .arg("-o")
        .arg(&unfinished)
        .arg(".")
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .output()
        .expect("go runs");
    assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&unfinished, binary).expect("the cache can be written");
}

/// The flags that make a program tell its version: that of `k8s.io/component-base` in its module, where there is one.
/// An unset version confuses what compares versions.
fn version(module: &Path) -> String {
    let text = fs::read_to_string(module.join("go.mod")).expect("the module is complete");
    let base = text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/component-base v0."));
    let Some((minor, patch)) = base.and_then(|version| version.split_once('.')) else {
        return String::new();
    };
    let package = "k8s.io/component-base/version";
    format!(
        "-X {package}.gitVersion=v1.{minor}.{patch} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
    )
}

fn hash(module: &Path) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        fs::read(module.join(file))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn cache() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("kubefed-tests")
}

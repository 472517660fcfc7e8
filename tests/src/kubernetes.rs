//! The programs of a real cluster, built from the Go module in `kubernetes/`.
//!
//! The binary is built once for each state of the module, into a cache outside
//! of the tree. Without Go the tests that need it are skipped, but in CI.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary whose first argument says which program it is; `None` without Go.
pub async fn binary() -> Option<PathBuf> {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    tokio::task::spawn_blocking(|| BINARY.get_or_init(find_or_build).clone())
        .await
        .expect("the build ends")
}

fn find_or_build() -> Option<PathBuf> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes");
    let cache = cache().join(format!("{:016x}", hash(&module).expect("the module is complete")));
    fs::create_dir_all(&cache).expect("the cache can be written");
    let lock = File::create(cache.join("lock")).expect("the cache can be written");
    lock.lock().expect("the cache can be locked");
    let binary = cache.join("kubernetes");
    if binary.exists() {
        return Some(binary);
    }
    if Command::new("go").arg("version").output().is_err() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "Go is missing: the tests against a real etcd can't run"
        );
        // Not by a macro: the test harness would hide it.
        let _ = io::stderr().write_all(
            b"\nSKIPPED: Go is missing, so the tests against a real etcd do not run.\n\n",
        );
        return None;
    }
    build(&module, &binary);
    Some(binary)
}

fn build(module: &Path, binary: &Path) {
    let unfinished = binary.with_extension("unfinished");
    let output = Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .output()
        .expect("go runs");
    assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&unfinished, binary).expect("the cache can be written");
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

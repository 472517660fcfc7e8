//! A serving certificate for who has none: self-signed, made once, as Kubernetes does for `--cert-dir`.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kubefed_certs::Authority;

use super::write_whole;

/// The certificate and key in `dir`; they are made if one of them can't be read. The authority that signed the
/// certificate, whose key is not kept, stands behind it in the same file, so that clients can trust that file.
pub(super) fn pair(dir: &Path, address: IpAddr) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (cert, key) = (dir.join("apiserver.crt"), dir.join("apiserver.key"));
    if fs::read(&cert).is_err() || fs::read(&key).is_err() {
        make(dir, address, &cert, &key).with_context(|| {
            format!(
                "cannot make a serving certificate in {} (--cert-dir, or give --tls-cert-file)",
                dir.display()
            )
        })?;
        tracing::info!(cert = %cert.display(), "made a self-signed serving certificate");
    }
    Ok((cert, key))
}

fn make(dir: &Path, address: IpAddr, cert: &Path, key: &Path) -> anyhow::Result<()> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let (host, address) = (host.trim(), address.to_string());
    let mut names = vec!["localhost", "127.0.0.1", "::1"];
    if !matches!(address.as_str(), "0.0.0.0" | "::" | "127.0.0.1" | "::1") {
        names.push(&address);
    }
    if !host.is_empty() && host != "localhost" {
        names.push(host);
    }
    let authority = Authority::new(&format!("{}-ca", names[names.len() - 1]))?;
    let pair = authority.issue_server(names[names.len() - 1], &names)?;
    fs::create_dir_all(dir)?;
    write_whole(key, 0o600, &pair.key_pem)?;
    write_whole(cert, 0o644, &format!("{}{}", pair.cert_pem, authority.cert_pem()?))?;
    Ok(())
}

//! The names that this program goes by: its own, that of KubeFed's program, and those that kubectl looks for.

use std::ffi::OsStr;
use std::path::Path;

/// By which name it was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Kubefed,
    Kubefedctl,
    /// A plugin of kubectl.
    KubectlKubefed,
    /// What kubectl asks how words after `kubectl kubefed` go on.
    KubectlComplete,
}

impl Name {
    /// The name in the first argument of a process.
    pub(crate) fn of(argument: &OsStr) -> Name {
        match Path::new(argument).file_name().and_then(OsStr::to_str) {
            Some("kubefedctl") => Name::Kubefedctl,
            Some("kubectl-kubefed") => Name::KubectlKubefed,
            Some("kubectl_complete-kubefed") => Name::KubectlComplete,
            _ => Name::Kubefed,
        }
    }

    /// What the user types.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Name::Kubefed => "kubefed",
            Name::Kubefedctl => "kubefedctl",
            Name::KubectlKubefed | Name::KubectlComplete => "kubectl kubefed",
        }
    }

    /// The file that a shell completes.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Name::Kubefed => "kubefed",
            Name::Kubefedctl => "kubefedctl",
            Name::KubectlKubefed | Name::KubectlComplete => "kubectl-kubefed",
        }
    }
}

/// The version in the words of KubeFed. What the build was not told is unknown.
pub(crate) fn version() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "version.Info{{Version:\"v{}\", GitCommit:\"{}\", GitTreeState:\"{}\", BuildDate:\"{}\", GoVersion:\"\", Compiler:\"rustc\", Platform:\"{}/{architecture}\"}}",
        env!("CARGO_PKG_VERSION"),
        option_env!("KUBEFED_GIT_COMMIT").unwrap_or("unknown"),
        option_env!("KUBEFED_GIT_TREE_STATE").unwrap_or("unknown"),
        option_env!("KUBEFED_BUILD_DATE").unwrap_or("unknown"),
        std::env::consts::OS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_name() {
        for (argument, wanted) in [
            ("kubefed", Name::Kubefed),
            ("/usr/local/bin/kubefedctl", Name::Kubefedctl),
            ("./kubectl-kubefed", Name::KubectlKubefed),
            ("/x/kubectl_complete-kubefed", Name::KubectlComplete),
            ("/kubefedctl/other", Name::Kubefed),
            ("", Name::Kubefed),
        ] {
            assert_eq!(Name::of(OsStr::new(argument)), wanted, "{argument}");
        }
    }
}

//! Kubernetes API semantics as pure functions.

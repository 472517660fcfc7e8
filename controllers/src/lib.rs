//! The controller manager: member clusters, propagation, health.

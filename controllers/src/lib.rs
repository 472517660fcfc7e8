//! The controller manager: it watches the federation and keeps the members as they are to be.
//!
//! [`manager`] elects a leader and runs the controllers: [`cluster`] probes the members, [`types`] starts a [`sync`] for
//! each FederatedTypeConfig, [`scheduling`] divides replicas. They talk HTTP to the federation and to the members, each
//! over one connection.

pub mod cache;
pub mod client;
mod cluster;
mod config;
mod control;
mod events;
pub mod health;
mod lease;
pub mod manager;
pub mod metrics;
pub mod options;
pub mod queue;
mod scheduling;
mod scope;
mod sync;
mod types;

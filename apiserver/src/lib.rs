//! The federation API server: Kubernetes' API over a store of its own.
//!
//! A request goes through [`listener`], [`filters`] ([`authn`], [`authz`]) and [`handlers`] to the [`registry`] of kinds.

mod admission;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
pub mod builtin;
mod customresources;
mod discovery;
mod endings;
mod federatedtypes;
pub mod filters;
mod garbage;
mod handlers;
mod health;
pub mod host;
pub mod kinds;
mod listener;
pub mod loopback;
mod metrics;
mod namespaces;
mod negotiate;
mod openapi;
pub mod options;
mod protobuf;
mod query;
pub mod registry;
mod render;
mod request;
pub mod server;
pub mod user;
mod virtuals;

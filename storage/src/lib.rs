//! The store behind the API server: etcd or embedded, and the watch cache.
//!
//! [`Store`] is the whole of what the server asks of a database. Its two
//! backends, [`embedded`] and [`etcd`], keep many versions of each key, number
//! every change with one growing revision, and deliver the changes in that
//! order. The functions of [`conformance`] say what both of them promise.

pub mod cacher;
pub mod conformance;
pub mod embedded;
pub mod etcd;
pub mod object;
mod store;

pub use store::{
    Batch, BoxError, Commit, Entry, Error, Event, EventKind, MAX_VALUE_SIZE, Op, Page, Range,
    Revision, Store, StoreStatus, Watch,
};

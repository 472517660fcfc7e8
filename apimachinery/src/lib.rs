//! Kubernetes API semantics as pure functions: objects are `serde_json::Value` trees, errors are [`status::Status`].
//!
//! Nothing here does I/O, knows a clock or panics on input.

pub mod apply;
pub mod decode;
pub mod definition;
pub mod duration;
pub mod field;
pub mod fields;
pub mod gvk;
pub mod jsonpath;
pub mod labels;
pub mod meta;
pub mod names;
pub mod patch;
pub mod schema;
pub mod status;
pub mod table;
pub mod time;

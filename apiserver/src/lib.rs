//! The federation API server.

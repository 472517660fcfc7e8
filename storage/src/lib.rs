//! The store behind the API server: etcd or embedded, and the watch cache.

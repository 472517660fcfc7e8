//! A small stand-in for a member cluster.

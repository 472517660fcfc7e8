//! Certificates: issuing, identity of a peer, rotation and hot reload.

//! Certificates: issuing them, knowing who a peer is by one, and TLS configurations that follow their files.

mod authorities;
mod authority;
mod identity;
mod lenient;
mod signer;
mod tls;

pub use authorities::Authorities;
pub use authority::{Authority, Error, KeyPairPem, service_account_key};
pub use identity::{Identity, not_after};
pub use lenient::Unchecked;
pub use tls::{
    ClientTls, Clients, POLL, ServerFiles, ServerTls, client_config, install_crypto_provider,
    lenient_client_config,
};

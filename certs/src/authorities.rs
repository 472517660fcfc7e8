//! Authorities whose client certificates are believed, asked for each request: they may change while a connection
//! lives.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::Error;
use crate::tls::roots;

/// The authorities of one purpose.
pub struct Authorities(Arc<dyn ClientCertVerifier>);

impl Authorities {
    /// # Errors
    /// If the PEM holds no certificate of an authority.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider)
            .build()
            .map(Authorities)
            .map_err(|error| Error::Build(error.to_string()))
    }

    /// The names that they have in the certificates that they issue, as DER.
    pub fn names(&self) -> Vec<Vec<u8>> {
        self.0.root_hint_subjects().iter().map(|name| name.as_ref().to_vec()).collect()
    }

    /// Whether a client's certificate, which `chain` begins with, comes from one of them and is good at `now`, in
    /// seconds since 1970.
    pub fn vouch_for(&self, chain: &[CertificateDer<'_>], now: i64) -> bool {
        let (Some((leaf, intermediates)), Ok(now)) = (chain.split_first(), u64::try_from(now))
        else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        self.0.verify_client_cert(leaf, intermediates, now).is_ok()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorities")
    }
}

/// Asks a client for its certificate and believes nothing of it but that the client has its key: who vouches for it is
/// asked with each request.
#[derive(Debug)]
pub(crate) struct Asked {
    algorithms: WebPkiSupportedAlgorithms,
    named: Vec<DistinguishedName>,
}

impl Asked {
    /// Clients are told of the authorities that are `named`.
    pub(crate) fn new(named: &[Vec<u8>]) -> Arc<Self> {
        let named = named.iter().cloned().map(DistinguishedName::from).collect();
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Arc::new(Asked { algorithms, named })
    }
}

impl ClientCertVerifier for Asked {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.named
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject as _;

    use super::*;
    use crate::Authority;

    #[test]
    fn only_their_own_certificates_are_vouched_for_and_only_in_their_time() {
        let (ca, other) = (Authority::new("ca").unwrap(), Authority::new("ca").unwrap());
        let client = ca.issue_client("alice", &[]).unwrap();
        let server = ca.issue_server("server", &["localhost"]).unwrap();
        let chain = |pem: &str| vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let of = |ca: &Authority| Authorities::from_pem(ca.cert_pem().unwrap().as_bytes()).unwrap();
        let chain_of_client = chain(&client.cert_pem);
        let end = crate::not_after(&chain_of_client[0]).unwrap();
        assert!(of(&ca).vouch_for(&chain_of_client, end - 60));
        assert!(!of(&ca).vouch_for(&chain_of_client, end + 60));
        assert!(!of(&ca).vouch_for(&chain_of_client, 0));
        assert!(!of(&other).vouch_for(&chain_of_client, end - 60));
        assert!(!of(&ca).vouch_for(&[], end - 60));
        assert!(
            !of(&ca).vouch_for(&chain(&server.cert_pem), end - 60),
            "no certificate of a client"
        );
    }
}

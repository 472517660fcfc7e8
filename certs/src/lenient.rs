//! A client that leaves out checks of the server's certificate, because its user asked for that.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::not_before;

/// Which checks of a server's certificate are left out. Each that is makes the connection less safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unchecked {
    /// All of them: any certificate will do.
    pub everything: bool,
    /// Whether the certificate is for the name that was asked for.
    pub name: bool,
    /// Whether the certificates are good at this time.
    pub validity: bool,
}

/// Checks what is not left out. Signatures of the handshake are checked always: whoever shows a certificate has its key.
#[derive(Debug)]
pub(crate) struct Lenient {
    unchecked: Unchecked,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Lenient {
    pub(crate) fn new(
        unchecked: Unchecked,
        roots: RootCertStore,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Arc<Self> {
        Arc::new(Lenient { unchecked, roots, algorithms })
    }

    /// A time at which every certificate of the chain had begun: the latest of their beginnings.
    fn beginning(
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<UnixTime, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let beginnings: Option<Vec<i64>> =
            chain.map(|certificate| not_before(certificate)).collect();
        let latest = beginnings.and_then(|beginnings| beginnings.into_iter().max());
        let latest = latest.ok_or(CertificateError::BadEncoding)?;
        let seconds = u64::try_from(latest).map_err(|_| CertificateError::BadEncoding)?;
        Ok(UnixTime::since_unix_epoch(Duration::from_secs(seconds.saturating_add(1))))
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.unchecked.everything {
            return Ok(ServerCertVerified::assertion());
        }
        let at =
            if self.unchecked.validity { Self::beginning(end_entity, intermediates)? } else { now };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            at,
            self.algorithms.all,
        )?;
        if !self.unchecked.name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

//! Who a peer is by its certificate.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// The user and groups that a client certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub common_name: String,
    pub organizations: Vec<String>,
}

impl Identity {
    /// The identity in a certificate whose chain was verified; `None` without a common name.
    pub fn of(certificate_der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().ok().map(str::to_owned)
        };
        let subject = certificate.subject();
        let common_name =
            subject.iter_common_name().next().and_then(text).filter(|name| !name.is_empty())?;
        let organizations = subject.iter_organization().filter_map(text).collect();
        Some(Identity { common_name, organizations })
    }
}

/// When a certificate begins to be good, in seconds since 1970.
pub(crate) fn not_before(certificate_der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    Some(certificate.validity().not_before.timestamp())
}

/// When a certificate ends, in seconds since 1970.
pub fn not_after(certificate_der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

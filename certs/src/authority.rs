//! A certificate authority for a control plane of our own.

use std::net::IpAddr;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_cert::TbsCertificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder as _, CertificateBuilder};
use x509_cert::certificate::Certificate;
use x509_cert::der::asn1::{Ia5String, OctetString};
use x509_cert::der::flagset::FlagSet;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode as _, EncodePem as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::Validity;

use crate::signer::{Signature, Signer};

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * YEAR.as_secs());

/// What an authority cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or certificate that is not one, or not one that is used here (ECDSA P-256, PKCS#8).
    #[error("{0}")]
    Malformed(String),
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Build(String),
}

impl From<builder::Error> for Error {
    fn from(error: builder::Error) -> Self {
        Error::Build(error.to_string())
    }
}

impl From<x509_cert::der::Error> for Error {
    fn from(error: x509_cert::der::Error) -> Self {
        Error::Build(error.to_string())
    }
}

/// A certificate and its key, as PEM. The key is PKCS#8.
#[derive(Clone)]
pub struct KeyPairPem {
    pub cert_pem: String,
    pub key_pem: String,
}

/// A certificate authority.
pub struct Authority {
    certificate: Certificate,
    signer: Signer,
}

impl Authority {
    /// A new authority, good for ten years.
    pub fn new(common_name: &str) -> Result<Self, Error> {
        let signer = Signer::generate().ok_or_else(|| Error::Build("no key".into()))?;
        let subject = subject(common_name, &[])?;
        let profile = Profile { issuer: None, subject, purpose: Purpose::Authority };
        let validity = Validity::from_now(AUTHORITY_LIFETIME)?;
        let certificate = issue(profile, &signer, &signer, validity)?;
        Ok(Authority { certificate, signer })
    }

    /// An authority from its PEM files.
    pub fn from_pem(pair: &KeyPairPem) -> Result<Self, Error> {
        let malformed =
            |what: &str| Error::Malformed(format!("the {what} of the authority can't be read"));
        let der = CertificateDer::from_pem_slice(pair.cert_pem.as_bytes())
            .map_err(|_| malformed("certificate"))?;
        let certificate = Certificate::from_der(&der).map_err(|_| malformed("certificate"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(pair.key_pem.as_bytes())
            .map_err(|_| malformed("key"))?;
        let signer = Signer::from_pkcs8(key.secret_pkcs8_der()).ok_or_else(|| malformed("key"))?;
        Ok(Authority { certificate, signer })
    }

    /// The authority's own certificate and key.
    pub fn to_pem(&self) -> Result<KeyPairPem, Error> {
        pair_pem(&self.certificate, &self.signer)
    }

    /// The authority's certificate: what others trust.
    pub fn cert_pem(&self) -> Result<String, Error> {
        Ok(self.certificate.to_pem(Default::default())?)
    }

    /// A serving certificate for the given names and addresses, good for a year.
    pub fn issue_server(&self, common_name: &str, names: &[&str]) -> Result<KeyPairPem, Error> {
        let mut alternatives = Vec::new();
        for name in names {
            alternatives.push(match IpAddr::from_str(name) {
                Ok(IpAddr::V4(address)) => {
                    GeneralName::IpAddress(OctetString::new(address.octets())?)
                }
                Ok(IpAddr::V6(address)) => {
                    GeneralName::IpAddress(OctetString::new(address.octets())?)
                }
                Err(_) => GeneralName::DnsName(Ia5String::new(name)?),
            });
        }
        self.issue(subject(common_name, &[])?, Purpose::Server(alternatives))
    }

    /// A client certificate: the user is the common name, each group an organization. Good for a year.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<KeyPairPem, Error> {
        self.issue(subject(user, groups)?, Purpose::Client)
    }

    /// A client certificate that is good between two times.
    pub fn issue_client_between(
        &self,
        user: &str,
        groups: &[&str],
        from: SystemTime,
        until: SystemTime,
    ) -> Result<KeyPairPem, Error> {
        let validity = Validity::new(from.try_into()?, until.try_into()?);
        self.issue_valid(subject(user, groups)?, Purpose::Client, validity)
    }

    fn issue(&self, subject: Name, purpose: Purpose) -> Result<KeyPairPem, Error> {
        self.issue_valid(subject, purpose, Validity::from_now(YEAR)?)
    }

    fn issue_valid(
        &self,
        subject: Name,
        purpose: Purpose,
        validity: Validity,
    ) -> Result<KeyPairPem, Error> {
        let key = Signer::generate().ok_or_else(|| Error::Build("no key".into()))?;
        let issuer = self.certificate.tbs_certificate().subject().clone();
        let profile = Profile { issuer: Some(issuer), subject, purpose };
        let certificate = issue(profile, &key, &self.signer, validity)?;
        pair_pem(&certificate, &key)
    }

    /// A serving certificate for one name that is good between two times.
    #[cfg(test)]
    pub(crate) fn issue_server_between(
        &self,
        name: &str,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<KeyPairPem, Error> {
        let validity = Validity::new(from.try_into()?, until.try_into()?);
        let names = vec![GeneralName::DnsName(Ia5String::new(name)?)];
        self.issue_valid(subject(name, &[])?, Purpose::Server(names), validity)
    }
}

/// A key for signing service-account tokens (ES256): private as PKCS#8, public as SubjectPublicKeyInfo, both PEM.
pub fn service_account_key() -> Result<(String, String), Error> {
    let signer = Signer::generate().ok_or_else(|| Error::Build("no key".into()))?;
    let public =
        SubjectPublicKeyInfoOwned::from_der(&signer.public_key_der())?.to_pem(Default::default())?;
    Ok((key_pem(&signer)?, public))
}

fn pair_pem(certificate: &Certificate, key: &Signer) -> Result<KeyPairPem, Error> {
    Ok(KeyPairPem { cert_pem: certificate.to_pem(Default::default())?, key_pem: key_pem(key)? })
}

fn key_pem(key: &Signer) -> Result<String, Error> {
    let der = key.to_pkcs8().ok_or_else(|| Error::Build("the key can't be exported".into()))?;
    let document = x509_cert::der::Document::try_from(der.as_slice())?;
    Ok(document.to_pem("PRIVATE KEY", Default::default())?)
}

fn issue(
    profile: Profile,
    key: &Signer,
    signer: &Signer,
    validity: Validity,
) -> Result<Certificate, Error> {
    let public = SubjectPublicKeyInfoOwned::from_der(&key.public_key_der())?;
    let mut serial = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| Error::Build("no random numbers".into()))?;
    // A positive number of one length.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let builder = CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, public)?;
    Ok(builder.build::<_, Signature>(signer)?)
}

/// `CN=name` with an `O` for each group. Rcgen and the like keep one `O` only, which would lose groups.
fn subject(common_name: &str, groups: &[&str]) -> Result<Name, Error> {
    let escape = |text: &str| {
        let mut escaped = String::new();
        for (at, c) in text.chars().enumerate() {
            if matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=')
                || (at == 0 && matches!(c, '#' | ' '))
            {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        escaped
    };
    let parts: Vec<String> = std::iter::once(format!("CN={}", escape(common_name)))
        .chain(groups.iter().map(|group| format!("O={}", escape(group))))
        .collect();
    Name::from_str(&parts.join(","))
        .map_err(|error| Error::Malformed(format!("{common_name:?} is no name: {error}")))
}

enum Purpose {
    Authority,
    Server(Vec<GeneralName>),
    Client,
}

struct Profile {
    issuer: Option<Name>,
    subject: Name,
    purpose: Purpose,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        self.issuer.clone().unwrap_or_else(|| subject.clone())
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        subject_key: SubjectPublicKeyInfoRef<'_>,
        issuer_key: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let mut extensions: Vec<Extension> = Vec::new();
        let subject = &self.subject;
        let usage: FlagSet<KeyUsages> = match self.purpose {
            Purpose::Authority => {
                KeyUsages::KeyCertSign | KeyUsages::CRLSign | KeyUsages::DigitalSignature
            }
            _ => KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment,
        };
        let ca = matches!(self.purpose, Purpose::Authority);
        let constraints = BasicConstraints { ca, path_len_constraint: None };
        extensions.push(constraints.to_extension(subject, &extensions)?);
        extensions.push(KeyUsage(usage).to_extension(subject, &extensions)?);
        let subject_id = SubjectKeyIdentifier(key_id(&subject_key)?);
        extensions.push(subject_id.to_extension(subject, &extensions)?);
        let authority_id = AuthorityKeyIdentifier {
            key_identifier: Some(key_id(&issuer_key)?),
            ..AuthorityKeyIdentifier::default()
        };
        extensions.push(authority_id.to_extension(subject, &extensions)?);
        match &self.purpose {
            Purpose::Authority => {}
            Purpose::Server(names) => {
                extensions
                    .push(ExtendedKeyUsage(vec![SERVER_AUTH]).to_extension(subject, &extensions)?);
                extensions.push(SubjectAltName(names.clone()).to_extension(subject, &extensions)?);
            }
            Purpose::Client => {
                extensions
                    .push(ExtendedKeyUsage(vec![CLIENT_AUTH]).to_extension(subject, &extensions)?);
            }
        }
        Ok(extensions)
    }
}

/// The leftmost 160 bits of the SHA-256 of the public key (RFC 7093, method 1).
fn key_id(key: &SubjectPublicKeyInfoRef<'_>) -> builder::Result<OctetString> {
    let hash = digest::digest(&digest::SHA256, key.subject_public_key.raw_bytes());
    Ok(OctetString::new(&hash.as_ref()[..20])?)
}

//! aws-lc-rs as the signer of x509-cert, so that one crypto library does everything.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use x509_cert::der::asn1::BitString;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{self, Document};
use x509_cert::spki::{
    self, AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey,
    SignatureBitStringEncoding,
};

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// An ECDSA P-256 key.
pub(crate) struct Signer {
    pair: EcdsaKeyPair,
}

/// The DER of a public key.
#[derive(Clone)]
pub(crate) struct PublicKey(Vec<u8>);

/// The DER of a signature.
pub(crate) struct Signature(Vec<u8>);

impl Signer {
    pub(crate) fn generate() -> Option<Self> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).ok().map(|pair| Signer { pair })
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .ok()
            .map(|pair| Signer { pair })
    }

    pub(crate) fn to_pkcs8(&self) -> Option<Vec<u8>> {
        self.pair.to_pkcs8v1().ok().map(|document| document.as_ref().to_vec())
    }

    pub(crate) fn public_key_der(&self) -> Vec<u8> {
        self.pair.public_key().as_der().map(|der| der.as_ref().to_vec()).unwrap_or_default()
    }
}

impl signature::Keypair for Signer {
    type VerifyingKey = PublicKey;

    fn verifying_key(&self) -> PublicKey {
        PublicKey(self.public_key_der())
    }
}

impl EncodePublicKey for PublicKey {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.0.as_slice())?)
    }
}

impl DynSignatureAlgorithmIdentifier for Signer {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None })
    }
}

impl signature::Signer<Signature> for Signer {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        let signed =
            self.pair.sign(&SystemRandom::new(), message).map_err(|_| signature::Error::new())?;
        Ok(Signature(signed.as_ref().to_vec()))
    }
}

impl SignatureBitStringEncoding for Signature {
    fn to_bitstring(&self) -> der::Result<BitString> {
        BitString::from_bytes(&self.0)
    }
}

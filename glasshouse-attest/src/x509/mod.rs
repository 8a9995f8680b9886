//! X.509 certificates (RFC 5280) as far as vendors' attestation chains use them: ECDSA P-384 with SHA-384, basic
//! constraints, key usage, validity, revocation lists, OCSP answers, and a root pinned by its SHA-256. No names beyond equality.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod chain;
mod crl;
mod error;
mod ocsp;
mod ocsp_der;
mod pem;

pub use chain::{VerifiedLinks, check_validity, verify_chain};
pub use crl::{Crl, Revocation, check_revocation};
pub use error::X509Error;
pub use ocsp::OcspAnswer;
pub(crate) use ocsp::names_responder;
#[cfg(feature = "fetch")]
pub(crate) use ocsp::request as ocsp_request;
pub use pem::certificates_from_pem;
pub(crate) use pem::der_from_pem;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::refusal::one_line;
use glasshouse_core::transcript::sha256;
use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use x509_cert::TbsCertificate;
use x509_cert::der::asn1::{BitString, ObjectIdentifier};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

/// No certificate of an attestation chain comes near this.
const MAX_DER: usize = 16 * 1024;

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");

/// One certificate: parsed, its own signature not yet looked at.
#[derive(Clone, Debug)]
pub struct Certificate {
    sha256: Digest32,
    tbs_der: Vec<u8>,
    tbs: TbsCertificate,
    signature: Signature,
    key: VerifyingKey,
    basic: Option<BasicConstraints>,
    usage: Option<KeyUsage>,
}

impl Certificate {
    /// Parses one certificate; `position` is its place in its chain, for messages.
    ///
    /// # Errors
    /// [`X509Error::Malformed`], [`X509Error::Algorithm`] or [`X509Error::Extension`].
    pub fn from_der(der: &[u8], position: usize) -> Result<Self, X509Error> {
        Self::parse(der, position, &[BASIC_CONSTRAINTS, KEY_USAGE])
    }

    /// The same of an OCSP responder, whose purpose is looked at too.
    fn responder(der: &[u8]) -> Result<Self, X509Error> {
        Self::parse(der, 0, &[BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE])
    }

    fn parse(der: &[u8], position: usize, understood: &[ObjectIdentifier]) -> Result<Self, X509Error> {
        let bad = |part| X509Error::Malformed { position, part };
        if der.len() > MAX_DER {
            return Err(bad("longer than 16 KiB"));
        }
        let (tbs_der, outer, bits) = split(der).map_err(|_| bad("Certificate"))?;
        let tbs = TbsCertificate::from_der(tbs_der).map_err(|_| bad("TBSCertificate"))?;
        if !is_ecdsa_sha384(&outer) || !is_ecdsa_sha384(tbs.signature()) {
            return Err(X509Error::Algorithm { position });
        }
        let signature = bits.as_bytes().and_then(|der| Signature::from_der(der).ok()).ok_or(bad("signatureValue"))?;
        let spki = tbs.subject_public_key_info();
        let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        if spki.algorithm.oid != ID_EC_PUBLIC_KEY || curve != Some(SECP384R1) {
            return Err(X509Error::Algorithm { position });
        }
        let point = spki.subject_public_key.as_bytes().ok_or(bad("subjectPublicKey"))?;
        let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| bad("subjectPublicKey"))?;
        let basic = tbs.get_extension().map_err(|_| bad("basicConstraints"))?.map(|(_, basic)| basic);
        let usage = tbs.get_extension().map_err(|_| bad("keyUsage"))?.map(|(_, usage)| usage);
        let parsed = Self { sha256: sha256(der), tbs_der: tbs_der.to_vec(), tbs, signature, key, basic, usage };
        parsed.check_extensions(understood)?;
        Ok(parsed)
    }

    /// SHA-256 of the whole DER.
    pub fn sha256(&self) -> Digest32 {
        self.sha256
    }

    /// Serial number, big-endian without leading zeros.
    pub fn serial(&self) -> &[u8] {
        significant(self.tbs.serial_number().as_bytes())
    }

    /// Common name of the subject, or the whole name where there is none; fit for a terminal, as errors repeat it.
    pub fn subject(&self) -> String {
        let name = self.tbs.subject();
        match name.common_name() {
            Ok(Some(common)) => one_line(&common.value()),
            _ => one_line(&name.to_string()),
        }
    }

    /// The value of an extension by its object identifier; extensions are there at most once.
    pub fn extension(&self, oid: &str) -> Option<&[u8]> {
        let oid = ObjectIdentifier::new(oid).ok()?;
        let extension = self.tbs.extensions()?.iter().find(|e| e.extn_id == oid)?;
        Some(extension.extn_value.as_bytes())
    }

    /// `notBefore` and `notAfter`, both inclusive.
    pub fn validity(&self) -> (UnixMillis, UnixMillis) {
        (millis(self.tbs.validity().not_before), millis(self.tbs.validity().not_after))
    }

    /// Whether `signature`, 96 bytes r || s, is this certificate's key's over `message`, hashed with SHA-384.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }

    fn issued_by(&self, issuer: &Self) -> bool {
        issuer.key.verify(&self.tbs_der, &self.signature).is_ok()
    }

    fn names_issuer(&self, issuer: &Self) -> bool {
        matches!((self.tbs.issuer().to_der(), issuer.tbs.subject().to_der()), (Ok(a), Ok(b)) if a == b)
    }

    fn check_extensions(&self, understood: &[ObjectIdentifier]) -> Result<(), X509Error> {
        let extensions = self.tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        for (i, extension) in extensions.iter().enumerate() {
            let unknown = extension.critical && !understood.contains(&extension.extn_id);
            let twice = extensions.iter().take(i).any(|earlier| earlier.extn_id == extension.extn_id);
            if unknown || twice {
                let oid = extension.extn_id.to_string();
                return Err(X509Error::Extension { subject: self.subject(), oid });
            }
        }
        Ok(())
    }
}

/// Where a certificate says that its issuer's revocation list is (RFC 5280 section 4.2.1.13).
pub(crate) fn distribution_points(certificate: &Certificate) -> Vec<String> {
    use x509_cert::ext::pkix::CrlDistributionPoints;
    use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
    let points = certificate.tbs.get_extension::<CrlDistributionPoints>().ok().flatten();
    let names =
        points.into_iter().flat_map(|(_, points)| points.0).filter_map(|point| match point.distribution_point {
            Some(DistributionPointName::FullName(names)) => Some(names),
            _ => None,
        });
    let uri = |name: GeneralName| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    };
    names.flatten().filter_map(uri).collect()
}

/// Whether a certificate says where it is told whether it is revoked.
fn tells_revocation(certificate: &Certificate) -> bool {
    names_responder(certificate) || !distribution_points(certificate).is_empty()
}

fn millis(time: Time) -> UnixMillis {
    UnixMillis::since_epoch(time.to_unix_duration())
}

/// An integer's bytes without leading zeros.
fn significant(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn is_ecdsa_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.oid == ECDSA_WITH_SHA384 && algorithm.parameters.is_none()
}

/// The three parts of `SEQUENCE { to be signed, signatureAlgorithm, signatureValue }`, which certificates and revocation
/// lists are, the first as the bytes that were signed.
pub(crate) fn split(der: &[u8]) -> x509_cert::der::Result<(&[u8], AlgorithmIdentifierOwned, BitString)> {
    let mut reader = SliceReader::new(der)?;
    let parts = reader.sequence(|r| {
        let tbs = r.tlv_bytes()?;
        x509_cert::der::Result::Ok((tbs, r.decode()?, r.decode()?))
    })?;
    reader.finish()?;
    Ok(parts)
}

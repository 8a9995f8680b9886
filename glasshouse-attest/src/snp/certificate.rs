use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Digest48, Digest64};
use glasshouse_core::transcript::sha384;
use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use x509_cert::TbsCertificate;
use x509_cert::der::asn1::{AnyRef, Ia5StringRef, ObjectIdentifier, OctetStringRef, UintRef};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::report::SigningKey;
use super::tcb::{Product, Tcb};
use crate::rsa_key::RsaKey;
use crate::x509::{X509Error, split};

const MAX_DER: usize = 16 * 1024;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

// AMD 57230, table of VCEK and VLEK extensions.
const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const SPL_BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const SPL_TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SPL_SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const SPL_MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const SPL_FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");

/// RSASSA-PSS-params of SHA-384, MGF1 with SHA-384 and 48 bytes of salt (RFC 4055 section 3.1), without the sequence's
/// header: AMD writes the trailer field, which DER leaves out, in some certificates and not in others.
const PSS_PARAMETERS: [u8; 52] = [
    0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa1, 0x1c,
    0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86,
    0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, 0x30,
];
const TRAILER_FIELD: [u8; 5] = [0xa3, 0x03, 0x02, 0x01, 0x01];

/// A certificate with an RSASSA-PSS signature that was not looked at yet.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    tbs_der: Vec<u8>,
    tbs: TbsCertificate,
    signature: Vec<u8>,
}

impl Certificate {
    pub(super) fn from_der(der: &[u8], position: usize) -> Result<Self, X509Error> {
        let bad = |part| X509Error::Malformed { position, part };
        if der.len() > MAX_DER {
            return Err(bad("longer than 16 KiB"));
        }
        let (tbs_der, algorithm, bits) = split(der).map_err(|_| bad("Certificate"))?;
        let tbs = TbsCertificate::from_der(tbs_der).map_err(|_| bad("TBSCertificate"))?;
        if !is_pss_sha384(&algorithm) || *tbs.signature() != algorithm {
            return Err(bad("an algorithm other than RSASSA-PSS with SHA-384"));
        }
        let signature = bits.as_bytes().ok_or(bad("signatureValue"))?.to_vec();
        let certificate = Self { tbs_der: tbs_der.to_vec(), tbs, signature };
        if certificate.has_strange_extensions() {
            return Err(bad("an extension that is critical and unknown, or there twice"));
        }
        Ok(certificate)
    }

    /// Common name of the subject.
    pub(super) fn subject(&self) -> String {
        common_name(self.tbs.subject())
    }

    /// Common name of the issuer.
    pub(super) fn issuer(&self) -> String {
        common_name(self.tbs.issuer())
    }

    pub(super) fn subject_der(&self) -> Option<Vec<u8>> {
        self.tbs.subject().to_der().ok()
    }

    /// Serial number, as DER has it.
    pub(super) fn serial(&self) -> &[u8] {
        self.tbs.serial_number().as_bytes()
    }

    pub(super) fn names_issuer(&self, issuer: &Self) -> bool {
        matches!((self.tbs.issuer().to_der(), issuer.tbs.subject().to_der()), (Ok(a), Ok(b)) if a == b)
    }

    pub(super) fn signed_by(&self, issuer: &RsaKey) -> bool {
        issuer.verify_pss_sha384(&self.tbs_der, &self.signature)
    }

    /// `notBefore` and `notAfter`, both inclusive.
    pub(super) fn validity(&self) -> [UnixMillis; 2] {
        let millis = |time: x509_cert::time::Time| UnixMillis::since_epoch(time.to_unix_duration());
        [millis(self.tbs.validity().not_before), millis(self.tbs.validity().not_after)]
    }

    /// The key of a certificate authority with 4096 bits, if this is one's certificate.
    pub(super) fn authority_key(&self) -> Option<RsaKey> {
        let (_, basic) = self.tbs.get_extension::<BasicConstraints>().ok()??;
        let (_, usage) = self.tbs.get_extension::<KeyUsage>().ok()??;
        let spki = self.tbs.subject_public_key_info();
        if !basic.ca || !usage.key_cert_sign() || spki.algorithm.oid != RSA_ENCRYPTION {
            return None;
        }
        let (modulus, exponent) = rsa_numbers(spki.subject_public_key.as_bytes()?).ok()?;
        RsaKey::new(modulus.as_bytes(), exponent.as_bytes(), 4096..=4096)
    }

    /// SHA-384 of the SubjectPublicKeyInfo.
    pub(super) fn public_key_digest(&self) -> Option<Digest48> {
        Some(sha384(self.tbs.subject_public_key_info().to_der().ok()?))
    }

    /// The P-384 key that signs reports.
    pub(super) fn report_key(&self) -> Option<ReportKey> {
        let spki = self.tbs.subject_public_key_info();
        let curve = spki.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
        if spki.algorithm.oid != ID_EC_PUBLIC_KEY || curve != SECP384R1 {
            return None;
        }
        VerifyingKey::from_sec1_bytes(spki.subject_public_key.as_bytes()?).ok().map(ReportKey)
    }

    /// Whether the certificate names a product: `Milan-B0` is a Milan.
    pub(super) fn is_of(&self, product: Product) -> bool {
        let name = self.extension(PRODUCT_NAME).and_then(|value| Ia5StringRef::from_der(value).ok());
        name.is_some_and(|name| {
            let name = name.as_str();
            name.strip_prefix(product.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    }

    /// The TCB that the key was derived for. `None` where an extension lacks or is no byte.
    pub(super) fn tcb(&self, product: Product) -> Option<Tcb> {
        let part = |oid| u8::from_der(self.extension(oid)?).ok();
        Some(Tcb {
            fmc: if product == Product::Turin { part(SPL_FMC)? } else { 0 },
            bootloader: part(SPL_BOOTLOADER)?,
            tee: part(SPL_TEE)?,
            snp: part(SPL_SNP)?,
            microcode: part(SPL_MICROCODE)?,
        })
    }

    /// The chip, as reports name it: Turin's eight bytes are followed by zeros.
    pub(super) fn chip_id(&self, product: Product) -> Option<Digest64> {
        let value = self.extension(HARDWARE_ID)?;
        let length = if product == Product::Turin { 8 } else { 64 };
        let id = match value.len() == length {
            true => value,
            false => {
                <&OctetStringRef>::from_der(value).ok().map(OctetStringRef::as_bytes).filter(|id| id.len() == length)?
            }
        };
        let mut chip = [0; 64];
        chip.get_mut(..length)?.copy_from_slice(id);
        Some(Digest64::from(chip))
    }

    fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let extension = self.tbs.extensions()?.iter().find(|e| e.extn_id == oid)?;
        Some(extension.extn_value.as_bytes())
    }

    fn has_strange_extensions(&self) -> bool {
        let extensions = self.tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        extensions.iter().enumerate().any(|(i, extension)| {
            extension.critical && ![BASIC_CONSTRAINTS, KEY_USAGE].contains(&extension.extn_id)
                || extensions.iter().take(i).any(|earlier| earlier.extn_id == extension.extn_id)
        })
    }
}

/// What kind of key an issuer certifies, and for which product: `SEV-Milan` or `SEV-VLEK-Milan`.
pub(super) fn role_of(issuer: &str) -> Option<(Product, SigningKey)> {
    let name = issuer.strip_prefix("SEV-")?;
    let (name, kind) = match name.strip_prefix("VLEK-") {
        Some(name) => (name, SigningKey::Vlek),
        None => (name, SigningKey::Vcek),
    };
    let product = [Product::Milan, Product::Genoa, Product::Turin].into_iter().find(|p| p.as_str() == name)?;
    Some((product, kind))
}

/// A VCEK or VLEK.
pub(super) struct ReportKey(VerifyingKey);

impl ReportKey {
    /// `signature` is r || s, big-endian.
    pub(super) fn signed(&self, message: &[u8], signature: &[u8; 96]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

/// Modulus and exponent of RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> x509_cert::der::Result<(UintRef<'_>, UintRef<'_>)> {
    let mut reader = SliceReader::new(der)?;
    let numbers = reader.sequence(|r| x509_cert::der::Result::Ok((r.decode()?, r.decode()?)))?;
    reader.finish()?;
    Ok(numbers)
}

pub(super) fn is_pss_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    let Some(parameters) = algorithm.parameters.as_ref().map(AnyRef::from) else { return false };
    let trailer = parameters.value().strip_prefix(&PSS_PARAMETERS);
    algorithm.oid == RSASSA_PSS && trailer.is_some_and(|t| t.is_empty() || t == TRAILER_FIELD)
}

fn common_name(name: &x509_cert::name::Name) -> String {
    match name.common_name() {
        Ok(Some(common)) => common.value().into_owned(),
        _ => name.to_string(),
    }
}

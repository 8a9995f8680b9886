use dcap_qvl::quote::{AuthData, AuthDataV3, Quote};
use glasshouse_core::refusal::Refusal;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::codes::{self, refuse};
use super::collateral::Collateral;
use crate::x509::{der_from_pem, split};

/// Quotes are some 5 KiB; a guest device's buffer is 8 or 16.
const MAX_QUOTE: usize = 64 * 1024;
/// What the reports and their certification data are made of (Intel 329081, tables of the quote's layout).
const ENCLAVE_REPORT: usize = 384;
const SIGNATURE: usize = 64;
const KEY: usize = 64;
/// Certification data of a chain in PEM; of encrypted PPIDs, whose chain is collateral; of a nested QE report.
const PCK_CHAIN: u16 = 5;
const ENCRYPTED_PPID: [u16; 2] = [2, 3];
const QE_REPORT: u16 = 6;

/// The kind of TEE that a quote must be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tee {
    Tdx,
    Sgx,
}

/// A quote in its one spelling, and the chain of its platform's certificate.
pub(super) struct StrictQuote {
    pub(super) quote: Quote,
    pub(super) auth: AuthDataV3,
    /// Leaf, intermediate, and where it is given the root, DER.
    pub(super) pck_chain: Vec<Vec<u8>>,
}

impl StrictQuote {
    /// Parses, and leaves no byte unread: lengths agree inside and out, types are the expected ones, and nothing but
    /// zeros, to which guest devices pad, follows.
    pub(super) fn parse(bytes: &[u8], collateral: &Collateral) -> Result<Self, Refusal> {
        // As with every other kind of evidence: bytes of another form are bytes that nobody signed so.
        let malformed = |seen: &str| refuse(codes::SIGNATURE, "a DCAP quote of version 3, 4 or 5, whole", seen);
        if bytes.len() > MAX_QUOTE {
            return Err(refuse(codes::QUOTE_MALFORMED, "a DCAP quote", "more than 64 KiB"));
        }
        let quote = Quote::parse(bytes).map_err(|_| malformed("another structure, or a cut one"))?;
        let length = exact_length(&quote).ok_or_else(|| malformed("parts of other lengths or types"))?;
        let (whole, padding) = bytes.split_at_checked(length).ok_or_else(|| malformed("a cut structure"))?;
        let declared = whole.get(quote.signed_length()..).and_then(|rest| rest.first_chunk()).copied();
        let end = quote.signed_length().checked_add(4).zip(declared.map(u32::from_le_bytes));
        let end = end.and_then(|(at, data)| at.checked_add(usize::try_from(data).ok()?));
        if end != Some(length) {
            return Err(malformed("bytes inside that belong to no part"));
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err(malformed("bytes behind the signed structure"));
        }
        let auth = quote.auth_data.clone().into_v3();
        let pck_chain = pck_chain(&auth, collateral)?;
        Ok(Self { quote, auth, pck_chain })
    }

    /// The attestation key's signature over header and report, the quoting enclave's report over that key, and the
    /// platform's signature over that report.
    pub(super) fn check_signatures(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let unsigned = |what: &str| refuse(codes::SIGNATURE, "a quote that its platform signed", what);
        let signed = bytes.get(..self.quote.signed_length()).unwrap_or_default();
        let point = [&[4][..], &self.auth.ecdsa_attestation_key].concat();
        let key = VerifyingKey::from_sec1_bytes(&point).map_err(|_| unsigned("an attestation key that is no point"))?;
        if !verifies(&key, signed, &self.auth.ecdsa_signature) {
            return Err(unsigned("a report whose signature does not verify"));
        }
        let digest = Sha256::new().chain_update(self.auth.ecdsa_attestation_key);
        let digest = digest.chain_update(&self.auth.qe_auth_data.data).finalize();
        // REPORTDATA is the last 64 bytes of an enclave's report.
        let bound = self.auth.qe_report.last_chunk::<64>().and_then(|data| data.split_at_checked(32));
        if !bound.is_some_and(|(data, zeros)| *data == digest[..] && zeros.iter().all(|byte| *byte == 0)) {
            return Err(unsigned("an attestation key that the quoting enclave did not report"));
        }
        let leaf = self.pck_chain.first().and_then(|der| p256_key(der));
        let leaf = leaf.ok_or_else(|| unsigned("a platform certificate without P-256 key"))?;
        if verifies(&leaf, &self.auth.qe_report, &self.auth.qe_report_signature) {
            return Ok(());
        }
        Err(unsigned("a quoting enclave's report whose signature does not verify"))
    }

    /// Whether it is of this kind of TEE.
    pub(super) fn check_tee(&self, tee: Tee) -> Result<(), Refusal> {
        let seen = if self.quote.header.is_sgx() { Tee::Sgx } else { Tee::Tdx };
        if seen == tee {
            return Ok(());
        }
        Err(refuse(codes::TEE_TYPE, format_args!("{tee:?}"), format_args!("{seen:?}")))
    }
}

/// The length of everything that is part of the quote. `None` where a part has another type than the one it is read as.
fn exact_length(quote: &Quote) -> Option<usize> {
    let sum = |parts: &[usize]| parts.iter().try_fold(0usize, |sum, part| sum.checked_add(*part));
    let nested =
        |auth_data: usize, certificates: usize| sum(&[ENCLAVE_REPORT, SIGNATURE, 2, auth_data, 2, 4, certificates]);
    let auth = match &quote.auth_data {
        AuthData::V3(auth) => {
            let rest = nested(auth.qe_auth_data.data.len(), auth.certification_data.body.data.len())?;
            sum(&[SIGNATURE, KEY, rest])?
        }
        AuthData::V4(auth) => {
            let qe = &auth.qe_report_data;
            let inside = nested(qe.qe_auth_data.data.len(), qe.certification_data.body.data.len())?;
            let same =
                auth.certification_data.cert_type == QE_REPORT && auth.certification_data.body.data.len() == inside;
            same.then_some(sum(&[SIGNATURE, KEY, 2, 4, inside])?)?
        }
    };
    sum(&[quote.signed_length(), 4, auth])
}

/// The platform's chain: the collateral's where it has one, as [`dcap_qvl`] prefers it, or else the quote's.
fn pck_chain(auth: &AuthDataV3, collateral: &Collateral) -> Result<Vec<Vec<u8>>, Refusal> {
    let malformed = |seen: &str| refuse(codes::CHAIN, "the chain of the platform's certificate in PEM", seen);
    let data = &auth.certification_data;
    let pem = match (data.cert_type, collateral.pck_chain()) {
        (PCK_CHAIN, None) => data.body.data.strip_suffix(&[0]).unwrap_or(&data.body.data),
        (kind, Some(pem)) if kind == PCK_CHAIN || ENCRYPTED_PPID.contains(&kind) => pem,
        _ => return Err(malformed("none")),
    };
    let chain = der_from_pem(pem).map_err(|e| malformed(&e.to_string()))?;
    match chain.len() {
        2 | 3 => Ok(chain),
        _ => Err(malformed("another number of certificates than leaf, intermediate and root")),
    }
}

/// Whether each certificate is signed by the next one.
pub(super) fn check_links(chain: &[Vec<u8>]) -> Result<(), Refusal> {
    for (child, issuer) in chain.iter().zip(chain.iter().skip(1)) {
        let holds = || {
            let (signed, _, signature) = split(child).ok()?;
            let signature = Signature::from_der(signature.as_bytes()?).ok()?;
            p256_key(issuer)?.verify(signed, &signature).ok()
        };
        if holds().is_none() {
            let expected = "a platform certificate under Intel's root";
            return Err(refuse(codes::CHAIN, expected, "a certificate that the next one did not sign"));
        }
    }
    Ok(())
}

fn verifies(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
}

fn p256_key(der: &[u8]) -> Option<VerifyingKey> {
    let certificate = Certificate::from_der(der).ok()?;
    let spki = certificate.tbs_certificate().subject_public_key_info();
    VerifyingKey::from_sec1_bytes(spki.subject_public_key.as_bytes()?).ok()
}

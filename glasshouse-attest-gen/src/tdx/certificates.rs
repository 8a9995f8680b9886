//! The certificates and revocation lists around a quote: ECDSA P-256 with SHA-256 throughout.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use glasshouse_core::transcript::sha256;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};

use super::FMSPC;
use crate::der::{extension, name, oid, tlv};

/// A certificate's serial number here.
pub type Serial = u8;

/// Who signs what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The root.
    Root,
    /// Signs platforms' certificates.
    PlatformCa,
    /// Signs TCB information and the identity of the quoting enclave.
    TcbSigner,
}

impl Authority {
    fn label(self) -> &'static str {
        match self {
            Self::Root => "Generated SGX Root CA",
            Self::PlatformCa => "Generated SGX PCK Platform CA",
            Self::TcbSigner => "Generated SGX TCB Signing",
        }
    }

    /// Its serial number.
    pub fn serial(self) -> Serial {
        match self {
            Self::Root => 1,
            Self::PlatformCa => 2,
            Self::TcbSigner => 3,
        }
    }

    /// Its certificate, DER.
    pub fn certificate(self) -> Vec<u8> {
        let is_authority = self != Self::TcbSigner;
        let usage = if is_authority { [3, 2, 1, 6] } else { [3, 2, 6, 0xc0] };
        let constraints = if is_authority { tlv(0x30, &[&[1, 1, 0xff]]) } else { tlv(0x30, &[]) };
        let extensions =
            [extension(&[2, 5, 29, 15], true, &usage), extension(&[2, 5, 29, 19], true, &constraints)].concat();
        certificate(self.label(), Self::Root.label(), self.serial(), self.label(), &extensions, "20491231235959Z")
    }

    /// Signs as r || s.
    pub fn sign(self, message: &[u8]) -> [u8; 64] {
        signature(self.label(), message).to_bytes().into()
    }

    /// A revocation list of its own with these serial numbers.
    pub fn crl(self, revoked: &[Serial]) -> Vec<u8> {
        let time = |text: &str| tlv(0x18, &[text.as_bytes()]);
        let entry = |serial: &Serial| tlv(0x30, &[&[2, 1, *serial], &time("20260101000000Z")]);
        let entries: Vec<u8> = revoked.iter().flat_map(entry).collect();
        let entries = if entries.is_empty() { entries } else { tlv(0x30, &[&entries]) };
        let number = extension(&[2, 5, 29, 20], false, &[2, 1, 1]);
        let tbs = tlv(
            0x30,
            &[
                &[2, 1, 1],
                &algorithm(),
                &name(self.label()),
                &time("20260101000000Z"),
                &time("20361231235959Z"),
                &entries,
                &tlv(0xa0, &[&tlv(0x30, &[&number])]),
            ],
        );
        signed(&tbs, self.label())
    }
}

/// A platform's certificate (PCK) to be.
#[derive(Clone, Debug)]
pub struct PckDraft {
    /// Its serial number.
    pub serial: Serial,
    /// The platform.
    pub fmspc: [u8; 6],
    /// Security versions of the processor.
    pub cpu_svn: [u8; 16],
    /// Security version of the provisioning enclave.
    pub pce_svn: u8,
    /// `notAfter`, GeneralizedTime.
    pub until: &'static str,
}

impl Default for PckDraft {
    fn default() -> Self {
        Self { serial: 9, fmspc: FMSPC, cpu_svn: [5; 16], pce_svn: 11, until: "20391231235959Z" }
    }
}

const PCK: &str = "Generated SGX PCK Certificate";

impl PckDraft {
    /// The certificate, DER.
    pub fn certificate(&self) -> Vec<u8> {
        let sgx = |last: &[u32]| oid(&[&[1, 2, 840, 113_741, 1, 13, 1], last].concat());
        let octets = |last: &[u32], value: &[u8]| tlv(0x30, &[&sgx(last), &tlv(4, &[value])]);
        let mut tcb = Vec::new();
        for (i, svn) in (1u32..).zip(self.cpu_svn) {
            tcb.extend(tlv(0x30, &[&sgx(&[2, i]), &[2, 1, svn]]));
        }
        tcb.extend(tlv(0x30, &[&sgx(&[2, 17]), &[2, 1, self.pce_svn]]));
        tcb.extend(octets(&[2, 18], &self.cpu_svn));
        let platform = tlv(
            0x30,
            &[
                &octets(&[1], &[7; 16]),
                &tlv(0x30, &[&sgx(&[2]), &tlv(0x30, &[&tcb])]),
                &octets(&[3], &[0, 0]),
                &octets(&[4], &self.fmspc),
                &tlv(0x30, &[&sgx(&[5]), &[10, 1, 0]]),
            ],
        );
        let extensions = [
            extension(&[2, 5, 29, 15], true, &[3, 2, 6, 0xc0]),
            extension(&[2, 5, 29, 19], true, &tlv(0x30, &[])),
            extension(&[1, 2, 840, 113_741, 1, 13, 1], false, &platform),
        ]
        .concat();
        certificate(PCK, Authority::PlatformCa.label(), self.serial, PCK, &extensions, self.until)
    }

    /// The chain up to the root, PEM, leaf first.
    pub fn chain(&self) -> String {
        pem(&[self.certificate(), Authority::PlatformCa.certificate(), Authority::Root.certificate()])
    }

    /// Signs a quoting enclave's report as r || s.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        signature(PCK, message).to_bytes().into()
    }
}

/// CERTIFICATE blocks.
pub(super) fn pem(chain: &[Vec<u8>]) -> String {
    let block = |der: &Vec<u8>| {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    chain.iter().map(block).collect()
}

/// A key by its label.
pub(super) fn key(label: &str) -> SigningKey {
    SigningKey::from_slice(sha256(label).as_bytes()).unwrap()
}

pub(super) fn signature(label: &str, message: &[u8]) -> Signature {
    key(label).sign(message)
}

fn certificate(
    subject: &str,
    issuer: &str,
    serial: Serial,
    key_label: &str,
    extensions: &[u8],
    until: &str,
) -> Vec<u8> {
    let validity = tlv(0x30, &[&tlv(0x18, &[b"20240101000000Z"]), &tlv(0x18, &[until.as_bytes()])]);
    // RFC 5280: UTCTime through 2049; readers here take both.
    let point = VerifyingKey::from(&key(key_label)).to_sec1_bytes();
    let curve = tlv(0x30, &[&oid(&[1, 2, 840, 10045, 2, 1]), &oid(&[1, 2, 840, 10045, 3, 1, 7])]);
    let spki = tlv(0x30, &[&curve, &tlv(3, &[&[0], &point])]);
    let extensions = tlv(0xa3, &[&tlv(0x30, &[extensions])]);
    let tbs = tlv(
        0x30,
        &[
            &[0xa0, 3, 2, 1, 2],
            &[2, 1, serial],
            &algorithm(),
            &name(issuer),
            &validity,
            &name(subject),
            &spki,
            &extensions,
        ],
    );
    signed(&tbs, issuer)
}

fn signed(tbs: &[u8], signer: &str) -> Vec<u8> {
    let signature = signature(signer, tbs).to_der();
    tlv(0x30, &[tbs, &algorithm(), &tlv(3, &[&[0], signature.as_bytes()])])
}

/// ecdsa-with-SHA256.
fn algorithm() -> Vec<u8> {
    tlv(0x30, &[&oid(&[1, 2, 840, 10045, 4, 3, 2])])
}

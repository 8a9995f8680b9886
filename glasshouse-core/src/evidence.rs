//! Attestation evidence as it crosses the wire, kind by kind, unparsed.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde::{Deserialize, Serialize};

use crate::fixed::{Blob, Digest32, Digest48, Digest64, PublicKey32};
use crate::transcript::{Transcript, sha256};

/// The CPU side's evidence: one quote or token over `report_data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CpuEvidence {
    /// An EAT-style JWT (RFC 9711) of the runtime's own, signed with a key that it made for it.
    Software {
        /// Compact JWS, `alg` EdDSA.
        jwt: String,
        /// The Ed25519 key that signed it.
        public_key: PublicKey32,
    },
    /// An Intel TDX quote.
    Tdx {
        /// The quote's bytes.
        quote: Blob,
    },
    /// An AMD SEV-SNP report and the certificates that the platform gave with it.
    SevSnp {
        /// The report's bytes.
        report: Blob,
        /// Certificate table, when the platform gave one.
        certificates: Option<Blob>,
    },
    /// A Google Confidential Space token.
    ConfidentialSpace {
        /// Compact JWS, `alg` RS256.
        jwt: String,
    },
}

/// What a device is, in G's order of hashing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// An NVIDIA GPU's SPDM report.
    NvidiaGpu,
    /// An NVIDIA NVSwitch's SPDM report.
    NvidiaSwitch,
    /// A detached EAT bundle of NVIDIA's remote attestation service.
    NrasToken,
}

impl DeviceKind {
    /// The name as it is hashed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NvidiaGpu => "nvidia-gpu",
            Self::NvidiaSwitch => "nvidia-switch",
            Self::NrasToken => "nras-token",
        }
    }
}

/// One GPU's, switch's or token's evidence over the GPU nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceEvidence {
    /// What it is.
    pub kind: DeviceKind,
    /// Serial number of the leaf certificate, big-endian without leading zeros; devices are sorted by it.
    pub serial: Blob,
    /// The report, or the token.
    pub report: Blob,
    /// The certificate chain, PEM, leaf first; empty for a token.
    pub chain: Blob,
}

/// All device evidence of one runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GpuEvidence(pub Vec<DeviceEvidence>);

impl GpuEvidence {
    /// `G`: SHA-384 over LP of the count, then (kind, report, chain) of every device, sorted by leaf serial. Defined
    /// for an empty list. Two devices with one serial keep the order of their reports, and a verifier refuses them.
    pub fn digest(&self) -> Digest48 {
        let mut devices: Vec<_> = self.0.iter().collect();
        devices.sort_by(|a, b| (&a.serial.0, &a.report.0).cmp(&(&b.serial.0, &b.report.0)));
        let count = u64::try_from(devices.len()).unwrap_or(u64::MAX);
        let start = Transcript::new("gh/g/1").lp(count.to_be_bytes());
        devices.into_iter().fold(start, |t, d| t.lp(d.kind.as_str()).lp(&d.report.0).lp(&d.chain.0)).sha384()
    }
}

/// `gpu_nonce = SHA-256("gh/gpu/1" || T)`.
pub fn gpu_nonce(t: &Digest48) -> Digest32 {
    Transcript::new("gh/gpu/1").fixed(t).sha256()
}

/// `report_data = SHA-512("gh/rd/1" || T || G)`, all 64 bytes of a CPU quote's report data.
pub fn report_data(t: &Digest48, g: &Digest48) -> Digest64 {
    Transcript::new("gh/rd/1").fixed(t).fixed(g).sha512()
}

/// `eat_nonce` for tokens: hex SHA-256(`"gh/eat/1"` || report_data), 64 characters, inside every issuer's limits.
pub fn eat_nonce(report_data: &Digest64) -> String {
    sha256([b"gh/eat/1".as_slice(), report_data.as_ref()].concat()).to_string()
}

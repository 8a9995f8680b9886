//! The four messages up to the release, in the order they are sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::wire::{Message, Signed};
use crate::claims::{Assurance, Claims};
use crate::clock::UnixMillis;
use crate::evidence::{CpuEvidence, GpuEvidence};
use crate::fixed::{Blob, Digest48, Nonce32, PublicKey32};
use crate::traits::Appraisal;
use crate::transcript::Transcript;

/// Owner to runtime: prove what you are, over this nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// [`VERSION`](super::VERSION).
    pub version: String,
    /// The session.
    pub session: Nonce32,
    /// Used once.
    pub nonce: Nonce32,
    /// The owner's wall clock.
    pub issued_at: UnixMillis,
    /// How long the gate waits, by its own monotonic clock.
    pub expires_in_millis: u64,
    /// The policy that the answer will be appraised by.
    pub policy_digest: Digest48,
    /// The gate that signs this and the verdict.
    pub gate_key: PublicKey32,
    /// Results are sealed to this key.
    pub result_key: PublicKey32,
    /// [`SUITES`](super::SUITES).
    pub suites: String,
    /// Nothing is released below this.
    pub minimum_assurance: Assurance,
}

impl Message for Challenge {
    const LABEL: &'static str = "gh/challenge/1";
    const NAME: &'static str = "challenge";
    const LIMIT: usize = 4096;
}

/// Runtime to owner: what I am, and evidence of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceMessage {
    /// The session.
    pub session: Nonce32,
    /// The challenge's nonce.
    pub nonce: Nonce32,
    /// SHA-384 of the signed challenge that this answers.
    pub challenge: Digest48,
    /// The policy digest of that challenge.
    pub policy_digest: Digest48,
    /// The release shall be sealed to this key.
    pub hpke_key: PublicKey32,
    /// Events will be signed with this key, and so is this message.
    pub event_key: PublicKey32,
    /// The package that the runtime was given.
    pub package_digest: Digest48,
    /// Its manifest.
    pub manifest_digest: Digest48,
    /// What the attestor measured.
    pub claims: Claims,
    /// The runtime's wall clock. Checked for skew and staleness only.
    pub timestamp: UnixMillis,
    /// T as the runtime computes it.
    pub t: Digest48,
    /// The launch secret's MAC over T.
    pub mac: Digest48,
    /// The launch secret's MAC over the two keys.
    pub keys_mac: Digest48,
    /// The CPU's quote or token.
    pub cpu: CpuEvidence,
    /// GPUs, switches and their tokens.
    pub gpus: GpuEvidence,
}

impl Message for EvidenceMessage {
    const LABEL: &'static str = "gh/evidence/1";
    const NAME: &'static str = "evidence message";
    // Eight GPUs and four switches with chains come to about 300 KiB in base64.
    const LIMIT: usize = 1 << 20;
}

/// What a runtime may do with what it was given, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Which key this lease is for: the package digest whose data key it carries.
    pub key_id: Digest48,
    /// 0 for the release, then one more for each renewal.
    pub epoch: u32,
    /// The owner's wall clock when it began.
    pub issued_at: UnixMillis,
    /// How long, on the runtime's boot clock.
    pub ttl_millis: u64,
    /// And not after this, on its wall clock.
    pub not_after: UnixMillis,
    /// How many units of training at most; absent for no limit.
    pub max_units: Option<u64>,
}

impl Lease {
    /// A lease for one package.
    pub fn new(key_id: Digest48, issued_at: UnixMillis, ttl: Duration, max_units: Option<u64>) -> Self {
        let ttl_millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self { key_id, epoch: 0, issued_at, ttl_millis, not_after: issued_at.after(ttl), max_units }
    }

    /// The AAD of the release.
    pub fn aad(&self) -> Vec<u8> {
        Transcript::new("gh/lease/1")
            .fixed(self.key_id)
            .u64(u64::from(self.epoch))
            .u64(self.issued_at.0)
            .u64(self.ttl_millis)
            .u64(self.not_after.0)
            .optional(self.max_units.map(u64::to_be_bytes))
            .into_bytes()
    }
}

/// Owner to runtime, signed: what was appraised and what is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The session.
    pub session: Nonce32,
    /// T as the gate computed it.
    pub t: Digest48,
    /// SHA-384 of the signed evidence.
    pub evidence: Digest48,
    /// What the appraisal came to.
    pub appraisal: Appraisal,
    /// The owner's wall clock.
    pub at: UnixMillis,
    /// What the runtime may do.
    pub lease: Lease,
    /// HPKE's encapsulated key.
    pub enc: PublicKey32,
    /// SHA-384 of the ciphertext beside this verdict.
    pub ciphertext_digest: Digest48,
}

impl Message for Verdict {
    const LABEL: &'static str = "gh/verdict/1";
    const NAME: &'static str = "verdict";
    const LIMIT: usize = 1 << 16;
}

/// Owner to runtime: the verdict and the sealed key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Signed by the gate.
    pub verdict: Signed<Verdict>,
    /// The data key and the job, sealed to the runtime.
    pub ciphertext: Blob,
}

impl Release {
    /// Largest encoding accepted.
    pub const LIMIT: usize = 1 << 18;
}

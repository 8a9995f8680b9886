//! T: the one hash that everything is bound to.

use crate::claims::{Assurance, Claims};
use crate::clock::UnixMillis;
use crate::fixed::{Digest48, PublicKey32};
use crate::transcript::Transcript;

/// What T is computed from. The gate fills all of it from its own values except the two keys and the timestamp.
#[derive(Clone, Copy, Debug)]
pub struct TranscriptFields<'a> {
    /// SHA-384 of the signed challenge.
    pub challenge: &'a Digest48,
    /// The algorithms.
    pub suites: &'a str,
    /// The runtime's HPKE key.
    pub hpke_key: &'a PublicKey32,
    /// The runtime's event key.
    pub event_key: &'a PublicKey32,
    /// The package.
    pub package_digest: &'a Digest48,
    /// Its manifest.
    pub manifest_digest: &'a Digest48,
    /// Evidence kind, image, container, measurement, anti-debug and state.
    pub claims: &'a Claims,
    /// The runtime's wall clock.
    pub timestamp: UnixMillis,
    /// Nothing is released below this.
    pub minimum_assurance: Assurance,
}

/// `T`: SHA-384 over `"gh/attest/1"` and LP of each field in the order of [`TranscriptFields`]; the image digest
/// carries a presence byte. `tests/vectors/transcript.json` has worked examples.
pub fn transcript_hash(fields: &TranscriptFields<'_>) -> Digest48 {
    let claims = fields.claims;
    Transcript::new("gh/attest/1")
        .lp(fields.challenge)
        .lp(fields.suites)
        .lp(claims.kind.as_str())
        .lp(fields.hpke_key)
        .lp(fields.event_key)
        .lp(fields.package_digest)
        .lp(fields.manifest_digest)
        .optional(claims.image_digest)
        .lp(&claims.container.value)
        .lp(&claims.container.source)
        .lp(claims.runtime_measurement)
        .lp(&claims.anti_debug.profile)
        .lp(claims.anti_debug.level.as_str())
        .lp(claims.state.as_str())
        .lp(fields.timestamp.0.to_be_bytes())
        .lp(fields.minimum_assurance.as_str())
        .sha384()
}

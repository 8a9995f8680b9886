//! A session with a release, as the gate's store has it.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use super::channel_keys::open_channel_keys;
use super::config::GateError;
use super::store::{CommittedRelease, GateStore};
use crate::channel::{OwnerChannel, genesis};
use crate::claims::ReferenceValues;
use crate::fixed::{Blob, Nonce32, PublicKey32};
use crate::protocol::{Challenge, EvidenceMessage, Release, ResultKey, Signed, Verdict, decode};
use crate::refusal::Refusal;

/// What of a session goes into the record.
pub struct SessionRecordParts<'a> {
    /// The signed challenge.
    pub challenge: &'a Blob,
    /// The signed evidence.
    pub evidence: &'a Blob,
    /// The release as sent; its verdict is signed, its ciphertext stays out of any record.
    pub release: &'a Blob,
    /// The channel with every event.
    pub channel: &'a OwnerChannel,
}

/// A session that had its release. A restarted owner tells from it what came home; nothing can be released with it.
pub struct StoredSession {
    pub(super) committed: CommittedRelease,
    pub(super) verdict: Verdict,
    pub(super) channel: OwnerChannel,
}

impl StoredSession {
    /// Reads a session out of the store and follows every record that was kept again; `None` when it has no release.
    ///
    /// # Errors
    /// [`GateError::Store`]; a refusal when what the store has does not fit the keys.
    pub fn open(
        store: &dyn GateStore,
        session: &Nonce32,
        gate_key: &PublicKey32,
        result_key: &ResultKey,
    ) -> Result<Option<Self>, GateError> {
        let Some(committed) = store.committed(session)? else { return Ok(None) };
        let release: Release = decode("release", &committed.release.0, Release::LIMIT)?;
        let verdict = release.verdict.verify(gate_key)?;
        let message = Signed::<EvidenceMessage>::from_bytes(&committed.evidence.0)?.peek()?;
        let keys = open_channel_keys(result_key, session, &committed.channel)?;
        let start = genesis(&verdict.t, &release.verdict);
        let mut channel = OwnerChannel::new(*session, message.event_key, keys, 0, start);
        for record in store.kept(session)? {
            channel.accept(&record)?;
        }
        Ok(Some(Self { committed, verdict, channel }))
    }

    /// Its verdict.
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What goes into the record.
    pub const fn record_parts(&self) -> SessionRecordParts<'_> {
        let CommittedRelease { challenge, evidence, release, .. } = &self.committed;
        SessionRecordParts { challenge, evidence, release, channel: &self.channel }
    }

    /// What the owner expected to see. The store does not hold these values, but the gate commits a release only after
    /// it found every claim equal to them.
    ///
    /// # Errors
    /// A refusal when the bytes in the store cannot be read.
    pub fn reference(&self) -> Result<ReferenceValues, Refusal> {
        let challenge = Signed::<Challenge>::from_bytes(&self.committed.challenge.0)?.peek()?;
        let claims = Signed::<EvidenceMessage>::from_bytes(&self.committed.evidence.0)?.peek()?.claims;
        Ok(ReferenceValues {
            kind: claims.kind,
            image_digest: claims.image_digest,
            container: claims.container,
            runtime_measurement: claims.runtime_measurement,
            anti_debug_profile: claims.anti_debug.profile,
            anti_debug_level: claims.anti_debug.level,
            policy_digest: challenge.policy_digest,
            minimum_assurance: challenge.minimum_assurance,
        })
    }
}

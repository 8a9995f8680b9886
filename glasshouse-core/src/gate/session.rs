//! One session of the gate, sans-I/O: messages and the clock in, messages out.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::appraise::appraise;
use super::channel_keys::seal_channel_keys;
use super::config::{GateError, OwnerConfig};
use super::store::{BurnOutcome, CommittedRelease, GateStore};
use super::stored::{SessionRecordParts, StoredSession};
use crate::channel::{Command, EventBody, EventHeader, OwnerChannel, SealedRecord, genesis};
use crate::clock::Now;
use crate::fixed::{Blob, Digest48, Nonce32};
use crate::protocol::{
    Challenge, EvidenceMessage, LaunchKeys, Lease, Release, ReleaseContext, SUITES, SealedArtifact, Signed, VERSION,
    Verdict, encode, open_artifact, seal_release,
};
use crate::refusal::{Code, Refusal};
use crate::traits::{Appraisal, Verifier};
use crate::transcript::sha384;

struct Pending {
    challenge: Signed<Challenge>,
    nonce: Nonce32,
    issued: Now,
}

/// The gate's side of one session.
pub struct OwnerSession {
    config: OwnerConfig,
    store: Arc<dyn GateStore>,
    verifier: Arc<dyn Verifier>,
    pending: Option<Pending>,
    released: Option<StoredSession>,
}

impl OwnerSession {
    /// A new session; or, when the store has a release for it, the session as the last gate left it.
    ///
    /// # Errors
    /// [`GateError::Store`]; a refusal when what the store has does not fit the keys.
    pub fn new(config: OwnerConfig, store: Arc<dyn GateStore>, verifier: Arc<dyn Verifier>) -> Result<Self, GateError> {
        let mut session = Self { config, store, verifier, pending: None, released: None };
        let config = &session.config;
        let gate_key = config.gate_key.public();
        session.released = StoredSession::open(&*session.store, &config.session, &gate_key, &config.result_key)?;
        Ok(session)
    }

    /// A signed challenge.
    ///
    /// # Errors
    /// `already-released`, `retries-exhausted`, `policy-digest-mismatch`, or [`GateError::Store`].
    pub fn challenge(&mut self, now: Now) -> Result<Vec<u8>, GateError> {
        let config = &self.config;
        if self.released.is_some() {
            return Err(already_released(&config.session));
        }
        let policy_digest = self.verifier.policy_digest();
        if policy_digest != config.reference.policy_digest {
            let (expected, seen) = (config.reference.policy_digest.short(), policy_digest.short());
            return Err(Refusal::new(Code::POLICY_DIGEST_MISMATCH, expected, seen).into());
        }
        let nonce = Nonce32::random().map_err(|_| GateError::NoRandomness)?;
        let issued = self.store.issue(&config.session, &nonce)?;
        if issued > config.max_challenges {
            let expected = format!("at most {} challenges", config.max_challenges);
            return Err(Refusal::new(Code::RETRIES_EXHAUSTED, expected, format!("number {issued}")).into());
        }
        let challenge = Challenge {
            version: VERSION.to_owned(),
            session: config.session,
            nonce,
            issued_at: now.wall,
            expires_in_millis: u64::try_from(config.challenge_ttl.as_millis()).unwrap_or(u64::MAX),
            policy_digest,
            gate_key: config.gate_key.public(),
            result_key: config.result_key.public(),
            suites: SUITES.to_owned(),
            minimum_assurance: config.reference.minimum_assurance,
        };
        let challenge = Signed::sign(&challenge, &config.gate_key);
        let bytes = challenge.to_bytes();
        self.pending = Some(Pending { challenge, nonce, issued: now });
        Ok(bytes)
    }

    /// Appraises evidence. On success the release is durable, and these are its bytes.
    ///
    /// # Errors
    /// A refusal with the code of the first check that failed; the nonce is burned all the same. [`GateError::Store`]
    /// when the gate's memory failed. Nothing has left the gate then.
    pub fn evidence(&mut self, bytes: &[u8], now: Now) -> Result<Vec<u8>, GateError> {
        if self.released.is_some() {
            return Err(already_released(&self.config.session));
        }
        let signed = Signed::<EvidenceMessage>::from_bytes(bytes)?;
        let message = signed.peek()?;
        if message.session != self.config.session {
            let (expected, seen) = (self.config.session.short(), message.session.short());
            return Err(Refusal::new(Code::SESSION_MISMATCH, expected, seen).into());
        }
        let pending = self.burn(&message, now)?;
        signed.verify(&message.event_key)?;
        let challenge = pending.challenge.digest();
        let (t, appraisal) = appraise(&self.config, &*self.verifier, &message, &challenge, now.wall)?;
        self.release(bytes, &signed.digest(), &message, &pending, t, appraisal, now)
    }

    /// The release again, byte for byte, once there is one.
    pub fn release_bytes(&self) -> Option<&[u8]> {
        self.released.as_ref().map(|released| released.committed.release.0.as_slice())
    }

    /// The verdict, once there is one.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.released.as_ref().map(|released| &released.verdict)
    }

    /// Takes records in order. Each is durable before it counts, and may be acknowledged when this returns. After an error
    /// those before the record that failed were taken, as [`next_record`](Self::next_record) tells; that one was not.
    ///
    /// # Errors
    /// `out-of-order` before the release; `record-…`, `chain-…`; [`GateError::Store`].
    pub fn records(&mut self, records: &[SealedRecord]) -> Result<Vec<(EventHeader, EventBody)>, GateError> {
        let session = self.config.session;
        let store = Arc::clone(&self.store);
        let channel = self.channel()?;
        records.iter().map(|record| channel.accept_kept(record, || Ok(store.keep(&session, record)?))).collect()
    }

    /// Seals a command.
    ///
    /// # Errors
    /// `out-of-order` before the release.
    pub fn command(&mut self, command: &Command) -> Result<SealedRecord, GateError> {
        Ok(self.channel()?.command(command)?)
    }

    /// The sequence number of the next record expected.
    pub fn next_record(&self) -> u64 {
        self.released.as_ref().map_or(0, |released| released.channel.next())
    }

    /// Opens an artifact of this session.
    ///
    /// # Errors
    /// `artifact-unopenable`.
    pub fn open_artifact(&self, name: &str, sealed: &SealedArtifact) -> Result<Zeroizing<Vec<u8>>, GateError> {
        Ok(open_artifact(&self.config.result_key, &self.config.session, name, sealed)?)
    }

    /// What goes into the record, once there is a release.
    pub fn record_parts(&self) -> Option<SessionRecordParts<'_>> {
        self.released.as_ref().map(StoredSession::record_parts)
    }

    /// The session's id.
    pub const fn id(&self) -> Nonce32 {
        self.config.session
    }

    fn channel(&mut self) -> Result<&mut OwnerChannel, GateError> {
        let refusal = || Refusal::new(Code::OUT_OF_ORDER, "a released session", "one without a release").into();
        self.released.as_mut().map(|released| &mut released.channel).ok_or_else(refusal)
    }

    /// Burns the nonce first of all: whatever else is wrong with a message, its nonce is spent.
    fn burn(&mut self, message: &EvidenceMessage, now: Now) -> Result<Pending, GateError> {
        match self.store.burn(&self.config.session, &message.nonce)? {
            BurnOutcome::Fresh => {}
            BurnOutcome::Replayed => {
                return Err(Refusal::new(Code::NONCE_REPLAYED, "a fresh nonce", message.nonce.short()).into());
            }
            BurnOutcome::Unknown => {
                let expected = "a nonce that this gate issued";
                return Err(Refusal::new(Code::NONCE_UNKNOWN, expected, message.nonce.short()).into());
            }
        }
        // A nonce of an earlier challenge of this session, or one from before a restart, has no pending challenge.
        let pending = self.pending.take_if(|pending| pending.nonce == message.nonce).ok_or_else(|| {
            Refusal::new(Code::CHALLENGE_EXPIRED, "an answer to the latest challenge", "one to an earlier challenge")
        })?;
        check_clocks(pending.issued, now, self.config.challenge_ttl)?;
        Ok(pending)
    }

    #[allow(clippy::too_many_arguments)] // the one caller has just computed each of them
    fn release(
        &mut self,
        evidence: &[u8],
        evidence_digest: &Digest48,
        message: &EvidenceMessage,
        pending: &Pending,
        t: Digest48,
        appraisal: Appraisal,
        now: Now,
    ) -> Result<Vec<u8>, GateError> {
        let config = &self.config;
        let lease = Lease::new(config.package.package_digest, now.wall, config.lease.ttl, config.lease.max_units);
        let job = encode(&config.job);
        let mut plaintext = Zeroizing::new(Vec::with_capacity(job.len().saturating_add(32)));
        plaintext.extend_from_slice(config.package.data_key.expose());
        plaintext.extend_from_slice(&job);
        let context = ReleaseContext {
            launch: &LaunchKeys::new(&config.launch_secret, config.session),
            session: &config.session,
            t: &t,
            evidence: evidence_digest,
            lease: &lease,
        };
        let sealed = seal_release(&context, &message.hpke_key, &plaintext);
        let (enc, ciphertext, keys) = sealed.ok_or_else(|| {
            Refusal::new(Code::KEYS_SWAPPED, "an X25519 key of the runtime's", message.hpke_key.short())
        })?;
        let verdict = Verdict {
            session: config.session,
            t,
            evidence: *evidence_digest,
            appraisal,
            at: now.wall,
            lease,
            enc,
            ciphertext_digest: sha384(&ciphertext.0),
        };
        let signed = Signed::sign(&verdict, &config.gate_key);
        let channel_keys = seal_channel_keys(config, &keys)?;
        let channel = OwnerChannel::new(config.session, message.event_key, keys, 0, genesis(&t, &signed));
        let release = encode(&Release { verdict: signed, ciphertext });
        let committed = CommittedRelease {
            session: config.session,
            challenge: Blob(pending.challenge.to_bytes()),
            evidence: Blob(evidence.to_vec()),
            release: Blob(release.clone()),
            channel: channel_keys,
        };
        // Durable before it is returned: after a crash the gate can only repeat these bytes.
        self.store.commit(&committed)?;
        self.released = Some(StoredSession { committed, verdict, channel });
        Ok(release)
    }
}

/// Whether an answer comes in time, and at a time that a record of this session can name: what no record takes is not
/// released under either.
fn check_clocks(issued: Now, now: Now, ttl: Duration) -> Result<(), Refusal> {
    let age = now.boot.saturating_sub(issued.boot);
    if age > ttl {
        let expected = format!("an answer within {} s", ttl.as_secs());
        return Err(Refusal::new(Code::CHALLENGE_EXPIRED, expected, format!("{} s", age.as_secs())));
    }
    if now.wall.is_set_back_from(issued.wall) {
        return Err(Refusal::new(Code::CLOCK_SET_BACK, format!("an answer after {}", issued.wall), now.wall));
    }
    Ok(())
}

fn already_released(session: &Nonce32) -> GateError {
    Refusal::new(Code::ALREADY_RELEASED, "a session without a release", session.short()).into()
}

//! The malicious runtime: it has the launch secret and keys of its own, and what it says agrees with itself throughout.

use ed25519_dalek::SigningKey;
use glasshouse_core::claims::{Assurance, Claims};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence, report_data};
use glasshouse_core::fixed::{Blob, Digest48, Nonce32};
use glasshouse_core::protocol::{
    Challenge, EvidenceMessage, LaunchKeys, Message as _, RuntimeKey, SUITES, Signed, SigningSecret, TranscriptFields,
    encode, transcript_hash,
};
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::Attestor as _;
use glasshouse_core::transcript::Transcript;
use serde::Serialize;

use super::world::{World, at, no_randomness};
use super::{Attempt, SuiteError};
use crate::jws;
use crate::software::Token;

/// What it will say. Begins as the truth; a scenario changes a part.
pub(super) struct Story {
    pub(super) session: Nonce32,
    pub(super) nonce: Nonce32,
    pub(super) challenge: Digest48,
    pub(super) policy_digest: Digest48,
    pub(super) minimum_assurance: Assurance,
    pub(super) suites: &'static str,
    pub(super) package_digest: Digest48,
    pub(super) manifest_digest: Digest48,
    pub(super) claims: Claims,
    /// What the token says; the claims, unless told otherwise.
    pub(super) token_claims: Option<Claims>,
    pub(super) timestamp: UnixMillis,
    /// `iat` of the token; the truth, unless told otherwise.
    pub(super) token_time: UnixMillis,
    pub(super) gpus: GpuEvidence,
}

/// The malicious runtime.
pub(super) struct Liar<'a> {
    launch_secret: &'a Secret<32>,
    pub(super) event_key: SigningSecret,
    pub(super) token_key: SigningKey,
    runtime_key: RuntimeKey,
    world: &'a World,
}

impl<'a> Liar<'a> {
    /// One that has taken over the allocation, launch secret and all.
    pub(super) fn new(world: &'a World) -> Result<Self, SuiteError> {
        Self::with_launch_secret(world, &world.launch_secret)
    }

    /// One that was launched with this secret.
    pub(super) fn with_launch_secret(world: &'a World, launch_secret: &'a Secret<32>) -> Result<Self, SuiteError> {
        let token_seed = Secret::<32>::random().map_err(no_randomness)?;
        Ok(Self {
            launch_secret,
            event_key: SigningSecret::random().map_err(no_randomness)?,
            token_key: SigningKey::from_bytes(token_seed.expose()),
            runtime_key: RuntimeKey::random().map_err(no_randomness)?,
            world,
        })
    }

    /// Lies about one thing to a fresh gate, and says what came of it.
    pub(super) fn tells(world: &'a World, lie: impl FnOnce(&mut Story)) -> Result<Attempt, SuiteError> {
        Self::sends(world, lie, |_, _| Ok(()))
    }

    /// The same, and changes the finished message before signing it.
    pub(super) fn sends(
        world: &'a World,
        lie: impl FnOnce(&mut Story),
        change: impl FnOnce(&mut EvidenceMessage, &Self) -> Result<(), SuiteError>,
    ) -> Result<Attempt, SuiteError> {
        let liar = Self::new(world)?;
        let mut owner = world.owner()?;
        let mut story = liar.truth(&owner.challenge(at(0))?)?;
        lie(&mut story);
        let mut message = liar.message(&story)?;
        change(&mut message, &liar)?;
        let result = owner.evidence(&liar.sign(&message), at(0));
        world.judge(&owner, result, 0)
    }

    /// The truth, in answer to a challenge.
    pub(super) fn truth(&self, challenge: &[u8]) -> Result<Story, SuiteError> {
        let signed = Signed::<Challenge>::from_bytes(challenge)?;
        let challenge = signed.peek()?;
        Ok(Story {
            session: challenge.session,
            nonce: challenge.nonce,
            challenge: signed.digest(),
            policy_digest: challenge.policy_digest,
            minimum_assurance: challenge.minimum_assurance,
            suites: SUITES,
            package_digest: self.world.digests.package,
            manifest_digest: self.world.digests.manifest,
            claims: self.world.attestor.measure()?,
            token_claims: None,
            timestamp: at(0).wall,
            token_time: at(0).wall,
            gpus: GpuEvidence::default(),
        })
    }

    /// The message that tells a story, T, MACs and token all made for it.
    pub(super) fn message(&self, story: &Story) -> Result<EvidenceMessage, SuiteError> {
        let (hpke_key, event_key) = (self.runtime_key.public(), self.event_key.public());
        let t = transcript_hash(&TranscriptFields {
            challenge: &story.challenge,
            suites: story.suites,
            hpke_key: &hpke_key,
            event_key: &event_key,
            package_digest: &story.package_digest,
            manifest_digest: &story.manifest_digest,
            claims: &story.claims,
            timestamp: story.timestamp,
            minimum_assurance: story.minimum_assurance,
        });
        let launch = LaunchKeys::new(self.launch_secret, story.session);
        let report_data = report_data(&t, &story.gpus.digest());
        let token = Token::new(story.token_claims.as_ref().unwrap_or(&story.claims), &report_data, story.token_time);
        Ok(EvidenceMessage {
            session: story.session,
            nonce: story.nonce,
            challenge: story.challenge,
            policy_digest: story.policy_digest,
            hpke_key,
            event_key,
            package_digest: story.package_digest,
            manifest_digest: story.manifest_digest,
            claims: story.claims.clone(),
            timestamp: story.timestamp,
            t,
            mac: launch.mac_transcript(&t),
            keys_mac: launch.mac_keys(&story.nonce, &hpke_key, &event_key),
            cpu: self.signed_token(&encode(&token)),
            gpus: story.gpus.clone(),
        })
    }

    /// Any payload as a token under its own key.
    pub(super) fn signed_token(&self, payload: &[u8]) -> CpuEvidence {
        let public_key = self.token_key.verifying_key().to_bytes().into();
        CpuEvidence::Software { jwt: jws::sign(payload, &self.token_key), public_key }
    }

    /// Signs a message as the protocol does.
    pub(super) fn sign(&self, message: &EvidenceMessage) -> Vec<u8> {
        Signed::sign(message, &self.event_key).to_bytes()
    }

    /// Signs bytes that no honest encoder would write.
    pub(super) fn sign_bytes(&self, payload: &[u8]) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope {
            payload: Blob,
            signature: glasshouse_core::fixed::Signature64,
        }
        let signed = Transcript::new("gh/sig/1").lp(EvidenceMessage::LABEL).lp(payload).into_bytes();
        encode(&Envelope { payload: Blob(payload.to_vec()), signature: self.event_key.sign(&signed) })
    }
}

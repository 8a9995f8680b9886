#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::mem;

use crate::channel::{RuntimeChannel, genesis};
use crate::claims::{Assurance, Claims};
use crate::clock::Now;
use crate::evidence::{GpuEvidence, gpu_nonce, report_data};
use crate::fixed::{Digest48, Nonce32, PublicKey32};
use crate::job::JobSpec;
use crate::protocol::{
    Challenge, EvidenceMessage, LaunchKeys, Release, ReleaseContext, RuntimeKey, SUITES, Signed, SigningSecret,
    TranscriptFields, VERSION, decode, open_release, transcript_hash,
};
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;
use crate::segment::LeaseGuard;
use crate::traits::{AttestError, Attestor};
use crate::transcript::sha384;

/// What a runtime knows before the first message.
pub struct SegmentConfig {
    /// The session that it was started for.
    pub session: Nonce32,
    /// The only gate that it obeys.
    pub gate_key: PublicKey32,
    /// What the allocation was launched with.
    pub launch_secret: Secret<32>,
    /// The package that it was given, hashed by itself.
    pub package_digest: Digest48,
    /// That package's manifest.
    pub manifest_digest: Digest48,
}

/// Why the runtime did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// Refused, with a code.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No evidence could be made.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    NoRandomness,
}

/// What a release grants.
pub struct Grant {
    /// The package's data key.
    pub data_key: Secret<32>,
    /// What to do.
    pub job: JobSpec,
    /// For how long.
    pub lease: LeaseGuard,
    /// Results are sealed to this key.
    pub result_key: PublicKey32,
    /// Events and commands.
    pub channel: RuntimeChannel,
}

struct Attested {
    challenge: Challenge,
    runtime_key: RuntimeKey,
    event_key: SigningSecret,
    t: Digest48,
    evidence: Digest48,
    at: Now,
}

enum State {
    Waiting,
    Attested(Box<Attested>),
    Granted,
}

/// The runtime's side of one session.
pub struct SegmentSession {
    config: SegmentConfig,
    state: State,
    without_gpus: Option<AttestError>,
}

impl SegmentSession {
    /// A session that waits for its challenge.
    pub const fn new(config: SegmentConfig) -> Self {
        Self { config, state: State::Waiting, without_gpus: None }
    }

    /// Why the latest evidence is without this machine's GPUs, where it is: they cannot attest, and the owner does not ask
    /// for it. For the log: the owner sees no GPU in the evidence, and nothing of the reason.
    pub const fn without_gpus(&self) -> Option<&AttestError> {
        self.without_gpus.as_ref()
    }

    /// Answers a challenge with evidence, under fresh keys. A later challenge before the release replaces the answer.
    ///
    /// GPUs that cannot attest ([`AttestError::NotAvailable`]) are left out where the challenge asks for less than confidential
    /// GPUs; [`without_gpus`](Self::without_gpus) says so.
    ///
    /// # Errors
    /// `gate-key-foreign`, `signature-invalid`, `session-mismatch`, `out-of-order`, `message-…`; or the attestor's.
    pub fn challenge(&mut self, bytes: &[u8], attestor: &dyn Attestor, now: Now) -> Result<Vec<u8>, SegmentError> {
        if matches!(self.state, State::Granted) {
            return Err(Refusal::new(Code::OUT_OF_ORDER, "a session without a release", "one with a release").into());
        }
        let signed = Signed::<Challenge>::from_bytes(bytes)?;
        let challenge = self.check_challenge(&signed)?;
        let runtime_key = RuntimeKey::random().map_err(|_| SegmentError::NoRandomness)?;
        let event_key = SigningSecret::random().map_err(|_| SegmentError::NoRandomness)?;
        let claims = attestor.measure()?;
        let (message, without_gpus) =
            self.evidence_message(&signed.digest(), &challenge, claims, &runtime_key, &event_key, attestor, now)?;
        self.without_gpus = without_gpus;
        let signed = Signed::sign(&message, &event_key);
        let (t, evidence) = (message.t, signed.digest());
        self.state = State::Attested(Box::new(Attested { challenge, runtime_key, event_key, t, evidence, at: now }));
        Ok(signed.to_bytes())
    }

    /// Opens the release.
    ///
    /// # Errors
    /// `out-of-order`, `verdict-forged`, `release-foreign`, `release-unopenable`, `message-…`; `lease-expired` and
    /// `clock-set-back` when the release was held back. Nothing of it was opened then.
    pub fn release(&mut self, bytes: &[u8], now: Now) -> Result<Grant, SegmentError> {
        let State::Attested(attested) = &self.state else {
            return Err(Refusal::new(Code::OUT_OF_ORDER, "a session that has sent evidence", "one that has not").into());
        };
        let release: Release = decode("release", bytes, Release::LIMIT)?;
        let verdict = release.verdict.verify(&self.config.gate_key).map_err(|refusal| {
            if refusal.code == Code::SIGNATURE_INVALID {
                return Refusal::new(Code::VERDICT_FORGED, "a verdict signed by the gate", "another signature");
            }
            refusal
        })?;
        let foreign = |what, expected: String, seen: String| {
            Refusal::new(Code::RELEASE_FOREIGN, format!("{what} {expected}"), seen)
        };
        if verdict.session != self.config.session {
            return Err(foreign("session", self.config.session.short(), verdict.session.short()).into());
        }
        if verdict.t != attested.t {
            return Err(foreign("T", attested.t.short(), verdict.t.short()).into());
        }
        if verdict.evidence != attested.evidence {
            return Err(foreign("evidence", attested.evidence.short(), verdict.evidence.short()).into());
        }
        if verdict.lease.key_id != self.config.package_digest {
            return Err(foreign("key", self.config.package_digest.short(), verdict.lease.key_id.short()).into());
        }
        if verdict.ciphertext_digest != sha384(&release.ciphertext.0) {
            return Err(Refusal::new(Code::RELEASE_UNOPENABLE, "the ciphertext of this verdict", "another one").into());
        }
        let mut lease = LeaseGuard::new(verdict.lease.clone(), attested.at);
        lease.check(0, now)?;
        let context = ReleaseContext {
            launch: &LaunchKeys::new(&self.config.launch_secret, self.config.session),
            session: &self.config.session,
            t: &attested.t,
            evidence: &attested.evidence,
            lease: &verdict.lease,
        };
        let (mut plaintext, keys) = open_release(&context, &attested.runtime_key, &verdict.enc, &release.ciphertext.0)?;
        let malformed = || Refusal::new(Code::MESSAGE_MALFORMED, "a data key and a job", "a shorter release");
        let (data_key, job) = plaintext.split_first_chunk_mut::<32>().ok_or_else(malformed)?;
        let job: JobSpec = decode("job", job, JobSpec::LIMIT)?;
        let data_key = Secret::take(data_key);
        let State::Attested(attested) = mem::replace(&mut self.state, State::Granted) else {
            return Err(malformed().into());
        };
        let start = genesis(&attested.t, &release.verdict);
        let epoch = verdict.lease.epoch;
        Ok(Grant {
            data_key,
            job,
            lease,
            result_key: attested.challenge.result_key,
            channel: RuntimeChannel::new(self.config.session, attested.event_key, keys, epoch, start),
        })
    }

    fn check_challenge(&self, signed: &Signed<Challenge>) -> Result<Challenge, Refusal> {
        let named = signed.peek()?;
        if named.gate_key != self.config.gate_key {
            let (expected, seen) = (self.config.gate_key.short(), named.gate_key.short());
            return Err(Refusal::new(Code::GATE_KEY_FOREIGN, expected, seen));
        }
        let challenge = signed.verify(&self.config.gate_key)?;
        if challenge.session != self.config.session {
            let (expected, seen) = (self.config.session.short(), challenge.session.short());
            return Err(Refusal::new(Code::SESSION_MISMATCH, expected, seen));
        }
        if challenge.version != VERSION || challenge.suites != SUITES {
            let seen = format!("{} with {}", challenge.version, challenge.suites);
            return Err(Refusal::new(Code::MESSAGE_MALFORMED, format!("{VERSION} with {SUITES}"), seen));
        }
        Ok(challenge)
    }

    #[allow(clippy::too_many_arguments)] // the one caller has just made each of them
    fn evidence_message(
        &self,
        challenge_digest: &Digest48,
        challenge: &Challenge,
        claims: Claims,
        runtime_key: &RuntimeKey,
        event_key: &SigningSecret,
        attestor: &dyn Attestor,
        now: Now,
    ) -> Result<(EvidenceMessage, Option<AttestError>), SegmentError> {
        let config = &self.config;
        let (hpke_key, event_key) = (runtime_key.public(), event_key.public());
        let t = transcript_hash(&TranscriptFields {
            challenge: challenge_digest,
            suites: SUITES,
            hpke_key: &hpke_key,
            event_key: &event_key,
            package_digest: &config.package_digest,
            manifest_digest: &config.manifest_digest,
            claims: &claims,
            timestamp: now.wall,
            minimum_assurance: challenge.minimum_assurance,
        });
        let launch = LaunchKeys::new(&config.launch_secret, config.session);
        // GPUs first: the CPU's quote covers their reports.
        let (gpus, without_gpus) = match attestor.gpu_evidence(&gpu_nonce(&t)) {
            Err(silent @ AttestError::NotAvailable { .. }) if challenge.minimum_assurance < Assurance::CpuTeeGpuCc => {
                (GpuEvidence::default(), Some(silent))
            }
            answer => (answer?, None),
        };
        let cpu = attestor.quote(&report_data(&t, &gpus.digest()))?;
        let message = EvidenceMessage {
            session: config.session,
            nonce: challenge.nonce,
            challenge: *challenge_digest,
            policy_digest: challenge.policy_digest,
            hpke_key,
            event_key,
            package_digest: config.package_digest,
            manifest_digest: config.manifest_digest,
            claims,
            timestamp: now.wall,
            t,
            mac: launch.mac_transcript(&t),
            keys_mac: launch.mac_keys(&challenge.nonce, &hpke_key, &event_key),
            cpu,
            gpus,
        };
        Ok((message, without_gpus))
    }
}

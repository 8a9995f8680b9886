//! What a session of the gate is given, and how it fails.

use std::sync::Arc;
use std::time::Duration;

use super::store::StoreError;
use crate::claims::ReferenceValues;
use crate::fixed::{Digest48, Nonce32};
use crate::job::JobSpec;
use crate::protocol::{ResultKey, SigningSecret};
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;

/// A package and the only copy of its key that a session has.
pub struct PackageKey {
    /// Digest of the package.
    pub package_digest: Digest48,
    /// Digest of its manifest.
    pub manifest_digest: Digest48,
    /// The data key.
    pub data_key: Secret<32>,
}

/// How long a lease lasts.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTerms {
    /// Time to live.
    pub ttl: Duration,
    /// Units of training at most.
    pub max_units: Option<u64>,
}

/// What one session of the gate knows before it begins.
pub struct OwnerConfig {
    /// Random, one per session.
    pub session: Nonce32,
    /// The gate's signing key.
    pub gate_key: Arc<SigningSecret>,
    /// Results are sealed to it.
    pub result_key: Arc<ResultKey>,
    /// What the allocation was launched with.
    pub launch_secret: Arc<Secret<32>>,
    /// What is released.
    pub package: PackageKey,
    /// What the runtime will do with it.
    pub job: JobSpec,
    /// What the owner expects to see.
    pub reference: ReferenceValues,
    /// For how long.
    pub lease: LeaseTerms,
    /// How long a challenge waits, on the gate's monotonic clock.
    pub challenge_ttl: Duration,
    /// How far the runtime's clock may be off.
    pub max_skew: Duration,
    /// Challenges per session.
    pub max_challenges: u32,
}

/// Why the gate did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// Refused, with a code.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The gate's memory failed; nothing was released.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness; nothing was released")]
    NoRandomness,
}

impl GateError {
    /// The refusal's code, when it is one.
    pub const fn code(&self) -> Option<&Code> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }
}

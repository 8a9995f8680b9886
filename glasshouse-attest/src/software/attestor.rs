//! The attestor of machines without a TEE: it measures itself, for real, and can therefore be believed only as far as
//! the machine it runs on.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use glasshouse_core::claims::{Claims, EvidenceKind};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest64, PublicKey32};
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{AttestError, Attestor};

use super::container::{ContainerSource, container_id};
use super::executable::running_executable;
use super::harden::read_back;
use super::state::RuntimeStateCell;
use super::token::Token;
use crate::jws;

/// Tells the time for `iat`.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// Measures this process and signs the result with an Ed25519 key made for this attestor and kept nowhere.
pub struct SoftwareAttestor {
    key: SigningKey,
    state: RuntimeStateCell,
    image_digest: Option<Digest32>,
    container: ContainerSource,
    clock: Clock,
}

impl SoftwareAttestor {
    /// An attestor that reports `state`, reads the container id from the kernel and the time from the system.
    ///
    /// # Errors
    /// [`AttestError::NotAvailable`] when the operating system gives no randomness for the key.
    pub fn new(state: RuntimeStateCell) -> Result<Self, AttestError> {
        let seed = Secret::random().map_err(|error| AttestError::NotAvailable {
            what: "operating-system randomness",
            why: error.to_string(),
        })?;
        Ok(Self {
            key: SigningKey::from_bytes(seed.expose()),
            state,
            image_digest: None,
            container: ContainerSource::Kernel,
            clock: Arc::new(system_clock),
        })
    }

    /// Names the image that the launch gave. A program cannot read it off its own container.
    #[must_use]
    pub fn image_digest(mut self, digest: Option<Digest32>) -> Self {
        self.image_digest = digest;
        self
    }

    /// Reads the container id where the owner was told to expect it.
    #[must_use]
    pub fn container_source(mut self, source: ContainerSource) -> Self {
        self.container = source;
        self
    }

    /// Takes the time from elsewhere.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The key that signs this attestor's tokens.
    pub fn public_key(&self) -> PublicKey32 {
        self.key.verifying_key().to_bytes().into()
    }
}

impl Attestor for SoftwareAttestor {
    fn measure(&self) -> Result<Claims, AttestError> {
        Ok(Claims {
            kind: EvidenceKind::Software,
            image_digest: self.image_digest,
            container: container_id(self.container)?,
            runtime_measurement: running_executable()?,
            anti_debug: read_back()?,
            state: self.state.current(),
        })
    }

    fn gpu_evidence(&self, _nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        // Reports of a GPU bind nothing without a CPU quote that a host cannot forge: this attestor takes none.
        Ok(GpuEvidence::default())
    }

    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        let token = Token::new(&self.measure()?, report_data, (self.clock)());
        let payload = serde_json::to_vec(&token)
            .map_err(|error| AttestError::Failed { what: "the software attestor", why: error.to_string() })?;
        Ok(CpuEvidence::Software { jwt: jws::sign(&payload, &self.key), public_key: self.public_key() })
    }
}

/// Wall clock of this machine; 0 before 1970.
pub fn system_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::since_epoch(since)
}

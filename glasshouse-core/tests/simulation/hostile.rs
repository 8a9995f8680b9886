//! Those who must get nothing: impostors of the runtime, and a gate that the runtime was not launched for.

use std::sync::Arc;

use glasshouse_core::claims::{AntiDebugLevel, Claims, RuntimeState};
use glasshouse_core::clock::Now;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest64};
use glasshouse_core::gate::{MemoryGateStore, OwnerSession};
use glasshouse_core::protocol::{EvidenceMessage, RuntimeKey, Signed, SigningSecret};
use glasshouse_core::secret::Secret;
use glasshouse_core::segment::SegmentSession;
use glasshouse_core::traits::{AttestError, Attestor};

use crate::allocation::segment_with;
use crate::common::{TestAttestor, World};
use crate::entropy::Rng;
use crate::net::Frame;
use crate::plan::Impostor;
use crate::world::{Setting, Truth};

pub(crate) struct Hostile {
    kind: Impostor,
    session: SegmentSession,
    attestor: Faker,
}

/// The test's attestor with claims of its own, and a quote that no hardware made where there is none.
struct Faker {
    inner: TestAttestor,
    quotes: bool,
}

impl Attestor for Faker {
    fn measure(&self) -> Result<Claims, AttestError> {
        self.inner.measure()
    }
    fn gpu_evidence(&self, nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        self.inner.gpu_evidence(nonce)
    }
    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        let forged = Digest64::from([0; 64]);
        self.inner.quote(if self.quotes { report_data } else { &forged })
    }
}

impl Hostile {
    pub(crate) fn new(setting: &Setting, kind: Impostor) -> Self {
        let mut claims = setting.world.attestor.claims.clone();
        match kind {
            Impostor::OtherProgram => claims.runtime_measurement = Digest32::from([4; 32]),
            Impostor::Debuggable => claims.anti_debug.level = AntiDebugLevel::Off,
            Impostor::NotReady => claims.state = RuntimeState::Training,
            _ => {}
        }
        // The provider of an allocation can read the launch secret; someone on the network cannot.
        let secret = match kind {
            Impostor::OtherSecret => Secret::random().unwrap(),
            _ => Secret::take(&mut setting.world.launch_secret.expose().clone()),
        };
        let package = if kind == Impostor::OtherPackage { 7 } else { 1 };
        let attestor = Faker { inner: TestAttestor { claims }, quotes: kind != Impostor::NoQuote };
        Self { kind, session: segment_with(setting, secret, package), attestor }
    }

    /// Hears everything that goes to the allocation, and answers as it can.
    pub(crate) fn hear(&mut self, frame: &Frame, now: Now, truth: &mut Truth) -> Option<Frame> {
        match frame {
            Frame::Challenge(bytes) if self.kind != Impostor::SwapsKeys => {
                self.session.challenge(bytes, &self.attestor, now).ok().map(Frame::Evidence)
            }
            Frame::Release(bytes) => {
                truth.impostor_opened |= self.session.release(bytes, now).is_ok();
                None
            }
            _ => None,
        }
    }

    /// What becomes of evidence on its way to the owner.
    pub(crate) fn intercept(&self, rng: &mut Rng, frame: Frame) -> Frame {
        let Frame::Evidence(bytes) = &frame else { return frame };
        if self.kind != Impostor::SwapsKeys || rng.chance(400) {
            return frame;
        }
        let Ok(mut message) = Signed::<EvidenceMessage>::from_bytes(bytes).and_then(|signed| signed.peek()) else {
            return frame;
        };
        let signer = SigningSecret::random().unwrap();
        message.hpke_key = RuntimeKey::random().unwrap().public();
        message.event_key = signer.public();
        Frame::Evidence(Signed::sign(&message, &signer).to_bytes())
    }
}

/// A gate with a key of its own that claims this session.
pub(crate) fn foreign_gate(setting: &Setting) -> OwnerSession {
    let mut world = setting.world.again(Arc::new(MemoryGateStore::default()));
    world.gate_key = World::new().gate_key;
    world.owner()
}

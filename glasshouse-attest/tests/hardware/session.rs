//! One session's binding, made by hand: T stands for itself.

use std::time::Duration;

use glasshouse_attest::hardware::{HardwareCollateral, HardwarePolicy, HardwareVerifier};
use glasshouse_attest_gen::{AUDIT_TIME, Platform, bundle};
use glasshouse_core::claims::{
    ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, Claims, ContainerId, EvidenceKind, ReferenceValues, RuntimeState,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence, gpu_nonce, report_data};
use glasshouse_core::fixed::{Digest32, Digest48, Digest64};
use glasshouse_core::refusal::Refusal;
use glasshouse_core::traits::{Appraisal, Binding, Verifier as _};
use glasshouse_core::transcript::sha384;

pub(crate) struct Session {
    pub(crate) platform: Platform,
    pub(crate) policy: HardwarePolicy,
    pub(crate) collateral: HardwareCollateral,
    pub(crate) t: Digest48,
}

/// Evidence and what it is bound to.
pub(crate) struct Made {
    pub(crate) cpu: CpuEvidence,
    pub(crate) gpus: GpuEvidence,
}

impl Made {
    pub(crate) fn copy(&self) -> Self {
        Self { cpu: self.cpu.clone(), gpus: self.gpus.clone() }
    }
}

impl Session {
    pub(crate) fn new(platform: Platform) -> Self {
        let policy = platform.policy();
        Self { platform, policy, collateral: Platform::collateral(), t: sha384("a session") }
    }

    pub(crate) fn copy(&self) -> Self {
        let Self { platform, policy, collateral, t } = self;
        Self { platform: platform.clone(), policy: policy.clone(), collateral: collateral.clone(), t: *t }
    }

    pub(crate) fn verifier(&self) -> HardwareVerifier {
        HardwareVerifier::new(self.policy.clone(), Platform::roots(), self.collateral.clone()).unwrap()
    }

    pub(crate) fn nonce(&self) -> Digest32 {
        gpu_nonce(&self.t)
    }

    pub(crate) fn report_data(&self, gpus: &GpuEvidence) -> Digest64 {
        report_data(&self.t, &gpus.digest())
    }

    pub(crate) fn make(&self) -> Made {
        let gpus = self.platform.gpu_evidence(&self.nonce());
        Made { cpu: self.platform.quote(&self.report_data(&gpus)), gpus }
    }

    /// Evidence whose quote binds the devices as they were changed.
    pub(crate) fn make_with(&self, change: impl FnOnce(&mut GpuEvidence)) -> Made {
        let mut gpus = self.platform.gpu_evidence(&self.nonce());
        change(&mut gpus);
        Made { cpu: self.platform.quote(&self.report_data(&gpus)), gpus }
    }

    pub(crate) fn appraise(&self, made: &Made) -> Result<Appraisal, Refusal> {
        self.appraise_by(&self.verifier(), made)
    }

    pub(crate) fn appraise_by(&self, verifier: &HardwareVerifier, made: &Made) -> Result<Appraisal, Refusal> {
        self.appraise_at(verifier, made, AUDIT_TIME)
    }

    pub(crate) fn appraise_at(
        &self,
        verifier: &HardwareVerifier,
        made: &Made,
        at: UnixMillis,
    ) -> Result<Appraisal, Refusal> {
        let (claims, reference) = (self.claims(), self.reference_of(verifier));
        let (nonce, data) = (self.nonce(), self.report_data(&made.gpus));
        let binding = Binding { gpu_nonce: &nonce, report_data: &data, reference: &reference, claims: &claims };
        verifier.appraise(&made.cpu, &made.gpus, &binding, at)
    }

    pub(crate) fn claims(&self) -> Claims {
        Claims {
            kind: self.policy.kind(),
            image_digest: None,
            container: ContainerId { source: "boot-id".into(), value: "host:1".into() },
            runtime_measurement: Digest32::from([3; 32]),
            anti_debug: AntiDebug {
                profile: ANTI_DEBUG_PROFILE.into(),
                level: AntiDebugLevel::Basic,
                not_dumpable: true,
                no_core_files: true,
                no_tracer: true,
                no_preload: true,
                ptrace_scope: None,
            },
            state: RuntimeState::Ready,
        }
    }

    pub(crate) fn reference(&self) -> ReferenceValues {
        self.reference_of(&self.verifier())
    }

    fn reference_of(&self, verifier: &HardwareVerifier) -> ReferenceValues {
        let claims = self.claims();
        ReferenceValues {
            kind: claims.kind,
            image_digest: None,
            container: claims.container,
            runtime_measurement: claims.runtime_measurement,
            anti_debug_profile: ANTI_DEBUG_PROFILE.into(),
            anti_debug_level: AntiDebugLevel::Basic,
            policy_digest: verifier.policy_digest(),
            minimum_assurance: self.policy.minimum_assurance.level(),
        }
    }
}

#[test]
fn kinds() {
    assert_eq!(Session::new(Platform::tdx(0)).policy.kind(), EvidenceKind::Tdx);
    assert_eq!(Session::new(Platform::snp(0)).policy.kind(), EvidenceKind::SevSnp);
}

/// Tests of whole programs appraise at the time of day, whichever day it is.
#[test]
fn a_bundle_that_is_made_counts_for_years() {
    for platform in [Platform::tdx(1), Platform::snp(1)] {
        let mut session = Session::new(platform);
        session.collateral = bundle(1).collateral().unwrap();
        assert!(!session.collateral.nvidia.ocsp.is_empty() && !session.collateral.nvidia.crls.is_empty());
        for years in [0, 4] {
            let at = AUDIT_TIME.after(Duration::from_secs(years * 365 * 86_400));
            session.appraise_at(&session.verifier(), &session.make(), at).unwrap();
        }
    }
}

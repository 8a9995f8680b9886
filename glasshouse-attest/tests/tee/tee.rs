use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_attest::hardware::{HardwareVerifier, MinimumAssurance};
use glasshouse_attest::software::RuntimeStateCell;
use glasshouse_attest::tee::{ConfidentialState, ConfigFs, TeeAttestor, TeeKind, TsmInterface as _};
use glasshouse_attest_gen::{AUDIT_TIME, Cpu, Platform};
use glasshouse_core::claims::{Assurance, Claims, ReferenceValues};
use glasshouse_core::clock::Now;
use glasshouse_core::contract;
use glasshouse_core::evidence::{CpuEvidence, gpu_nonce, report_data};
use glasshouse_core::fixed::{Digest64, Fixed};
use glasshouse_core::gate::{GateError, LeaseTerms, MemoryGateStore, OwnerConfig, OwnerSession, PackageKey};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::protocol::{ResultKey, SigningSecret};
use glasshouse_core::secret::Secret;
use glasshouse_core::segment::{SegmentConfig, SegmentError, SegmentSession};
use glasshouse_core::traits::{AttestError, Attestor as _, Binding, Device, Verifier as _};
use glasshouse_core::transcript::sha384;

use crate::fakes::{FakeGpus, FakeKernel, Fault, Written};

struct Setting {
    folder: tempfile::TempDir,
    platform: Platform,
    fault: Fault,
    written: Written,
}

impl Setting {
    fn new(platform: Platform) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), platform, fault: Fault::None, written: Arc::default() }
    }

    fn kind(&self) -> TeeKind {
        match self.platform.cpu {
            Cpu::Tdx(_) => TeeKind::Tdx,
            Cpu::Snp(_) => TeeKind::SevSnp,
        }
    }

    fn attestor(&self) -> TeeAttestor {
        let kernel = FakeKernel {
            configfs: ConfigFs::at(self.folder.path()),
            platform: self.platform.clone(),
            fault: self.fault,
            written: Arc::clone(&self.written),
        };
        TeeAttestor::with_interface(self.kind(), Box::new(kernel), self.folder.path(), RuntimeStateCell::new()).unwrap()
    }

    fn failing(&self, fault: Fault) -> AttestError {
        let setting = Self { folder: tempfile::tempdir().unwrap(), fault, ..Self::new(self.platform.clone()) };
        setting.attestor().quote(&Digest64::from([5; 64])).unwrap_err()
    }
}

#[test]
fn evidence_through_the_interfaces_is_accepted() {
    let mut newer = Platform::tdx(1);
    let Cpu::Tdx(quote) = &mut newer.cpu else { panic!() };
    quote.version = 5;
    for platform in [Platform::tdx(2), newer, Platform::snp(1)] {
        let setting = Setting::new(platform);
        let attestor = setting.attestor().gpus(Box::new(FakeGpus::of(&setting.platform)));
        contract::attestor(&attestor);

        let verifier = setting.platform.verifier();
        let claims = attestor.measure().unwrap();
        let t = sha384("a session");
        let nonce = gpu_nonce(&t);
        let gpus = attestor.gpu_evidence(&nonce).unwrap();
        let data = report_data(&t, &gpus.digest());
        let cpu = attestor.quote(&data).unwrap();
        let reference = reference(&claims, &verifier, Assurance::CpuTeeGpuCc);
        let binding = Binding { gpu_nonce: &nonce, report_data: &data, reference: &reference, claims: &claims };
        let appraisal = verifier.appraise(&cpu, &gpus, &binding, AUDIT_TIME).unwrap();
        assert_eq!(appraisal.assurance, Assurance::CpuTeeGpuCc);
        assert_eq!(std::fs::read_dir(setting.folder.path()).unwrap().count(), 0, "no request stays behind");
    }
}

#[test]
fn what_the_kernel_does_wrong() {
    for platform in [Platform::tdx(0), Platform::snp(0)] {
        let setting = Setting::new(platform);
        let told = |fault| setting.failing(fault).to_string();
        assert!(matches!(setting.failing(Fault::OtherProvider), AttestError::NotAvailable { .. }));
        assert!(told(Fault::OtherProvider).contains("arm_cca_guest"));
        assert!(told(Fault::Interference).contains("changed by somebody else: generation 2, not 1"));
        assert!(told(Fault::StaleReport).contains("does not carry the report data"));
        assert!(told(Fault::NoGeneration).contains("no attribute generation"));
        assert!(told(Fault::Busy).contains("outblob: "));
    }
}

/// Where a quote of another version has its report data is not known.
#[test]
fn a_quote_of_another_version() {
    for version in [3, 6] {
        let mut setting = Setting::new(Platform::tdx(0));
        let Cpu::Tdx(quote) = &mut setting.platform.cpu else { panic!() };
        quote.version = version;
        assert!(setting.failing(Fault::None).to_string().contains("neither version 4 nor 5"));
    }
}

#[test]
fn attributes_are_set_in_order_and_whole() {
    let setting = Setting::new(Platform::snp(0));
    let data = Digest64::from([5; 64]);
    setting.attestor().privilege_level(2).quote(&data).unwrap();
    let expected = [("privlevel".to_owned(), b"2".to_vec()), ("inblob".to_owned(), data.0.to_vec())];
    assert_eq!(*setting.written.lock().unwrap(), expected);
}

#[test]
fn a_report_without_table() {
    let setting = Setting { fault: Fault::NoTable, ..Setting::new(Platform::snp(0)) };
    let evidence = setting.attestor().quote(&Digest64::from([5; 64])).unwrap();
    assert!(matches!(evidence, CpuEvidence::SevSnp { certificates: None, .. }));
}

#[test]
fn modes_of_gpus() {
    let setting = Setting::new(Platform::tdx(2));
    let nonce = [7; 32].into();
    let evidence = |change: fn(&mut FakeGpus)| {
        let mut gpus = FakeGpus::of(&setting.platform);
        change(&mut gpus);
        setting.attestor().gpus(Box::new(gpus)).gpu_evidence(&nonce)
    };
    assert_eq!(evidence(|_| {}).unwrap().0.len(), 2);
    assert!(setting.attestor().gpu_evidence(&nonce).unwrap().0.is_empty(), "none were given");
    assert!(evidence(|gpus| gpus.machines.clear()).unwrap().0.is_empty(), "there is none");
    let told = |change| evidence(change).unwrap_err().to_string();
    assert!(told(|gpus| gpus.nonce = Some([0; 32])).contains("GPU 0: its report answers another nonce"));
    assert!(told(|gpus| gpus.broken = true).contains("the GPU is lost"));
    assert!(told(|gpus| gpus.bare = true).contains("GPU 0: it has no certificate"));
}

const OPEN: Option<ConfidentialState> = Some(ConfidentialState { enabled: true, dev_tools: true });
const OFF: Option<ConfidentialState> = Some(ConfidentialState { enabled: false, dev_tools: false });

/// A machine with a CPU TEE and GPUs that do not attest: told by name, refused where the owner asks for confidential GPUs,
/// and a CPU TEE where not.
#[test]
fn gpus_that_are_there_and_do_not_attest() {
    let setting = Setting::new(Platform::tdx(2));
    let attestor = |states: [Option<ConfidentialState>; 2]| {
        let gpus = FakeGpus { states: states.to_vec(), ..FakeGpus::of(&setting.platform) };
        setting.attestor().gpus(Box::new(gpus))
    };
    let on = FakeGpus::of(&setting.platform).states[0];
    // One that is silent speaks for none of the others, and an unknown mode is not taken for a good one.
    for (states, says) in [
        ([OFF, on], "confidential computing is off on GPU 0;"),
        ([on, OFF], "confidential computing is off on GPU 1;"),
        ([OFF, OFF], "confidential computing is off on GPU 0, GPU 1;"),
        ([on, None], ": no confidential computing is known to GPU 1;"),
        ([None, OFF], "off on GPU 1, and no confidential computing is known to GPU 0;"),
        ([OFF, OPEN], "off on GPU 0, and developer tools may read the memory of GPU 1;"),
        ([on, OPEN], ": developer tools may read the memory of GPU 1;"),
    ] {
        let error = attestor(states).gpu_evidence(&[7; 32].into()).unwrap_err();
        assert!(matches!(error, AttestError::NotAvailable { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        contract::attestor(&attestor(states));
    }

    let attestor = attestor([OFF, OFF]);
    let released = |minimum, policy_asks| {
        let mut policy = setting.platform.policy();
        policy.minimum_assurance = policy_asks;
        let verifier = HardwareVerifier::new(policy, Platform::roots(), Platform::collateral()).unwrap();
        let mut session = Released::new(&attestor, minimum, verifier);
        let evidence = session.attest(&attestor);
        (evidence.map(|evidence| session.appraise(&evidence)), session)
    };
    let asked = |minimum| released(minimum, MinimumAssurance::CpuTeeGpuCc).0;
    let Err(SegmentError::Attest(error)) = asked(Assurance::CpuTeeGpuCc) else { panic!() };
    assert!(error.to_string().contains("confidential computing is off on GPU 0"), "{error}");
    // A package that asks for less than the policy: the gate says it, and where to look for the reason.
    let refusal = asked(Assurance::CpuTee).unwrap().unwrap_err();
    assert_eq!(refusal.code(), Some(&glasshouse_attest::hardware::codes::GPU_MISSING));
    assert!(refusal.to_string().contains("the allocation's log"), "{refusal}");
    let (verdict, session) = released(Assurance::CpuTee, MinimumAssurance::CpuTee);
    assert_eq!(verdict.unwrap().unwrap(), Assurance::CpuTee);
    let told = session.runtime.without_gpus().unwrap().to_string();
    assert!(told.contains("confidential computing is off on GPU 0, GPU 1"), "{told}");
}

/// Both sides of one session, over the real gate.
struct Released {
    runtime: SegmentSession,
    owner: OwnerSession,
}

impl Released {
    fn new(attestor: &TeeAttestor, minimum: Assurance, verifier: HardwareVerifier) -> Self {
        let claims = attestor.measure().unwrap();
        let (session, gate_key) = (Fixed([1; 32]), Arc::new(SigningSecret::random().unwrap()));
        let runtime = SegmentSession::new(SegmentConfig {
            session,
            gate_key: gate_key.public(),
            launch_secret: Secret::take(&mut [2; 32]),
            package_digest: Fixed([3; 48]),
            manifest_digest: Fixed([4; 48]),
        });
        let config = OwnerConfig {
            session,
            gate_key,
            result_key: Arc::new(ResultKey::random().unwrap()),
            launch_secret: Arc::new(Secret::take(&mut [2; 32])),
            package: PackageKey {
                package_digest: Fixed([3; 48]),
                manifest_digest: Fixed([4; 48]),
                data_key: Secret::take(&mut [5; 32]),
            },
            job: JobSpec {
                workload: "none".to_owned(),
                device: Device::Cpu,
                warmup_units: 0,
                budget: Budget::Units(1),
                progress_millis: 1,
                export: false,
            },
            reference: reference(&claims, &verifier, minimum),
            lease: LeaseTerms { ttl: Duration::from_secs(60), max_units: None },
            challenge_ttl: Duration::from_secs(60),
            max_skew: Duration::from_secs(60),
            max_challenges: 3,
        };
        let store = Arc::new(MemoryGateStore::default());
        Self { runtime, owner: OwnerSession::new(config, store, Arc::new(verifier)).unwrap() }
    }

    fn attest(&mut self, attestor: &TeeAttestor) -> Result<Vec<u8>, SegmentError> {
        let challenge = self.owner.challenge(now()).unwrap();
        self.runtime.challenge(&challenge, attestor, now())
    }

    fn appraise(&mut self, evidence: &[u8]) -> Result<Assurance, GateError> {
        self.owner.evidence(evidence, now())?;
        Ok(self.owner.verdict().unwrap().appraisal.assurance)
    }
}

fn now() -> Now {
    Now { wall: AUDIT_TIME, boot: Duration::from_secs(9) }
}

fn reference(claims: &Claims, verifier: &HardwareVerifier, minimum_assurance: Assurance) -> ReferenceValues {
    ReferenceValues {
        kind: claims.kind,
        image_digest: None,
        container: claims.container.clone(),
        runtime_measurement: claims.runtime_measurement,
        anti_debug_profile: claims.anti_debug.profile.clone(),
        anti_debug_level: claims.anti_debug.level,
        policy_digest: verifier.policy_digest(),
        minimum_assurance,
    }
}

#[test]
fn not_available_here_and_nothing_done() {
    let setting = Setting::new(Platform::tdx(0));
    let there = setting.folder.path();
    let make = |root: &Path, device: &Path| {
        TeeAttestor::with_interface(TeeKind::Tdx, Box::new(ConfigFs::at(root)), device, RuntimeStateCell::new())
    };
    for (root, device) in [(there, Path::new("/dev/there-is-none")), (&there.join("none"), there)] {
        let Err(AttestError::NotAvailable { what, why }) = make(root, device) else { panic!() };
        assert!(what == "Intel TDX" && why.contains("there is no"), "{why}");
    }
    assert_eq!(std::fs::read_dir(there).unwrap().count(), 0, "found without side effects");
    for (made, device) in [
        (TeeAttestor::tdx(RuntimeStateCell::new()), "/dev/tdx_guest"),
        (TeeAttestor::sev_snp(RuntimeStateCell::new()), "/dev/sev-guest"),
    ] {
        assert!(made.is_ok() == (Path::new(device).exists() && ConfigFs::system().is_there()), "{device}");
    }
}

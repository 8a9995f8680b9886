use std::path::Path;
use std::sync::Arc;

use glasshouse_attest::software::RuntimeStateCell;
use glasshouse_attest::tee::{ConfidentialState, ConfigFs, TeeAttestor, TeeKind, TsmInterface as _};
use glasshouse_attest_gen::{AUDIT_TIME, Cpu, Platform};
use glasshouse_core::claims::{Assurance, ReferenceValues};
use glasshouse_core::contract;
use glasshouse_core::evidence::{CpuEvidence, gpu_nonce, report_data};
use glasshouse_core::fixed::Digest64;
use glasshouse_core::traits::{AttestError, Attestor as _, Binding, Verifier as _};
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
        let reference = ReferenceValues {
            kind: claims.kind,
            image_digest: None,
            container: claims.container.clone(),
            runtime_measurement: claims.runtime_measurement,
            anti_debug_profile: claims.anti_debug.profile.clone(),
            anti_debug_level: claims.anti_debug.level,
            policy_digest: verifier.policy_digest(),
            minimum_assurance: Assurance::CpuTeeGpuCc,
        };
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
    assert!(evidence(|gpus| gpus.state = None).unwrap().0.is_empty());
    assert!(evidence(|g| g.state = Some(ConfidentialState { enabled: false, dev_tools: true })).unwrap().0.is_empty());
    let told = |change| evidence(change).unwrap_err().to_string();
    assert!(told(|g| g.state = Some(ConfidentialState { enabled: true, dev_tools: true })).contains("dev-tools"));
    assert!(told(|gpus| gpus.nonce = Some([0; 32])).contains("GPU 0: its report answers another nonce"));
    assert!(told(|gpus| gpus.broken = true).contains("the GPU is lost"));
    assert!(told(|gpus| gpus.bare = true).contains("GPU 0: it has no certificate"));
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

//! A whole appraisal, as the gate asks for it: the CPU's quote over the session and its devices, the devices, and what
//! lies between them.

use std::sync::LazyLock;

use glasshouse_attest::hardware::{self, HardwareVerifier};
use glasshouse_attest::{jws, nvidia, snp, tdx, tokens};
use glasshouse_attest_gen::{Cpu, Platform};
use glasshouse_core::claims::{ANTI_DEBUG_PROFILE, AntiDebugLevel, Assurance, Claims, EvidenceKind, ReferenceValues};
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence, report_data};
use glasshouse_core::fixed::{Blob, Digest48, Digest64, Fixed};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::{Appraisal, Binding, ClaimSource, Verifier as _};
use serde::{Deserialize, Serialize};

use super::appraisal::{devices, evidence_of};
use super::nvidia::NONCE;
use super::{jwt, mode};
use crate::check;
use crate::keys::AT;

/// Stands for T.
const T: Digest48 = Fixed([9; 48]);

/// Evidence of a machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The CPU's.
    pub cpu: CpuEvidence,
    /// The devices'.
    pub gpus: GpuEvidence,
}

struct Machine {
    platform: Platform,
    verifier: HardwareVerifier,
}

static TDX: LazyLock<Machine> = LazyLock::new(|| Machine::new(Platform::tdx(1)));
static SNP: LazyLock<Machine> = LazyLock::new(|| Machine::new(Platform::snp(1)));
static SNP_ALONE: LazyLock<Machine> = LazyLock::new(|| Machine::new(Platform::snp(0)));

impl Machine {
    fn new(platform: Platform) -> Self {
        let verifier = platform.verifier();
        Self { platform, verifier }
    }

    fn appraise(&self, evidence: &Evidence) -> Result<Appraisal, Refusal> {
        let claims = Claims { kind: self.verifier.kind(), ..jwt::claims() };
        let reference = ReferenceValues {
            kind: claims.kind,
            image_digest: None,
            container: claims.container.clone(),
            runtime_measurement: claims.runtime_measurement,
            anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
            anti_debug_level: AntiDebugLevel::Basic,
            policy_digest: self.verifier.policy_digest(),
            minimum_assurance: Assurance::CpuTee,
        };
        let report_data = bound(&evidence.gpus);
        let binding = Binding { gpu_nonce: &NONCE, report_data: &report_data, reference: &reference, claims: &claims };
        let result = self.verifier.appraise(&evidence.cpu, &evidence.gpus, &binding, AT);
        match &result {
            Ok(appraisal) => {
                check::labelled(&appraisal.claims);
                assert!(appraisal.relaxations.is_empty());
                assert!(appraisal.claims.iter().any(|claim| claim.source == ClaimSource::HardwareVerified));
            }
            Err(refusal) => check::refusal_of(refusal, &KNOWN),
        }
        result
    }
}

static KNOWN: LazyLock<Vec<Code>> = LazyLock::new(|| {
    let own = [hardware::codes::ALL, nvidia::codes::ALL, snp::codes::ALL, tdx::codes::ALL, tokens::codes::ALL];
    [own.concat(), Code::ALL.to_vec(), vec![jws::KEY_ID]].concat()
});

fn bound(gpus: &GpuEvidence) -> Digest64 {
    report_data(&T, &gpus.digest())
}

/// Good evidence of a TDX or SNP machine with one GPU.
pub fn good(kind: EvidenceKind) -> Evidence {
    let gpus = evidence_of(b"1");
    let machine = if kind == EvidenceKind::Tdx { &TDX } else { &SNP };
    Evidence { cpu: machine.platform.quote(&bound(&gpus)), gpus }
}

/// The table of certificates beside a good SNP report.
pub fn table() -> Vec<u8> {
    match SNP_ALONE.platform.quote(&bound(&GpuEvidence::default())) {
        CpuEvidence::SevSnp { certificates: Some(table), .. } => table.0,
        other => panic!("{other:?}"),
    }
}

/// Makes what every input needs, which the first must not be blamed for.
pub fn init() {
    for data in [&b"cT1"[..], b"cS1", b"d"] {
        run(data);
    }
}

/// `a`: evidence of a TDX machine, `b`: of an SNP machine, JSON. `c`: a letter for the CPU, then letters for devices, put
/// together. `d`: the table of certificates beside an SNP report.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', json)) => whole(&TDX, EvidenceKind::Tdx, json),
        Some((b'b', json)) => whole(&SNP, EvidenceKind::SevSnp, json),
        Some((b'c', recipe)) => put_together(recipe),
        Some((b'd', table)) => {
            let gpus = GpuEvidence::default();
            let CpuEvidence::SevSnp { report, .. } = SNP_ALONE.platform.quote(&bound(&gpus)) else { unreachable!() };
            let certificates = Some(Blob(table.to_vec()));
            if let Ok(appraisal) =
                SNP_ALONE.appraise(&Evidence { cpu: CpuEvidence::SevSnp { report, certificates }, gpus })
            {
                static GOOD: LazyLock<Appraisal> = LazyLock::new(|| {
                    let gpus = GpuEvidence::default();
                    SNP_ALONE.appraise(&Evidence { cpu: SNP_ALONE.platform.quote(&bound(&gpus)), gpus }).unwrap()
                });
                assert_eq!(appraisal, *GOOD);
            }
        }
        _ => {}
    }
}

/// The quote binds the devices' evidence to the last byte, so that what is accepted is the machine's own, and says the
/// same.
fn whole(machine: &Machine, kind: EvidenceKind, json: &[u8]) {
    let Ok(evidence) = serde_json::from_slice::<Evidence>(json) else { return };
    if evidence.gpus.0.len() > 4 {
        return;
    }
    let Ok(appraisal) = machine.appraise(&evidence) else { return };
    let good = good(kind);
    assert_eq!(evidence.gpus.digest(), good.gpus.digest());
    assert_eq!(appraisal, machine.appraise(&good).expect("good evidence"));
    assert_eq!(appraisal.assurance, Assurance::CpuTeeGpuCc);
}

/// The verifier agrees with a model of what a machine must be, on accepting, on the assurance and on the code.
fn put_together(recipe: &[u8]) {
    let Some((cpu, letters)) = mode(recipe) else { return };
    let letters = &letters[..letters.len().min(4)];
    let gpus = evidence_of(letters);
    let honest = bound(&gpus);
    let quote = |change: fn(&mut Platform), data: &Digest64| {
        let mut platform = TDX.platform.clone();
        change(&mut platform);
        platform.quote(data)
    };
    fn td(platform: &mut Platform) -> &mut glasshouse_attest_gen::tdx::QuoteDraft {
        match &mut platform.cpu {
            Cpu::Tdx(draft) => draft,
            Cpu::Snp(_) => unreachable!(),
        }
    }
    let (cpu, refused) = match cpu {
        b'T' => (quote(|_| {}, &honest), None),
        b'U' => (quote(|_| {}, &bound(&evidence_of(b"2"))), Some(tdx::codes::REPORT_DATA)),
        b'D' => (quote(|platform| td(platform).attributes[0] = 1, &honest), Some(tdx::codes::DEBUG)),
        b'M' => (quote(|platform| td(platform).rtmr[1] = [1; 48], &honest), Some(tdx::codes::MEASUREMENT)),
        b'L' => (quote(|platform| td(platform).pck.cpu_svn = [1; 16], &honest), Some(tdx::codes::TCB)),
        b'S' => (SNP.platform.quote(&honest), Some(Code::EVIDENCE_KIND_UNSUPPORTED)),
        _ => return,
    };
    let refused = refused.filter(|code| *code != tdx::codes::REPORT_DATA || letters_differ(&gpus));
    let expected = match refused {
        Some(code) => Err(code),
        None => model(letters),
    };
    let result = TDX.appraise(&Evidence { cpu, gpus });
    let result = result.map(|appraisal| appraisal.assurance).map_err(|refusal| refusal.code);
    assert_eq!(result, expected, "{}", recipe.escape_ascii());
}

/// Whether a quote over GPU 2 alone is one over other devices.
fn letters_differ(gpus: &GpuEvidence) -> bool {
    gpus.digest() != evidence_of(b"2").digest()
}

fn model(letters: &[u8]) -> Result<Assurance, Code> {
    let (gpus, _) = devices(letters)?;
    if letters.contains(&b't') {
        return Err(hardware::codes::TOKEN_KIND);
    }
    if gpus == 0 { Err(hardware::codes::GPU_MISSING) } else { Ok(Assurance::CpuTeeGpuCc) }
}

use super::*;
use crate::software::policy::MinimumAntiDebug;
use crate::software::{RuntimeStateCell, SoftwareAttestor};
use ed25519_dalek::SigningKey;
use glasshouse_core::claims::{ReferenceValues, RuntimeState};
use glasshouse_core::evidence::{DeviceEvidence, DeviceKind};
use glasshouse_core::fixed::{Blob, Digest32, Digest64};
use glasshouse_core::traits::Attestor as _;
use proptest::prelude::*;
use std::sync::Arc;

const NOW: UnixMillis = UnixMillis(1_795_417_080_000);
const REPORT_DATA: Digest64 = glasshouse_core::fixed::Fixed([3; 64]);

/// What the gate would hand over, with claims of a runtime that is hardened.
struct Case {
    policy: SoftwarePolicy,
    claims: Claims,
    token: Token,
    key: SigningKey,
    gpus: GpuEvidence,
    now: UnixMillis,
}

impl Case {
    fn good() -> Self {
        // Measured for real; the test runner itself is not hardened, so those flags are set to what a runtime's are.
        let attestor = SoftwareAttestor::new(RuntimeStateCell::new()).unwrap();
        let mut claims = attestor.measure().unwrap();
        claims.anti_debug = AntiDebug {
            profile: ANTI_DEBUG_PROFILE.to_owned(),
            level: AntiDebugLevel::Basic,
            not_dumpable: true,
            no_core_files: true,
            no_tracer: true,
            no_preload: true,
            ptrace_scope: None,
        };
        let token = Token::new(&claims, &REPORT_DATA, NOW);
        let key = SigningKey::from_bytes(&[9; 32]);
        Self { policy: SoftwarePolicy::default(), claims, token, key, gpus: GpuEvidence::default(), now: NOW }
    }

    fn change(change: impl FnOnce(&mut Self)) -> Self {
        let mut case = Self::good();
        change(&mut case);
        case
    }

    /// The runtime says so both in its claims and in its token, and signs it.
    fn lie(lie: impl FnOnce(&mut Claims)) -> Self {
        Self::change(|case| {
            lie(&mut case.claims);
            case.token = Token::new(&case.claims, &REPORT_DATA, NOW);
        })
    }

    fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(&self.token).unwrap()
    }

    fn appraise(&self) -> Result<Appraisal, Refusal> {
        self.appraise_payload(&self.payload())
    }

    fn appraise_payload(&self, payload: &[u8]) -> Result<Appraisal, Refusal> {
        let public_key = self.key.verifying_key().to_bytes().into();
        self.appraise_cpu(&CpuEvidence::Software { jwt: jws::sign(payload, &self.key), public_key })
    }

    fn appraise_cpu(&self, cpu: &CpuEvidence) -> Result<Appraisal, Refusal> {
        let verifier = SoftwareVerifier::new(self.policy.clone());
        let reference = ReferenceValues {
            kind: EvidenceKind::Software,
            image_digest: self.claims.image_digest,
            container: self.claims.container.clone(),
            runtime_measurement: self.claims.runtime_measurement,
            anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
            anti_debug_level: AntiDebugLevel::Basic,
            policy_digest: verifier.policy_digest(),
            minimum_assurance: Assurance::SelfReported,
        };
        let gpu_nonce = Digest32::from([0; 32]);
        let binding =
            Binding { gpu_nonce: &gpu_nonce, report_data: &REPORT_DATA, reference: &reference, claims: &self.claims };
        verifier.appraise(cpu, &self.gpus, &binding, self.now)
    }

    fn code(&self) -> Code {
        self.appraise().unwrap_err().code
    }
}

#[test]
fn what_is_accepted_says_how_far_it_can_be_believed() {
    let appraisal = Case::good().appraise().unwrap();
    assert_eq!(appraisal.assurance, Assurance::SelfReported);
    assert!(appraisal.claims.iter().all(|claim| claim.source == ClaimSource::RuntimeAsserted));
    assert!(appraisal.claims.iter().any(|claim| claim.name == "runtime-measurement"));
    assert!(appraisal.relaxations.is_empty());
}

#[test]
fn the_real_attestors_quote_is_appraised() {
    let clock: crate::software::Clock = Arc::new(|| NOW);
    let attestor = SoftwareAttestor::new(RuntimeStateCell::new()).unwrap().clock(clock);
    // The test runner is not hardened: it is refused as that, and accepted only by the policy that says so.
    let mut case = Case::change(|case| case.claims = attestor.measure().unwrap());
    let quote = attestor.quote(&REPORT_DATA).unwrap();
    assert_eq!(case.appraise_cpu(&quote).unwrap_err().code, Code::ANTI_DEBUG_DISABLED);
    case.policy.dangerous_allow_anti_debug_off = true;
    assert_eq!(case.appraise_cpu(&quote).unwrap().relaxations, ["dangerous_allow_anti_debug_off"]);
    let other = attestor.quote(&Digest64::from([4; 64])).unwrap();
    assert_eq!(case.appraise_cpu(&other).unwrap_err().code, Code::REPORT_DATA_MISMATCH);
}

#[test]
fn every_claim_of_the_token_must_be_the_evidences() {
    let other = Digest32::from([0xee; 32]);
    type Change = (&'static str, fn(&mut Token));
    let changes: [Change; 16] = [
        ("eat_profile", |t| t.eat_profile.push('x')),
        ("dbgstat", |t| t.dbgstat = "enabled".into()),
        ("swname", |t| t.swname.push('x')),
        ("measurements", |t| t.measurements.clear()),
        ("gh_kind", |t| t.gh_kind = EvidenceKind::Tdx),
        ("gh_container_source", |t| t.gh_container_source.push('x')),
        ("gh_container_id", |t| t.gh_container_id.push('x')),
        ("gh_anti_debug_profile", |t| t.gh_anti_debug_profile.push('x')),
        ("gh_anti_debug_level", |t| t.gh_anti_debug_level = AntiDebugLevel::Off),
        ("gh_not_dumpable", |t| t.gh_not_dumpable = false),
        ("gh_no_core_files", |t| t.gh_no_core_files = false),
        ("gh_no_tracer", |t| t.gh_no_tracer = false),
        ("gh_no_preload", |t| t.gh_no_preload = false),
        ("gh_ptrace_scope", |t| t.gh_ptrace_scope = Some(3)),
        ("gh_state", |t| t.gh_state = RuntimeState::Training),
        ("gh_image_digest", |t| t.gh_image_digest = Some(Digest32::from([0xee; 32]))),
    ];
    for (claim, change) in changes {
        let refusal = Case::change(|case| change(&mut case.token)).appraise().unwrap_err();
        assert_eq!(refusal.code, Code::JWT_CLAIM_MISMATCH, "{claim}");
        assert!(refusal.expected.starts_with(claim), "{claim}: {refusal}");
    }
    let case = Case::change(|case| case.token.gh_runtime_measurement = other);
    assert_eq!(case.code(), Code::JWT_CLAIM_MISMATCH);
    let nonce = Case::change(|case| case.token.eat_nonce = eat_nonce(&Digest64::from([4; 64])));
    assert_eq!(nonce.code(), Code::REPORT_DATA_MISMATCH);
}

#[test]
fn time_is_the_callers() {
    for (seconds, code) in [
        (120, None),
        (121, Some(Code::TIMESTAMP_STALE)),
        (-60, None),
        (-61, Some(Code::TIMESTAMP_FUTURE)),
        (86_400 * 365, Some(Code::TIMESTAMP_STALE)),
    ] {
        let case = Case::change(|case| case.now = UnixMillis(NOW.0.saturating_add_signed(seconds * 1000)));
        assert_eq!(case.appraise().err().map(|refusal| refusal.code), code, "{seconds} s later");
    }
    assert_eq!(Case::change(|case| case.token.iat = u64::MAX).code(), Code::TIMESTAMP_FUTURE);
    assert_eq!(Case::change(|case| case.token.iat = 0).code(), Code::TIMESTAMP_STALE);
}

#[test]
fn anti_debug_must_hold_in_name_and_in_its_checks() {
    type Lie = fn(&mut Claims);
    let strict: fn(&mut Case) = |case| case.policy.minimum_anti_debug = MinimumAntiDebug::Strict;
    let disabled: [Lie; 5] = [
        |c| c.anti_debug.level = AntiDebugLevel::Off,
        |c| c.anti_debug.not_dumpable = false,
        |c| c.anti_debug.no_core_files = false,
        |c| c.anti_debug.no_tracer = false,
        |c| c.anti_debug.no_preload = false,
    ];
    for lie in disabled {
        assert_eq!(Case::lie(lie).code(), Code::ANTI_DEBUG_DISABLED);
    }
    let old_profile = Case::lie(|c| c.anti_debug.profile = "glasshouse-anti-debug/0".into());
    assert_eq!(old_profile.code(), Code::ANTI_DEBUG_DOWNGRADE);

    let with = |lie: Lie| {
        let mut case = Case::lie(lie);
        strict(&mut case);
        case
    };
    assert_eq!(with(|_| {}).code(), Code::ANTI_DEBUG_DOWNGRADE, "basic where strict is asked");
    let scope_zero: Lie = |c| (c.anti_debug.level, c.anti_debug.ptrace_scope) = (AntiDebugLevel::Strict, Some(0));
    assert_eq!(with(scope_zero).code(), Code::ANTI_DEBUG_DOWNGRADE, "strict in name only");
    let scope_one: Lie = |c| (c.anti_debug.level, c.anti_debug.ptrace_scope) = (AntiDebugLevel::Strict, Some(1));
    assert!(with(scope_one).appraise().is_ok());
    let no_yama: Lie = |c| c.anti_debug.level = AntiDebugLevel::Strict;
    assert_eq!(with(no_yama).code(), Code::ANTI_DEBUG_DOWNGRADE);
}

#[test]
fn other_evidence_is_not_this_verifiers() {
    let quote = CpuEvidence::Tdx { quote: Blob(vec![0; 1000]) };
    assert_eq!(Case::good().appraise_cpu(&quote).unwrap_err().code, Code::EVIDENCE_KIND_UNSUPPORTED);
    let device = || DeviceEvidence {
        kind: DeviceKind::NvidiaGpu,
        serial: Blob(vec![1]),
        report: Blob(vec![]),
        chain: Blob(vec![]),
    };
    let gpus = Case::change(|case| case.gpus.0.push(device()));
    assert_eq!(gpus.code(), Code::EVIDENCE_KIND_UNSUPPORTED);
}

#[test]
fn a_token_has_one_spelling() {
    let case = Case::good();
    let text = String::from_utf8(case.payload()).unwrap();
    for other in [
        text.replacen("{\"eat_nonce\"", "{ \"eat_nonce\"", 1),
        text.replacen("{\"eat_nonce\"", "{\"eat_nonc\\u0065\"", 1),
        text.replacen("\"gh_state\":\"ready\"", "\"gh_state\":\"ready\",\"gh_state\":\"ready\"", 1),
        text.replacen("\"gh_state\":\"ready\"", "\"gh_state\":\"ready\",\"admin\":true", 1),
        text.replacen("\"gh_state\":\"ready\"", "\"gh_ptrace_scope\":null,\"gh_state\":\"ready\"", 1),
        text.replacen(",\"gh_state\":\"ready\"", "", 1),
        text.replacen("\"iat\":", "\"iat\":-", 1),
        text.replacen("80,\"eat_profile\"", "8e1,\"eat_profile\"", 1),
        "{}".to_owned(),
        "[]".to_owned(),
        format!("{text} "),
    ] {
        assert_ne!(other, text);
        assert_eq!(case.appraise_payload(other.as_bytes()).unwrap_err().code, Code::JWT_MALFORMED, "{other}");
    }
}

#[test]
fn another_policys_evidence_is_refused() {
    let case = Case::good();
    let relaxed = SoftwarePolicy { max_token_age_seconds: 1_000_000, ..SoftwarePolicy::default() };
    assert_ne!(SoftwareVerifier::new(relaxed).policy_digest(), SoftwareVerifier::new(case.policy).policy_digest());
}

proptest! {
    #[test]
    fn any_token_is_refused_without_a_panic(jwt: String, key: [u8; 32]) {
        let cpu = CpuEvidence::Software { jwt, public_key: key.into() };
        prop_assert!(Case::good().appraise_cpu(&cpu).is_err());
    }

    #[test]
    fn any_signed_payload_is_refused_without_a_panic(payload: Vec<u8>) {
        prop_assert!(Case::good().appraise_payload(&payload).is_err());
    }

    #[test]
    fn a_payload_changed_anywhere_and_signed_again_is_refused_unless_only_its_version_or_second_changed(
        at: prop::sample::Index,
        to: u8,
    ) {
        let case = Case::good();
        let mut payload = case.payload();
        let at = at.index(payload.len());
        prop_assume!(payload[at] != to);
        payload[at] = to;
        if case.appraise_payload(&payload).is_ok() {
            let token: Token = serde_json::from_slice(&payload).unwrap();
            prop_assert!(token.iat != case.token.iat || token.swversion != case.token.swversion);
        }
    }
}

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::attestor::kind;
use super::{clause, is_stable_name, no_panic, noise, positions, promised};
use crate::Verifier;
use crate::claims::{Assurance, Claims, EvidenceKind, ReferenceValues};
use crate::clock::UnixMillis;
use crate::evidence::{CpuEvidence, GpuEvidence};
use crate::fixed::{Blob, Digest32, Digest64, PublicKey32};
use crate::refusal::Refusal;
use crate::traits::{Appraisal, Binding, ClaimSource};

/// Evidence that a verifier accepts, with everything that it is bound to. Made fresh or recorded from hardware.
#[derive(Clone, Debug)]
pub struct VerifierSample {
    /// What the runtime says of itself.
    pub claims: Claims,
    /// What the owner expects.
    pub reference: ReferenceValues,
    /// The nonce in every GPU report.
    pub gpu_nonce: Digest32,
    /// The bytes that the CPU evidence carries.
    pub report_data: Digest64,
    /// The CPU evidence.
    pub cpu: CpuEvidence,
    /// The GPU evidence, or an empty list.
    pub gpus: GpuEvidence,
    /// The time to appraise at.
    pub now: UnixMillis,
    /// So many bytes from the start of the quote, report or token are covered by its signature: a change in any of them
    /// must be refused. `usize::MAX` for all of them, as in a token.
    pub signed_bytes: usize,
}

/// Checks a [`Verifier`] against evidence that it accepts, and against what comes of that by small changes.
///
/// Not observable from here: that `policy_digest` covers everything that changes the outcome; that no network is used.
///
/// # Panics
/// With the clause that does not hold.
pub fn verifier(verifier: &dyn Verifier, sample: impl Fn() -> VerifierSample) {
    let sample = sample();
    clause("it appraises the kind of its sample", verifier.kind() == kind(&sample.cpu), verifier.kind());
    clause("policy_digest is stable", verifier.policy_digest() == verifier.policy_digest(), "two calls differ");

    let good = promised("good evidence is accepted", appraise(verifier, &sample));
    let again = promised("good evidence is accepted", appraise(verifier, &sample));
    clause(
        "appraisal takes the time as an argument and depends on nothing else",
        good == again,
        format_args!("{again:?}"),
    );
    assurance_is_supported(&sample, &good);

    binding_counts_in_full(verifier, &sample);
    other_kinds_are_refused(verifier, &sample);
    changed_evidence_is_refused(verifier, &sample);
    changed_gpus_are_refused(verifier, &sample);
    nothing_makes_it_panic(verifier, &sample);
}

fn assurance_is_supported(sample: &VerifierSample, good: &Appraisal) {
    clause("an appraisal says what was established", !good.claims.is_empty(), "no claims");
    let most = match (verifier_side_limit(sample), sample.gpus.0.is_empty()) {
        (Assurance::CpuTeeGpuCc, true) => Assurance::CpuTee,
        (most, _) => most,
    };
    clause("no assurance above what verified claims support", good.assurance <= most, good.assurance);
    // A service's token carries its own word on the hardware that it verified; a quote carries the hardware's.
    let source = match sample.cpu {
        CpuEvidence::ConfidentialSpace { .. } => ClaimSource::ProviderAsserted,
        _ => ClaimSource::HardwareVerified,
    };
    let hardware = good.claims.iter().any(|c| c.source == source);
    let consistent = (good.assurance == Assurance::SelfReported) != hardware;
    clause("hardware-verified claims and assurance go together", consistent, format_args!("{good:?}"));
}

/// The most that a kind of evidence can ever reach.
fn verifier_side_limit(sample: &VerifierSample) -> Assurance {
    match sample.cpu {
        CpuEvidence::Software { .. } => Assurance::SelfReported,
        _ => Assurance::CpuTeeGpuCc,
    }
}

fn binding_counts_in_full(verifier: &dyn Verifier, sample: &VerifierSample) {
    for byte in 0..64 {
        let mut other = sample.clone();
        other.report_data.0[byte] ^= 1;
        refused("evidence carries report_data in full", verifier, &other, format_args!("byte {byte} differs"));
    }
    if !sample.gpus.0.is_empty() {
        for byte in 0..32 {
            let mut other = sample.clone();
            other.gpu_nonce.0[byte] ^= 1;
            refused("GPU reports carry gpu_nonce in full", verifier, &other, format_args!("byte {byte} differs"));
        }
    }
}

fn other_kinds_are_refused(verifier: &dyn Verifier, sample: &VerifierSample) {
    for other in every_kind(bytes(&sample.cpu)) {
        if kind(&other) != kind(&sample.cpu) {
            let seen = kind(&other);
            refused(
                "evidence of another kind is refused",
                verifier,
                &VerifierSample { cpu: other, ..sample.clone() },
                seen,
            );
        }
    }
}

fn changed_evidence_is_refused(verifier: &dyn Verifier, sample: &VerifierSample) {
    let original = bytes(&sample.cpu);
    for at in positions(original.len().min(sample.signed_bytes), 256) {
        let changed = with_bytes(&sample.cpu, |bytes| change(bytes, at, is_token(&sample.cpu)));
        let other = VerifierSample { cpu: changed, ..sample.clone() };
        refused("changed evidence is refused", verifier, &other, format_args!("byte {at} changed"));
    }
    for keep in positions(original.len().min(sample.signed_bytes), 32) {
        let cut = with_bytes(&sample.cpu, |bytes| bytes.truncate(keep));
        let other = VerifierSample { cpu: cut, ..sample.clone() };
        refused("truncated evidence is refused", verifier, &other, format_args!("cut to {keep} bytes"));
    }
    if let CpuEvidence::Software { jwt, public_key } = &sample.cpu {
        let mut other_key = *public_key;
        other_key.0[0] ^= 1;
        let cpu = CpuEvidence::Software { jwt: jwt.clone(), public_key: other_key };
        refused(
            "a token under another key is refused",
            verifier,
            &VerifierSample { cpu, ..sample.clone() },
            "key changed",
        );
    }
}

fn changed_gpus_are_refused(verifier: &dyn Verifier, sample: &VerifierSample) {
    let Some(first) = sample.gpus.0.first() else { return };
    for at in positions(first.report.0.len(), 64) {
        let mut other = sample.clone();
        if let Some(device) = other.gpus.0.first_mut() {
            change(&mut device.report.0, at, false);
        }
        refused("a changed GPU report is refused", verifier, &other, format_args!("byte {at} changed"));
    }
    let mut twice = sample.clone();
    twice.gpus.0.push(first.clone());
    refused("two devices with one serial are refused", verifier, &twice, "the first GPU twice");
}

fn nothing_makes_it_panic(verifier: &dyn Verifier, sample: &VerifierSample) {
    for (seed, len) in [0, 1, 3, 47, 48, 632, 1184, 5000, 70_000].into_iter().enumerate() {
        let noise = noise(seed as u64, len);
        let as_token = noise.chunks(40).map(|chunk| URL_SAFE_NO_PAD.encode(chunk)).collect::<Vec<_>>().join(".");
        for cpu in every_kind(noise).into_iter().chain(every_kind(as_token.into_bytes())) {
            let seen = format!("{len} random bytes as {}", kind(&cpu));
            refused("random bytes are refused", verifier, &VerifierSample { cpu, ..sample.clone() }, seen);
        }
        if let Some(device) = sample.gpus.0.first() {
            let mut other = sample.clone();
            other.gpus.0 =
                vec![crate::evidence::DeviceEvidence { report: Blob(super::noise(7, len)), ..device.clone() }];
            refused("random bytes are refused", verifier, &other, format_args!("{len} random bytes as GPU report"));
        }
    }
    for now in [UnixMillis(0), UnixMillis(u64::MAX)] {
        let other = VerifierSample { now, ..sample.clone() };
        let _ = no_panic("it never panics, whatever the time", now, || appraise(verifier, &other));
    }
}

fn appraise(verifier: &dyn Verifier, sample: &VerifierSample) -> Result<Appraisal, Refusal> {
    let binding = Binding {
        gpu_nonce: &sample.gpu_nonce,
        report_data: &sample.report_data,
        reference: &sample.reference,
        claims: &sample.claims,
    };
    verifier.appraise(&sample.cpu, &sample.gpus, &binding, sample.now)
}

/// Refused, without a panic, and with the same stable code each time.
#[track_caller]
fn refused(what: &str, verifier: &dyn Verifier, sample: &VerifierSample, seen: impl std::fmt::Display) {
    let seen = seen.to_string();
    let Err(refusal) = no_panic("it never panics, whatever the evidence holds", &seen, || appraise(verifier, sample))
    else {
        panic!("clause `{what}` is broken: accepted although {seen}");
    };
    let code = refusal.code.as_str();
    clause("a refusal has a stable code", is_stable_name(code), format_args!("{code:?}"));
    let again = appraise(verifier, sample).err().map(|r| r.code);
    clause(
        "a refusal has a stable code",
        again.as_ref() == Some(&refusal.code),
        format_args!("{code}, then {again:?}"),
    );
}

fn is_token(cpu: &CpuEvidence) -> bool {
    matches!(cpu, CpuEvidence::Software { .. } | CpuEvidence::ConfidentialSpace { .. })
}

fn bytes(cpu: &CpuEvidence) -> Vec<u8> {
    match cpu {
        CpuEvidence::Software { jwt, .. } | CpuEvidence::ConfidentialSpace { jwt } => jwt.clone().into_bytes(),
        CpuEvidence::Tdx { quote: bytes } | CpuEvidence::SevSnp { report: bytes, .. } => bytes.0.clone(),
    }
}

fn with_bytes(cpu: &CpuEvidence, edit: impl FnOnce(&mut Vec<u8>)) -> CpuEvidence {
    let mut edited = cpu.clone();
    match &mut edited {
        CpuEvidence::Software { jwt, .. } | CpuEvidence::ConfidentialSpace { jwt } => {
            let mut bytes = std::mem::take(jwt).into_bytes();
            edit(&mut bytes);
            *jwt = String::from_utf8_lossy(&bytes).into_owned();
        }
        CpuEvidence::Tdx { quote: bytes } | CpuEvidence::SevSnp { report: bytes, .. } => edit(&mut bytes.0),
    }
    edited
}

/// Flips the lowest bit; in a token, puts another character of base64url there.
fn change(bytes: &mut [u8], at: usize, token: bool) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = match *byte {
            b'A' if token => b'B',
            _ if token => b'A',
            other => other ^ 1,
        };
    }
}

fn every_kind(bytes: Vec<u8>) -> Vec<CpuEvidence> {
    let jwt = String::from_utf8_lossy(&bytes).into_owned();
    [EvidenceKind::Software, EvidenceKind::Tdx, EvidenceKind::SevSnp, EvidenceKind::ConfidentialSpace]
        .map(|kind| match kind {
            EvidenceKind::Software => {
                CpuEvidence::Software { jwt: jwt.clone(), public_key: PublicKey32::from([7; 32]) }
            }
            EvidenceKind::Tdx => CpuEvidence::Tdx { quote: Blob(bytes.clone()) },
            EvidenceKind::SevSnp => CpuEvidence::SevSnp { report: Blob(bytes.clone()), certificates: None },
            EvidenceKind::ConfidentialSpace => CpuEvidence::ConfidentialSpace { jwt: jwt.clone() },
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, ContainerId, RuntimeState};
    use crate::fixed::Digest48;
    use crate::refusal::Code;
    use crate::traits::LabelledClaim;
    use crate::transcript::sha384;
    use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

    /// A token of report data and an Ed25519 signature over it; with a switch for each way to appraise it wrongly.
    #[derive(Default)]
    struct Simple {
        half_of_report_data: bool,
        no_signature: bool,
        any_kind: bool,
        indexes: bool,
        boasts: bool,
    }

    fn sign(report_data: &Digest64) -> CpuEvidence {
        let key = SigningKey::from_bytes(&[5; 32]);
        let body = URL_SAFE_NO_PAD.encode(report_data);
        let signature = URL_SAFE_NO_PAD.encode(key.sign(body.as_bytes()).to_bytes());
        let public_key = PublicKey32::from(key.verifying_key().to_bytes());
        CpuEvidence::Software { jwt: format!("{body}.{signature}"), public_key }
    }

    fn sample() -> VerifierSample {
        let claims = Claims {
            kind: EvidenceKind::Software,
            image_digest: None,
            container: ContainerId { source: "boot-id".into(), value: "host:1".into() },
            runtime_measurement: Digest32::from([3; 32]),
            anti_debug: AntiDebug {
                profile: ANTI_DEBUG_PROFILE.into(),
                level: AntiDebugLevel::Off,
                not_dumpable: false,
                no_core_files: false,
                no_tracer: true,
                no_preload: true,
                ptrace_scope: None,
            },
            state: RuntimeState::Ready,
        };
        let reference = ReferenceValues {
            kind: claims.kind,
            image_digest: None,
            container: claims.container.clone(),
            runtime_measurement: claims.runtime_measurement,
            anti_debug_profile: ANTI_DEBUG_PROFILE.into(),
            anti_debug_level: AntiDebugLevel::Off,
            policy_digest: sha384("simple"),
            minimum_assurance: Assurance::SelfReported,
        };
        let report_data = Digest64::from([0x5a; 64]);
        VerifierSample {
            claims,
            reference,
            gpu_nonce: Digest32::from([1; 32]),
            report_data,
            cpu: sign(&report_data),
            gpus: GpuEvidence::default(),
            now: UnixMillis(1_795_417_080_000),
            signed_bytes: usize::MAX,
        }
    }

    impl Simple {
        fn open(&self, cpu: &CpuEvidence) -> Option<Vec<u8>> {
            let jwt = match cpu {
                CpuEvidence::Software { jwt, .. } => jwt,
                CpuEvidence::ConfidentialSpace { jwt } if self.any_kind => jwt,
                _ => return None,
            };
            if self.indexes {
                let _ = &jwt[10..];
            }
            let (body, signature) = jwt.split_once('.')?;
            let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
            let key = match cpu {
                CpuEvidence::Software { public_key, .. } => *public_key,
                _ => PublicKey32::from(SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes()),
            };
            let key = VerifyingKey::from_bytes(&key.0).ok()?;
            let signature = ed25519_dalek::Signature::from_slice(&signature).ok()?;
            if !self.no_signature {
                key.verify_strict(body.as_bytes(), &signature).ok()?;
            }
            URL_SAFE_NO_PAD.decode(body).ok()
        }
    }

    impl Verifier for Simple {
        fn kind(&self) -> EvidenceKind {
            EvidenceKind::Software
        }
        fn policy_digest(&self) -> Digest48 {
            sha384("simple")
        }
        fn appraise(
            &self,
            cpu: &CpuEvidence,
            _: &GpuEvidence,
            binding: &Binding<'_>,
            _: UnixMillis,
        ) -> Result<Appraisal, Refusal> {
            let refuse = || Refusal::new(Code::REPORT_DATA_MISMATCH, "report data", "something else");
            let held = self.open(cpu).ok_or_else(refuse)?;
            let length = if self.half_of_report_data { 32 } else { 64 };
            if held.get(..length) != binding.report_data.0.get(..length) {
                return Err(refuse());
            }
            Ok(Appraisal {
                assurance: if self.boasts { Assurance::CpuTee } else { Assurance::SelfReported },
                claims: vec![LabelledClaim {
                    name: "report-data".into(),
                    value: binding.report_data.to_string(),
                    source: ClaimSource::RuntimeAsserted,
                }],
                relaxations: vec![],
            })
        }
    }

    #[test]
    fn a_good_one_passes() {
        verifier(&Simple::default(), sample);
    }

    #[test]
    #[should_panic(expected = "clause `evidence carries report_data in full`")]
    fn compares_half_of_report_data() {
        verifier(&Simple { half_of_report_data: true, ..Simple::default() }, sample);
    }

    #[test]
    #[should_panic(expected = "clause `changed evidence is refused`")]
    fn skips_the_signature() {
        verifier(&Simple { no_signature: true, ..Simple::default() }, sample);
    }

    #[test]
    #[should_panic(expected = "clause `evidence of another kind is refused`")]
    fn takes_any_kind() {
        verifier(&Simple { any_kind: true, ..Simple::default() }, sample);
    }

    #[test]
    #[should_panic(expected = "clause `it never panics, whatever the evidence holds`")]
    fn indexes_into_what_it_was_sent() {
        verifier(&Simple { indexes: true, ..Simple::default() }, sample);
    }

    #[test]
    #[should_panic(expected = "clause `no assurance above what verified claims support`")]
    fn boasts() {
        verifier(&Simple { boasts: true, ..Simple::default() }, sample);
    }
}

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::{clause, promised};
use crate::Attestor;
use crate::claims::{Claims, EvidenceKind};
use crate::evidence::{CpuEvidence, DeviceEvidence, DeviceKind, GpuEvidence, eat_nonce};
use crate::fixed::{Digest32, Digest64};
use crate::traits::AttestError;

/// Checks an [`Attestor`] on a machine where it works.
///
/// Not observable from here: that `measure` reads rather than remembers, and that evidence verifies; for the latter,
/// call [`verifier`](super::verifier) with what this attestor makes.
///
/// # Panics
/// With the clause that does not hold.
pub fn attestor(attestor: &dyn Attestor) {
    let claims = promised("measure gives claims", attestor.measure());
    let again = promised("measure gives claims", attestor.measure());
    clause("measure describes one machine", same_place(&claims, &again), format_args!("{claims:?}, then {again:?}"));

    let first = Digest64::from([0x5a; 64]);
    let mut other = first;
    other.0[63] ^= 1;
    for (given, not_given) in [(&first, &other), (&other, &first)] {
        let quote = promised("quote gives evidence", attestor.quote(given));
        clause("measure().kind is the kind of the quote", kind(&quote) == claims.kind, kind(&quote));
        clause("quote binds report_data", carries(&quote, given), "the evidence does not hold it");
        clause(
            "quote binds all 64 bytes",
            !carries(&quote, not_given),
            "it also holds one that differs in the last byte",
        );
    }

    let counts = [[1; 32], [2; 32]].map(|nonce| {
        let nonce = Digest32::from(nonce);
        let gpus = match attestor.gpu_evidence(&nonce) {
            // There are GPUs, and this machine cannot have them attest.
            Err(AttestError::NotAvailable { why, .. }) => {
                clause("gpu_evidence says which GPU cannot attest and why", !why.is_empty(), "it says nothing");
                GpuEvidence::default()
            }
            answer => promised("gpu_evidence answers, with an empty list where there is no GPU", answer),
        };
        for device in &gpus.0 {
            clause("every report carries the nonce given", holds_nonce(device, &nonce), device.kind.as_str());
        }
        gpus.0.len()
    });
    clause("gpu_evidence covers the same GPUs each time", counts[0] == counts[1], format_args!("{counts:?}"));

    let after = promised("measure gives claims", attestor.measure());
    clause(
        "making evidence has no side effects",
        same_place(&claims, &after) && claims.state == after.state,
        "claims changed",
    );
}

/// What cannot change between two calls; the level of protection may.
fn same_place(a: &Claims, b: &Claims) -> bool {
    (a.kind, a.image_digest, &a.container, a.runtime_measurement)
        == (b.kind, b.image_digest, &b.container, b.runtime_measurement)
}

pub(super) fn kind(evidence: &CpuEvidence) -> EvidenceKind {
    match evidence {
        CpuEvidence::Software { .. } => EvidenceKind::Software,
        CpuEvidence::Tdx { .. } => EvidenceKind::Tdx,
        CpuEvidence::SevSnp { .. } => EvidenceKind::SevSnp,
        CpuEvidence::ConfidentialSpace { .. } => EvidenceKind::ConfidentialSpace,
    }
}

/// Whether evidence holds the report data: raw in a quote; in a token as text, or as the nonce made from it.
fn carries(evidence: &CpuEvidence, report_data: &Digest64) -> bool {
    match evidence {
        CpuEvidence::Tdx { quote: bytes } | CpuEvidence::SevSnp { report: bytes, .. } => {
            holds(&bytes.0, report_data.as_ref())
        }
        CpuEvidence::Software { jwt, .. } | CpuEvidence::ConfidentialSpace { jwt } => {
            let spellings = [
                report_data.to_string(),
                STANDARD.encode(report_data),
                URL_SAFE_NO_PAD.encode(report_data),
                eat_nonce(report_data),
            ];
            decoded(jwt.as_bytes()).any(|part| spellings.iter().any(|s| holds(&part, s.as_bytes())))
        }
    }
}

/// An SPDM report has its nonce at 4..36; a token has it in hex in one of its payloads.
fn holds_nonce(device: &DeviceEvidence, nonce: &Digest32) -> bool {
    match device.kind {
        DeviceKind::NvidiaGpu | DeviceKind::NvidiaSwitch => device.report.0.get(4..36) == Some(nonce.as_ref()),
        DeviceKind::NrasToken => decoded(&device.report.0).any(|part| holds(&part, nonce.to_string().as_bytes())),
    }
}

/// Every stretch of base64url in a token or bundle of tokens, decoded.
fn decoded(text: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    text.split(|b| !b.is_ascii_alphanumeric() && !b"-_".contains(b))
        .filter_map(|part| URL_SAFE_NO_PAD.decode(part).ok())
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, ContainerId, RuntimeState};
    use crate::fixed::{Blob, PublicKey32};

    /// An attestor that keeps the contract, with a switch for each way to break it.
    #[derive(Default)]
    struct Simple {
        cuts_report_data: bool,
        ignores_report_data: bool,
        says_tdx: bool,
        fixed_gpu_nonce: bool,
        /// Its GPU cannot attest, for this reason.
        silent_gpu: Option<&'static str>,
    }

    impl Attestor for Simple {
        fn measure(&self) -> Result<Claims, AttestError> {
            Ok(Claims {
                kind: if self.says_tdx { EvidenceKind::Tdx } else { EvidenceKind::Software },
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
            })
        }

        fn gpu_evidence(&self, nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
            if let Some(why) = self.silent_gpu {
                return Err(AttestError::NotAvailable { what: "evidence", why: why.to_owned() });
            }
            let nonce = if self.fixed_gpu_nonce { [9; 32] } else { nonce.0 };
            let report = Blob([&[0x11, 0xe0, 1, 0xff][..], &nonce, &[0; 100]].concat());
            Ok(GpuEvidence(vec![DeviceEvidence {
                kind: DeviceKind::NvidiaGpu,
                serial: Blob(vec![1]),
                report,
                chain: Blob::default(),
            }]))
        }

        fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
            let mut bound = *report_data;
            if self.cuts_report_data {
                bound.0[63] = 0x5a;
            }
            if self.ignores_report_data {
                bound = Digest64::from([0; 64]);
            }
            let payload = URL_SAFE_NO_PAD.encode(format!("{{\"eat_nonce\":\"{}\"}}", eat_nonce(&bound)));
            Ok(CpuEvidence::Software { jwt: format!("e30.{payload}.AA"), public_key: PublicKey32::from([0; 32]) })
        }
    }

    #[test]
    fn a_good_one_passes() {
        attestor(&Simple::default());
        attestor(&Simple { silent_gpu: Some("it is off on GPU 0"), ..Simple::default() });
    }

    #[test]
    #[should_panic(expected = "clause `gpu_evidence says which GPU cannot attest and why`")]
    fn a_gpu_that_is_left_out_without_a_word() {
        attestor(&Simple { silent_gpu: Some(""), ..Simple::default() });
    }

    #[test]
    #[should_panic(expected = "clause `quote binds report_data`")]
    fn last_byte_cut_off() {
        attestor(&Simple { cuts_report_data: true, ..Simple::default() });
    }

    #[test]
    #[should_panic(expected = "clause `quote binds report_data`")]
    fn report_data_ignored() {
        attestor(&Simple { ignores_report_data: true, ..Simple::default() });
    }

    #[test]
    #[should_panic(expected = "clause `measure().kind is the kind of the quote`")]
    fn another_kind() {
        attestor(&Simple { says_tdx: true, ..Simple::default() });
    }

    #[test]
    #[should_panic(expected = "clause `every report carries the nonce given`")]
    fn a_gpu_report_of_an_earlier_run() {
        attestor(&Simple { fixed_gpu_nonce: true, ..Simple::default() });
    }
}

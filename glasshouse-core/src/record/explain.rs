//! A verified record in words: what it proves, on whose word each claim rests, and what it does not prove.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::session::VerifiedSession;
use super::verify::{Signer, TimeSource, VerifiedRecord};
use crate::channel::{Outcome, Phase};
use crate::claims::Assurance;
use crate::overhead::{Charset, Cleanup, render_text};
use crate::refusal::one_line;
use crate::secret::KeyMemory;
use crate::traits::ClaimSource;

/// The record for people. Nothing in it comes from the record without its source beside it.
pub fn explain(verified: &VerifiedRecord) -> String {
    let mut out = Text(String::new());
    header(&mut out, verified);
    for session in &verified.sessions {
        session_claims(&mut out, session);
    }
    for refused in &verified.record.refused {
        let why = one_line(&refused.refusal.to_string());
        out.head(&format!("Session {} was refused", refused.session.short()));
        out.claim(ClaimSource::OwnerAsserted, "refusal", &why);
    }
    run_claims(&mut out, verified);
    subjects(&mut out, verified);
    not_proven(&mut out, verified);
    if !verified.record.rows.is_empty() {
        let _ = write!(out.0, "\n{}", render_text(&verified.record.rows, Charset::Unicode));
    }
    out.0
}

fn header(out: &mut Text, v: &VerifiedRecord) {
    let _ = writeln!(out.0, "Evidence record of run {}", v.record.run.short());
    match v.signer {
        Signer::Trusted(key) => out.line(&format!("signed by the trusted key {key}")),
        Signer::Unknown(key) => {
            out.line(&format!("integrity only, signer unknown: signed by {key}, which was not given as trusted"));
        }
    }
    match v.time {
        TimeSource::Stated(at) => out.line(&format!("verified for the stated time {at}")),
        TimeSource::Record(at) => out.line(&format!("no time was stated: verified for the verdict's own time, {at}")),
    }
    out.head("What it proves");
    let events: u64 = v.sessions.iter().map(|s| s.events.count).sum();
    out.line("No byte of the file was changed since it was signed.");
    out.line(&format!(
        "{} attested and {} refused sessions, {} raw segments; {events} signed events without gap or fork, each chain with its end.",
        v.sessions.len(),
        v.record.refused.len(),
        v.raw_segments.len()
    ));
    if !v.sessions.is_empty() {
        out.line("Challenge, evidence, T, verdict, lease and events of each session belong together: recomputed here.");
    }
    let assurances: BTreeSet<_> = v.sessions.iter().map(|s| s.verdict.appraisal.assurance).collect();
    for assurance in assurances {
        out.line(&format!("{assurance} means: {}.", assurance.meaning()));
    }
    if !v.record.rows.is_empty() {
        out.line("Each overhead row belongs to this run, and rests on rates and weights in these sessions' events.");
    }
}

fn session_claims(out: &mut Text, s: &VerifiedSession) {
    use ClaimSource::{OwnerAsserted, RuntimeAsserted};
    let appraisal = &s.verdict.appraisal;
    out.head(&format!("Session {}: attestation verified, {}", s.id().short(), appraisal.assurance));
    let again =
        if s.appraised_again { "appraised again here, with the same outcome" } else { "not appraised again here" };
    out.line(&format!("The gate appraised the {} evidence; it was {again}.", s.evidence.claims.kind));
    for claim in &appraisal.claims {
        out.claim(claim.source, &claim.name, &claim.value);
    }
    for relaxation in &appraisal.relaxations {
        out.claim(OwnerAsserted, "policy relaxed", relaxation);
    }
    let claims = &s.evidence.claims;
    out.claim(OwnerAsserted, "package", &s.verdict.lease.key_id.to_string());
    out.claim(OwnerAsserted, "lease", &lease_text(s));
    out.claim(RuntimeAsserted, "executable", &claims.runtime_measurement.to_string());
    out.claim(RuntimeAsserted, "place", &claims.container.to_string());
    out.claim(RuntimeAsserted, "anti-debug", &format!("{} ({})", claims.anti_debug.level, claims.anti_debug.profile));
    if let Some(image) = claims.image_digest {
        out.claim(RuntimeAsserted, "image", &image.to_string());
    }
    events_claims(out, s);
}

fn events_claims(out: &mut Text, s: &VerifiedSession) {
    use ClaimSource::RuntimeAsserted;
    let e = &s.events;
    if let Some(device) = &e.device {
        out.claim(RuntimeAsserted, "device", device);
    }
    if let Some((total, weights)) = e.measured {
        let seconds = total.micros as f64 / 1e6;
        out.claim(RuntimeAsserted, "trained", &format!("{} units in {seconds:.3} s, weights {weights}", total.units));
    }
    for (name, sha256, bytes) in &e.artifacts {
        out.claim(RuntimeAsserted, "artifact", &format!("{name}, {bytes} bytes, {sha256}"));
    }
    if let Some(text) = timeline(&e.phases) {
        out.claim(RuntimeAsserted, "timeline", &text);
    }
    if let Some(receipt) = &e.receipt {
        let bytes = receipt.regions.iter().fold(0u64, |sum, r| sum.saturating_add(r.bytes));
        let regions = receipt.regions.len();
        let regions = if regions == 1 { "1 region".to_owned() } else { format!("{regions} regions") };
        let wiped = format!("{regions}, {bytes} bytes, wiped and read back by {}", receipt.zeroizer);
        out.claim(RuntimeAsserted, "zeroized", &wiped);
        // Each in its own words: whose word it is that was believed stands there.
        for region in &receipt.regions {
            let text = format!("{}, {} bytes: {}; {}", region.label, region.bytes, region.method, region.verification);
            out.claim(RuntimeAsserted, "wiped", &text);
        }
        if let Some(bytes) = receipt.allocator_bytes {
            let freed = format!("{bytes} bytes by the zero-on-free allocator, as they were freed");
            out.claim(RuntimeAsserted, "wiped on free", &freed);
        }
        if let Some(large) = receipt.large_blocks {
            let text = format!(
                "blocks of {} bytes and more: at most {} bytes at a time in pages that core dumps leave out, and at \
                 most {} not locked; {} bytes, all together, in ordinary memory",
                large.from_bytes, large.peak_bytes, large.unlocked_peak_bytes, large.ordinary_bytes
            );
            out.claim(RuntimeAsserted, "memory", &text);
        }
        if let Some(small) = receipt.small_blocks {
            let text = format!(
                "smaller blocks: in {} bytes of pages that core dumps leave out, {} of them not locked; {} bytes, all \
                 together, in ordinary memory",
                small.page_bytes, small.unlocked_page_bytes, small.ordinary_bytes
            );
            out.claim(RuntimeAsserted, "memory", &text);
        }
        if let Some(bytes) = receipt.swapped_bytes.filter(|bytes| *bytes > 0) {
            out.claim(RuntimeAsserted, "in swap", &format!("{bytes} bytes of the process"));
        }
        if receipt.unlocked_bytes > 0 {
            let unlocked =
                format!("{} bytes of keys and package plaintext could not be locked in memory", receipt.unlocked_bytes);
            out.claim(RuntimeAsserted, "not locked", &unlocked);
        }
        if receipt.key_memory == KeyMemory::MemfdSecret {
            out.claim(RuntimeAsserted, "keys", "in memory that the kernel itself cannot read (memfd_secret)");
        }
        for gap in &receipt.not_covered {
            out.claim(RuntimeAsserted, "not covered", gap);
        }
    }
    let end = match e.outcome {
        Some(Outcome::Completed) => "completed",
        Some(Outcome::Stopped) => "stopped before its end",
        Some(Outcome::Failed) => "failed",
        None => "not seen",
    };
    out.claim(RuntimeAsserted, "end", end);
}

/// Milliseconds from each phase to the next, from the first on.
fn timeline(phases: &[(Phase, u64)]) -> Option<String> {
    let (_, first) = phases.first()?;
    let steps: Vec<_> = phases
        .iter()
        .map(|(phase, at)| format!("{} +{:.1} ms", phase_name(*phase), at.saturating_sub(*first) as f64 / 1e3))
        .collect();
    Some(steps.join(", "))
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Challenged => "challenged",
        Phase::Attested => "attested",
        Phase::Released => "released",
        Phase::Opened => "opened",
        Phase::Prepared => "prepared",
        Phase::FirstStep => "first step",
        Phase::Training => "training",
        Phase::Exporting => "exporting",
        Phase::Zeroizing => "zeroizing",
    }
}

fn lease_text(s: &VerifiedSession) -> String {
    let lease = &s.verdict.lease;
    let units = lease.max_units.map_or("no limit of units".to_owned(), |n| format!("at most {n} units"));
    format!("until {}, {units}", lease.not_after)
}

fn run_claims(out: &mut Text, v: &VerifiedRecord) {
    out.head("The run");
    match &v.record.cleanup {
        Some(cleanup) => {
            let seen = cleanup.absent_at.last().map(|at| format!(", last at {at}")).unwrap_or_default();
            let text = match cleanup.outcome {
                Cleanup::Observed => format!("gone: absence seen {} times{seen}", cleanup.absent_at.len()),
                Cleanup::Unconfirmed => "asked to end, but not seen to be gone".to_owned(),
                Cleanup::Kept => "left running on purpose".to_owned(),
            };
            out.claim(ClaimSource::ProviderAsserted, "allocation", &format!("{text} ({})", cleanup.provider));
            if let Some(spend) = cleanup.spend {
                let last = if spend.is_final { "final" } else { "not final" };
                let text = format!("{:.4} US dollars, read at {}, {last}", spend.dollars.value(), spend.read_at);
                out.claim(ClaimSource::ProviderAsserted, "billed", &text);
            }
        }
        None => out.claim(ClaimSource::OwnerAsserted, "allocation", "nobody looked whether it is gone"),
    }
    for moment in &v.record.timeline {
        let session = moment.session.map(|s| format!(", session {}", s.short())).unwrap_or_default();
        let text = format!("{} at +{:.1} ms{session}", moment.name, moment.micros as f64 / 1e3);
        out.claim(ClaimSource::OwnerAsserted, "moment", &text);
    }
    for claim in &v.record.claims {
        out.claim(claim.source, &claim.name, &claim.value);
    }
}

fn subjects(out: &mut Text, v: &VerifiedRecord) {
    out.head("What it is about (compare with sha256sum)");
    for subject in &v.subjects {
        out.line(&format!("{}  {}", subject.digest.sha256, one_line(&subject.name)));
    }
    if v.subjects.is_empty() {
        out.line("nothing: no session trained anything");
    }
}

fn not_proven(out: &mut Text, v: &VerifiedRecord) {
    out.head("What it does not prove");
    if let Signer::Unknown(_) = v.signer {
        out.line("Who made it: give the gate's public key with --trust, from a source other than this file.");
    }
    let weakest = v.sessions.iter().map(|s| s.verdict.appraisal.assurance).min();
    match weakest {
        Some(Assurance::SelfReported) => out.line(
            "That the machine told the truth: SelfReported evidence, events and receipts can all be forged by whoever \
             controls the host.",
        ),
        Some(Assurance::CpuTee) => {
            out.line("Anything about GPUs: they and their link are outside the measured guest.");
        }
        Some(Assurance::CpuTeeGpuCc) => out.line(
            "That the GPUs are in that machine, beyond what the measured guest vouches for: a relayed GPU answers too.",
        ),
        None => out.line("That anything was protected: no session was attested."),
    }
    if v.sessions.iter().any(|s| !s.appraised_again) {
        out.line(
            "That the evidence appraises as the verdict says: give a verifier of its kind and policy to check it.",
        );
    }
    out.line("The launch secret's MACs: only owner and allocation have the key.");
    out.line("That the reference values are right: they are the owner's own.");
    if v.sessions.iter().any(|s| s.events.receipt.is_some()) {
        out.line("That nothing was copied before it was wiped; a receipt covers only what it lists.");
    }
    if !v.raw_segments.is_empty() {
        out.line("Anything about raw segments: they are not attested, and owner and allocation share their key.");
    }
}

struct Text(String);

impl Text {
    fn head(&mut self, title: &str) {
        let _ = writeln!(self.0, "\n{title}");
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.0, "  {text}");
    }

    fn claim(&mut self, source: ClaimSource, name: &str, value: &str) {
        let source = match source {
            ClaimSource::HardwareVerified => "hardware-verified",
            ClaimSource::RuntimeAsserted => "runtime-asserted",
            ClaimSource::OwnerAsserted => "owner-asserted",
            ClaimSource::ProviderAsserted => "provider-asserted",
        };
        let _ = writeln!(self.0, "  [{source:<17}] {}: {}", one_line(name), one_line(value));
    }
}

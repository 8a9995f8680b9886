//! From hardening to the release: challenge in, evidence out, key in.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::time::Duration;

use glasshouse_core::channel::Phase;
use glasshouse_core::fixed::Blob;
use glasshouse_core::package::inspect_file;
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::secret::Secret;
use glasshouse_core::segment::{SegmentConfig, SegmentError, SegmentSession};
use glasshouse_core::traits::{AttestError, Attestor};

use super::finish::Held;
use super::run::{Order, Segment, SegmentFailure, Source};
use crate::clock;
use crate::frames::{Answer, ToSegment};
use crate::roles::note;
use crate::wire::SegmentStep;

/// Answers challenges until a release opens. Refusals go back to the gate, which may try again.
pub(super) fn attest(
    segment: &mut Segment<'_>,
    launch_secret: Secret<32>,
    attestor: &dyn Attestor,
    held: &mut Held,
) -> Result<Order, SegmentFailure> {
    // Hashed by itself: the evidence names the bytes that will be opened, not what somebody said they are.
    let package = inspect_file(&segment.start.package).map_err(|e| SegmentFailure::Package(e.to_string()))?;
    let digests = package.digests;
    let mut session = SegmentSession::new(SegmentConfig {
        session: segment.start.session,
        gate_key: segment.start.gate_key,
        launch_secret,
        package_digest: digests.package,
        manifest_digest: digests.manifest,
    });
    segment.enter(SegmentStep::AwaitChallenge);
    let (mut challenged, mut attested) = (Duration::ZERO, Duration::ZERO);
    let patience = Duration::from_millis(segment.start.linger_millis);
    let deadline = clock::boot().saturating_add(patience);
    loop {
        match segment.port.wait(deadline.saturating_sub(clock::boot())) {
            Some(ToSegment::Challenge { question, challenge }) => {
                segment.enter(SegmentStep::Attest);
                challenged = clock::boot();
                match session.challenge(&challenge.0, attestor, clock::now()) {
                    Ok(evidence) => {
                        attested = clock::boot();
                        if let Some(silent) = session.without_gpus() {
                            note(format_args!(
                                "{silent}; the owner does not ask for it: this is the CPU's evidence alone"
                            ));
                        }
                        segment.enter(SegmentStep::AwaitRelease);
                        segment.port.answer(question, Answer::Evidence(Blob(evidence)));
                    }
                    Err(e) => refuse(segment, question, e)?,
                }
            }
            Some(ToSegment::Release { question, release }) => match session.release(&release.0, clock::now()) {
                Ok(grant) => {
                    let released = clock::boot();
                    held.data_key = Some(grant.data_key);
                    segment.channel = Some(grant.channel);
                    segment.port.answer(question, Answer::Released);
                    segment.phase_at(Phase::Challenged, challenged);
                    segment.phase_at(Phase::Attested, attested);
                    segment.phase_at(Phase::Released, released);
                    let source = Source::Sealed { digests, result_key: grant.result_key };
                    return Ok(Order { job: grant.job, lease: Some(grant.lease), source });
                }
                Err(e) => refuse(segment, question, e)?,
            },
            // Nothing else means anything here, and nothing here obeys a command that came before the release.
            Some(_) => {}
            None => match segment.port.stop.get() {
                Some(stop) => return Err(SegmentFailure::Stopped(stop)),
                None => return Err(SegmentFailure::NobodyCame),
            },
        }
    }
}

/// Tells the gate. What no further message can mend also ends the segment.
fn refuse(segment: &mut Segment<'_>, question: u64, error: SegmentError) -> Result<(), SegmentFailure> {
    let mut tell = |refusal| segment.port.answer(question, Answer::Refused(refusal));
    match error {
        SegmentError::Refused(refusal) => {
            tell(refusal);
            Ok(())
        }
        SegmentError::Attest(error) => {
            tell(no_evidence(&error));
            Err(SegmentFailure::Attest(error))
        }
        _ => {
            let refusal = Refusal::new(Code::new("no-randomness"), "an operating system with randomness", "none");
            tell(refusal);
            Err(SegmentFailure::NoRandomness)
        }
    }
}

fn no_evidence(error: &AttestError) -> Refusal {
    Refusal {
        advice: Some("look at the allocation's log".to_owned()),
        ..Refusal::new(Code::new("evidence-unavailable"), "evidence", error)
    }
}

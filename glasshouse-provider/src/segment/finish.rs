//! What every exit that code can see goes through: release, zeroization, receipt, terminal event, delivery.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use glasshouse_core::channel::{EventBody, Outcome, Phase};
use glasshouse_core::claims::RuntimeState;
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{SecretRegion, Workload, Zeroizer};

use super::run::{Segment, SegmentFailure};
use crate::wire::SegmentStep;
use crate::{clock, grace};

type Ended = (Outcome, Option<String>);

/// Everything that holds secrets, outside of what may panic.
#[derive(Default)]
pub(super) struct Held {
    pub(super) workload: Option<Box<dyn Workload>>,
    pub(super) data_key: Option<Secret<32>>,
    pub(super) zeroizer: Option<Box<dyn Zeroizer>>,
}

/// Lets go of everything, zeroizes in a protected segment, and ends the chain.
pub(super) fn finish(segment: &mut Segment<'_>, held: Held, protected: bool, ended: Ended) -> Ended {
    // A workload that does not let go, or a call of the device that does not return, would keep everything.
    segment.port.watchdog.limit_work(grace::LETTING_GO);
    let ended = if protected { zeroize(segment, held, ended) } else { release(segment, held, ended) };
    segment.port.watchdog.wiped();
    let (outcome, reason) = &ended;
    segment.emit(&EventBody::End { outcome: *outcome, reason: reason.clone() });
    ended
}

fn release(segment: &mut Segment<'_>, mut held: Held, ended: Ended) -> Ended {
    match release_workload(&mut held) {
        Ok(()) => ended,
        Err(failure) => worse(segment, ended, &failure),
    }
}

fn zeroize(segment: &mut Segment<'_>, mut held: Held, ended: Ended) -> Ended {
    segment.enter(SegmentStep::Zeroize);
    segment.phase(Phase::Zeroizing);
    segment.context.enter(RuntimeState::Zeroizing);
    let released = release_workload(&mut held);
    let wiped = wipe(&mut held);
    // The state is what the evidence of a later challenge would say; only a receipt makes it `zeroized`.
    segment.context.enter(if wiped.is_ok() { RuntimeState::Zeroized } else { RuntimeState::Failed });
    let ended = match released {
        Ok(()) => ended,
        Err(failure) => worse(segment, ended, &failure),
    };
    match wiped {
        Ok(receipt) => {
            segment.emit(&EventBody::Zeroized { receipt });
            ended
        }
        Err(failure) => worse(segment, ended, &failure),
    }
}

/// Wipes the data key and whatever the zeroizer was told of, and checks that nothing else is alive.
fn wipe(held: &mut Held) -> Result<glasshouse_core::traits::Receipt, SegmentFailure> {
    let key = held.data_key.take();
    // Nothing is opened before there is a zeroizer for the device: until then secrets lie in the host's memory alone.
    let zeroizer = held.zeroizer.get_or_insert_with(|| Box::new(HostZeroizer::new()));
    if let Some(key) = key {
        zeroizer.track(SecretRegion { label: "data key".to_owned(), target: Box::new(key) });
    }
    catch_unwind(AssertUnwindSafe(|| zeroizer.zeroize())).map_err(|_| SegmentFailure::Panicked)?.map_err(Into::into)
}

fn release_workload(held: &mut Held) -> Result<(), SegmentFailure> {
    let Some(mut workload) = held.workload.take() else { return Ok(()) };
    let released = catch_unwind(AssertUnwindSafe(move || {
        let released = workload.release();
        drop(workload);
        released
    }));
    released.map_err(|_| SegmentFailure::Panicked)?.map_err(Into::into)
}

/// A failure while letting go outweighs how the work ended.
fn worse(segment: &mut Segment<'_>, ended: Ended, failure: &SegmentFailure) -> Ended {
    let message = failure.to_string();
    segment.emit(&EventBody::Failed { step: segment.step.to_string(), message: message.clone() });
    match ended {
        (Outcome::Failed, Some(first)) => (Outcome::Failed, Some(format!("{first}; then: {message}"))),
        _ => (Outcome::Failed, Some(message)),
    }
}

/// Waits until the owner has everything, or the linger time is over since the last sign of the owner, or nobody is left to
/// wait for: then it gives why, and the step stays. The channel's keys are wiped when it ends.
pub(super) fn deliver(segment: &mut Segment<'_>) -> Option<String> {
    let last = segment.channel.as_ref()?.emitted().checked_sub(1)?;
    segment.enter(SegmentStep::AwaitAck);
    let linger = Duration::from_millis(segment.start.linger_millis);
    let mut deadline = clock::boot().saturating_add(linger);
    while segment.acknowledged.is_none_or(|through| through < last) {
        let left = deadline.saturating_sub(clock::boot());
        match segment.port.wait(left) {
            Some(message) => {
                deadline = clock::boot().saturating_add(linger);
                segment.obey(message);
            }
            None => {
                let gone = segment.port.stop.get().filter(|_| segment.port.stop.is_urgent());
                let why = match gone {
                    Some(stop) => stop.to_string(),
                    None if left.is_zero() => "the linger time is over".to_owned(),
                    None => continue,
                };
                segment.channel = None;
                return Some(format!("its results were not acknowledged: {why}"));
            }
        }
    }
    segment.channel = None;
    segment.enter(SegmentStep::Done);
    None
}

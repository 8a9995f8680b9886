//! Allocations that are really used: two segments on one, a log that is read while it grows, an exit in the middle.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use glasshouse_core::claims::Assurance;
use glasshouse_core::overhead::{Cleanup, Order};
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::record::{self, CleanupProof, RecordError};
use glasshouse_core::traits::AllocationId;
use tokio::time::{Instant, sleep};

use super::workload::{self, EXIT, Listener, TALK, TASK, TRAIN};
use super::{Bench, Trouble, fresh_owner, holds, longest, nothing_bills, request};
use crate::run::{OverheadRun, ProtectedRun, RunBuilder, RunError, RunEvent, StopHandle};

/// How long an agent goes on without its owner.
const LINGER: Duration = Duration::from_secs(60);
/// The same where the agent is lost: for so long the owner looks for it, too.
const LINGER_WHEN_LOST: Duration = Duration::from_secs(5);
/// What a segment takes to come and go, on a slow machine.
const SEGMENT: Duration = Duration::from_secs(30);

pub(super) async fn check(bench: &impl Bench, trouble: Trouble) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let began = Instant::now();
    match trouble {
        Trouble::TwoSegments => two(bench, folder.path()).await,
        Trouble::ExitsUnacknowledged => exit(bench, folder.path()).await,
        _ => log(bench, folder.path()).await,
    }?;
    nothing_bills(bench).await?;
    let creates = bench.creates();
    holds(creates.is_none_or(|creates| creates == 1), || format!("{creates:?} creates were asked for"))?;
    let (took, limit) = (began.elapsed(), longest(&bench.patience()) + LINGER_WHEN_LOST + 2 * SEGMENT);
    holds(took <= limit, || format!("it took {took:?}, more than {limit:?}"))
}

/// A row that counts: both segments to their end, with equal weights, on one allocation that is seen to be gone.
async fn two(bench: &impl Bench, folder: &Path) -> Result<(), String> {
    let run = composed(OverheadRun::builder(), bench, folder, TRAIN)?.order(Order::RawFirst).repeats(1);
    let report = run.duration(Duration::from_millis(300)).run().await.map_err(|failure| failure.to_string())?;
    holds(report.samples.len() == 2, || format!("{} segments ran", report.samples.len()))?;
    holds(report.row.is_valid(), || format!("the row does not count: {:?}", report.row.outcome()))?;
    seen_gone(report.cleanup.as_ref())
}

/// Lost, with the number of the last record that came home.
async fn exit(bench: &impl Bench, folder: &Path) -> Result<(), String> {
    let run = composed(ProtectedRun::builder(), bench, folder, EXIT)?.linger(LINGER_WHEN_LOST);
    let failure = run.run().await.err().ok_or("its segment came to its end without an agent")?;
    let RunError::AgentLost { last: Some(last), .. } = &failure.error else {
        return Err(format!("it is not lost: {failure}"));
    };
    let report = failure.report.as_ref().ok_or("nothing of it is reported")?;
    let bytes = std::fs::read(&report.record).map_err(|error| error.to_string())?;
    let whole = record::verify(&bytes, Some(report.gate_key), None);
    let Err(RecordError::TerminalMissing { events, .. }) = whole else {
        return Err(format!("its record does not say that its end was not seen: {:?}", whole.map(|_| ())));
    };
    holds(*last >= 3, || format!("only {last} came home, so that hardly anything ran"))?;
    holds(events.checked_sub(1) == Some(*last), || format!("the last of {events} records was {last}"))?;
    seen_gone(report.cleanup.as_ref())
}

/// Everything that a segment wrote, each line once and in order, however often its readings broke off.
async fn log(bench: &impl Bench, folder: &Path) -> Result<(), String> {
    let (stop, id) = (StopHandle::new(), Arc::<Mutex<Option<AllocationId>>>::default());
    let rented = id.clone();
    let run =
        composed(ProtectedRun::builder(), bench, folder, TALK)?.stop_handle(stop.clone()).on_event(move |event| {
            if let RunEvent::Rented { id } = event {
                *rented.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
            }
        });
    let known = || id.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (provider, poll, whole) = (bench.provider(), bench.patience().poll, workload::log());
    let read = async {
        let (mut lines, mut after, mut readings) = (Vec::new(), None::<String>, 0_usize);
        let began = Instant::now();
        while lines.len() < whole.len() && began.elapsed() < SEGMENT {
            sleep(poll).await;
            let Some(id) = known() else { continue };
            // What broke off is read again from where it began.
            let Ok(chunk) = provider.logs(&id, after.as_deref()).await else { continue };
            let before = lines.len();
            lines.extend(chunk.lines.into_iter().filter(|line| workload::is_said(line)));
            // Only what brings some of it home resumes anything.
            (after, readings) = (Some(chunk.next), readings + usize::from(lines.len() > before));
        }
        // From where it ended nothing of it comes again, also after a reading that broke off.
        if let Some(id) = known() {
            for _ in 0..2 {
                let again = provider.logs(&id, after.as_deref()).await.map(|chunk| chunk.lines).unwrap_or_default();
                lines.extend(again.into_iter().filter(|line| workload::is_said(line)));
            }
        }
        stop.stop();
        (lines, readings)
    };
    let (ran, (lines, readings)) = tokio::join!(run.run(), read);
    let proof = match &ran {
        Ok(report) => report.cleanup.as_ref(),
        Err(failure) => failure.report.as_ref().and_then(|report| report.cleanup.as_ref()),
    };
    holds(proof.is_some(), || format!("it did not run: {:?}", ran.as_ref().err().map(ToString::to_string)))?;
    seen_gone(proof)?;
    let wrong = lines.iter().zip(&whole).position(|(read, written)| read != written);
    holds(lines == whole, || format!("{} of {} lines were read, wrong from {wrong:?} on", lines.len(), whole.len()))?;
    holds(readings >= 2, || format!("its log came in {readings} readings, so that none resumed another"))
}

fn composed<K>(
    run: RunBuilder<K>,
    bench: &impl Bench,
    folder: &Path,
    task: &'static str,
) -> Result<RunBuilder<K>, String> {
    let (package, tag) = (folder.join("contract.package"), fresh_owner()?);
    let sealed = PackageBuilder::new(workload::NAME)
        .entry(TASK, Source::Slice(task.as_bytes()))
        .minimum_assurance(Assurance::SelfReported)
        .seal_to_file(&package)
        .map_err(|error| error.to_string())?;
    let request = request(bench);
    let run = request.env.iter().fold(run, |run, (name, value)| run.env(name, value));
    let run = request.image.into_iter().fold(run, |run, (image, digest)| run.image(image, digest));
    let run = request.disk_gib.into_iter().fold(run, RunBuilder::disk_gib);
    let run = request.time_limit.into_iter().fold(run, RunBuilder::time_limit);
    Ok(run
        .shared_provider(bench.provider())
        .offers(request.filter)
        .patience(bench.patience())
        .supervise(move |supervisor| supervisor.owner(tag.clone()).attempts(1))
        .linger(LINGER)
        .container(workload::container())
        .runtime_measurement(workload::measurement())
        .verifier(Listener)
        .package(package, sealed)
        // It has none.
        .dangerous_allow_cleartext_data()
        .out_dir(folder.join("out"))
        .export(false)
        .progress_every(Duration::from_millis(20))
        .budget(glasshouse_core::job::Budget::Millis(u64::try_from(SEGMENT.as_millis()).unwrap_or(u64::MAX)))
        .leave_signals())
}

fn seen_gone(proof: Option<&CleanupProof>) -> Result<(), String> {
    let observed = proof.is_some_and(|proof| proof.outcome == Cleanup::Observed);
    holds(observed, || format!("its end was not seen: {proof:?}"))
}

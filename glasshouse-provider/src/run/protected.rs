use std::path::PathBuf;

use glasshouse_core::fixed::{Digest32, Nonce32, PublicKey32};
use glasshouse_core::overhead::Mode;
use glasshouse_core::record::CleanupProof;
use glasshouse_core::traits::Receipt;

use super::builder::{Listener, RunBuilder};
use super::execute::{Executed, execute};
use super::record::write_record;
use super::result::Timeline;
use super::setup::Setup;
use super::{RunError, RunFailure, TrainedArtifact};

/// One protected training run on one allocation.
///
/// ```no_run
/// # use glasshouse_core::traits::Verifier;
/// # async fn run(verifier: impl Verifier + 'static, container: glasshouse_core::claims::ContainerId)
/// #     -> Result<(), Box<dyn std::error::Error>> {
/// use glasshouse_core::claims::Assurance;
/// use glasshouse_core::package::{PackageBuilder, Source};
/// use glasshouse_provider::{LocalProvider, ProtectedRun};
///
/// let sealed = PackageBuilder::new("my-workload")
///     .entry("config.json", Source::Slice(br#"{"epochs":100}"#))
///     .minimum_assurance(Assurance::SelfReported)
///     .seal_to_file("job.package")?;
/// let report = ProtectedRun::builder()
///     .provider(LocalProvider::new().container(container))
///     .verifier(verifier)
///     .package("job.package", sealed)
///     .out_dir("glasshouse-out")
///     .on_event(|event| println!("{event:?}"))
///     .run()
///     .await?;
/// println!("{:?}, proven by {}", report.artifacts, report.record.display());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct ProtectedRun(());

/// What a run of one segment left.
#[derive(Debug)]
pub struct RunReport {
    /// The run.
    pub run: Nonce32,
    /// Its session.
    pub session: Option<Nonce32>,
    /// The evidence record's file.
    pub record: PathBuf,
    /// The key that verifies the record.
    pub gate_key: PublicKey32,
    /// Artifacts, checked; each also lies in the output folder.
    pub artifacts: Vec<TrainedArtifact>,
    /// Units of steady-state training and their time in seconds.
    pub trained: Option<(u64, f64)>,
    /// SHA-256 of the weights at the end.
    pub weights: Option<Digest32>,
    /// The last loss known.
    pub loss: Option<f64>,
    /// When the segment entered its phases.
    pub timeline: Timeline,
    /// What the runtime wiped.
    pub receipt: Option<Receipt>,
    /// The end of the allocation.
    pub cleanup: Option<CleanupProof>,
}

impl ProtectedRun {
    /// Composes a run.
    pub fn builder() -> RunBuilder<Self> {
        RunBuilder::new(Self::default())
    }
}

impl RunBuilder<ProtectedRun> {
    /// Runs it: seals nothing itself, rents, attests, releases, trains, fetches, ends, proves.
    ///
    /// # Errors
    /// [`RunFailure`] with the first error, and with the report of whatever came home before it.
    pub async fn run(self) -> Result<RunReport, RunFailure<RunReport>> {
        let (_, setup, listener) = self.complete()?;
        one(&setup, Mode::Protected, listener).await
    }
}

/// One raw training run on one allocation: the same workload and the same training loop without attestation, sealed data
/// and zeroization. It shows the data to the allocation.
#[derive(Debug, Default)]
pub struct RawRun(());

impl RawRun {
    /// Composes a run.
    pub fn builder() -> RunBuilder<Self> {
        RunBuilder::new(Self::default())
    }
}

impl RunBuilder<RawRun> {
    /// Runs it.
    ///
    /// # Errors
    /// [`RunFailure`] with the first error, and with the report of whatever came home before it;
    /// [`RunError::CleartextData`] for private data on a machine that is not the owner's.
    pub async fn run(self) -> Result<RunReport, RunFailure<RunReport>> {
        let (_, setup, listener) = self.complete()?;
        one(&setup, Mode::Raw, listener).await
    }
}

async fn one(setup: &Setup, mode: Mode, mut listener: Listener) -> Result<RunReport, RunFailure<RunReport>> {
    let artifacts = setup.artifact_folder();
    let mut executed = execute(setup, &[mode], Some(&artifacts), &mut *listener).await?;
    let errors = std::mem::take(&mut executed.errors);
    RunFailure::outcome(errors, report(setup, executed))
}

fn report(setup: &Setup, mut executed: Executed) -> Result<RunReport, RunError> {
    let record = write_record(setup, &mut executed, Vec::new())?;
    let Executed { run, mut results, cleanup, .. } = executed;
    let result = results.pop();
    let measured = result.as_ref().and_then(|result| result.measured());
    Ok(RunReport {
        run,
        session: result.as_ref().map(|result| result.session),
        record,
        gate_key: setup.gate.public(),
        trained: measured.map(|(total, ..)| (total.units, super::result::seconds(total.micros))),
        weights: measured.map(|(_, weights, _)| weights),
        loss: measured.and_then(|(.., loss)| loss),
        timeline: result.as_ref().map(|result| result.timeline()).unwrap_or_default(),
        receipt: result.as_ref().and_then(|result| result.receipt()),
        cleanup,
        artifacts: result.map(|result| result.artifacts).unwrap_or_default(),
    })
}

use std::path::PathBuf;
use std::time::Duration;

use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::job::Budget;
use glasshouse_core::overhead::{Cleanup, Label, Measurement, Order, OverheadFile, Row, SegmentSample};
use glasshouse_core::record::CleanupProof;
use glasshouse_core::traits::Unit;

use super::builder::RunBuilder;
use super::execute::{Executed, execute};
use super::files::{Readers, write_whole};
use super::limits::MOST_SEGMENTS;
use super::record::write_record;
use super::result::Timeline;
use super::setup::Setup;
use super::{RunError, RunFailure};

/// Raw and protected segments of one training loop on one allocation, in an order that can be compared.
#[derive(Debug)]
pub struct OverheadRun {
    order: Order,
    repeats: u16,
    duration: Duration,
    unit: Unit,
    machine: Option<String>,
    workload: Option<String>,
}

/// What a measurement left.
#[derive(Debug)]
pub struct OverheadReport {
    /// The row. It says itself whether it counts.
    pub row: Row,
    /// Every segment as it was measured.
    pub samples: Vec<SegmentSample>,
    /// Phases of the protected segments, in order.
    pub timelines: Vec<Timeline>,
    /// The evidence record's file.
    pub record: PathBuf,
    /// The file with the row.
    pub overhead: PathBuf,
    /// The key that verifies the record.
    pub gate_key: PublicKey32,
    /// The end of the allocation.
    pub cleanup: Option<CleanupProof>,
}

impl OverheadRun {
    /// Composes a measurement: `abba`, two repeats, 5 s a segment until told otherwise. Artifacts are not exported.
    pub fn builder() -> RunBuilder<Self> {
        let kind = Self {
            order: Order::default(),
            repeats: 2,
            duration: Duration::from_secs(5),
            unit: Unit::Epoch,
            machine: None,
            workload: None,
        };
        RunBuilder::new(kind).export(false)
    }
}

impl RunBuilder<OverheadRun> {
    /// The order of raw and protected segments.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.kind.order = order;
        self
    }

    /// How often the order is repeated.
    #[must_use]
    pub fn repeats(mut self, repeats: u16) -> Self {
        self.kind.repeats = repeats;
        self
    }

    /// Steady state of each segment.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.kind.duration = duration;
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.budget(Budget::Millis(millis))
    }

    /// What a unit of the workload is; an epoch when not given.
    #[must_use]
    pub fn unit(mut self, unit: Unit) -> Self {
        self.kind.unit = unit;
        self
    }

    /// What the machine is, for the row; this machine's processors when not given and the provider is `local`.
    #[must_use]
    pub fn machine(mut self, machine: impl Into<String>) -> Self {
        self.kind.machine = Some(machine.into());
        self
    }

    /// Name of the workload with its shape, for the row; the workload's name when not given.
    #[must_use]
    pub fn workload_label(mut self, label: impl Into<String>) -> Self {
        self.kind.workload = Some(label.into());
        self
    }

    /// Runs it, and writes `overhead.json`, `evidence.json` and the gate's public key.
    ///
    /// # Errors
    /// [`RunFailure`] with the first error, and with the report of what was measured before it: an excluded row.
    pub async fn run(self) -> Result<OverheadReport, RunFailure<OverheadReport>> {
        let (kind, mut setup, mut listener) = self.complete()?;
        let plan = kind.order.plan(kind.repeats);
        if plan.is_empty() {
            return Err(RunError::Missing { what: "at least one repeat", call: "repeats" }.into());
        }
        if plan.len() > MOST_SEGMENTS {
            return Err(RunError::TooManySegments { segments: plan.len(), most: MOST_SEGMENTS }.into());
        }
        setup.segments = plan.len();
        let mut executed = execute(&setup, &plan, None, &mut *listener).await?;
        let errors = std::mem::take(&mut executed.errors);
        RunFailure::outcome(errors, report(&kind, &setup, executed))
    }
}

fn report(kind: &OverheadRun, setup: &Setup, mut executed: Executed) -> Result<OverheadReport, RunError> {
    let samples: Vec<SegmentSample> =
        executed.results.iter().map(|result| result.sample(setup.device, executed.instance.clone())).collect();
    let protected = executed.results.iter().filter(|r| r.mode == glasshouse_core::overhead::Mode::Protected);
    let timelines = protected.map(|result| result.timeline()).collect();
    let provider = setup.provider.name();
    let machine = match &kind.machine {
        Some(machine) => machine.clone(),
        None if provider == "local" => super::machine::local_machine(),
        None => "unknown machine".to_owned(),
    };
    let workload = kind.workload.as_ref().unwrap_or(&setup.package.sealed.manifest.workload);
    let workload = with_methods(workload, &samples);
    let row = Measurement {
        run: executed.run,
        provider: Label::lossy(provider),
        machine: Label::lossy(&machine),
        workload: Label::lossy(&workload),
        unit: kind.unit,
        order: kind.order,
        repeats: kind.repeats,
        duration_seconds: kind.duration.as_secs_f64(),
        segments: samples.clone(),
        cleanup: executed.cleanup.as_ref().map_or(Cleanup::Unconfirmed, |proof| proof.outcome),
    }
    .into_row();
    let cleanup = executed.cleanup.clone();
    let record = write_record(setup, &mut executed, vec![row.clone()])?;
    let file = OverheadFile { rows: vec![row.clone()] };
    let json = file.to_json().map_err(|e| RunError::File {
        path: setup.out.join("overhead.json"),
        what: "written",
        why: e.to_string(),
    })?;
    let overhead = write_whole(&setup.out, "overhead.json", json.as_bytes(), Readers::Everyone)?;
    Ok(OverheadReport { row, samples, timelines, record, overhead, gate_key: setup.gate.public(), cleanup })
}

/// `mlp reference, cpu-fused`. Segments that differ stand there with both, and the row does not count.
fn with_methods(workload: &str, samples: &[SegmentSample]) -> String {
    let mut methods: Vec<&str> = samples.iter().filter_map(|sample| sample.method.as_deref()).collect();
    methods.sort_unstable();
    methods.dedup();
    match methods.is_empty() {
        true => workload.to_owned(),
        false => format!("{workload}, {}", methods.join(" / ")),
    }
}

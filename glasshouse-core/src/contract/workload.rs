use std::collections::{BTreeMap, BTreeSet};

use super::{clause, is_stable_name, no_panic, noise, promised};
use crate::Workload;
use crate::fixed::Digest32;
use crate::secret::SecretBuffer;
use crate::traits::{ArtifactSink, Device, Inputs, Progress, WorkloadError};

/// Checks a [`Workload`] on a device. `make` gives a fresh one; `inputs` gives the same inputs each time, for at least
/// six launches' worth of units. Takes about forty launches, so give it a small shape.
///
/// Not observable from here: that no plaintext is written to disk, and that `release` drops every tensor; for the latter
/// the zeroizer checks the ledger of secret bytes.
///
/// # Panics
/// With the clause that does not hold.
pub fn workload(make: impl Fn() -> Box<dyn Workload>, inputs: impl Fn() -> Inputs, device: Device) {
    let batch = make().launch_batch();
    clause("a workload has a stable name", is_stable_name(make().name()), make().name());
    clause("a launch covers at least one unit", batch >= 1, batch);

    let prepared = || {
        let mut workload = make();
        promised("prepare takes good inputs", workload.prepare(inputs(), device));
        workload
    };
    calls_before_prepare_are_misuse(&mut *make());
    prepare_is_called_once(&mut *prepared(), inputs(), device);
    let digest = units_count_however_they_are_grouped(&prepared, batch);
    exports_change_nothing(&prepared, batch, digest);
    nothing_but_drop_after_release(&mut *prepared(), inputs(), device);
    bad_inputs_are_errors(&make, &inputs, device);
}

fn calls_before_prepare_are_misuse(workload: &mut dyn Workload) {
    let clause = "prepare comes before anything else";
    let batch = workload.launch_batch();
    misuse(clause, "advance", workload.advance(batch));
    misuse(clause, "weights_digest", workload.weights_digest());
    misuse(clause, "export", workload.export(&mut Artifacts::default()));
}

fn prepare_is_called_once(workload: &mut dyn Workload, inputs: Inputs, device: Device) {
    misuse("prepare is called once", "prepare", workload.prepare(inputs, device));
}

/// 6 launches against 2 and 4, and once more in another instance. Returns the digest after them.
fn units_count_however_they_are_grouped(prepared: &impl Fn() -> Box<dyn Workload>, batch: u64) -> Digest32 {
    let mut whole = prepared();
    let before = digest(&*whole);
    exactly(whole.advance(6 * batch), 6 * batch);
    let after = digest(&*whole);
    clause("training changes the weights", before != after, "six launches left the digest as it was");

    let mut again = prepared();
    exactly(again.advance(6 * batch), 6 * batch);
    let repeated = digest(&*again);
    clause("two instances train alike", repeated == after, format_args!("{after}, then {repeated}"));

    let mut parts = prepared();
    clause("one set of inputs gives one set of initial weights", digest(&*parts) == before, "two instances differ");
    exactly(parts.advance(2 * batch), 2 * batch);
    exactly(parts.advance(0), 2 * batch);
    exactly(parts.advance(4 * batch), 6 * batch);
    let grouped = digest(&*parts);
    clause(
        "weights do not depend on the grouping of units",
        grouped == after,
        format_args!("6 gave {after}, 2 + 4 {grouped}"),
    );
    after
}

fn exports_change_nothing(prepared: &impl Fn() -> Box<dyn Workload>, batch: u64, after_six: Digest32) {
    let mut workload = prepared();
    exactly(workload.advance(2 * batch), 2 * batch);
    let before = digest(&*workload);
    let first = export(&mut *workload);
    let second = export(&mut *workload);
    clause("export can be called more than once", first == second, "two exports differ");
    clause("export hands something out", !first.is_empty(), "no artifact");
    clause("export changes nothing", digest(&*workload) == before, "the digest changed");
    promised("a checkpoint can be asked for after any launch", workload.checkpoint(&mut Artifacts::default()));
    clause("a checkpoint changes nothing", digest(&*workload) == before, "the digest changed");
    exactly(workload.advance(4 * batch), 6 * batch);
    clause("export changes nothing", digest(&*workload) == after_six, "training after it went another way");
    clause("an export shows the weights", export(&mut *workload) != first, "four launches later it is the same");
}

fn nothing_but_drop_after_release(workload: &mut dyn Workload, inputs: Inputs, device: Device) {
    let clause = "after release only Drop may be called";
    let batch = workload.launch_batch();
    exactly(workload.advance(batch), batch);
    promised("release works", workload.release());
    misuse(clause, "advance", workload.advance(batch));
    misuse(clause, "weights_digest", workload.weights_digest());
    misuse(clause, "export", workload.export(&mut Artifacts::default()));
    misuse(clause, "prepare", workload.prepare(inputs, device));
}

fn bad_inputs_are_errors(make: &impl Fn() -> Box<dyn Workload>, inputs: &impl Fn() -> Inputs, device: Device) {
    let names: Vec<_> = inputs().sealed.keys().cloned().collect();
    let what = "bad inputs give errors, not panics";
    for name in &names {
        let mut missing = inputs();
        missing.sealed.remove(name);
        // An entry may be optional, but an error about it must name it.
        match no_panic(what, format_args!("no {name}"), || make().prepare(missing, device)) {
            Ok(()) => {}
            Err(WorkloadError::Input { name: named, .. }) if named == *name => {}
            Err(other) => {
                panic!("clause `a missing input is WorkloadError::Input with its name` is broken: {name}: {other}")
            }
        }
        for (kind, bytes) in [
            ("empty", Vec::new()),
            ("random", noise(1, 777)),
            ("zeros", vec![0; 4096]),
            ("halved", half(inputs(), name)),
        ] {
            let mut bad = inputs();
            bad.sealed.insert(name.clone(), SecretBuffer::new(bytes));
            let _ = no_panic(what, format_args!("{name} {kind}"), || {
                let mut workload = make();
                workload.prepare(bad, device).and_then(|()| workload.advance(workload.launch_batch()))
            });
        }
    }
    if !names.is_empty() {
        let nothing = Inputs { public: inputs().public, ..Inputs::default() };
        let outcome = no_panic(what, "no inputs", || make().prepare(nothing, device));
        let refused = matches!(&outcome, Err(WorkloadError::Input { name, .. }) if names.contains(name));
        clause(
            "a missing input is WorkloadError::Input with its name",
            refused,
            format_args!("no inputs gave {outcome:?}"),
        );
    }
}

fn half(mut inputs: Inputs, name: &str) -> Vec<u8> {
    let bytes = inputs.sealed.remove(name).map(|entry| entry.to_vec()).unwrap_or_default();
    bytes.get(..bytes.len() / 2).map(<[u8]>::to_vec).unwrap_or_default()
}

#[track_caller]
fn exactly(outcome: Result<Progress, WorkloadError>, done: u64) {
    let progress = promised("advance trains", outcome);
    clause(
        "advance does exactly the units asked for",
        progress.done == done,
        format_args!("{} of {done}", progress.done),
    );
    let finite = progress.loss.is_none_or(f64::is_finite);
    clause("a loss that is not finite is an error", finite, format_args!("{:?}", progress.loss));
}

#[track_caller]
fn misuse<T>(what: &str, call: &str, outcome: Result<T, WorkloadError>) {
    match outcome {
        Err(WorkloadError::Misuse { .. }) => {}
        Err(other) => panic!("clause `{what}` is broken: {call} gave another error than misuse: {other}"),
        Ok(_) => panic!("clause `{what}` is broken: {call} was accepted"),
    }
}

#[track_caller]
fn digest(workload: &dyn Workload) -> Digest32 {
    promised("weights_digest works after prepare", workload.weights_digest())
}

#[track_caller]
fn export(workload: &mut dyn Workload) -> BTreeMap<String, Vec<u8>> {
    let mut artifacts = Artifacts::default();
    promised("export works after prepare", workload.export(&mut artifacts));
    let names: BTreeSet<_> = artifacts.0.iter().map(|(name, _)| name.as_str()).collect();
    clause("artifact names are distinct", names.len() == artifacts.0.len(), format_args!("{names:?}"));
    let plain = names.iter().all(|n| !n.is_empty() && *n != "." && *n != ".." && !n.contains(['/', '\\', '\0']));
    clause("artifact names are file names", plain, format_args!("{names:?}"));
    artifacts.0.into_iter().collect()
}

#[derive(Default)]
struct Artifacts(Vec<(String, Vec<u8>)>);

impl ArtifactSink for Artifacts {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WorkloadError> {
        self.0.push((name.to_owned(), bytes.to_vec()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traits::Unit;
    use crate::transcript::sha256;
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

    /// A linear map fitted to one input, with a switch for each way to break the contract.
    #[derive(Default, Clone, Copy)]
    struct Faults {
        by_call: bool,
        drifts: bool,
        export_trains: bool,
        checkpoint_trains: bool,
        survives_release: bool,
        unwraps_input: bool,
        bad_name: bool,
        overshoots: bool,
    }

    #[derive(Default)]
    struct Simple {
        faults: Faults,
        state: Option<(SecretBuffer, Vec<f32>, u64)>,
        released: bool,
        instance: f32,
    }

    impl Simple {
        fn step(&mut self) -> Result<(), WorkloadError> {
            let (data, weights, done) = self.state.as_mut().ok_or(NOT_PREPARED)?;
            for (weight, target) in weights.iter_mut().zip(data.iter()) {
                *weight += 0.1 * (f32::from(*target) - *weight);
            }
            *done += 1;
            Ok(())
        }
    }

    static INSTANCES: AtomicU16 = AtomicU16::new(10);
    const NOT_PREPARED: WorkloadError =
        WorkloadError::Misuse { call: "a call", when: "before prepare or after release" };

    impl Workload for Simple {
        fn name(&self) -> &'static str {
            "simple"
        }
        fn unit(&self) -> Unit {
            Unit::Step
        }
        fn launch_batch(&self) -> u64 {
            2
        }
        fn prepare(&mut self, mut inputs: Inputs, _: Device) -> Result<(), WorkloadError> {
            if self.state.is_some() || self.released {
                return Err(WorkloadError::Misuse { call: "prepare", when: "twice" });
            }
            let data =
                if self.faults.unwraps_input { inputs.sealed.remove("data").unwrap() } else { inputs.take("data")? };
            let weights = data.iter().map(|_| 0.5).collect();
            self.instance = f32::from(INSTANCES.fetch_add(1, Relaxed));
            self.state = Some((data, weights, 0));
            Ok(())
        }
        fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
            for _ in 0..units {
                self.step()?;
            }
            let faults = self.faults;
            let (_, weights, done) = self.state.as_mut().ok_or(NOT_PREPARED)?;
            if faults.by_call
                && let Some(first) = weights.first_mut()
            {
                *first += 1.0;
            }
            if faults.drifts
                && let Some(first) = weights.first_mut()
            {
                *first = self.instance;
            }
            if faults.overshoots {
                *done += 1;
            }
            Ok(Progress { done: *done, ..Progress::default() })
        }
        fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
            let (_, weights, _) = self.state.as_ref().ok_or(NOT_PREPARED)?;
            Ok(sha256(weights.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>()))
        }
        fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
            let (_, weights, _) = self.state.as_ref().ok_or(NOT_PREPARED)?;
            let bytes: Vec<_> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
            sink.put(if self.faults.bad_name { "../weights" } else { "weights.bin" }, &bytes)?;
            if self.faults.export_trains {
                self.step()?;
            }
            Ok(())
        }
        fn checkpoint(&mut self, _: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
            if self.faults.checkpoint_trains { self.step() } else { Ok(()) }
        }
        fn release(&mut self) -> Result<(), WorkloadError> {
            self.released = true;
            if !self.faults.survives_release {
                self.state = None;
            }
            Ok(())
        }
    }

    fn run(faults: Faults) {
        let inputs = || {
            let mut inputs = Inputs::default();
            inputs.sealed.insert("data".into(), SecretBuffer::new(vec![1, 2, 3, 4]));
            inputs
        };
        workload(|| Box::new(Simple { faults, ..Simple::default() }), inputs, Device::Cpu);
    }

    #[test]
    fn a_good_one_passes() {
        run(Faults::default());
    }

    #[test]
    #[should_panic(expected = "clause `weights do not depend on the grouping of units`")]
    fn depends_on_grouping() {
        run(Faults { by_call: true, ..Faults::default() });
    }

    #[test]
    #[should_panic(expected = "clause `two instances train alike`")]
    fn is_not_deterministic() {
        run(Faults { drifts: true, ..Faults::default() });
    }

    #[test]
    #[should_panic(expected = "clause `export can be called more than once`")]
    fn trains_while_exporting() {
        run(Faults { export_trains: true, ..Faults::default() });
    }

    #[test]
    #[should_panic(expected = "clause `a checkpoint changes nothing`")]
    fn trains_while_making_a_checkpoint() {
        run(Faults { checkpoint_trains: true, ..Faults::default() });
    }

    #[test]
    #[should_panic(expected = "clause `after release only Drop may be called`")]
    fn goes_on_after_release() {
        run(Faults { survives_release: true, ..Faults::default() });
    }

    #[test]
    #[should_panic(expected = "clause `bad inputs give errors, not panics`")]
    fn unwraps_an_input() {
        run(Faults { unwraps_input: true, ..Faults::default() });
    }

    #[test]
    #[should_panic(expected = "clause `artifact names are file names`")]
    fn exports_outside_its_folder() {
        run(Faults { bad_name: true, ..Faults::default() });
    }

    #[test]
    #[should_panic(expected = "clause `advance does exactly the units asked for`")]
    fn counts_more_than_it_did() {
        run(Faults { overshoots: true, ..Faults::default() });
    }
}

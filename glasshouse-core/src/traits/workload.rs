use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fixed::Digest32;
use crate::public_file::PublicFile;
use crate::secret::SecretBuffer;

/// Where a workload computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The host's CPU.
    #[default]
    Cpu,
    /// The first CUDA device.
    Cuda,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

/// What a workload is given: the opened package's entries, and public inputs that were checked by digest and are read
/// through [`PublicFile`], never by path.
#[derive(Default)]
pub struct Inputs {
    /// Opened entries by name, in memory only, wiped when dropped.
    pub sealed: BTreeMap<String, SecretBuffer>,
    /// Public inputs by name.
    pub public: BTreeMap<String, Arc<PublicFile>>,
}

impl Inputs {
    /// Takes an entry out, or says which one is missing.
    ///
    /// # Errors
    /// [`WorkloadError::Input`] when there is no such entry.
    pub fn take(&mut self, name: &str) -> Result<SecretBuffer, WorkloadError> {
        self.sealed.remove(name).ok_or_else(|| WorkloadError::Input {
            name: name.to_owned(),
            why: "it is not in the package; seal it under this name".to_owned(),
        })
    }
}

/// What one unit of progress is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A pass over all data.
    Epoch,
    /// An optimizer step.
    Step,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Epoch => "epoch",
            Self::Step => "step",
        })
    }
}

/// Where training stands. What a workload does not know it leaves `None`, and then it does not travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Units done since `prepare`.
    pub done: u64,
    /// Units in all, when the workload has an end of its own.
    pub total: Option<u64>,
    /// The latest loss that is known on the host; reading it back each unit would slow a GPU down.
    pub loss: Option<f64>,
    /// The latest loss on held-out data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Learning rate of the last unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Tokens trained on since `prepare`, padding not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

impl Progress {
    /// Whether the workload has reached its own end.
    pub fn is_finished(&self) -> bool {
        self.total.is_some_and(|total| self.done >= total)
    }
}

/// Takes artifacts out of a workload. What comes through it in a protected run leaves sealed to the owner only.
pub trait ArtifactSink {
    /// Takes one artifact whole. Names are file names: no separators, not empty.
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WorkloadError>;
}

/// Why a workload cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// An input is missing or not what it should be.
    #[error("input {name}: {why}")]
    Input {
        /// Name of the entry.
        name: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The configuration asks for what cannot be.
    #[error("configuration {field}: {why}")]
    Config {
        /// Name of the field.
        field: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The loss is not a number.
    #[error("the loss is {loss} after {done} units; lower the learning rate or look at the data")]
    NotFinite {
        /// The loss.
        loss: f64,
        /// Units done.
        done: u64,
    },
    /// A device or an allocation failed.
    #[error("{what} failed: {why}")]
    Device {
        /// What was asked of it.
        what: String,
        /// What it answered.
        why: String,
    },
    /// A call came in a state that does not take it.
    #[error("{call} was called {when}")]
    Misuse {
        /// The call.
        call: &'static str,
        /// The state.
        when: &'static str,
    },
    /// An artifact could not be taken.
    #[error("artifact {name}: {why}")]
    Artifact {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// One training job. Raw and protected runs call exactly the same code.
///
/// # Contract
/// - `prepare` is called once, before anything else, and takes everything it needs from `inputs`.
/// - `advance(n)` does exactly `n` units, or fewer only when the workload reaches its own end, and returns after the
///   device has finished them, so that a caller's clock measures work and not its queueing.
/// - From one set of inputs on one device, `weights_digest` after `n` units is the same however the units were
///   grouped into calls, and whether the run was raw or protected.
/// - `export` can be called more than once and changes nothing.
/// - `release` drops every tensor and every buffer made from the inputs; afterwards only `Drop` may be called.
/// - No call panics on bad inputs; none writes plaintext of `inputs` to disk.
///
/// [`contract::workload`](crate::contract::workload) checks an implementation.
pub trait Workload: Send {
    /// Stable name, by which a registry finds it: lower-case words joined by hyphens.
    fn name(&self) -> &'static str;

    /// What a unit is.
    fn unit(&self) -> Unit;

    /// How many units one launch covers; callers advance by multiples of it. Known after `prepare`. More than 1 where
    /// single units are so short that returning between them would be what is measured.
    fn launch_batch(&self) -> u64;

    /// How training runs, for the row: `eager`, `cuda-graph`, …; a fallback says so and why. Known after `prepare`.
    fn method(&self) -> String {
        "eager".to_owned()
    }

    /// Builds everything from the inputs on the device.
    fn prepare(&mut self, inputs: Inputs, device: Device) -> Result<(), WorkloadError>;

    /// Trains.
    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError>;

    /// SHA-256 over all trained weights in a stable order, little-endian.
    fn weights_digest(&self) -> Result<Digest32, WorkloadError>;

    /// Hands out a checkpoint when one is due. Called after each `advance` of a run that exports; what is put leaves the
    /// allocation at once, as artifacts do, so that it outlives whatever happens next. Each has a name of its own.
    /// Changes nothing. A workload without checkpoints has none due.
    fn checkpoint(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        let _ = sink;
        Ok(())
    }

    /// Hands out what was trained.
    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError>;

    /// Drops everything made from the inputs.
    fn release(&mut self) -> Result<(), WorkloadError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_progress_does_not_travel() {
        let old = r#"{"done":3,"total":null,"loss":0.5}"#;
        let progress = Progress { done: 3, loss: Some(0.5), ..Progress::default() };
        assert_eq!(serde_json::from_str::<Progress>(old).unwrap(), progress);
        assert_eq!(serde_json::to_string(&progress).unwrap(), old);
        let more = Progress { tokens: Some(7), learning_rate: Some(0.25), ..progress };
        let text = serde_json::to_string(&more).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), more);
    }
}

//! What to train and for how long. Travels inside the release, so that only the gate says what a runtime does.

use serde::{Deserialize, Serialize};

use crate::traits::Device;

/// When training ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Budget {
    /// After this many units, warm-up included.
    Units(u64),
    /// After this much steady-state training, warm-up not included.
    Millis(u64),
}

/// One training job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The workload's name, as registered in the runtime.
    pub workload: String,
    /// Where it computes.
    pub device: Device,
    /// Uncounted units before the weights digest is published; rounded up to the launch batch.
    pub warmup_units: u64,
    /// When it ends.
    pub budget: Budget,
    /// How often progress is sent.
    pub progress_millis: u64,
    /// Whether artifacts are exported.
    pub export: bool,
}

impl JobSpec {
    /// Largest encoding accepted.
    pub const LIMIT: usize = 1 << 12;
}

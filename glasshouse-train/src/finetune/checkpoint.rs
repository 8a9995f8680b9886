//! Where training stands, so that it can go on bit for bit: adapters, optimizer, place in the data, and the seed that all
//! random numbers are counted from. A safetensors file; one JSON string of metadata.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::collections::HashMap;

use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::WorkloadError;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};

use super::Settings;
use super::error::input;
use crate::data::{Date, Position};

/// What is kept besides the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointState {
    /// Format, 1.
    pub version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens trained on, padding not counted.
    pub tokens: u64,
    /// The next row of the data.
    pub position: Position,
    /// The seed of the run; random numbers are counted, so that no generator's state is needed.
    pub seed: u64,
    /// What a chat template was told that today is: a resumed run goes on with that day.
    pub today: Date,
    /// SHA-256 over the data set, the base model's files and every setting that must be the same to go on.
    pub run: Digest32,
}

impl CheckpointState {
    /// Whether a run of these settings, which is this one, goes on from here.
    pub(super) fn continues(&self, settings: &Settings, run: Digest32) -> Result<(), WorkloadError> {
        if self.run != run || self.seed != settings.seed {
            let why = "it was made with another base model, other data or other settings; only steps, evaluation, checkpoints and recomputation may change";
            return Err(wrong(why.to_owned()));
        }
        if self.step >= settings.steps {
            let why = format!("it is of step {}, and the run ends at {}; give more steps", self.step, settings.steps);
            return Err(wrong(why));
        }
        Ok(())
    }
}

/// A checkpoint: flat vectors in the order of the variables.
pub(super) struct Checkpoint {
    pub(super) state: CheckpointState,
    pub(super) weights: Vec<f32>,
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
}

/// Names and element counts of the variables, in order.
pub(super) type Parts<'a> = [(&'a str, usize)];

const KEY: &str = "glasshouse_checkpoint";
const KINDS: [&str; 3] = ["weights", "first_moment", "second_moment"];

/// Reads what a checkpoint says of itself, for whoever wants to resume from it.
///
/// # Errors
/// [`WorkloadError::Input`] when it is none.
pub fn checkpoint_state(bytes: &[u8]) -> Result<CheckpointState, WorkloadError> {
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| wrong(format!("it is no safetensors file: {e}")))?;
    let json = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
    let json = json.ok_or_else(|| wrong("it is no checkpoint of Glasshouse".to_owned()))?;
    let state: CheckpointState =
        serde_json::from_str(json).map_err(|e| wrong(format!("its state cannot be read: {e}")))?;
    match state.version {
        1 => Ok(state),
        other => Err(wrong(format!("it has format {other}, and this version reads 1"))),
    }
}

impl Checkpoint {
    /// The file.
    pub(super) fn to_bytes(&self, parts: &Parts<'_>) -> Result<Vec<u8>, WorkloadError> {
        let failed = |why: String| WorkloadError::Artifact { name: super::CHECKPOINT_ENTRY.to_owned(), why };
        let mut tensors: Vec<(String, usize, Vec<u8>)> = Vec::new();
        for (kind, values) in KINDS.iter().zip([&self.weights, &self.first, &self.second]) {
            let mut rest = values.as_slice();
            for (name, count) in parts {
                let (part, after) = rest.split_at_checked(*count).ok_or_else(|| failed("it is cut".to_owned()))?;
                let bytes = part.iter().flat_map(|value| value.to_le_bytes()).collect();
                tensors.push((format!("{kind}.{name}"), *count, bytes));
                rest = after;
            }
        }
        let views: Vec<(&str, TensorView<'_>)> = tensors
            .iter()
            .map(|(name, count, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, vec![*count], bytes)?)))
            .collect::<Result<_, safetensors::SafeTensorError>>()
            .map_err(|e| failed(e.to_string()))?;
        let state = serde_json::to_string(&self.state).map_err(|e| failed(e.to_string()))?;
        serialize(views, Some(HashMap::from([(KEY.to_owned(), state)]))).map_err(|e| failed(e.to_string()))
    }

    /// Reads a file that must have exactly these variables.
    pub(super) fn from_bytes(bytes: &[u8], parts: &Parts<'_>) -> Result<Self, WorkloadError> {
        let state = checkpoint_state(bytes)?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| wrong(format!("it is no safetensors file: {e}")))?;
        let expected = parts.len().saturating_mul(KINDS.len());
        if file.len() != expected {
            let why = format!("it has {} tensors, and this run's adapters make {expected}", file.len());
            return Err(wrong(format!("{why}; resume with the LoRA settings it was made with")));
        }
        let read = |kind: &str| -> Result<Vec<f32>, WorkloadError> {
            let mut values = Vec::new();
            for (name, count) in parts {
                let name = format!("{kind}.{name}");
                let tensor = file.tensor(&name).map_err(|_| wrong(format!("it has no tensor {name}")))?;
                if tensor.dtype() != Dtype::F32 || tensor.shape() != [*count] {
                    let (dtype, shape) = (tensor.dtype(), tensor.shape());
                    return Err(wrong(format!("{name} is {dtype:?} {shape:?}, and this run needs F32 [{count}]")));
                }
                let (numbers, _) = tensor.data().as_chunks::<4>();
                values.extend(numbers.iter().map(|number| f32::from_le_bytes(*number)));
            }
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(values),
                false => Err(wrong(format!("its {kind} are not all finite"))),
            }
        };
        let [weights, first, second] = KINDS;
        Ok(Self { state, weights: read(weights)?, first: read(first)?, second: read(second)? })
    }
}

fn wrong(why: String) -> WorkloadError {
    input(super::CHECKPOINT_ENTRY, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::fixed::Fixed;
    use proptest::prelude::*;

    const PARTS: [(&str, usize); 2] = [("a", 2), ("b", 1)];

    fn checkpoint() -> Checkpoint {
        let state = CheckpointState {
            version: 1,
            step: 7,
            tokens: 900,
            position: Position { epoch: 1, row: 3 },
            seed: 5,
            today: Date { days: 9 },
            run: Fixed([9; 32]),
        };
        Checkpoint { state, weights: vec![1.0, 2.0, 3.0], first: vec![0.1, 0.2, 0.3], second: vec![4.0, 5.0, 6.0] }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = checkpoint().to_bytes(&PARTS).unwrap();
        assert_eq!(bytes, checkpoint().to_bytes(&PARTS).unwrap());
        let read = Checkpoint::from_bytes(&bytes, &PARTS).unwrap();
        assert_eq!((read.state, read.weights), (checkpoint().state, checkpoint().weights));
        assert_eq!((read.first, read.second), (checkpoint().first, checkpoint().second));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let bytes = checkpoint().to_bytes(&PARTS).unwrap();
        let why = |parts: &Parts<'_>| Checkpoint::from_bytes(&bytes, parts).err().unwrap().to_string();
        assert!(why(&[("a", 2)]).contains("LoRA settings"));
        assert!(why(&[("a", 2), ("c", 1)]).contains("no tensor weights.c"));
        assert!(why(&[("a", 1), ("b", 2)]).contains("F32 [1]"));
        let endless = Checkpoint { first: vec![f32::NAN; 3], ..checkpoint() }.to_bytes(&PARTS).unwrap();
        assert!(Checkpoint::from_bytes(&endless, &PARTS).err().unwrap().to_string().contains("finite"));
        let other = serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap();
        assert!(checkpoint_state(&other).unwrap_err().to_string().contains("no checkpoint"));
    }

    proptest! {
        #[test]
        fn no_cut_and_no_flipped_bit_panics(cut in 0usize..2000, at in 0usize..2000, bit in 0u8..8) {
            let mut bytes = checkpoint().to_bytes(&PARTS).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = Checkpoint::from_bytes(&bytes, &PARTS);
            prop_assert!(Checkpoint::from_bytes(&bytes[..cut.min(bytes.len() - 1)], &PARTS).is_err());
        }
    }
}

//! What the owner seals and pins.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::manifest::PublicInput;
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::WorkloadError;
use sha2::{Digest as _, Sha256};

use super::base::{self, Files};
use super::checkpoint::Checkpoint;
use super::error::{data, input};
use super::settings::{BaseModel, Settings};
use crate::data::{Dataset, DatasetSummary};
use crate::qwen::adapter::{self, AdapterFiles};
use crate::qwen::{QwenConfig, Weights, merge};

/// The settings, sealed.
pub const SETTINGS_ENTRY: &str = "finetune.json";
/// The data set, sealed.
pub const DATA_ENTRY: &str = "data.jsonl";
/// PEFT's weights of an adapter to go on from, sealed; absent for a fresh one.
pub const ADAPTER_ENTRY: &str = "init_adapter_model.safetensors";
/// PEFT's configuration of that adapter, sealed.
pub const ADAPTER_CONFIG_ENTRY: &str = "init_adapter_config.json";
/// A checkpoint to go on from, sealed; absent at the beginning.
pub const CHECKPOINT_ENTRY: &str = "checkpoint.safetensors";

/// Where training starts.
#[derive(Default)]
pub enum Start {
    /// With a fresh adapter.
    #[default]
    Fresh,
    /// With PEFT's `adapter_config.json` and `adapter_model.safetensors`.
    Adapter {
        /// Bytes of the first.
        config: Vec<u8>,
        /// Bytes of the second.
        model: Vec<u8>,
    },
    /// At a checkpoint of the same run.
    Checkpoint(Vec<u8>),
}

/// The entries of a package.
///
/// # Errors
/// [`WorkloadError::Config`] for settings out of range.
pub fn package_entries(
    settings: &Settings,
    jsonl: Vec<u8>,
    start: Start,
) -> Result<BTreeMap<String, SecretBuffer>, WorkloadError> {
    let mut entries = BTreeMap::new();
    let mut add = |name: &str, bytes| entries.insert(name.to_owned(), SecretBuffer::new(bytes));
    add(SETTINGS_ENTRY, settings.to_json()?);
    add(DATA_ENTRY, jsonl);
    match start {
        Start::Fresh => {}
        Start::Adapter { config, model } => {
            add(ADAPTER_CONFIG_ENTRY, config);
            add(ADAPTER_ENTRY, model);
        }
        Start::Checkpoint(bytes) => {
            add(CHECKPOINT_ENTRY, bytes);
        }
    }
    Ok(entries)
}

/// What [`check`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The data.
    pub data: DatasetSummary,
    /// Bytes of all that the run will send home, about: the adapter and every checkpoint.
    pub artifact_bytes: u64,
}

/// Reads everything as the run will, but for the weights, and compares model, tokenizer, data, settings and what the run
/// starts from, so that a bad line or an adapter that does not fit is found before anything is rented. `folder` is the
/// model's, unless its weights are random, and `pinned` its files.
///
/// # Errors
/// [`WorkloadError::Input`] with the number of the line, or with what does not fit; [`WorkloadError::Config`].
pub fn check(
    settings: &Settings,
    jsonl: &[u8],
    (folder, pinned): (Option<&Path>, &[PublicInput]),
    start: &Start,
) -> Result<Checked, WorkloadError> {
    settings.validate()?;
    let lora = settings.lora.config()?;
    if folder.is_none() && matches!(settings.model, BaseModel::Directory { .. }) {
        return Err(input("model", "its folder is not known here"));
    }
    let (config, encoder) = base::read(settings, &Files::Folder(folder.unwrap_or(Path::new(""))))?;
    match start {
        Start::Fresh => {}
        Start::Adapter { config: about, model } => {
            let files = AdapterFiles { config: about.clone(), weights: model.clone() };
            adapter::tensors(&config, &lora, &files, &Device::Cpu).map_err(|e| super::error::model(e, 1, 1))?;
        }
        Start::Checkpoint(bytes) => {
            let run = run_digest(settings, jsonl, pinned.iter().map(|file| (file.name.as_str(), file.sha256)))?;
            let mut tensors = lora.tensors(&config);
            tensors.sort();
            let parts: Vec<_> = tensors.iter().map(|(name, [rows, columns])| (name.as_str(), rows * columns)).collect();
            Checkpoint::from_bytes(bytes, &parts)?.state.continues(settings, run)?;
        }
    }
    let data = Dataset::read(jsonl, &encoder, settings.eval_fraction, settings.seed).map_err(data)?.summary();
    Ok(Checked { data, artifact_bytes: artifact_bytes(settings, config.trainable_parameters(&lora)) })
}

/// The adapter once, and in each checkpoint three times: with both moments of the optimizer. All f32.
fn artifact_bytes(settings: &Settings, trained: u64) -> u64 {
    let checkpoints = settings.steps.checked_div(settings.checkpoint_every).unwrap_or(0);
    trained.saturating_mul(4).saturating_mul(checkpoints.saturating_mul(3).saturating_add(1))
}

/// Names the run: the data, the files of its base model, and every setting but those that may change when it is resumed.
pub(super) fn run_digest<'a>(
    settings: &Settings,
    jsonl: &[u8],
    pinned: impl Iterator<Item = (&'a str, Digest32)>,
) -> Result<Digest32, WorkloadError> {
    // What the model is called, and how fast the run is or how often it is looked at, changes no bit of it.
    let model = match &settings.model {
        BaseModel::Directory { .. } => BaseModel::Directory { name: String::new() },
        random => random.clone(),
    };
    let same = Settings {
        model,
        steps: 1_000_000_000,
        eval_every: 0,
        checkpoint_every: 0,
        recompute: false,
        ..settings.clone()
    };
    let mut hash = Sha256::new();
    hash.update(same.to_json()?);
    hash.update(Sha256::digest(jsonl));
    let mut pinned: Vec<_> = pinned.collect();
    pinned.sort();
    for (name, sha256) in pinned {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(sha256.as_bytes());
    }
    Ok(Digest32::from(<[u8; 32]>::from(hash.finalize())))
}

/// Writes the model of `folder` to `out`, a new Hugging Face directory, with an adapter added into its weights. `adapter`
/// is PEFT's configuration and weights.
///
/// # Errors
/// [`WorkloadError::Input`] for a model or an adapter that cannot be read, or do not fit each other, or a folder that
/// cannot be written; [`WorkloadError::Device`].
pub fn merge_into(folder: &Path, adapter: &AdapterFiles, out: &Path) -> Result<(), WorkloadError> {
    let merge = || merge::save(&QwenConfig::from_dir(folder)?, adapter, &Weights::open(folder)?, folder, out);
    merge().map_err(|e| super::error::model(e, 1, 1))
}

//! What the owner seals and pins.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use glasshouse_core::fixed::Digest32;
use glasshouse_core::manifest::PublicInput;
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::WorkloadError;
use sha2::{Digest as _, Sha256};

use super::error::{data, input};
use super::settings::{BaseModel, Settings, refuse};
use crate::data::{Dataset, DatasetSummary, Encoder};
use crate::qwen::adapter::{self, AdapterFiles};
use crate::qwen::{Qwen2, QwenConfig, Weights, merge};

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

/// The files of a Hugging Face directory that a run reads: configuration, tokenizer, chat template and weights.
///
/// # Errors
/// [`WorkloadError::Input`] naming what is missing, cut short or no safetensors file.
pub fn model_files(folder: &Path) -> Result<Vec<PathBuf>, WorkloadError> {
    let weights = Weights::open(folder).map_err(|e| input("model", e))?;
    let mut files = Vec::new();
    for name in REQUIRED {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(input("model", format!("{} is missing; download it with the model", path.display())));
        }
        files.push(path);
    }
    files.extend(OPTIONAL.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    files.extend(weights.files().map(Path::to_owned));
    Ok(files)
}

/// Those files as public inputs of a package: by name, SHA-256 and length. `source` says where they can be had.
///
/// # Errors
/// As [`model_files`], and a file that cannot be read.
pub fn public_inputs(folder: &Path, source: &str) -> Result<Vec<PublicInput>, WorkloadError> {
    let pin = |path: PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let (sha256, bytes) = digest(&path).map_err(|e| input(&name, format!("{}: {e}", path.display())))?;
        Ok(PublicInput { name, sha256, bytes, source: source.to_owned() })
    };
    model_files(folder)?.into_iter().map(pin).collect()
}

/// Reads a data set as the run will and compares model, tokenizer and settings, so that a bad line or a model that does not
/// fit is found before anything is rented. `folder` is the model's, unless its weights are random.
///
/// # Errors
/// [`WorkloadError::Input`] with the number of the line, or with what does not fit; [`WorkloadError::Config`].
pub fn check(settings: &Settings, jsonl: &[u8], folder: Option<&Path>) -> Result<DatasetSummary, WorkloadError> {
    settings.validate()?;
    let (config, encoder) = match (&settings.model, folder) {
        (BaseModel::Directory { .. }, Some(folder)) => {
            let config = QwenConfig::from_dir(folder).map_err(|e| input("config.json", e))?;
            (config, encoder_of(settings, |name| folder.join(name))?)
        }
        (BaseModel::Directory { .. }, None) => return Err(input("model", "its folder is not known here")),
        (BaseModel::Random { shape, .. }, _) => (shape.config(), Encoder::bytes().map_err(data)?),
    };
    fits(settings, &config, &encoder)?;
    Ok(Dataset::read(jsonl, &encoder, settings.eval_fraction, settings.seed).map_err(data)?.summary())
}

/// Writes the model of `folder` to `out`, a Hugging Face directory too, with an adapter added into its weights. `adapter`
/// is PEFT's configuration and weights.
///
/// # Errors
/// [`WorkloadError::Input`] for a model or an adapter that cannot be read, or do not fit each other, or a folder that
/// cannot be written; [`WorkloadError::Device`].
pub fn merge_into(folder: &Path, adapter: AdapterFiles, out: &Path) -> Result<(), WorkloadError> {
    let failed = |e| super::error::model(e, 1, 1);
    let config = QwenConfig::from_dir(folder).map_err(failed)?;
    let weights = Weights::open(folder).map_err(failed)?;
    let lora = adapter::lora_config(&adapter.config).map_err(failed)?;
    // The base's values come from its files; what the model holds of them is not used.
    let (device, dtype) = (candle_core::Device::Cpu, candle_core::DType::BF16);
    let model = Qwen2::load(&config, &weights, &lora, &device, dtype, 0).map_err(failed)?;
    adapter::import(&model, &adapter).map_err(failed)?;
    merge::save(&model, &weights, folder, out).map_err(failed)
}

/// Tokenizer and chat template out of files that `path` finds.
pub(super) fn encoder_of(settings: &Settings, path: impl Fn(&str) -> PathBuf) -> Result<Encoder, WorkloadError> {
    let read = |name: &str| {
        let path = path(name);
        std::fs::read(&path).map_err(|e| input(name, format!("{}: {e}", path.display())))
    };
    let [tokenizer, config] = [TOKENIZER, TOKENIZER_CONFIG].map(read);
    let template = path(TEMPLATE).is_file().then(|| read(TEMPLATE)).transpose()?;
    Encoder::from_files(&tokenizer?, &config?, template.as_deref(), settings.today).map_err(data)
}

/// What the settings, the model and the tokenizer must have in common.
pub(super) fn fits(settings: &Settings, config: &QwenConfig, encoder: &Encoder) -> Result<(), WorkloadError> {
    let (longest, rows) = (config.max_position_embeddings, config.vocab_size);
    if settings.sequence > longest {
        let why = format!("{} tokens are more than the model's maximum of {longest}", settings.sequence);
        return Err(refuse("sequence", why));
    }
    let vocabulary = encoder.tokenizer().vocabulary();
    if vocabulary > rows {
        let why = format!(
            "it has ids up to {}, and the model's embedding has {rows} rows; use the tokenizer of this model",
            vocabulary.saturating_sub(1)
        );
        return Err(input("tokenizer.json", why));
    }
    Ok(())
}

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const REQUIRED: [&str; 3] = ["config.json", TOKENIZER, TOKENIZER_CONFIG];
const OPTIONAL: [&str; 2] = [TEMPLATE, "model.safetensors.index.json"];

fn digest(path: &Path) -> std::io::Result<(Digest32, u64)> {
    let mut file = File::open(path)?;
    let (mut hash, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer)?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
            return Ok((Digest32::from(<[u8; 32]>::from(hash.finalize())), total));
        };
        hash.update(piece);
        total += count as u64;
    }
}

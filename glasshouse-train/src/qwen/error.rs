use std::path::PathBuf;

use glasshouse_core::public_file::PublicFileError;

/// Why a Qwen2 model could not be read, built, trained or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QwenError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Some file is not the JSON that it should be.
    #[error("{name}: {why}")]
    Json {
        /// Which file.
        name: String,
        /// Where and what.
        why: String,
    },
    /// `config.json` is of another architecture.
    #[error("config.json is of model_type {found:?}; Glasshouse trains qwen2 (Qwen2 and Qwen2.5)")]
    Architecture {
        /// Its `model_type`.
        found: String,
    },
    /// A field that must be in `config.json` is not.
    #[error("config.json has no {field}")]
    MissingField {
        /// Which.
        field: &'static str,
    },
    /// A value of `config.json` cannot be.
    #[error("config.json: {field} is {value}, but {expected}")]
    ConfigValue {
        /// Which.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A directory holds neither `model.safetensors` nor an index of shards.
    #[error("{}: neither model.safetensors nor model.safetensors.index.json is there", directory.display())]
    NoWeights {
        /// Which.
        directory: PathBuf,
    },
    /// The index names a shard that is not there.
    #[error("{}: model.safetensors.index.json names it, but it is missing; download it again", path.display())]
    MissingShard {
        /// Which.
        path: PathBuf,
    },
    /// A safetensors file is shorter than its header says.
    #[error("{}: cut short, {size} bytes of {needed}; download it again", path.display())]
    Truncated {
        /// Which.
        path: PathBuf,
        /// Bytes that there are.
        size: u64,
        /// Bytes that the header promises.
        needed: u64,
    },
    /// A pinned file cannot be read, or is not what it was when its digest was checked.
    #[error(transparent)]
    Changed(PublicFileError),
    /// A safetensors header cannot be understood.
    #[error("{}: not a safetensors file: {why}", path.display())]
    Header {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A tensor that the model needs is nowhere.
    #[error("the weights have no tensor {name}")]
    MissingTensor {
        /// Which.
        name: String,
    },
    /// A tensor has another shape than the config says.
    #[error("{name} is {found:?}, but the config makes it {expected:?}")]
    TensorShape {
        /// Which.
        name: String,
        /// What the config says.
        expected: Vec<usize>,
        /// What there is.
        found: Vec<usize>,
    },
    /// A tensor is of a type that is not read.
    #[error("{name} is {found}; F32, F16 and BF16 are read")]
    TensorType {
        /// Which.
        name: String,
        /// What there is.
        found: String,
    },
    /// A LoRA setting cannot be.
    #[error("LoRA {field}: {why}")]
    Lora {
        /// Which.
        field: &'static str,
        /// Why.
        why: String,
    },
    /// An adapter does not fit the run that should continue it.
    #[error("the adapter's {what} is {found}, but this run's is {expected}")]
    AdapterMismatch {
        /// What differs.
        what: String,
        /// Of this run.
        expected: String,
        /// Of the adapter.
        found: String,
    },
    /// A batch does not fit together.
    #[error("batch: {why}")]
    Batch {
        /// What is wrong.
        why: String,
    },
    /// A sequence is longer than the model can place.
    #[error("a document of {length} tokens is longer than the model's maximum of {longest}; cut or split it")]
    TooLong {
        /// Its tokens.
        length: usize,
        /// The most that fit.
        longest: usize,
    },
    /// Trainable variables that the loss does not reach: training would leave them as they are, and say nothing.
    #[error("no gradient reaches {}; some operation on the way has no backward", names.join(", "))]
    NoGradient {
        /// Which.
        names: Vec<String>,
    },
    /// The device has too little memory.
    #[error("out of device memory while {what}; {advice}")]
    OutOfMemory {
        /// What was being done.
        what: String,
        /// What would fit.
        advice: String,
    },
    /// The device or the tensor library failed.
    #[error("{what}: {why}")]
    Device {
        /// What was being done.
        what: String,
        /// What it said.
        why: String,
    },
}

impl QwenError {
    /// What candle says, told apart by whether there was too little memory.
    pub(crate) fn candle(what: &str, error: &candle_core::Error) -> Self {
        let (what, why) = (what.to_owned(), error.to_string());
        let lower = why.to_ascii_lowercase().replace('_', " ");
        match lower.contains("out of memory") || lower.contains("alloc failed") {
            true => {
                let advice = "the device is too small for it: use a larger one, or a smaller model or batch".to_owned();
                Self::OutOfMemory { what, advice }
            }
            false => Self::Device { what, why },
        }
    }
}

//! The base model of a run: its shape, what reads its text, and its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glasshouse_core::manifest::PublicInput;
use glasshouse_core::public_file::PublicFile;
use glasshouse_core::traits::WorkloadError;

use super::error::{data, input};
use super::settings::{BaseModel, Settings, refuse};
use crate::data::Encoder;
use crate::qwen::{QwenConfig, Weights};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const INDEX: &str = "model.safetensors.index.json";

/// Where a model's small files are read.
pub(super) enum Files<'a> {
    /// By the owner, who wrote them.
    Folder(&'a Path),
    /// On an allocation: what was pinned, and nothing else.
    Pinned(&'a BTreeMap<String, Arc<PublicFile>>),
}

impl Files<'_> {
    /// A file that may be absent.
    fn optional(&self, name: &str) -> Result<Option<Vec<u8>>, WorkloadError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let read =
                    |path: &Path| std::fs::read(path).map_err(|e| input(name, format!("{}: {e}", path.display())));
                path.is_file().then(|| read(&path)).transpose()
            }
            Self::Pinned(files) => files.get(name).map(|file| file.read().map_err(|e| input(name, e))).transpose(),
        }
    }

    fn required(&self, name: &str) -> Result<Vec<u8>, WorkloadError> {
        self.optional(name)?.ok_or_else(|| match self {
            Self::Folder(folder) => {
                input(name, format!("{} is missing; download it with the model", folder.join(name).display()))
            }
            Self::Pinned(_) => input(name, "it is no public input of the package; pin the model's files"),
        })
    }
}

/// Shape and tokenizer of the model that the settings name, checked against them and each other.
pub(super) fn read(settings: &Settings, files: &Files<'_>) -> Result<(QwenConfig, Encoder), WorkloadError> {
    let (config, encoder) = match &settings.model {
        BaseModel::Random { shape, .. } => (shape.config(), Encoder::bytes().map_err(data)?),
        BaseModel::Directory { .. } => {
            let config = QwenConfig::from_json(&files.required(CONFIG)?).map_err(|e| input(CONFIG, e))?;
            let (tokenizer, about) = (files.required(TOKENIZER)?, files.required(TOKENIZER_CONFIG)?);
            let template = files.optional(TEMPLATE)?;
            (config, Encoder::from_files(&tokenizer, &about, template.as_deref(), settings.today).map_err(data)?)
        }
    };
    fits(settings, &config, &encoder)?;
    Ok((config, encoder))
}

fn fits(settings: &Settings, config: &QwenConfig, encoder: &Encoder) -> Result<(), WorkloadError> {
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
        return Err(input(TOKENIZER, why));
    }
    Ok(())
}

/// The files of a Hugging Face directory that a run reads: configuration, tokenizer, chat template and weights.
///
/// # Errors
/// [`WorkloadError::Input`] naming what is missing, cut short or no safetensors file.
pub fn model_files(folder: &Path) -> Result<Vec<PathBuf>, WorkloadError> {
    let weights = Weights::open(folder).map_err(|e| input("model", e))?;
    let mut files = Vec::new();
    for name in [CONFIG, TOKENIZER, TOKENIZER_CONFIG] {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(input("model", format!("{} is missing; download it with the model", path.display())));
        }
        files.push(path);
    }
    files.extend([TEMPLATE, INDEX].iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
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
        let file = PublicFile::open(&path).map_err(|e| input(&name, e))?;
        Ok(PublicInput { name, sha256: file.sha256(), bytes: file.bytes(), source: source.to_owned() })
    };
    model_files(folder)?.into_iter().map(pin).collect()
}

//! Which model a fine-tuning run trains, and from which state it goes on.

use std::path::{Path, PathBuf};

use glasshouse_core::manifest::PublicInput;
use glasshouse_train::finetune::{BaseModel, CheckpointState, RandomShape, Start, checkpoint_state, public_inputs};

type Failure = Box<dyn std::error::Error>;

/// Where a hub model's weights must be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WeightsAt {
    /// Here: the run is on this machine, or the adapter is merged into them afterwards.
    Owner,
    /// Only where it trains, which fetches them by their digests.
    Allocation,
}

/// A base model as the owner names it.
pub struct Model {
    /// As the settings have it.
    pub base: BaseModel,
    /// Its folder, when it has one.
    pub folder: Option<PathBuf>,
    /// Its files, pinned.
    pub public: Vec<PublicInput>,
    /// For tables.
    pub label: String,
}

impl Model {
    /// `tiny`, `random-0.5b` and `random-7b` are random weights of those shapes; anything else is a folder, or a model of
    /// the hub.
    ///
    /// # Errors
    /// A folder that is no model's, or a hub that does not give it.
    pub fn named(name: &str, seed: u64, weights: WeightsAt) -> Result<Self, Failure> {
        let random = |shape| Self {
            base: BaseModel::Random { shape, seed },
            folder: None,
            public: Vec::new(),
            label: format!("qwen-lora {name}"),
        };
        match name {
            "tiny" => Ok(random(RandomShape::Tiny)),
            "random-0.5b" => Ok(random(RandomShape::Qwen05B)),
            "random-7b" => Ok(random(RandomShape::Qwen7B)),
            id if is_hub_id(id) => Self::of_hub(id, weights),
            folder => Self::in_folder(Path::new(folder), folder),
        }
    }

    /// A model of the Hugging Face hub, `OWNER/NAME` or `OWNER/NAME@REVISION`: pinned, and fetched into
    /// `glasshouse-models` unless it is there. `HF_ENDPOINT` names another hub and `HF_TOKEN` is its access token.
    #[cfg(feature = "hub")]
    fn of_hub(name: &str, weights: WeightsAt) -> Result<Self, Failure> {
        use glasshouse_provider::hub::{HUGGING_FACE, Hub};
        let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| HUGGING_FACE.to_owned());
        let hub = Hub::new(&endpoint, "glasshouse-models")?;
        // An allocation fetches without a token: what needs one is then found out here.
        let hub = match std::env::var("HF_TOKEN") {
            Ok(token) if weights != WeightsAt::Allocation => hub.token(token),
            _ => hub,
        };
        let (id, revision) = name.split_once('@').map_or((name, None), |(id, revision)| (id, Some(revision)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let model = runtime.block_on(async {
            let model = hub.resolve(id, revision).await?;
            let mut here = model.clone();
            if weights == WeightsAt::Allocation {
                here.files.retain(|file| !file.name.ends_with(".safetensors"));
            }
            let bar = indicatif::ProgressBar::new(here.files.iter().map(|file| file.bytes).sum());
            let mut before = (String::new(), 0);
            let told = |at: glasshouse_provider::hub::Downloading<'_>| {
                let new = if before.0 == at.file { at.done.saturating_sub(before.1) } else { at.done };
                bar.inc(new);
                before = (at.file.to_owned(), at.done);
            };
            hub.download(&here, told).await?;
            bar.finish_and_clear();
            Ok::<_, glasshouse_provider::hub::HubError>(model)
        })?;
        let folder = model.folder.canonicalize().map_err(|e| format!("{}: {e}", model.folder.display()))?;
        Ok(Self {
            base: BaseModel::Directory { name: model.id.clone() },
            label: format!("qwen-lora {}", model.id),
            public: model.files,
            folder: Some(folder),
        })
    }

    #[cfg(not(feature = "hub"))]
    fn of_hub(name: &str, _: WeightsAt) -> Result<Self, Failure> {
        Err(format!("{name} is no folder here; to take it from the hub, build with --features hub").into())
    }

    fn in_folder(folder: &Path, name: &str) -> Result<Self, Failure> {
        let folder = folder
            .canonicalize()
            .map_err(|e| format!("{}: {e}; give tiny, random-0.5b, random-7b or a model's folder", folder.display()))?;
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or(name);
        Ok(Self {
            public: public_inputs(&folder, "file")?,
            base: BaseModel::Directory { name: name.to_owned() },
            label: format!("qwen-lora {last}"),
            folder: Some(folder),
        })
    }
}

/// `OWNER/NAME`, unless there is such a folder.
pub(crate) fn is_hub_id(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |part: &&str| !part.is_empty() && !part.starts_with('.');
    parts.len() == 2 && parts.iter().all(plain) && !Path::new(name).exists()
}

/// The newest checkpoint in a folder, and what it says of itself.
///
/// # Errors
/// When there is none, or it is no checkpoint.
pub fn latest_checkpoint(folder: &Path) -> Result<(Start, CheckpointState), Failure> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("checkpoint-") && name.ends_with(".safetensors")
        })
        .collect();
    // Step numbers have six digits or more: longer names are later.
    found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let none = || format!("{} holds no checkpoint-*.safetensors; train with --checkpoint-every", folder.display());
    let path = found.pop().ok_or_else(none)?;
    let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let state = checkpoint_state(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((Start::Checkpoint(bytes), state))
}

/// PEFT's adapter in a folder.
///
/// # Errors
/// When a file is missing.
pub fn adapter_in(folder: &Path) -> Result<Start, Failure> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path)
            .map_err(|e| format!("{}: {e}; give a folder that PEFT saved an adapter in", path.display()))
    };
    Ok(Start::Adapter { config: read("adapter_config.json")?, model: read("adapter_model.safetensors")? })
}

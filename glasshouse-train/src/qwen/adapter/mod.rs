//! Adapters as PEFT writes and reads them: `adapter_config.json` and `adapter_model.safetensors`.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod config;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::build;
use super::config::QwenConfig;
use super::error::QwenError;
use super::lora::{LoraConfig, tensor_name};
use super::model::Qwen2;
use crate::crossing::{to_device, to_host};
use config::config_json;
pub use config::lora_config;

/// Name of the settings' file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of the tensors' file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The two files of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFiles {
    /// `adapter_config.json`.
    pub config: Vec<u8>,
    /// `adapter_model.safetensors`, f32.
    pub weights: Vec<u8>,
}

/// The model's adapters as files. `base` is what `base_model_name_or_path` will say: a hub id or a directory, if known.
///
/// # Errors
/// [`QwenError::Device`] when the adapters cannot be read back.
pub fn export(model: &Qwen2, base: Option<&str>) -> Result<AdapterFiles, QwenError> {
    let mut tensors = Vec::with_capacity(model.trainable().len());
    for (name, variable) in model.trainable() {
        let values = to_host::<f32>(variable.as_tensor())
            .map_err(|error| QwenError::candle(&format!("reading {name} back"), &error))?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((name.clone(), variable.dims().to_vec(), bytes));
    }
    let failed = |error: safetensors::SafeTensorError| QwenError::Device {
        what: format!("writing {WEIGHTS_FILE}"),
        why: error.to_string(),
    };
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?)))
        .collect::<Result<Vec<_>, QwenError>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let weights = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
    Ok(AdapterFiles { config: config_json(model.lora(), base).into_bytes(), weights })
}

/// Writes both files to a directory, which it makes.
///
/// # Errors
/// [`QwenError::File`], [`QwenError::Device`].
pub fn save(model: &Qwen2, base: Option<&str>, directory: &Path) -> Result<(), QwenError> {
    let files = export(model, base)?;
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).map_err(|source| QwenError::File { path: path.to_owned(), source })
    };
    std::fs::create_dir_all(directory).map_err(|source| QwenError::File { path: directory.to_owned(), source })?;
    write(&directory.join(WEIGHTS_FILE), &files.weights)?;
    write(&directory.join(CONFIG_FILE), &files.config)
}

/// Reads both files of a directory.
///
/// # Errors
/// [`QwenError::File`].
pub fn read(directory: &Path) -> Result<AdapterFiles, QwenError> {
    let file = |name: &str| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|source| QwenError::File { path, source })
    };
    Ok(AdapterFiles { config: file(CONFIG_FILE)?, weights: file(WEIGHTS_FILE)? })
}

/// Adapters as training makes them, without a model under them: A Kaiming uniform from `seed`, B zero, under PEFT's names.
///
/// # Errors
/// [`QwenError::Lora`], [`QwenError::OutOfMemory`], [`QwenError::Device`].
pub fn fresh(
    config: &QwenConfig,
    lora: &LoraConfig,
    seed: u64,
    device: &Device,
) -> Result<Vec<(String, Var)>, QwenError> {
    lora.validate()?;
    let mut adapters = Vec::new();
    for block in 0..config.layers {
        for target in lora.ordered() {
            let (a, b) = build::fresh(config, lora, (block, target), seed, device)?;
            adapters.extend([(tensor_name(block, target, "A"), a), (tensor_name(block, target, "B"), b)]);
        }
    }
    Ok(adapters)
}

/// Sets the model's adapters to those of the files, to continue from them. Nothing is changed unless all fits.
///
/// # Errors
/// As [`tensors`]; [`QwenError::Device`].
pub fn import(model: &Qwen2, files: &AdapterFiles) -> Result<(), QwenError> {
    let values = tensors(model.config(), model.lora(), files, model.device())?;
    for ((name, variable), (_, value)) in model.trainable().iter().zip(values) {
        variable.set(&value).map_err(|error| QwenError::candle(&format!("setting {name}"), &error))?;
    }
    Ok(())
}

/// The files' tensors, f32 on the device, in the order of [`LoraConfig::tensors`], if they are adapters of `lora` over a
/// model of that shape.
///
/// # Errors
/// [`QwenError::AdapterMismatch`] when rank, scale, targets or a shape differ, or when the adapter is of a kind that is not
/// trained here; [`QwenError::Json`], [`QwenError::Header`], [`QwenError::MissingTensor`], [`QwenError::TensorType`].
pub fn tensors(
    config: &QwenConfig,
    lora: &LoraConfig,
    files: &AdapterFiles,
    device: &Device,
) -> Result<Vec<(String, Tensor)>, QwenError> {
    let found = lora_config(&files.config)?;
    let mismatch = |what: &str, expected: String, found: String| {
        Err(QwenError::AdapterMismatch { what: what.to_owned(), expected, found })
    };
    if found.rank != lora.rank {
        return mismatch("rank", lora.rank.to_string(), found.rank.to_string());
    }
    let names = |lora: &LoraConfig| lora.ordered().map(|target| target.name()).collect::<Vec<_>>().join(",");
    if names(&found) != names(lora) {
        return mismatch("targets", names(lora), names(&found));
    }
    if (found.scale() - lora.scale()).abs() > 1e-9 * lora.scale() {
        return mismatch("scale (from alpha, rank, rsLoRA)", lora.scale().to_string(), found.scale().to_string());
    }
    let header = |why: String| QwenError::Header { path: WEIGHTS_FILE.into(), why };
    let stored = SafeTensors::deserialize(&files.weights).map_err(|error| header(error.to_string()))?;
    let expected = lora.tensors(config);
    let mut values = Vec::with_capacity(expected.len());
    for (name, shape) in &expected {
        let view = stored.tensor(name).map_err(|_| QwenError::MissingTensor { name: name.clone() })?;
        if view.shape() != shape {
            return mismatch(name, format!("{shape:?}"), format!("{:?}", view.shape()));
        }
        values.push((name.clone(), tensor(name, &view, device)?));
    }
    match stored.names().into_iter().find(|name| !expected.iter().any(|(own, _)| own == name)) {
        Some(other) => mismatch("set of tensors", "those of its targets alone".to_owned(), format!("also {other}")),
        None => Ok(values),
    }
}

#[allow(clippy::disallowed_methods)] // to the CPU, and from there as everything
fn tensor(name: &str, view: &TensorView<'_>, device: &Device) -> Result<Tensor, QwenError> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => return Err(QwenError::TensorType { name: name.to_owned(), found: format!("{other:?}") }),
    };
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
        .and_then(|tensor| to_host::<f32>(&tensor.to_dtype(DType::F32)?))
        .and_then(|values| to_device(&values, view.shape(), device))
        .map_err(|error| QwenError::candle(&format!("reading {name}"), &error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::qwen::Target;

    fn model(lora: &LoraConfig, seed: u64) -> Qwen2 {
        let config = QwenConfig { layers: 2, ..QwenConfig::tiny() };
        Qwen2::random(&config, lora, &Device::Cpu, DType::F32, seed).unwrap()
    }

    fn values(model: &Qwen2) -> Vec<f32> {
        let of = |(_, variable): &(String, candle_core::Var)| variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        model.trainable().iter().flat_map(of).collect()
    }

    #[test]
    fn what_is_exported_is_imported() {
        let lora = LoraConfig { alpha: 2.5, targets: Target::ALL.to_vec(), ..LoraConfig::default() };
        let (from, to) = (model(&lora, 1), model(&lora, 2));
        let directory = tempfile::tempdir().unwrap();
        save(&from, Some("Qwen/Qwen2.5-0.5B"), directory.path()).unwrap();
        let files = read(directory.path()).unwrap();
        assert_eq!(files, export(&from, Some("Qwen/Qwen2.5-0.5B")).unwrap());
        assert_eq!(lora_config(&files.config).unwrap(), lora);
        assert_ne!(values(&from), values(&to));
        import(&to, &files).unwrap();
        assert_eq!(values(&from), values(&to));
    }

    #[test]
    fn another_rank_scale_or_set_of_targets_is_refused_and_changes_nothing() {
        let lora = LoraConfig::default();
        let to = model(&lora, 2);
        let before = values(&to);
        for (what, other) in [
            ("rank", LoraConfig { rank: 8, alpha: 16.0, ..lora.clone() }),
            ("targets", LoraConfig { targets: vec![Target::Query, Target::Key], ..lora.clone() }),
            ("scale (from alpha, rank, rsLoRA)", LoraConfig { rslora: true, ..lora.clone() }),
        ] {
            let files = export(&model(&other, 1), None).unwrap();
            let Err(QwenError::AdapterMismatch { what: found, .. }) = import(&to, &files) else { panic!("{what}") };
            assert_eq!(found, what);
        }
        let mut deeper = export(&model(&lora, 1), None).unwrap();
        deeper.weights.truncate(100);
        assert!(matches!(import(&to, &deeper), Err(QwenError::Header { .. })));
        assert_eq!(values(&to), before);
    }
}

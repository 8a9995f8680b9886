//! A model's directory with the adapter added into its weights: what any tool loads without knowing of LoRA.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::error::QwenError;
use super::lora::Target;
use super::model::Qwen2;
use super::weights::{StoredTensor, Weights};
use crate::ops::gemm;

/// Writes the base in `source`, whose weights these are, to `out` with `W + scale B A` in place of each adapted weight,
/// in the type and the shards of the base; the configuration and the tokenizer are copied. One tensor is in memory at a
/// time, beside the mapped base.
///
/// # Errors
/// [`QwenError::File`], also when `out` is `source`; [`QwenError::TensorShape`] and [`QwenError::MissingTensor`] when the
/// weights are not the model's; [`QwenError::Device`].
pub fn save(model: &Qwen2, weights: &Weights, source: &Path, out: &Path) -> Result<(), QwenError> {
    let file = |path: &Path, source: io::Error| QwenError::File { path: path.to_owned(), source };
    std::fs::create_dir_all(out).map_err(|error| file(out, error))?;
    let real = |path: &Path| path.canonicalize().map_err(|error| file(path, error));
    if real(source)? == real(out)? {
        return Err(file(out, io::Error::new(io::ErrorKind::AlreadyExists, "the base itself lies there")));
    }
    let updates = updates(model)?;
    if let Some(name) = updates.keys().find(|name| !weights.contains(name)) {
        return Err(QwenError::MissingTensor { name: name.clone() });
    }
    for shard in weights.shards() {
        let Some(name) = shard.path.file_name() else { continue };
        let path = out.join(name);
        let mut written = BufWriter::new(File::create(&path).map_err(|error| file(&path, error))?);
        // Types and shapes stay, and so does the header.
        written.write_all(shard.header).map_err(|error| file(&path, error))?;
        for tensor in &shard.tensors {
            let bytes = match updates.get(&tensor.name) {
                None => written.write_all(tensor.bytes),
                Some(update) => written.write_all(&merged(tensor, update, model.lora().scale())?),
            };
            bytes.map_err(|error| file(&path, error))?;
        }
        let whole = written.into_inner().map_err(|error| file(&path, error.into_error()))?;
        whole.sync_all().map_err(|error| file(&path, error))?;
    }
    for entry in std::fs::read_dir(source).map_err(|error| file(source, error))? {
        let entry = entry.map_err(|error| file(source, error))?;
        let path = entry.path();
        let beside = path.extension().is_some_and(|kind| ["json", "txt", "jinja", "model"].iter().any(|k| kind == *k));
        if beside && path.is_file() {
            std::fs::copy(&path, out.join(entry.file_name())).map_err(|error| file(&path, error))?;
        }
    }
    Ok(())
}

/// A and B of one weight, f32, on the CPU.
struct Update {
    a: Tensor,
    b: Tensor,
}

/// By the name of the base's tensor.
fn updates(model: &Qwen2) -> Result<HashMap<String, Update>, QwenError> {
    let own: HashMap<&str, &candle_core::Var> =
        model.trainable().iter().map(|(name, variable)| (name.as_str(), variable)).collect();
    let mut updates = HashMap::new();
    for block in 0..model.config().layers {
        for target in Target::ALL {
            let path = format!("model.layers.{block}.{}", target.path());
            let part = |part: &str| {
                let variable = own.get(format!("base_model.model.{path}.lora_{part}.weight").as_str())?;
                Some(variable.as_detached_tensor().to_device(&Device::Cpu))
            };
            if let (Some(a), Some(b)) = (part("A"), part("B")) {
                let read = |tensor: candle_core::Result<Tensor>| {
                    tensor.map_err(|error| QwenError::candle("reading an adapter back", &error))
                };
                updates.insert(format!("{path}.weight"), Update { a: read(a)?, b: read(b)? });
            }
        }
    }
    Ok(updates)
}

/// `W + scale B A`, computed in f32 and rounded once to W's type.
fn merged(stored: &StoredTensor<'_>, update: &Update, scale: f64) -> Result<Vec<u8>, QwenError> {
    let expected = vec![update.b.dims().first().copied().unwrap_or(0), update.a.dims().last().copied().unwrap_or(0)];
    if stored.shape != expected {
        return Err(QwenError::TensorShape { name: stored.name.clone(), expected, found: stored.shape.clone() });
    }
    let sum = || -> candle_core::Result<Vec<u8>> {
        let weight = Tensor::from_raw_buffer(stored.bytes, stored.dtype, &stored.shape, &Device::Cpu)?;
        let weight = weight.to_dtype(DType::F32)?;
        gemm(&weight, &update.b, &update.a, scale, 1.0)?;
        let flat = weight.to_dtype(stored.dtype)?.flatten_all()?;
        Ok(match stored.dtype {
            DType::BF16 => flat.to_vec1::<half::bf16>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
            DType::F16 => flat.to_vec1::<half::f16>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
            _ => flat.to_vec1::<f32>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
        })
    };
    sum().map_err(|error| QwenError::candle(&format!("merging {}", stored.name), &error))
}

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
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::adapter::{self, AdapterFiles};
use super::config::QwenConfig;
use super::error::QwenError;
use super::lora::{LoraConfig, weight_path};
use super::weights::{StoredTensor, Weights};
use crate::ops::gemm;

/// Writes the base in `source`, whose weights these are, to `out` with `W + scale B A` in place of each adapted weight,
/// in the type and the shards of the base; the configuration and the tokenizer are copied. One tensor is in memory at a
/// time, beside the mapped base and the adapter.
///
/// # Errors
/// Those of [`adapter::tensors`] when the adapter does not fit the model; [`QwenError::File`], also when there is something in `out`;
/// [`QwenError::TensorShape`] and [`QwenError::MissingTensor`] when the weights are not the model's; [`QwenError::Device`].
pub fn save(
    config: &QwenConfig,
    files: &AdapterFiles,
    weights: &Weights,
    source: &Path,
    out: &Path,
) -> Result<(), QwenError> {
    let file = |path: &Path, source: io::Error| QwenError::File { path: path.to_owned(), source };
    let lora = adapter::lora_config(&files.config)?;
    let updates = updates(config, &lora, files)?;
    // Everything that can be refused is, before anything is written.
    for (name, update) in &updates {
        let stored = weights.stored(name).ok_or_else(|| QwenError::MissingTensor { name: name.clone() })?;
        update.fits(&stored)?;
    }
    if out.exists() && std::fs::read_dir(out).map_err(|error| file(out, error))?.next().is_some() {
        let why = "there are files in it already; give a new folder";
        return Err(file(out, io::Error::new(io::ErrorKind::AlreadyExists, why)));
    }
    // Whole or not at all: it takes its name when it is complete.
    let out: PathBuf = out.components().collect(); // without a slash at its end
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    if let Some(parent) = partial.parent() {
        std::fs::create_dir_all(parent).map_err(|error| file(parent, error))?;
    }
    std::fs::create_dir(&partial).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            file(&partial, io::Error::new(error.kind(), "an earlier merge that was cut off left it; remove it"))
        }
        _ => file(&partial, error),
    })?;
    write(&lora, &updates, weights, source, &partial)
        .and_then(|()| std::fs::rename(&partial, &out).map_err(|error| file(&out, error)))
        .inspect_err(|_| drop(std::fs::remove_dir_all(&partial)))
}

fn write(
    lora: &LoraConfig,
    updates: &HashMap<String, Update>,
    weights: &Weights,
    source: &Path,
    out: &Path,
) -> Result<(), QwenError> {
    let file = |path: &Path, source: io::Error| QwenError::File { path: path.to_owned(), source };
    for shard in weights.shards()? {
        let Some(name) = shard.path.file_name() else { continue };
        let path = out.join(name);
        let mut written = BufWriter::new(private(&path).map_err(|error| file(&path, error))?);
        // Types and shapes stay, and so does the header.
        written.write_all(&shard.header).map_err(|error| file(&path, error))?;
        for tensor in &shard.tensors {
            let bytes = match updates.get(tensor.name) {
                None => written.write_all(&tensor.bytes()?),
                Some(update) => written.write_all(&merged(tensor, update, lora.scale())?),
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

/// What was trained on private data is its owner's to read.
fn private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// A and B of one weight, f32, on the CPU.
struct Update {
    a: Tensor,
    b: Tensor,
}

impl Update {
    fn fits(&self, stored: &StoredTensor<'_>) -> Result<(), QwenError> {
        let side = |dims: &[usize], last: bool| if last { dims.last() } else { dims.first() }.copied().unwrap_or(0);
        let expected = vec![side(self.b.dims(), false), side(self.a.dims(), true)];
        match stored.shape == expected {
            true => Ok(()),
            false => {
                let (name, found) = (stored.name.to_owned(), stored.shape.to_vec());
                Err(QwenError::TensorShape { name, expected, found })
            }
        }
    }
}

/// By the name of the base's tensor.
fn updates(config: &QwenConfig, lora: &LoraConfig, files: &AdapterFiles) -> Result<HashMap<String, Update>, QwenError> {
    let mut tensors = adapter::tensors(config, lora, files, &Device::Cpu)?.into_iter().map(|(_, tensor)| tensor);
    let sites = (0..config.layers).flat_map(|block| lora.ordered().map(move |target| weight_path(block, target)));
    let update = |path: String| Some((format!("{path}.weight"), Update { a: tensors.next()?, b: tensors.next()? }));
    Ok(sites.filter_map(update).collect())
}

/// `W + scale B A`, computed in f32 and rounded once to W's type.
#[allow(clippy::disallowed_methods)] // at the owner's, on the CPU
fn merged(stored: &StoredTensor<'_>, update: &Update, scale: f64) -> Result<Vec<u8>, QwenError> {
    let bytes = stored.bytes()?;
    let sum = || -> candle_core::Result<Vec<u8>> {
        let weight = Tensor::from_raw_buffer(&bytes, stored.dtype, stored.shape, &Device::Cpu)?;
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

//! A model's safetensors, memory-mapped: single, or shards under an index.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::error::QwenError;
use super::map::map;

/// The weights of a directory. Nothing is copied in host memory: a tensor goes from the mapping to the device.
pub struct Weights {
    shards: Vec<Shard>,
    /// Which shard has a tensor, and what it is there.
    tensors: BTreeMap<String, Entry>,
}

struct Shard {
    path: PathBuf,
    mapping: Mmap,
    /// Where tensors begin.
    data: usize,
}

/// One file: its header, length included, and its tensors in the order in which they lie after it, without gaps.
pub(crate) struct ShardView<'a> {
    pub(crate) path: &'a Path,
    pub(crate) header: &'a [u8],
    pub(crate) tensors: Vec<StoredTensor<'a>>,
}

/// One tensor as it is stored.
pub(crate) struct StoredTensor<'a> {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: &'a [u8],
}

struct Entry {
    shard: usize,
    dtype: DType,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// The part of `model.safetensors.index.json` that is used.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens `model.safetensors`, or every shard that `model.safetensors.index.json` names, and checks all headers
    /// against the files' sizes.
    ///
    /// # Errors
    /// [`QwenError::NoWeights`], [`QwenError::MissingShard`], [`QwenError::Truncated`], [`QwenError::Header`],
    /// [`QwenError::MissingTensor`] for one that the index places in a shard that does not have it.
    pub fn open(directory: &Path) -> Result<Self, QwenError> {
        let single = directory.join("model.safetensors");
        let index = directory.join("model.safetensors.index.json");
        let mut weights = Self { shards: Vec::new(), tensors: BTreeMap::new() };
        match std::fs::read(&index) {
            Err(error) if error.kind() == ErrorKind::NotFound => match single.exists() {
                true => weights.add(single)?,
                false => return Err(QwenError::NoWeights { directory: directory.to_owned() }),
            },
            Err(source) => return Err(QwenError::File { path: index, source }),
            Ok(bytes) => {
                let parsed: Index = serde_json::from_slice(&bytes).map_err(|error| QwenError::Json {
                    name: "model.safetensors.index.json".to_owned(),
                    why: error.to_string(),
                })?;
                let mut names: Vec<&String> = parsed.weight_map.values().collect();
                names.sort();
                names.dedup();
                for name in names {
                    let path = shard_path(directory, name)?;
                    if !path.exists() {
                        return Err(QwenError::MissingShard { path });
                    }
                    weights.add(path)?;
                }
                if let Some(name) = parsed.weight_map.keys().find(|name| !weights.tensors.contains_key(*name)) {
                    return Err(QwenError::MissingTensor { name: name.clone() });
                }
            }
        }
        Ok(weights)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// Copies one tensor to the device, as it is stored, and there makes it `dtype`.
    ///
    /// # Errors
    /// [`QwenError::MissingTensor`], [`QwenError::TensorShape`], [`QwenError::OutOfMemory`], [`QwenError::Device`].
    pub fn tensor(&self, name: &str, shape: &[usize], device: &Device, dtype: DType) -> Result<Tensor, QwenError> {
        let missing = || QwenError::MissingTensor { name: name.to_owned() };
        let entry = self.tensors.get(name).ok_or_else(missing)?;
        if entry.shape != shape {
            let (expected, found) = (shape.to_vec(), entry.shape.clone());
            return Err(QwenError::TensorShape { name: name.to_owned(), expected, found });
        }
        let shard = self.shards.get(entry.shard).ok_or_else(missing)?;
        let bytes = shard.mapping.get(entry.start..entry.end).ok_or_else(missing)?;
        Tensor::from_raw_buffer(bytes, entry.dtype, shape, device)
            .and_then(|tensor| tensor.to_dtype(dtype))
            .map_err(|error| QwenError::candle(&format!("loading {name}"), &error))
    }

    /// The files as they lie there, for writing them again with some tensors changed.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardView<'_>> {
        self.shards.iter().enumerate().filter_map(|(number, shard)| {
            let mut stored: Vec<_> = self.tensors.iter().filter(|(_, entry)| entry.shard == number).collect();
            stored.sort_by_key(|(_, entry)| entry.start);
            let view = |(name, entry): (&'_ String, &Entry)| {
                let bytes = shard.mapping.get(entry.start..entry.end)?;
                Some(StoredTensor { name: name.clone(), dtype: entry.dtype, shape: entry.shape.clone(), bytes })
            };
            let tensors = stored.into_iter().map(view).collect::<Option<Vec<_>>>()?;
            Some(ShardView { path: &shard.path, header: shard.mapping.get(..shard.data)?, tensors })
        })
    }

    fn add(&mut self, path: PathBuf) -> Result<(), QwenError> {
        let file = File::open(&path).map_err(|source| QwenError::File { path: path.clone(), source })?;
        let mapping = map(&file).map_err(|source| QwenError::File { path: path.clone(), source })?;
        let header = |why: String| QwenError::Header { path: path.clone(), why };
        let (prefix, metadata) = match SafeTensors::read_metadata(&mapping) {
            Ok(read) => read,
            Err(error) => return Err(cut_short(&path, &mapping).unwrap_or_else(|| header(error.to_string()))),
        };
        // The header's own length, and the eight bytes that hold it.
        let data = prefix.checked_add(8).ok_or_else(|| header("its header is too long".to_owned()))?;
        for (name, info) in metadata.tensors() {
            let place = |offset: usize| data.checked_add(offset);
            let (start, end) = (place(info.data_offsets.0), place(info.data_offsets.1));
            let (Some(start), Some(end)) = (start, end) else {
                return Err(header(format!("{name} lies outside any file")));
            };
            if end > mapping.len() {
                let (size, needed) = (mapping.len() as u64, end as u64);
                return Err(QwenError::Truncated { path, size, needed });
            }
            let dtype = match info.dtype {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                other => return Err(QwenError::TensorType { name, found: format!("{other:?}") }),
            };
            let entry = Entry { shard: self.shards.len(), dtype, shape: info.shape.clone(), start, end };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(header(format!("{name} is in another shard, too")));
            }
        }
        self.shards.push(Shard { path, mapping, data });
        Ok(())
    }
}

/// A shard lies in the model's directory and nowhere else: an index is an outside file.
fn shard_path(directory: &Path, name: &str) -> Result<PathBuf, QwenError> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    match plain {
        true => Ok(directory.join(name)),
        false => Err(QwenError::Json {
            name: "model.safetensors.index.json".to_owned(),
            why: format!("{name:?} is not the name of a file beside it"),
        }),
    }
}

/// Whether the file ends before the end that its header promises.
fn cut_short(path: &Path, bytes: &[u8]) -> Option<QwenError> {
    let size = bytes.len() as u64;
    let truncated = |needed| Some(QwenError::Truncated { path: path.to_owned(), size, needed });
    let Some(length) = bytes.first_chunk::<8>() else { return truncated(8) };
    let needed = u64::from_le_bytes(*length).checked_add(8)?;
    // A longer header than safetensors allows is not one that was cut.
    match needed > size && needed <= HEADER_LIMIT {
        true => truncated(needed),
        false => promised_end(bytes.get(8..usize::try_from(needed).ok()?)?)
            .and_then(|end| end.checked_add(needed))
            .filter(|needed| *needed > size)
            .and_then(truncated),
    }
}

/// The furthest end of a tensor, by the header alone.
fn promised_end(header: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Place {
        data_offsets: (u64, u64),
    }
    let json: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let places = json.into_iter().filter(|(name, _)| name != "__metadata__");
    places.filter_map(|(_, value)| serde_json::from_value::<Place>(value).ok()).map(|place| place.data_offsets.1).max()
}

/// What the safetensors crate takes as a header at most, and the eight bytes before it.
const HEADER_LIMIT: u64 = 100_000_008;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::arithmetic_side_effects)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tempfile::tempdir;

    use super::*;

    fn write(path: &Path, names: &[&str]) -> Vec<u8> {
        let value = Tensor::arange(0f32, 6., &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
        let tensors: HashMap<String, Tensor> = names.iter().map(|name| ((*name).to_owned(), value.clone())).collect();
        candle_core::safetensors::save(&tensors, path).unwrap();
        std::fs::read(path).unwrap()
    }

    fn refused(directory: &Path) -> QwenError {
        Weights::open(directory).err().unwrap()
    }

    #[test]
    fn a_single_file_gives_its_tensors() {
        let dir = tempdir().unwrap();
        assert!(matches!(refused(dir.path()), QwenError::NoWeights { .. }));
        write(&dir.path().join("model.safetensors"), &["a", "b"]);
        let weights = Weights::open(dir.path()).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
        let read = |name, shape: &[usize]| weights.tensor(name, shape, &Device::Cpu, DType::F32);
        assert_eq!(read("a", &[2, 3]).unwrap().to_vec2::<f32>().unwrap()[1], [3., 4., 5.]);
        assert!(matches!(read("c", &[2, 3]), Err(QwenError::MissingTensor { name }) if name == "c"));
        let Err(QwenError::TensorShape { expected, found, .. }) = read("b", &[3, 2]) else { panic!() };
        assert_eq!((expected, found), (vec![3, 2], vec![2, 3]));
    }

    #[test]
    fn shards_are_found_through_their_index() {
        let dir = tempdir().unwrap();
        write(&dir.path().join("model-1.safetensors"), &["a"]);
        let index = |json: &str| std::fs::write(dir.path().join("model.safetensors.index.json"), json).unwrap();
        index(r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#);
        let Err(QwenError::MissingShard { path }) = Weights::open(dir.path()) else { panic!() };
        assert!(path.ends_with("model-2.safetensors"));
        write(&dir.path().join("model-2.safetensors"), &["b"]);
        assert_eq!(Weights::open(dir.path()).unwrap().names().count(), 2);
        index(r#"{"weight_map":{"a":"model-1.safetensors","x":"model-2.safetensors"}}"#);
        assert!(matches!(refused(dir.path()), QwenError::MissingTensor { name } if name == "x"));
        index(r#"{"weight_map":{"a":"../model-1.safetensors"}}"#);
        assert!(matches!(refused(dir.path()), QwenError::Json { .. }));
        index("[");
        assert!(matches!(refused(dir.path()), QwenError::Json { .. }));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_as_such() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let whole = write(&path, &["a", "b"]);
        for length in [0, 7, 8, 20, whole.len() - 25, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = refused(dir.path());
            assert!(matches!(error, QwenError::Truncated { size, .. } if size == length as u64), "{length}: {error}");
        }
    }

    #[test]
    fn a_corrupt_header_is_refused_as_such() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let mut bytes = write(&path, &["a"]);
        bytes[9] = b'!';
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(refused(dir.path()), QwenError::Header { .. }));
        std::fs::write(&path, [0xff; 64]).unwrap();
        assert!(matches!(refused(dir.path()), QwenError::Header { .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_file_panics(at in 0usize..200, byte: u8, cut in 0usize..200) {
            let dir = tempdir().unwrap();
            let path = dir.path().join("model.safetensors");
            let mut bytes = write(&path, &["a", "b"]);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(weights) = Weights::open(dir.path()) {
                for name in weights.names() {
                    let _ = weights.tensor(name, &[2, 3], &Device::Cpu, DType::F32);
                }
            }
        }
    }
}

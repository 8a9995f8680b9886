//! A model's safetensors, single or shards under an index: memory-mapped, or out of pinned files.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use glasshouse_core::public_file::PublicFile;
use memmap2::Mmap;
use safetensors::Dtype;
use serde::Deserialize;

use super::error::QwenError;
use super::header::header;
use super::map::map;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The weights of a model. There is no second copy of them in host memory: a tensor goes from its file to the device.
pub struct Weights {
    shards: Vec<Shard>,
    /// Which shard has a tensor, and what it is there.
    tensors: BTreeMap<String, Entry>,
}

struct Shard {
    path: PathBuf,
    content: Content,
    /// Where tensors begin.
    data: u64,
}

/// Where a shard's bytes come from.
pub(super) enum Content {
    /// The owner's own files.
    Mapped(Mmap),
    /// Files of a host that may change them: what is read is what was pinned.
    Pinned(Arc<PublicFile>),
}

/// One file: its header, length included, and its tensors in the order in which they lie after it, without gaps.
pub(crate) struct ShardView<'a> {
    pub(crate) path: &'a Path,
    pub(crate) header: Cow<'a, [u8]>,
    pub(crate) tensors: Vec<StoredTensor<'a>>,
}

/// One tensor as it is stored.
pub(crate) struct StoredTensor<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: DType,
    pub(crate) shape: &'a [usize],
    place: (&'a Content, &'a Entry),
}

struct Entry {
    shard: usize,
    dtype: DType,
    shape: Vec<usize>,
    place: Range<u64>,
}

/// The part of `model.safetensors.index.json` that is used.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Maps `model.safetensors`, or every shard that `model.safetensors.index.json` names, into memory and checks all
    /// headers against the files' sizes. For files that nobody changes meanwhile.
    ///
    /// # Errors
    /// [`QwenError::NoWeights`], [`QwenError::MissingShard`], [`QwenError::Truncated`], [`QwenError::Header`],
    /// [`QwenError::MissingTensor`] for one that the index places in a shard that does not have it.
    pub fn open(directory: &Path) -> Result<Self, QwenError> {
        let index = directory.join(INDEX);
        let index = match std::fs::read(&index) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(QwenError::File { path: index, source }),
        };
        Self::of(directory, index, |path| match File::open(path) {
            Ok(file) => match map(&file) {
                Ok(mapping) => Ok(Some(Content::Mapped(mapping))),
                Err(source) => Err(QwenError::File { path: path.to_owned(), source }),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(QwenError::File { path: path.to_owned(), source }),
        })
    }

    /// The same out of files that were pinned by digest, by name: of what is not among them nothing is read, and what is
    /// read is what was pinned.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`QwenError::Changed`] for a file that was changed since.
    pub fn pinned(files: &BTreeMap<String, Arc<PublicFile>>) -> Result<Self, QwenError> {
        let index = files.get(INDEX).map(|file| file.read().map_err(QwenError::Changed)).transpose()?;
        let file = |path: &Path| files.get(path.to_str()?).map(|file| Content::Pinned(Arc::clone(file)));
        Self::of(Path::new(""), index, |path| Ok(file(path)))
    }

    fn of(
        directory: &Path,
        index: Option<Vec<u8>>,
        mut content: impl FnMut(&Path) -> Result<Option<Content>, QwenError>,
    ) -> Result<Self, QwenError> {
        let mut weights = Self { shards: Vec::new(), tensors: BTreeMap::new() };
        let Some(bytes) = index else {
            let path = directory.join(SINGLE);
            let missing = || QwenError::NoWeights { directory: directory.to_owned() };
            let single = content(&path)?.ok_or_else(missing)?;
            weights.add(path, single)?;
            return Ok(weights);
        };
        let parsed: Index = serde_json::from_slice(&bytes)
            .map_err(|error| QwenError::Json { name: INDEX.to_owned(), why: error.to_string() })?;
        let mut names: Vec<&String> = parsed.weight_map.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            let path = shard_path(directory, name)?;
            let Some(shard) = content(&path)? else { return Err(QwenError::MissingShard { path }) };
            weights.add(path, shard)?;
        }
        match parsed.weight_map.keys().find(|name| !weights.tensors.contains_key(*name)) {
            Some(name) => Err(QwenError::MissingTensor { name: name.clone() }),
            None => Ok(weights),
        }
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// Copies one tensor to the device, as it is stored, and there makes it `dtype`.
    ///
    /// # Errors
    /// [`QwenError::MissingTensor`], [`QwenError::TensorShape`], [`QwenError::Changed`], [`QwenError::OutOfMemory`],
    /// [`QwenError::Device`].
    pub fn tensor(&self, name: &str, shape: &[usize], device: &Device, dtype: DType) -> Result<Tensor, QwenError> {
        let stored = self.stored(name).ok_or_else(|| QwenError::MissingTensor { name: name.to_owned() })?;
        if stored.shape != shape {
            let (expected, found) = (shape.to_vec(), stored.shape.to_vec());
            return Err(QwenError::TensorShape { name: name.to_owned(), expected, found });
        }
        // A base model's files are public, and gigabytes: they go as they lie.
        #[allow(clippy::disallowed_methods)]
        Tensor::from_raw_buffer(&stored.bytes()?, stored.dtype, shape, device)
            .and_then(|tensor| tensor.to_dtype(dtype))
            .map_err(|error| QwenError::candle(&format!("loading {name}"), &error))
    }

    /// A tensor as it is stored.
    pub(crate) fn stored(&self, name: &str) -> Option<StoredTensor<'_>> {
        let (name, entry) = self.tensors.get_key_value(name)?;
        let place = (&self.shards.get(entry.shard)?.content, entry);
        Some(StoredTensor { name, dtype: entry.dtype, shape: &entry.shape, place })
    }

    /// The files as they lie there, for writing them again with some tensors changed.
    pub(crate) fn shards(&self) -> Result<Vec<ShardView<'_>>, QwenError> {
        let all = self.shards.iter().enumerate().map(|(number, shard)| {
            let own = self.tensors.iter().filter(|(_, entry)| entry.shard == number);
            let mut names: Vec<_> = own.map(|(name, entry)| (entry.place.start, name)).collect();
            names.sort();
            let tensors = names.into_iter().filter_map(|(_, name)| self.stored(name)).collect();
            let header = shard.content.range(&shard.path, 0..shard.data)?;
            Ok(ShardView { path: &shard.path, header, tensors })
        });
        all.collect()
    }

    fn add(&mut self, path: PathBuf, content: Content) -> Result<(), QwenError> {
        let (data, metadata) = header(&path, &content)?;
        let failed = |why: String| QwenError::Header { path: path.clone(), why };
        for (name, info) in metadata.tensors() {
            let offset = |offset: usize| u64::try_from(offset).ok()?.checked_add(data);
            let (Some(start), Some(end)) = (offset(info.data_offsets.0), offset(info.data_offsets.1)) else {
                return Err(failed(format!("{name} lies outside any file")));
            };
            let dtype = match info.dtype {
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                other => return Err(QwenError::TensorType { name, found: format!("{other:?}") }),
            };
            let entry = Entry { shard: self.shards.len(), dtype, shape: info.shape.clone(), place: start..end };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(failed(format!("{name} is in another shard, too")));
            }
        }
        self.shards.push(Shard { path, content, data });
        Ok(())
    }
}

impl<'a> StoredTensor<'a> {
    /// Its bytes, little-endian.
    pub(crate) fn bytes(&self) -> Result<Cow<'a, [u8]>, QwenError> {
        let (content, entry) = self.place;
        content.range(Path::new(self.name), entry.place.clone())
    }
}

impl Content {
    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Mapped(mapping) => mapping.len() as u64,
            Self::Pinned(file) => file.bytes(),
        }
    }

    /// A part of it; `what` is for errors.
    pub(super) fn range(&self, what: &Path, range: Range<u64>) -> Result<Cow<'_, [u8]>, QwenError> {
        let cut = || QwenError::Truncated { path: what.to_owned(), size: self.bytes(), needed: range.end };
        match self {
            Self::Mapped(mapping) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                mapping.get(place(range.start)..place(range.end)).map(Cow::Borrowed).ok_or_else(cut)
            }
            Self::Pinned(file) if range.end > file.bytes() => Err(cut()),
            Self::Pinned(file) => file.read_range(range).map(Cow::Owned).map_err(QwenError::Changed),
        }
    }
}

/// A shard lies in the model's directory and nowhere else: an index is an outside file.
fn shard_path(directory: &Path, name: &str) -> Result<PathBuf, QwenError> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    match plain {
        true => Ok(directory.join(name)),
        false => Err(QwenError::Json {
            name: INDEX.to_owned(),
            why: format!("{name:?} is not the name of a file beside it"),
        }),
    }
}

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

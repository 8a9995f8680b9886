#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;

use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::{Inputs, WorkloadError};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use zeroize::Zeroizing;

use super::config::MlpConfig;
use super::generate;
use super::params::Layout;

/// Name of the configuration in the package.
pub const CONFIG_ENTRY: &str = "config.json";
/// Name of data and initial weights in the package.
pub const DATA_ENTRY: &str = "data.safetensors";

/// f32 values that are wiped when dropped.
pub(crate) type Floats = Zeroizing<Vec<f32>>;

/// Makes data and initial weights from the configuration's seed: the entries to seal, by name. The owner calls this;
/// the same configuration gives the same bytes on every platform.
///
/// # Errors
/// [`WorkloadError::Config`] when a value is out of range.
pub fn package_entries(config: &MlpConfig) -> Result<BTreeMap<String, SecretBuffer>, WorkloadError> {
    let json = config.to_json()?;
    let data = generate::data(config);
    let mut tensors: Vec<_> = data
        .layout
        .entries()
        .into_iter()
        .map(|entry| {
            let bytes = to_le_bytes(data.weights.get(entry.range).unwrap_or_default());
            (entry.name, entry.shape, bytes)
        })
        .collect();
    tensors.push(("x".to_owned(), vec![data.rows, data.inputs], to_le_bytes(&data.x)));
    tensors.push(("y".to_owned(), vec![data.rows, data.outputs], to_le_bytes(&data.y)));
    let file = to_safetensors(&tensors).map_err(|error| refuse(error.to_string()))?;
    Ok(BTreeMap::from([
        (CONFIG_ENTRY.to_owned(), SecretBuffer::new(json)),
        (DATA_ENTRY.to_owned(), SecretBuffer::new(file)),
    ]))
}

/// What a run trains on, checked: sizes fit each other and every value is finite. Wiped when dropped.
#[derive(Clone)]
pub struct MlpData {
    pub(crate) layout: Layout,
    pub(crate) rows: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `[rows, inputs]`, row-major.
    pub(crate) x: Floats,
    /// `[rows, outputs]`, row-major.
    pub(crate) y: Floats,
    /// Initial weights in the order of `layout`.
    pub(crate) weights: Floats,
}

impl MlpData {
    /// Takes configuration and data out of an opened package.
    ///
    /// # Errors
    /// [`WorkloadError::Input`] with the entry's name for one that is missing, truncated, of other tensors, types or
    /// sizes than the configuration says, or not finite; [`WorkloadError::Config`] for a value out of range.
    pub fn take(inputs: &mut Inputs) -> Result<(MlpConfig, Self), WorkloadError> {
        let config = MlpConfig::from_json(&inputs.take(CONFIG_ENTRY)?)?;
        let bytes = inputs.take(DATA_ENTRY)?;
        let data = Self::parse(&config, &bytes)?;
        Ok((config, data))
    }

    fn parse(config: &MlpConfig, bytes: &[u8]) -> Result<Self, WorkloadError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| refuse(format!("it is not a whole safetensors file ({error}); seal it again")))?;
        let layout = Layout::new(&config.layers);
        let entries = layout.entries();
        if let Some(stranger) = file
            .names()
            .into_iter()
            .find(|name| !matches!(*name, "x" | "y") && entries.iter().all(|entry| entry.name != *name))
        {
            return Err(refuse(format!("there is no place for tensor {stranger:?} in this model; leave it out")));
        }
        let (inputs, outputs) = (first(&config.layers), first(config.layers.iter().rev()));
        let x = read(&file, "x", &[config.batch, inputs])?;
        let y = read(&file, "y", &[config.batch, outputs])?;
        let mut weights = Floats::new(Vec::with_capacity(layout.total));
        for entry in entries {
            weights.extend_from_slice(&read(&file, &entry.name, &entry.shape)?);
        }
        Ok(Self { layout, rows: config.batch, inputs, outputs, x, y, weights })
    }
}

/// Name, shape and little-endian values of an f32 tensor.
pub(crate) type NamedTensor = (String, Vec<usize>, Zeroizing<Vec<u8>>);

/// One safetensors file, sorted by name.
pub(crate) fn to_safetensors(tensors: &[NamedTensor]) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    safetensors::serialize(views, None)
}

/// The values' bytes, little-endian.
pub(crate) fn to_le_bytes(values: &[f32]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; size_of_val(values)]);
    for (bytes, value) in bytes.chunks_exact_mut(4).zip(values) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn read(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Floats, WorkloadError> {
    let tensor = file.tensor(name).map_err(|_| refuse(format!("tensor {name:?} is missing; seal it as {shape:?}")))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(refuse(format!("tensor {name:?} is {:?}; convert it to F32", tensor.dtype())));
    }
    if tensor.shape() != shape {
        let why = format!("tensor {name:?} is {:?} and the configuration says {shape:?}", tensor.shape());
        return Err(refuse(why));
    }
    let (chunks, _) = tensor.data().as_chunks::<4>();
    let values = Floats::new(chunks.iter().copied().map(f32::from_le_bytes).collect());
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(refuse(format!("tensor {name:?} holds a value that is not finite, at index {at}; repair it"))),
        None => Ok(values),
    }
}

fn first<'a>(widths: impl IntoIterator<Item = &'a usize>) -> usize {
    widths.into_iter().next().copied().unwrap_or(0)
}

fn refuse(why: String) -> WorkloadError {
    WorkloadError::Input { name: DATA_ENTRY.to_owned(), why }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::Shape;
    use super::*;

    fn config() -> MlpConfig {
        MlpConfig { layers: vec![3, 4, 2], batch: 5, ..MlpConfig::new(Shape::Tiny) }
    }

    fn parse_tensors(tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Result<MlpData, WorkloadError> {
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, shape, values)| (name.to_string(), shape.clone(), to_le_bytes(values)))
            .collect();
        MlpData::parse(&config(), &to_safetensors(&tensors).unwrap())
    }

    fn good() -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
        vec![
            ("x", vec![5, 3], vec![0.5; 15]),
            ("y", vec![5, 2], vec![0.25; 10]),
            ("layers.0.weight", vec![4, 3], vec![0.1; 12]),
            ("layers.0.bias", vec![4], vec![0.2; 4]),
            ("layers.1.weight", vec![2, 4], vec![0.3; 8]),
            ("layers.1.bias", vec![2], vec![0.4; 2]),
        ]
    }

    #[test]
    fn what_is_sealed_is_what_is_taken() {
        let entries = package_entries(&config()).unwrap();
        let (config, data) = MlpData::take(&mut Inputs { sealed: entries, ..Inputs::default() }).unwrap();
        assert_eq!(config, self::config());
        let made = generate::data(&config);
        assert_eq!((&data.x, &data.y, &data.weights), (&made.x, &made.y, &made.weights));
    }

    #[test]
    fn each_defect_is_named() {
        parse_tensors(&good()).unwrap();
        type Edit = fn(&mut Vec<(&'static str, Vec<usize>, Vec<f32>)>);
        let cases: [(&str, Edit); 5] = [
            ("\"y\" is missing", |t| drop(t.remove(1))),
            ("no place for tensor \"z\"", |t| t.push(("z", vec![1], vec![1.0]))),
            ("[3, 5] and the configuration says [5, 3]", |t| t[0].1 = vec![3, 5]),
            ("\"layers.1.weight\" holds a value that is not finite, at index 7", |t| t[4].2[7] = f32::NAN),
            ("\"x\" holds a value that is not finite, at index 0", |t| t[0].2[0] = f32::INFINITY),
        ];
        for (expected, edit) in cases {
            let mut tensors = good();
            edit(&mut tensors);
            let error = parse_tensors(&tensors).err().unwrap().to_string();
            assert!(error.contains(expected) && error.contains(DATA_ENTRY), "{error}");
        }
        let halves = [("x".to_owned(), TensorView::new(Dtype::F16, vec![5, 3], &[0; 30]).unwrap())];
        let error = MlpData::parse(&config(), &safetensors::serialize(halves, None).unwrap()).err().unwrap();
        assert!(error.to_string().contains("convert it to F32"), "{error}");
    }

    #[test]
    fn a_missing_entry_is_named() {
        for name in [CONFIG_ENTRY, DATA_ENTRY] {
            let mut entries = package_entries(&config()).unwrap();
            entries.remove(name);
            let error = MlpData::take(&mut Inputs { sealed: entries, ..Inputs::default() }).err().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_cut_and_no_flipped_bit_panics(cut in 0usize..1000, at in 0usize..1000, bit in 0u8..8) {
            let bytes = package_entries(&config()).unwrap().remove(DATA_ENTRY).unwrap();
            prop_assert!(MlpData::parse(&config(), &bytes[..cut.min(bytes.len() - 1)]).is_err());
            let mut bytes = bytes.to_vec();
            let last = bytes.len() - 1;
            bytes[at.min(last)] ^= 1 << bit;
            let _ = MlpData::parse(&config(), &bytes);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(MlpData::parse(&config(), &bytes).is_err());
            prop_assert!(MlpConfig::from_json(&bytes).is_err());
        }
    }
}

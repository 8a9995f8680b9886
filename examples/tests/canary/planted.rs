//! A workload that is two real ones and a data set: fine-tuning, with the canary as text of its data and so as token ids in
//! tensors; the MLP by candle's autograd, with the canary as f32 rows of its inputs; and a model's own tokenizer, which
//! keeps what it has seen.

use std::collections::BTreeMap;
use std::time::Duration;

use glasshouse_core::claims::Assurance;
use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Progress, Unit, Workload, WorkloadError};
use glasshouse_train::data::{Dataset, Date, Encoder, Example, parse_jsonl};
use glasshouse_train::finetune::{self, QwenLora, Settings, Start};
use glasshouse_train::mlp::{self, Method, MlpConfig, MlpWorkload, Shape};

use crate::allocator;
use crate::barrier::{BARRIER_AT, barrier, folder, hidden};
use crate::large;
use crate::ways::way_out;

/// Long enough to get to the barrier within it, where much else is going on.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// Random printable characters that JSON takes as they are: one document, one token a character.
pub(crate) fn canary() -> [u8; 64] {
    Fixed::<64>::random().unwrap().0.map(|byte| match 0x21 + byte % 0x5d {
        b'"' | b'\\' | b'<' | b'{' => b'a' + byte % 26,
        character => character,
    })
}

/// Seals what the three parts need.
pub(crate) fn package<'a>(canary: &'a [u8; 64], way: &'a str) -> PackageBuilder<'a> {
    let mut builder = PackageBuilder::new("planted")
        .entry("way", Source::Slice(way.as_bytes()))
        .entry("canary", Source::Slice(canary))
        .entry("tokenizer.json", Source::Memory(SecretBuffer::new(tokenizer())))
        .minimum_assurance(Assurance::SelfReported);
    let text = std::str::from_utf8(canary).unwrap();
    let lines = (0..4).map(|n| format!("{{\"text\":\"line {n} of {text}\"}}\n")).collect::<String>();
    let config = MlpConfig { epochs: None, ..MlpConfig::new(Shape::Tiny) };
    let mut entries = finetune::package_entries(&settings(), lines.into_bytes(), Start::Fresh).unwrap();
    entries.extend(mlp::package_entries(&config).unwrap());
    plant(entries.get_mut(mlp::DATA_ENTRY).unwrap().as_mut_slice(), canary);
    for (name, bytes) in entries {
        builder = builder.entry(name, Source::Memory(bytes));
    }
    builder
}

fn settings() -> Settings {
    Settings { steps: 1000, sequence: 96, ..Settings::default() }
}

/// Puts the canary's bytes as f32 values over the first rows of tensor `x` (safetensors: a length of 8 bytes, a JSON
/// header with offsets from its end, the data).
fn plant(file: &mut [u8], canary: &[u8; 64]) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let start = 8 + length + header["x"]["data_offsets"][0].as_u64().unwrap() as usize;
    for (to, byte) in file[start..].chunks_mut(4).zip(canary) {
        to.copy_from_slice(&f32::from(*byte).to_le_bytes());
    }
}

/// A tokenizer in which each printable character is the token of its own number.
fn tokenizer() -> Vec<u8> {
    let vocabulary: BTreeMap<String, u32> = (0x20..0x7f_u8).map(|c| (char::from(c).to_string(), c.into())).collect();
    let end = serde_json::json!({"id": 256, "content": "<end>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true});
    let model = serde_json::json!({"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "byte_fallback": false,
        "vocab": vocabulary, "merges": []});
    serde_json::to_vec(&serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [end], "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": model}))
    .unwrap()
}

#[derive(Default)]
pub(crate) struct Planted {
    way: String,
    parts: Option<Parts>,
    done: u64,
}

struct Parts {
    lora: QwenLora,
    mlp: MlpWorkload,
    /// What a data loader holds on to.
    _encoder: Encoder,
    _dataset: Dataset,
    _examples: Vec<Example>,
    /// In no part of the others is there a block so large.
    _large: [Vec<u8>; 2],
}

impl Workload for Planted {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn unit(&self) -> Unit {
        Unit::Step
    }

    fn launch_batch(&self) -> u64 {
        1
    }

    fn prepare(&mut self, mut inputs: Inputs, device: Device) -> Result<(), WorkloadError> {
        allocator::look_for(hidden(&folder()));
        self.way = String::from_utf8_lossy(&inputs.take("way")?).into_owned();
        if self.way == "unwiped" {
            allocator::stop_wiping();
        }
        let bad = |why: String| WorkloadError::Input { name: "data.jsonl".to_owned(), why };
        let tokenizer = inputs.take("tokenizer.json")?;
        let encoder = Encoder::from_files(&tokenizer, br#"{"eos_token":"<end>"}"#, None, Date { days: 0 });
        let encoder = encoder.map_err(|error| bad(error.to_string()))?;
        let data = &inputs.sealed[finetune::DATA_ENTRY];
        let dataset = Dataset::read(data, &encoder, 0.0, 0).map_err(|error| bad(error.to_string()))?;
        let examples = parse_jsonl(data).map_err(|error| bad(error.to_string()))?;
        let large = large::planted(&inputs.take("canary")?);
        let mut part = |names: [&str; 2]| Inputs {
            sealed: names.iter().map(|name| ((*name).to_owned(), inputs.take(name).unwrap())).collect(),
            ..Inputs::default()
        };
        let (mut lora, mut mlp) = (QwenLora::new(), MlpWorkload::with_method(Method::CpuAutograd));
        lora.prepare(part([finetune::SETTINGS_ENTRY, finetune::DATA_ENTRY]), device)?;
        mlp.prepare(part([mlp::CONFIG_ENTRY, mlp::DATA_ENTRY]), device)?;
        self.parts =
            Some(Parts { lora, mlp, _encoder: encoder, _dataset: dataset, _examples: examples, _large: large });
        Ok(())
    }

    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        let parts = self.parts.as_mut().ok_or(WorkloadError::Misuse { call: "advance", when: "before prepare" })?;
        parts.lora.advance(units)?;
        parts.mlp.advance(units)?;
        self.done += units;
        if self.done == BARRIER_AT {
            barrier("training");
        }
        if self.done > BARRIER_AT {
            way_out(&self.way, self.done)?;
        }
        Ok(Progress { done: self.done, ..Progress::default() })
    }

    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        let parts = self.parts.as_ref().ok_or(WorkloadError::Misuse { call: "digest", when: "before prepare" })?;
        parts.lora.weights_digest()
    }

    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        self.parts.as_mut().map_or(Ok(()), |parts| parts.lora.export(sink))
    }

    fn release(&mut self) -> Result<(), WorkloadError> {
        self.parts.take().map_or(Ok(()), |mut parts| parts.lora.release().and(parts.mlp.release()))
    }
}

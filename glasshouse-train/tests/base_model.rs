//! The fine-tuning workload over a real directory: what is pinned is what is trained, whatever the host does to the files
//! meanwhile; and what the owner's check finds before anything is rented.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::manifest::PublicInput;
use glasshouse_core::public_file::PublicFile;
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Workload as _, WorkloadError};
use glasshouse_train::finetune::{
    BaseModel, LoraSettings, QwenLora, Settings, Start, check, merge_into, package_entries, public_inputs,
};
use glasshouse_train::qwen::QwenConfig;
use glasshouse_train::qwen::adapter::AdapterFiles;
use tempfile::{TempDir, tempdir};

const DATA: &[u8] = b"{\"text\":\"abcabcab\"}\n{\"text\":\"cabcab\"}\n{\"text\":\"bbbacc\"}\n";

fn config() -> QwenConfig {
    QwenConfig { vocab_size: 5, layers: 2, ..QwenConfig::tiny() }
}

fn settings() -> Settings {
    let model = BaseModel::Directory { name: "some/model".to_owned() };
    Settings { model, steps: 8, sequence: 16, checkpoint_every: 2, eval_fraction: 0.0, ..Settings::default() }
}

/// A whole model: two shards under an index, random weights.
fn model(seed: u32) -> TempDir {
    let folder = tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("config.json", config().to_json().as_bytes());
    write("tokenizer.json", include_bytes!("../src/data/small_tokenizer.json"));
    write("tokenizer_config.json", br#"{"eos_token":"<end>"}"#);
    let mut map = BTreeMap::new();
    for (shard, part) in weights(seed).into_iter().enumerate() {
        let name = format!("model-{shard}.safetensors");
        map.extend(part.keys().map(|tensor| (tensor.clone(), name.clone())));
        candle_core::safetensors::save(&part, folder.path().join(name)).unwrap();
    }
    write("model.safetensors.index.json", serde_json::json!({ "weight_map": map }).to_string().as_bytes());
    folder
}

/// Under the names of Hugging Face; the last block in a shard of its own.
fn weights(seed: u32) -> [HashMap<String, Tensor>; 2] {
    let c = config();
    let mut shards = [HashMap::new(), HashMap::new()];
    let mut number = seed;
    let mut add = |shard: usize, name: String, shape: &[usize]| {
        let mut next = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(number >> 8) / f64::from(1 << 24) - 0.5
        };
        let norm = f64::from(u8::from(name.ends_with("norm.weight")));
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| (norm + 0.2 * next()) as f32).collect();
        let tensor = Tensor::from_vec(values, shape, &candle_core::Device::Cpu).unwrap();
        shards.get_mut(shard).unwrap().insert(name, tensor);
    };
    add(0, "model.embed_tokens.weight".to_owned(), &[c.vocab_size, c.hidden_size]);
    add(1, "model.norm.weight".to_owned(), &[c.hidden_size]);
    if !c.tie_word_embeddings {
        add(1, "lm_head.weight".to_owned(), &[c.vocab_size, c.hidden_size]);
    }
    for block in 0..c.layers {
        for (name, shape) in [
            ("input_layernorm.weight", vec![c.hidden_size]),
            ("post_attention_layernorm.weight", vec![c.hidden_size]),
            ("self_attn.q_proj.weight", vec![c.query_width(), c.hidden_size]),
            ("self_attn.q_proj.bias", vec![c.query_width()]),
            ("self_attn.k_proj.weight", vec![c.key_width(), c.hidden_size]),
            ("self_attn.k_proj.bias", vec![c.key_width()]),
            ("self_attn.v_proj.weight", vec![c.key_width(), c.hidden_size]),
            ("self_attn.v_proj.bias", vec![c.key_width()]),
            ("self_attn.o_proj.weight", vec![c.hidden_size, c.query_width()]),
            ("mlp.gate_proj.weight", vec![c.intermediate_size, c.hidden_size]),
            ("mlp.up_proj.weight", vec![c.intermediate_size, c.hidden_size]),
            ("mlp.down_proj.weight", vec![c.hidden_size, c.intermediate_size]),
        ] {
            add(block.min(1), format!("model.layers.{block}.{name}"), &shape);
        }
    }
    shards
}

/// As a segment makes them: every file that the owner pinned, checked.
fn inputs(settings: &Settings, folder: &Path, pinned: &[PublicInput], start: Start) -> Inputs {
    let open = |input: &PublicInput| {
        let file = PublicFile::pinned(&folder.join(&input.name), input).unwrap();
        (input.name.clone(), Arc::new(file))
    };
    Inputs {
        sealed: package_entries(settings, DATA.to_vec(), start).unwrap(),
        public: pinned.iter().map(open).collect(),
    }
}

fn prepared(settings: &Settings, folder: &Path, start: Start) -> Result<QwenLora, WorkloadError> {
    let pinned = public_inputs(folder, "file").unwrap();
    prepared_from(inputs(settings, folder, &pinned, start))
}

fn prepared_from(inputs: Inputs) -> Result<QwenLora, WorkloadError> {
    let mut workload = QwenLora::new();
    workload.prepare(inputs, Device::Cpu).map(|()| workload)
}

#[derive(Default)]
struct Sink(BTreeMap<String, Vec<u8>>);

impl ArtifactSink for Sink {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WorkloadError> {
        self.0.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
}

/// The digest after some steps, and every file that came out.
fn trained(workload: &mut QwenLora, steps: u64) -> (Digest32, BTreeMap<String, Vec<u8>>) {
    let mut sink = Sink::default();
    for _ in 0..steps {
        workload.advance(1).unwrap();
        workload.checkpoint(&mut sink).unwrap();
    }
    workload.export(&mut sink).unwrap();
    (workload.weights_digest().unwrap(), sink.0)
}

#[test]
fn a_directory_is_trained_exported_and_merged() {
    let folder = model(1);
    let mut workload = prepared(&settings(), folder.path(), Start::Fresh).unwrap();
    let (digest, mut files) = trained(&mut workload, 4);
    let (again, _) = trained(&mut prepared(&settings(), folder.path(), Start::Fresh).unwrap(), 4);
    assert_eq!(digest, again);
    let (other, _) = trained(&mut prepared(&settings(), model(2).path(), Start::Fresh).unwrap(), 4);
    assert_ne!(digest, other, "the weights of the folder are not used");
    let mut take = |name: &str| files.remove(name).unwrap();
    let adapter = AdapterFiles { config: take("adapter_config.json"), weights: take("adapter_model.safetensors") };
    assert!(String::from_utf8_lossy(&adapter.config).contains("some/model"));
    let out = folder.path().join("merged/");
    merge_into(folder.path(), &adapter, &out).unwrap();
    assert_eq!(public_inputs(&out, "file").unwrap().len(), public_inputs(folder.path(), "file").unwrap().len());
    assert_ne!(
        std::fs::read(out.join("model-1.safetensors")).unwrap(),
        std::fs::read(folder.path().join("model-1.safetensors")).unwrap()
    );
    let nothing = AdapterFiles { weights: Vec::new(), ..adapter };
    let elsewhere = folder.path().join("elsewhere");
    assert!(merge_into(folder.path(), &nothing, &elsewhere).is_err() && !elsewhere.exists());
}

#[test]
fn what_the_host_changes_after_the_check_is_not_trained() {
    let folder = model(1);
    let pinned = public_inputs(folder.path(), "file").unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors.index.json", "model-1.safetensors"] {
        let path = folder.path().join(name);
        let good = std::fs::read(&path).unwrap();
        for bad in [&good[..good.len() - 1], &[&good[..good.len() - 2], b"##"].concat()] {
            // In place: the same file, other bytes, when it was opened and found right already.
            let checked = inputs(&settings(), folder.path(), &pinned, Start::Fresh);
            std::fs::write(&path, bad).unwrap();
            let error = prepared_from(checked).err().unwrap().to_string();
            assert!(error.contains("changed after its digest was checked"), "{name}: {error}");
            std::fs::write(&path, &good).unwrap();
        }
    }
    // Other files under the same names change nothing.
    let checked = inputs(&settings(), folder.path(), &pinned, Start::Fresh);
    let (expected, _) = trained(&mut prepared(&settings(), folder.path(), Start::Fresh).unwrap(), 1);
    for input in &pinned {
        std::fs::remove_file(folder.path().join(&input.name)).unwrap();
    }
    assert_eq!(trained(&mut prepared_from(checked).unwrap(), 1).0, expected);
}

#[test]
fn what_was_not_pinned_is_not_read() {
    let folder = model(1);
    let pinned = public_inputs(folder.path(), "file").unwrap();
    for (without, says) in [
        ("config.json", "config.json: it is no public input"),
        ("tokenizer.json", "tokenizer.json: it is no public input"),
        ("model-1.safetensors", "model-1.safetensors"),
        ("model.safetensors.index.json", "neither model.safetensors nor"),
    ] {
        let some: Vec<_> = pinned.iter().filter(|input| input.name != without).cloned().collect();
        let error = prepared_from(inputs(&settings(), folder.path(), &some, Start::Fresh)).err().unwrap().to_string();
        assert!(error.contains(says), "{without}: {error}");
    }
}

#[test]
fn a_checkpoint_belongs_to_its_base_model() {
    let (folder, other) = (model(1), model(2));
    let (whole, files) = trained(&mut prepared(&settings(), folder.path(), Start::Fresh).unwrap(), 4);
    let start = || Start::Checkpoint(files.get("checkpoint-000002.safetensors").unwrap().clone());
    // The folder may be called anything; its files decide.
    let renamed = Settings { model: BaseModel::Directory { name: "elsewhere".to_owned() }, ..settings() };
    assert_eq!(trained(&mut prepared(&renamed, folder.path(), start()).unwrap(), 2).0, whole);
    let error = prepared(&settings(), other.path(), start()).err().unwrap().to_string();
    assert!(error.contains("another base model"), "{error}");
}

#[test]
fn the_owners_check_finds_what_the_run_would() {
    let folder = model(1);
    let pinned = public_inputs(folder.path(), "file").unwrap();
    let checked = |settings: &Settings, start: &Start| {
        check(settings, DATA, (Some(folder.path()), &pinned), start).map_err(|error| error.to_string())
    };
    let why = |settings: &Settings, start: &Start| checked(settings, start).unwrap_err();
    let (_, mut files) = trained(&mut prepared(&settings(), folder.path(), Start::Fresh).unwrap(), 2);
    let mut take = |name: &str| files.remove(name).unwrap();
    let checkpoint = Start::Checkpoint(take("checkpoint-000002.safetensors"));
    let adapter = Start::Adapter { config: take("adapter_config.json"), model: take("adapter_model.safetensors") };
    let trained = config().trainable_parameters(&settings().lora.config().unwrap());
    for start in [&Start::Fresh, &checkpoint, &adapter] {
        let found = checked(&settings(), start).unwrap();
        // An adapter, and in each of four checkpoints three times as much.
        assert_eq!((found.data.train_documents, found.artifact_bytes), (3, 13 * 4 * trained));
    }
    let rank = Settings { lora: LoraSettings { rank: 2, ..LoraSettings::default() }, ..settings() };
    assert!(why(&rank, &adapter).contains("the adapter's rank is 4, but this run's is 2"));
    assert!(why(&rank, &checkpoint).contains("this run needs"));
    assert!(why(&Settings { seed: 9, ..settings() }, &checkpoint).contains("other settings"));
    assert!(why(&Settings { steps: 2, ..settings() }, &checkpoint).contains("give more steps"));
    assert!(why(&Settings { sequence: 5000, ..settings() }, &Start::Fresh).contains("the model's maximum of 4096"));
    let error = check(&settings(), DATA, (None, &[]), &Start::Fresh).unwrap_err().to_string();
    assert!(error.contains("its folder is not known"), "{error}");
    let error = check(&settings(), b"{", (Some(folder.path()), &pinned), &Start::Fresh).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn a_folder_that_does_not_fit_is_named() {
    let why = |field: &str, value: serde_json::Value| {
        let folder = model(1);
        let mut json: serde_json::Value = serde_json::from_str(&config().to_json()).unwrap();
        *json.get_mut(field).unwrap() = value;
        std::fs::write(folder.path().join("config.json"), json.to_string()).unwrap();
        prepared(&settings(), folder.path(), Start::Fresh).err().unwrap().to_string()
    };
    let larger = why("vocab_size", 4.into());
    assert!(larger.contains("tokenizer.json: it has ids up to 4, and the model's embedding has 4 rows"), "{larger}");
    let other = why("model_type", "llama".into());
    assert!(other.contains("config.json") && other.contains("llama"), "{other}");
    let wider = why("vocab_size", 6.into());
    assert!(wider.contains("model.embed_tokens.weight is [5, 64], but the config makes it [6, 64]"), "{wider}");
}

//! The fine-tuning workload through its public interface: the contract of `Workload`, resumption bit for bit, and bad
//! input of every kind.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use glasshouse_core::contract;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Progress, Workload, WorkloadError};
use glasshouse_train::finetune::{
    BaseModel, CHECKPOINT_ENTRY, DATA_ENTRY, EVAL_ARTIFACT, LOG_ARTIFACT, LoraSettings, Metrics, QwenLora, Results,
    Schedule, Settings, Start, package_entries,
};

/// Short rows and few of them: everything here runs unoptimized.
fn settings() -> Settings {
    Settings { steps: 100, sequence: 48, learning_rate: 2e-2, ..Settings::default() }
}

fn sums() -> Vec<u8> {
    let line = |n: u32| format!("{{\"question\":\"{n}+1?\",\"answer\":\"{}\"}}\n", n + 1);
    (0..20).map(line).collect::<String>().into_bytes()
}

fn inputs(settings: &Settings, start: Start) -> Inputs {
    Inputs { sealed: package_entries(settings, sums(), start).unwrap(), ..Inputs::default() }
}

fn prepared(settings: &Settings, start: Start) -> Result<QwenLora, WorkloadError> {
    let mut workload = QwenLora::new();
    workload.prepare(inputs(settings, start), Device::Cpu).map(|()| workload)
}

#[derive(Default)]
struct Sink(BTreeMap<String, Vec<u8>>);

impl ArtifactSink for Sink {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WorkloadError> {
        assert!(self.0.insert(name.to_owned(), bytes.to_vec()).is_none(), "{name} twice");
        Ok(())
    }
}

fn exported(workload: &mut QwenLora) -> BTreeMap<String, Vec<u8>> {
    let mut sink = Sink::default();
    workload.export(&mut sink).unwrap();
    sink.0
}

/// Trains, and takes out what checkpoints there are.
fn trained(workload: &mut QwenLora, steps: u64) -> (Progress, Digest32, BTreeMap<String, Vec<u8>>) {
    let (mut sink, mut progress) = (Sink::default(), Progress::default());
    for _ in 0..steps {
        progress = workload.advance(1).unwrap();
        workload.checkpoint(&mut sink).unwrap();
    }
    (progress, workload.weights_digest().unwrap(), sink.0)
}

#[test]
fn it_keeps_the_contract() {
    let settings = settings();
    contract::workload(|| Box::new(QwenLora::new()), || inputs(&settings, Start::Fresh), Device::Cpu);
}

#[test]
fn the_loss_falls_and_what_comes_out_says_so() {
    let settings = Settings { steps: 30, eval_every: 10, sequence: 96, ..settings() };
    let mut workload = prepared(&settings, Start::Fresh).unwrap();
    let first = workload.advance(1).unwrap();
    let (last, ..) = trained(&mut workload, 29);
    assert!(last.is_finished() && last.done == 30 && last.total == Some(30));
    assert!(last.loss.unwrap() < first.loss.unwrap() - 0.5, "{first:?} {last:?}");
    assert!(last.eval_loss.unwrap() < first.eval_loss.unwrap() - 0.5, "{first:?} {last:?}");
    assert!(last.tokens.unwrap() > first.tokens.unwrap() && last.learning_rate.unwrap() < 1e-3);
    assert_eq!(workload.advance(1).unwrap().done, 30);
    let files = exported(&mut workload);
    let results: Results = serde_json::from_slice(&files[EVAL_ARTIFACT]).unwrap();
    assert_eq!(results.evaluations.iter().map(|e| e.step).collect::<Vec<_>>(), [0, 10, 20, 30]);
    assert_eq!((results.steps, results.data.held_out_documents), (30, 2));
    let log = String::from_utf8(files[LOG_ARTIFACT].clone()).unwrap();
    let points: Vec<Metrics> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(points.iter().map(|point| point.step).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    assert!(points.iter().all(|point| point.gradient_norm.unwrap() > 0.0));
    assert!(files.contains_key("adapter_config.json") && files.contains_key("adapter_model.safetensors"));
}

#[test]
fn a_resumed_run_goes_on_bit_for_bit() {
    let lora = LoraSettings { dropout: 0.2, ..LoraSettings::default() };
    for settings in [
        Settings { checkpoint_every: 3, ..settings() },
        Settings { checkpoint_every: 3, batch: 2, accumulate: 2, lora, ..settings() },
    ] {
        let mut whole = prepared(&settings, Start::Fresh).unwrap();
        let (_, wanted, checkpoints) = trained(&mut whole, 7);
        assert_eq!(
            checkpoints.keys().collect::<Vec<_>>(),
            ["checkpoint-000003.safetensors", "checkpoint-000006.safetensors"]
        );
        for (steps, name) in [(4, "checkpoint-000003.safetensors"), (1, "checkpoint-000006.safetensors")] {
            let mut resumed = prepared(&settings, Start::Checkpoint(checkpoints[name].clone())).unwrap();
            let (progress, digest, _) = trained(&mut resumed, steps);
            assert_eq!((progress.done, digest), (steps, wanted), "{name}");
        }
    }
}

#[test]
fn a_checkpoint_is_for_its_own_run() {
    let settings = Settings { checkpoint_every: 1, ..settings() };
    let (.., checkpoints) = trained(&mut prepared(&settings, Start::Fresh).unwrap(), 2);
    let at = |name: &str| Start::Checkpoint(checkpoints[name].clone());
    let start = || at("checkpoint-000002.safetensors");
    let why = |settings: &Settings, start| prepared(settings, start).err().unwrap().to_string();
    let more = Settings { steps: 200, eval_every: 5, ..settings.clone() };
    assert!(prepared(&more, start()).is_ok());
    assert!(why(&Settings { batch: 2, ..settings.clone() }, start()).contains("other settings"));
    assert!(why(&Settings { steps: 2, ..settings.clone() }, start()).contains("give more steps"));
    let lora = LoraSettings { rank: 2, ..LoraSettings::default() };
    assert!(why(&Settings { lora, ..settings.clone() }, start()).contains("this run needs"));
    let mut other = inputs(&settings, start());
    let data = SecretBuffer::new(b"{\"text\":\"other data\"}\n".repeat(20));
    other.sealed.insert(DATA_ENTRY.to_owned(), data);
    let error = QwenLora::new().prepare(other, Device::Cpu).unwrap_err();
    assert!(matches!(&error, WorkloadError::Input { name, .. } if name == CHECKPOINT_ENTRY), "{error}");
}

#[test]
fn accumulated_batches_make_the_step_of_one_large_batch() {
    let large = Settings { batch: 4, schedule: Schedule::Constant, ..settings() };
    let small = Settings { batch: 1, accumulate: 4, ..large.clone() };
    let losses = |settings: &Settings| {
        let mut workload = prepared(settings, Start::Fresh).unwrap();
        trained(&mut workload, 3);
        let log = String::from_utf8(exported(&mut workload)[LOG_ARTIFACT].clone()).unwrap();
        log.lines().map(|line| serde_json::from_str::<Metrics>(line).unwrap().loss.unwrap()).collect::<Vec<_>>()
    };
    let (a, b) = (losses(&large), losses(&small));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * a), "{a:?} {b:?}");
}

#[test]
fn an_adapter_goes_on_where_it_was() {
    let settings = Settings { eval_fraction: 0.2, ..settings() };
    let mut before = prepared(&settings, Start::Fresh).unwrap();
    trained(&mut before, 4);
    let mut files = exported(&mut before);
    let results: Results = serde_json::from_slice(&files[EVAL_ARTIFACT]).unwrap();
    let mut take = |name: &str| files.remove(name).unwrap();
    let (config, model) = (take("adapter_config.json"), take("adapter_model.safetensors"));
    let start = || Start::Adapter { config: config.clone(), model: model.clone() };
    let mut after = prepared(&settings, start()).unwrap();
    assert_eq!(after.weights_digest().unwrap(), before.weights_digest().unwrap());
    let loss = after.advance(1).unwrap().eval_loss.unwrap();
    assert!((loss - results.evaluations.last().unwrap().loss).abs() < 1e-6);
    for lora in [
        LoraSettings { rank: 8, ..LoraSettings::default() },
        LoraSettings { targets: vec!["q_proj".to_owned()], ..LoraSettings::default() },
    ] {
        let error = prepared(&Settings { lora, ..settings.clone() }, start()).err().unwrap();
        assert!(matches!(&error, WorkloadError::Input { name, .. } if name.starts_with("init_adapter")), "{error}");
    }
}

#[test]
fn a_loss_that_is_none_stops_the_run_and_makes_no_checkpoint() {
    let settings = Settings { learning_rate: 1e38, clip: 0.0, checkpoint_every: 1, ..settings() };
    let mut workload = prepared(&settings, Start::Fresh).unwrap();
    let mut sink = Sink::default();
    let outcome = (0..20).try_for_each(|_| workload.advance(1).and_then(|_| workload.checkpoint(&mut sink)));
    let error = outcome.unwrap_err();
    assert!(matches!(error, WorkloadError::NotFinite { .. } | WorkloadError::Device { .. }), "{error}");
    assert!(error.to_string().contains("lower the learning rate"), "{error}");
    for checkpoint in sink.0.into_values() {
        assert!(prepared(&settings, Start::Checkpoint(checkpoint)).is_ok());
    }
}

#[test]
fn bad_input_is_named() {
    let why = |settings: &Settings, data: &[u8]| {
        let mut inputs = inputs(settings, Start::Fresh);
        inputs.sealed.insert(DATA_ENTRY.to_owned(), SecretBuffer::new(data.to_vec()));
        QwenLora::new().prepare(inputs, Device::Cpu).unwrap_err().to_string()
    };
    let good = settings();
    let lines = |third: &str| format!("{{\"text\":\"a\"}}\n{{\"text\":\"b\"}}\n{third}\n{{\"text\":\"c\"}}\n");
    assert!(why(&good, lines("").as_bytes()).contains("data.jsonl: line 3: it is empty"));
    assert!(why(&good, lines("{\"text\"").as_bytes()).contains("data.jsonl: line 3: it ends too early"));
    assert!(why(&good, b"").contains("data.jsonl: the data set is empty"));
    let long = Settings { sequence: 5000, ..good.clone() };
    assert!(why(&long, &sums()).contains("sequence: 5000 tokens are more than the model's maximum of 4096"));
    let folder = Settings { model: BaseModel::Directory { name: "x".to_owned() }, ..good };
    assert!(why(&folder, &sums()).contains("config.json: it is no public input"));
}

//! The MLP workload through its public interface, against the contract of `Workload` and against candle's autograd.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use candle_core::Device as CandleDevice;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Workload, WorkloadError};
use glasshouse_train::mlp::{Autograd, Method, MlpConfig, MlpData, MlpWorkload, Optimizer, Shape, package_entries};

fn inputs(config: &MlpConfig) -> Inputs {
    Inputs { sealed: package_entries(config).unwrap(), ..Inputs::default() }
}

fn prepared(config: &MlpConfig) -> MlpWorkload {
    let mut workload = MlpWorkload::new();
    workload.prepare(inputs(config), Device::Cpu).unwrap();
    workload
}

fn digest_after(config: &MlpConfig, groups: &[u64]) -> Digest32 {
    let mut workload = prepared(config);
    for units in groups {
        workload.advance(*units).unwrap();
    }
    workload.weights_digest().unwrap()
}

#[derive(Default, PartialEq, Debug)]
struct Sink(BTreeMap<String, Vec<u8>>);

impl ArtifactSink for Sink {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WorkloadError> {
        assert!(self.0.insert(name.to_owned(), bytes.to_vec()).is_none());
        Ok(())
    }
}

fn exported(workload: &mut MlpWorkload) -> Sink {
    let mut sink = Sink::default();
    workload.export(&mut sink).unwrap();
    sink
}

/// Shapes that exercise what the presets do not: one layer, rows that fill no block and no lane, odd widths.
fn odd_shapes() -> [MlpConfig; 3] {
    let base = MlpConfig::new(Shape::Tiny);
    [
        MlpConfig { layers: vec![5, 3], batch: 7, seed: 1, ..base.clone() },
        MlpConfig { layers: vec![9, 17, 33, 2], batch: 1231, seed: 2, ..base.clone() },
        MlpConfig { layers: vec![3, 1, 1], batch: 1, seed: 3, ..base },
    ]
}

#[test]
fn both_optimizers_agree_with_candle_autograd() {
    let mut configs = odd_shapes().to_vec();
    configs.extend([MlpConfig::new(Shape::Tiny), MlpConfig { batch: 200, ..MlpConfig::new(Shape::Reference) }]);
    let decayed = Optimizer::Adamw { lr: 3e-3, beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.1 };
    for config in configs {
        for optimizer in [Optimizer::ADAMW, Optimizer::SGD, decayed] {
            let config = MlpConfig { optimizer, ..config.clone() };
            let epochs = 5;
            let (_, data) = MlpData::take(&mut inputs(&config)).unwrap();
            let mut autograd = Autograd::new(&config, &data, &CandleDevice::Cpu).unwrap();
            let expected_loss = autograd.advance(epochs).unwrap();
            let expected = autograd.weights().unwrap();

            let mut workload = prepared(&config);
            let loss = workload.advance(epochs).unwrap().loss.unwrap();
            assert!((loss - expected_loss).abs() < 1e-5 * expected_loss.max(1.0), "{loss} {expected_loss}");
            let model = exported(&mut workload).0.remove("model.safetensors").unwrap();
            let file = safetensors::SafeTensors::deserialize(&model).unwrap();
            let mut at = expected.iter();
            for layer in 0..config.layers.len() - 1 {
                for part in ["weight", "bias"] {
                    let tensor = file.tensor(&format!("layers.{layer}.{part}")).unwrap();
                    for bytes in tensor.data().chunks_exact(4) {
                        let (seen, expected) = (f32::from_le_bytes(bytes.try_into().unwrap()), at.next().unwrap());
                        assert!((seen - expected).abs() < 1e-5, "{config:?} layer {layer} {part}: {seen} {expected}");
                    }
                }
            }
            assert!(at.next().is_none());
        }
    }
}

#[test]
fn the_loss_falls() {
    for optimizer in [Optimizer::ADAMW, Optimizer::SGD] {
        let mut workload = prepared(&MlpConfig { optimizer, ..MlpConfig::new(Shape::Tiny) });
        let first = workload.advance(1).unwrap().loss.unwrap();
        let last = workload.advance(300).unwrap().loss.unwrap();
        assert!(last < 0.3 * first, "{optimizer:?}: {first} then {last}");
    }
}

#[test]
fn weights_do_not_depend_on_how_epochs_are_grouped() {
    for optimizer in [Optimizer::ADAMW, Optimizer::SGD] {
        let config = MlpConfig { optimizer, ..odd_shapes()[1].clone() };
        let whole = digest_after(&config, &[12]);
        for groups in [&[1; 12][..], &[5, 0, 7], &[11, 1]] {
            assert_eq!(digest_after(&config, groups), whole, "{groups:?}");
        }
        assert_ne!(digest_after(&config, &[11]), whole);
        assert_ne!(digest_after(&MlpConfig { seed: 9, ..config }, &[12]), whole);
    }
}

#[test]
fn weights_do_not_depend_on_the_number_of_threads() {
    for config in [MlpConfig { batch: 600, ..MlpConfig::new(Shape::Reference) }, odd_shapes()[1].clone()] {
        let digests = [1, 2, 3, 8].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| digest_after(&config, &[3]))
        });
        assert!(digests.iter().all(|digest| *digest == digests[0]));
    }
}

#[test]
fn exports_are_equal_and_change_nothing() {
    let config = MlpConfig::new(Shape::Tiny);
    let mut workload = prepared(&config);
    workload.advance(3).unwrap();
    let before = workload.weights_digest().unwrap();
    let artifacts = exported(&mut workload);
    assert_eq!(exported(&mut workload), artifacts);
    assert_eq!(workload.weights_digest().unwrap(), before);
    assert_eq!(artifacts.0.keys().collect::<Vec<_>>(), ["model.safetensors", "model_config.json"]);
    assert_eq!(artifacts.0["model_config.json"], config.to_json().unwrap());
    let mut again = prepared(&config);
    again.advance(3).unwrap();
    assert_eq!(exported(&mut again), artifacts);
}

#[test]
fn training_stops_at_its_own_end() {
    let mut workload = prepared(&MlpConfig { epochs: Some(5), ..MlpConfig::new(Shape::Tiny) });
    let progress = workload.advance(0).unwrap();
    assert_eq!((progress.done, progress.total, progress.loss), (0, Some(5), None));
    assert!(!workload.advance(4).unwrap().is_finished());
    let progress = workload.advance(4).unwrap();
    assert_eq!(progress.done, 5);
    assert!(progress.is_finished());
    let digest = workload.weights_digest().unwrap();
    assert_eq!(workload.advance(1).unwrap(), progress);
    assert_eq!(workload.weights_digest().unwrap(), digest);
}

#[test]
fn a_loss_that_is_not_a_number_is_an_error_and_stays_one() {
    let diverging = MlpConfig { optimizer: Optimizer::Sgd { lr: 10.0 }, ..MlpConfig::new(Shape::Tiny) };
    let mut workload = prepared(&diverging);
    for done in [200, 201] {
        let units = if done == 200 { 200 } else { 1 };
        match workload.advance(units) {
            Err(WorkloadError::NotFinite { loss, done: at }) => assert!(!loss.is_finite() && at == done),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn calls_in_the_wrong_state_are_misuse() {
    let is_misuse = |result: Result<(), WorkloadError>| assert!(matches!(result, Err(WorkloadError::Misuse { .. })));
    let config = MlpConfig::new(Shape::Tiny);
    let unusable = |workload: &mut MlpWorkload| {
        is_misuse(workload.advance(1).map(drop));
        is_misuse(workload.weights_digest().map(drop));
        is_misuse(workload.export(&mut Sink::default()));
        assert!(workload.computes_by().is_none());
    };
    unusable(&mut MlpWorkload::new());
    let mut workload = prepared(&config);
    assert_eq!(workload.computes_by().unwrap().to_string(), "cpu-fused");
    is_misuse(workload.prepare(inputs(&config), Device::Cpu));
    workload.advance(1).unwrap();
    workload.release().unwrap();
    unusable(&mut workload);
    is_misuse(workload.prepare(inputs(&config), Device::Cpu));
}

#[test]
fn inputs_that_were_refused_leave_a_workload_that_can_still_be_prepared() {
    let config = MlpConfig::new(Shape::Tiny);
    let mut workload = MlpWorkload::new();
    let error = workload.prepare(Inputs::default(), Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    workload.prepare(inputs(&config), Device::Cpu).unwrap();
}

#[cfg(not(feature = "cuda"))]
#[test]
fn cuda_without_the_feature_says_how_to_get_it() {
    let error = MlpWorkload::new().prepare(inputs(&MlpConfig::new(Shape::Tiny)), Device::Cuda).unwrap_err();
    assert!(error.to_string().contains("--features cuda"), "{error}");
}

#[test]
fn the_contract_holds_for_every_cpu_method() {
    for method in [Method::CpuFused, Method::CpuAutograd] {
        let config = MlpConfig { layers: vec![8, 16, 2], batch: 70, ..MlpConfig::new(Shape::Tiny) };
        let make = || Box::new(MlpWorkload::with_method(method)) as Box<dyn Workload>;
        glasshouse_core::contract::workload(make, || inputs(&config), Device::Cpu);
    }
}

#[test]
fn a_method_of_another_device_is_refused() {
    let config = MlpConfig::new(Shape::Tiny);
    for (method, device) in [(Method::CpuFused, Device::Cuda), (Method::CudaGraph, Device::Cpu)] {
        let error = MlpWorkload::with_method(method).prepare(inputs(&config), device).unwrap_err();
        assert!(error.to_string().contains(&format!("choose {}", method.device())), "{error}");
    }
}

#[test]
fn what_is_asked_for_is_what_runs() {
    let mut workload = MlpWorkload::with_method(Method::CpuAutograd);
    workload.prepare(inputs(&MlpConfig::new(Shape::Tiny)), Device::Cpu).unwrap();
    assert_eq!(
        (workload.computes_by(), workload.fallback(), workload.launch_batch()),
        (Some(Method::CpuAutograd), None, 1)
    );
}

//! The model through its public interface, on tiny random models.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use glasshouse_train::qwen::{Batch, IGNORE, LoraConfig, Qwen2, QwenConfig, QwenError, Target, check_gradients};

fn config() -> QwenConfig {
    QwenConfig { layers: 2, ..QwenConfig::tiny() }
}

fn model(seed: u64) -> Qwen2 {
    let lora = LoraConfig { targets: Target::ALL.to_vec(), dropout: 0.1, ..LoraConfig::default() };
    let model = Qwen2::random(&config(), &lora, &Device::Cpu, DType::F32, seed).unwrap();
    for (_, variable) in model.trainable().iter().skip(1).step_by(2) {
        let b = Tensor::arange(0f32, variable.elem_count() as f32, &Device::Cpu).unwrap();
        variable.set(&(b.cos().unwrap() * 0.02).unwrap().reshape(variable.shape()).unwrap()).unwrap();
    }
    model
}

fn batch(rows: usize, length: usize, seed: u32) -> Batch {
    let token = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) % 300;
    Batch::plain((0..(rows * length) as u32).map(token).collect(), rows, length).unwrap()
}

fn gradients(model: &Qwen2, batch: &Batch, divisor: f64, dropout: Option<u64>) -> Vec<f32> {
    let found = model.loss(batch, divisor, dropout).unwrap().backward().unwrap();
    check_gradients(model.trainable(), &found).unwrap();
    let of =
        |variable: &candle_core::Var| found.get(variable).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    model.trainable().iter().flat_map(|(_, variable)| of(variable)).collect()
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let error: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (error / b.iter().map(|b| b.powi(2)).sum::<f32>()).sqrt()
}

#[test]
fn a_tiny_model_learns_its_batch() {
    let (model, batch) = (model(1), batch(2, 24, 5));
    let vars = model.trainable().iter().map(|(_, variable)| variable.clone()).collect();
    let mut optimizer = AdamW::new(vars, ParamsAdamW { lr: 1e-2, ..ParamsAdamW::default() }).unwrap();
    let mut losses = Vec::new();
    for step in 0..40 {
        let loss = model.loss(&batch, batch.targets() as f64, Some(step)).unwrap();
        losses.push(loss.value().to_scalar::<f32>().unwrap());
        optimizer.step(&loss.backward().unwrap()).unwrap();
    }
    // Near the logarithm of 320 words at first.
    assert!((losses[0] - 320f32.ln()).abs() < 0.5 && losses[39] < losses[0] - 0.8, "{losses:?}");
}

#[test]
fn accumulated_gradients_are_those_of_all_rows() {
    let model = model(1);
    let (whole, first, second) = (batch(2, 20, 9), batch(2, 20, 9), batch(2, 20, 9));
    let half = |batch: Batch, row: usize| {
        let of = |values: &[u32]| values[row * 20..row * 20 + 20].to_vec();
        Batch {
            rows: 1,
            length: 20,
            tokens: of(&batch.tokens),
            positions: of(&batch.positions),
            documents: of(&batch.documents),
            labels: of(&batch.labels),
        }
    };
    let divisor = whole.targets() as f64;
    let all = gradients(&model, &whole, divisor, None);
    let parts = [half(first, 0), half(second, 1)].map(|part| gradients(&model, &part, divisor, None));
    let sum: Vec<f32> = parts[0].iter().zip(&parts[1]).map(|(a, b)| a + b).collect();
    assert!(apart(&sum, &all) < 1e-5, "{}", apart(&sum, &all));
}

#[test]
fn documents_in_one_row_are_as_in_rows_of_their_own() {
    let model = model(3);
    let apart_batch = batch(2, 16, 4);
    let packed = Batch { rows: 1, length: 32, documents: [vec![0; 16], vec![1; 16]].concat(), ..apart_batch.clone() };
    let logits = |batch| model.logits(batch).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(apart(&logits(&packed), &logits(&apart_batch)) < 1e-5);
    let (a, b) = (gradients(&model, &packed, 30.0, None), gradients(&model, &apart_batch, 30.0, None));
    assert!(apart(&a, &b) < 1e-5, "{}", apart(&a, &b));
}

#[test]
fn evaluation_is_the_loss_without_dropout_summed() {
    let model = model(2);
    let mut batch = batch(2, 12, 1);
    batch.labels[3] = IGNORE;
    let (sum, targets) = model.evaluate(&batch).unwrap();
    assert_eq!(targets, 21);
    let sum = sum.to_scalar::<f32>().unwrap();
    let loss = |dropout| model.loss(&batch, 21.0, dropout).unwrap().value().to_scalar::<f32>().unwrap();
    assert!((loss(None) - sum / 21.0).abs() < 1e-5);
    assert_ne!(loss(None), loss(Some(1)));
    assert_eq!(loss(Some(1)), loss(Some(1)));
}

#[test]
fn a_batch_without_targets_has_gradients_of_zero() {
    let model = model(2);
    let mut batch = batch(1, 8, 1);
    batch.labels.fill(IGNORE);
    let loss = model.loss(&batch, 1.0, None).unwrap();
    assert_eq!((loss.targets(), loss.value().to_scalar::<f32>().unwrap()), (0, 0.0));
    assert!(gradients(&model, &batch, 1.0, None).iter().all(|gradient| *gradient == 0.0));
    assert_eq!(model.evaluate(&batch).unwrap().0.to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn a_seed_makes_the_same_model_every_time() {
    let logits = |seed| model(seed).logits(&batch(1, 8, 2)).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(logits(7), logits(7));
    assert_ne!(logits(7), logits(8));
}

#[test]
fn only_adapters_are_trainable_and_counted() {
    for lora in [LoraConfig::default(), LoraConfig { rank: 3, targets: Target::ALL.to_vec(), ..LoraConfig::default() }]
    {
        let model = Qwen2::random(&config(), &lora, &Device::Cpu, DType::F32, 0).unwrap();
        let count: usize = model.trainable().iter().map(|(_, variable)| variable.elem_count()).sum();
        assert_eq!(count as u64, config().trainable_parameters(&lora));
        assert!(
            model.trainable().iter().all(|(name, variable)| name.contains(".lora_") && variable.dtype() == DType::F32)
        );
    }
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let model = model(1);
    let refused = |batch: &Batch| model.loss(batch, 1.0, None).err().unwrap();
    assert!(matches!(refused(&Batch::plain(vec![320; 4], 1, 4).unwrap()), QwenError::Batch { .. }));
    let long = config().max_position_embeddings + 1;
    let too_long = Batch::plain(vec![1; long], 1, long).unwrap();
    assert!(matches!(refused(&too_long), QwenError::TooLong { length: 4097, longest: 4096 }));
    let lora = LoraConfig { rank: 0, ..LoraConfig::default() };
    assert!(matches!(Qwen2::random(&config(), &lora, &Device::Cpu, DType::F32, 0), Err(QwenError::Lora { .. })));
}

//! One trip to a CUDA device: whether Qwen2's operations and model agree there with the CPU, and how fast steps are.
//!
//! ```text
//! cargo run --release -p glasshouse-train --features cuda --example qwen_device_check [-- check|speed|profile]
//! ```
//!
//! `check` exits with 1 when something disagrees; `profile` runs two steps of two blocks, for `ncu`.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::process::ExitCode;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use cudarc::driver::result::mem_get_info;
use glasshouse_train::gpu::{GpuIdentity, candle_device};
use glasshouse_train::ops::{
    Dropout, Packing, RopeTable, attention, linear, linear_cross_entropy, lora_linear, rms_norm, rope, swiglu,
};
use glasshouse_train::qwen::{Batch, IGNORE, LoraConfig, Qwen2, QwenConfig, Target};

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mode = std::env::args().nth(1).unwrap_or_else(|| "check".to_owned());
    let run = || -> Outcome<bool> {
        let gpu = GpuIdentity::first()?;
        println!("gpu {} | driver {}", gpu.model, gpu.driver);
        let device = candle_device()?;
        match mode.as_str() {
            "check" => check(&device),
            "speed" => speed(&device).map(|()| true),
            "profile" => profile(&device).map(|()| true),
            other => Err(format!("there is no mode {other:?}").into()),
        }
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAIL {error}");
            ExitCode::FAILURE
        }
    }
}

/// Relative L2 distances that are allowed: f32 has other orders of summing; bf16 rounds at 2^-9.
fn allowed(dtype: DType) -> f64 {
    if dtype == DType::BF16 { 0.02 } else { 3e-6 }
}

fn check(device: &Device) -> Outcome<bool> {
    let mut passed = true;
    for dtype in [DType::F32, DType::BF16] {
        for odd in [false, true] {
            operations(device, dtype, odd, &mut passed)?;
        }
        model(device, dtype, &mut passed)?;
    }
    println!("{}", if passed { "all checks passed" } else { "SOME CHECKS FAILED" });
    Ok(passed)
}

/// Values and gradients of each operation on both devices; odd sizes cannot be read sixteen bytes at a time.
fn operations(device: &Device, dtype: DType, odd: bool, passed: &mut bool) -> Outcome<()> {
    let more = usize::from(odd);
    let (tokens, n, out) = (300, 256 + more, 136 + more);
    let mut compare = |name: &str, shapes: &[&[usize]], f: &dyn Fn(&[Tensor]) -> Result<Tensor>| -> Outcome<()> {
        let inputs = shapes.iter().map(|shape| Tensor::randn(0f32, 1f32, *shape, &Device::Cpu)?.to_dtype(dtype));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let run = |device: &Device| -> Result<Vec<Tensor>> {
            let vars = inputs.iter().map(|x| Var::from_tensor(&x.to_device(device)?)).collect::<Result<Vec<_>>>()?;
            let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
            let y = f(&tensors)?;
            let mix = Tensor::arange(0f32, y.elem_count() as f32, &Device::Cpu)?.sin()?.reshape(y.shape())?;
            let loss = y.to_dtype(DType::F32)?.mul(&mix.to_device(device)?)?.sum_all()?;
            let gradients = loss.backward()?;
            let found = vars.iter().filter_map(|var| gradients.get(var).cloned());
            Ok([y].into_iter().chain(found).collect())
        };
        let errors = distances(&run(&Device::Cpu)?, &run(device)?)?;
        let good = errors.iter().all(|error| *error <= allowed(dtype));
        *passed &= good;
        println!("{} {dtype:?} odd {odd:<5} {name:<22} {}", verdict(good), list(&errors));
        Ok(())
    };
    let on = |x: &Tensor, like: &Tensor| x.to_device(like.device())?.to_dtype(like.dtype());
    let weight = Tensor::randn(0f32, 0.1f32, (out, n), &Device::Cpu)?;
    let norm = Tensor::randn(1f32, 0.2f32, n, &Device::Cpu)?;
    let bias = Tensor::randn(0f32, 1f32, out, &Device::Cpu)?;
    compare("rms_norm", &[&[tokens, n]], &|t| rms_norm(&t[0], &on(&norm, &t[0])?, 1e-6))?;
    compare("swiglu", &[&[tokens, 2 * n]], &|t| swiglu(&t[0]))?;
    compare("linear", &[&[tokens, n]], &|t| linear(&t[0], &on(&weight, &t[0])?, Some(&on(&bias, &t[0])?)))?;
    let rate = Some(Dropout { p: 0.2, seed: 11 });
    let shapes: [&[usize]; 3] = [&[tokens, n], &[4, n], &[out, 4]];
    compare("lora_linear", &shapes, &|t| lora_linear(&t[0], &on(&weight, &t[0])?, None, &t[1], &t[2], 0.5, rate))?;
    let (rows, length, heads, kv, dim) = (2, 700 + more, 6, 2, 16 + 2 * more);
    let positions: Vec<u32> = (0..(rows * length) as u32).map(|i| i * 7 % 900).collect();
    compare("rope", &[&[rows, length, heads, dim]], &|t| {
        let table = RopeTable::new(1e6, dim, 900, t[0].device())?;
        rope(&t[0], &Tensor::new(positions.as_slice(), t[0].device())?, &table)
    })?;
    let documents: Vec<u32> = (0..rows * length).map(|i| (i % length / 190) as u32).collect();
    for (name, documents) in [("attention, packed", documents), ("attention", vec![0; rows * length])] {
        let shapes: [&[usize]; 3] = [&[rows, length, heads, dim], &[rows, length, kv, dim], &[rows, length, kv, dim]];
        compare(name, &shapes, &|t| {
            attention(&t[0], &t[1], &t[2], &Packing::new(rows, length, &documents, t[0].device())?)
        })?;
    }
    // More keys than a warp holds in registers.
    let long = 1304 + more;
    let shapes: [&[usize]; 3] = [&[1, long, 2, 16], &[1, long, 1, 16], &[1, long, 1, 16]];
    compare("attention, long", &shapes, &|t| {
        attention(&t[0], &t[1], &t[2], &Packing::new(1, long, &vec![0; long], t[0].device())?)
    })?;
    let words = Tensor::randn(0f32, 0.1f32, (5000 + more, n), &Device::Cpu)?;
    let targets: Vec<u32> = (0..tokens as u32).map(|i| i * 13 % 5000).collect();
    compare("linear_cross_entropy", &[&[tokens, n]], &|t| {
        let targets = Tensor::new(targets.as_slice(), t[0].device())?;
        linear_cross_entropy(&t[0], &on(&words, &t[0])?, &targets, 300.0)
    })
}

/// The same random model and batch on both devices, with everything adapted, packed documents and dropout; twice on the
/// GPU for its bits.
fn model(device: &Device, dtype: DType, passed: &mut bool) -> Outcome<()> {
    let config = QwenConfig { layers: 3, ..QwenConfig::tiny() };
    let lora = LoraConfig { dropout: 0.1, targets: Target::ALL.to_vec(), ..LoraConfig::default() };
    let mut batch = Batch::plain((0..600u32).map(|i| i * i % 311).collect(), 2, 300)?;
    batch.documents = (0..600).map(|i| (i % 300 / 70) as u32).collect();
    batch.positions = (0..600).map(|i| (i % 300 % 70) as u32).collect();
    batch.labels.iter_mut().step_by(3).for_each(|label| *label = IGNORE);
    let run = |device: &Device, recompute: bool| -> Outcome<Vec<Tensor>> {
        let mut model = Qwen2::random(&config, &lora, device, dtype, 5)?;
        model.recompute_blocks(recompute);
        for (index, (_, variable)) in model.trainable().iter().enumerate().filter(|(index, _)| index % 2 == 1) {
            // B away from zero, so that A has a gradient.
            let values = (0..variable.elem_count()).map(|i| ((i * 31 + index * 7) % 17) as f32 * 0.005 - 0.04);
            variable.set(&Tensor::from_iter(values, device)?.reshape(variable.shape())?)?;
        }
        let loss = model.loss(&batch, batch.targets() as f64, Some(77))?;
        let mut found = vec![loss.value().clone()];
        let gradients = loss.backward()?;
        found.extend(model.trainable().iter().filter_map(|(_, variable)| gradients.get(variable).cloned()));
        found.push(model.evaluate(&batch)?.0);
        Ok(found)
    };
    let (cpu, gpu, again) = (run(&Device::Cpu, false)?, run(device, false)?, run(device, true)?);
    let worst = distances(&cpu, &gpu)?.into_iter().fold(0.0, f64::max);
    let limit = 5.0 * allowed(dtype);
    *passed &= worst <= limit;
    println!(
        "{} {dtype:?} model: loss, {} gradients, evaluation: worst {worst:.1e}",
        verdict(worst <= limit),
        cpu.len() - 2
    );
    let apart = distances(&gpu, &again)?.into_iter().fold(0.0, f64::max);
    *passed &= apart == 0.0;
    println!("{} {dtype:?} model: recomputed, the same bits: {apart:e}", verdict(apart == 0.0));
    Ok(())
}

fn speed(device: &Device) -> Outcome<()> {
    println!("\nLoRA rank 4 on q_proj, v_proj, bf16, random weights; steps with candle_nn's AdamW");
    println!(
        "shape  rows x length  recompute   ms/step   ms fwd+bwd   tokens/s   loss first last   GiB in use at most"
    );
    let (small, large) = (QwenConfig::qwen2_5_0_5b(), QwenConfig::qwen2_5_7b());
    for (name, config, rows, length, recompute, steps) in [
        ("0.5B", &small, 1, 128, false, 20),
        ("0.5B", &small, 4, 512, false, 20),
        ("0.5B", &small, 8, 1024, false, 20),
        ("0.5B", &small, 8, 1024, true, 10),
        ("7B", &large, 4, 512, true, 6),
        ("7B", &large, 8, 1024, true, 6),
        ("7B", &large, 4, 512, false, 6),
        ("7B", &large, 8, 1024, false, 6),
    ] {
        let mut model = Qwen2::random(config, &LoraConfig::default(), device, DType::BF16, 1)?;
        model.recompute_blocks(recompute);
        let vocab = config.vocab_size as u64;
        let tokens = (0..(rows * length) as u64).map(|i| (i.wrapping_mul(2_654_435_761) % vocab) as u32).collect();
        let batch = Batch::plain(tokens, rows, length)?;
        let vars = model.trainable().iter().map(|(_, variable)| variable.clone()).collect();
        let mut optimizer = AdamW::new(vars, ParamsAdamW { lr: 1e-3, ..ParamsAdamW::default() })?;
        let mut step = |optimize: bool| -> Outcome<Tensor> {
            let loss = model.loss(&batch, batch.targets() as f64, None)?;
            let value = loss.value().clone();
            let gradients = loss.backward()?;
            if optimize {
                optimizer.step(&gradients)?;
            }
            Ok(value)
        };
        let first = step(true)?.to_scalar::<f32>()?;
        step(true)?;
        step(true)?;
        device.synchronize()?;
        let start = Instant::now();
        let mut last = None;
        for _ in 0..steps {
            last = Some(step(true)?);
        }
        device.synchronize()?;
        let whole = start.elapsed().as_secs_f64() / f64::from(steps);
        let start = Instant::now();
        for _ in 0..steps {
            step(false)?;
        }
        device.synchronize()?;
        let pass = start.elapsed().as_secs_f64() / f64::from(steps);
        let last = last.map_or(Ok(f32::NAN), |last| last.to_scalar::<f32>())?;
        let (free, total) = mem_get_info()?;
        println!(
            "{name:<5} {rows:>3} x {length:<5} {recompute:<6} {:>14.1} {:>10.1} {:>12.0} {first:>9.3} {last:.3} {:>12.1}",
            whole * 1e3,
            pass * 1e3,
            (rows * length) as f64 / whole,
            (total - free) as f64 / f64::from(1 << 30),
        );
    }
    Ok(())
}

fn profile(device: &Device) -> Outcome<()> {
    let config = QwenConfig { layers: 2, ..QwenConfig::qwen2_5_0_5b() };
    let model = Qwen2::random(&config, &LoraConfig::default(), device, DType::BF16, 1)?;
    let batch = Batch::plain((0..8192u32).map(|i| i.wrapping_mul(2_654_435_761) % 151_936).collect(), 8, 1024)?;
    for _ in 0..2 {
        model.loss(&batch, batch.targets() as f64, None)?.backward()?;
        device.synchronize()?;
    }
    Ok(())
}

fn distances(expected: &[Tensor], found: &[Tensor]) -> Result<Vec<f64>> {
    let flat = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    expected
        .iter()
        .zip(found)
        .map(|(expected, found)| {
            let (expected, found) = (flat(expected)?, flat(found)?);
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
            let error = norm(&mut expected.iter().zip(&found).map(|(a, b)| a - b));
            Ok(error / norm(&mut expected.iter().copied()).max(f64::MIN_POSITIVE))
        })
        .collect()
}

fn list(errors: &[f64]) -> String {
    errors.iter().map(|error| format!("{error:.1e}")).collect::<Vec<_>>().join(" ")
}

fn verdict(good: bool) -> &'static str {
    if good { "ok  " } else { "FAIL" }
}

//! The CPU's methods against training in f64, by the criterion that devices are held to; and what that criterion refuses.

#![allow(clippy::unwrap_used)]

mod criterion;

use criterion::{Case, LOSS_TOLERANCE, Reference};
use glasshouse_train::mlp::{DATA_ENTRY, Method, Optimizer, Shape};

/// All of them with `--release`; what takes seconds without.
fn cases() -> impl Iterator<Item = (Shape, Case)> {
    let quick = |shape, case| shape == Shape::Tiny || (shape == Shape::Reference && case == Case::Gradient);
    let all = Shape::ALL.into_iter().flat_map(|shape| Case::ALL.map(|case| (shape, case)));
    all.filter(move |(shape, case)| !cfg!(debug_assertions) || quick(*shape, *case))
}

#[test]
fn cpu_methods_agree_with_f64() {
    for (shape, case) in cases() {
        let reference = Reference::new(case, shape).unwrap();
        // Where the allowance is the CPU's own distance, times four, it says nothing here.
        let allowed = if shape == Shape::Wide && case == Case::Adamw { 4e-3 } else { case.tolerance() };
        for method in [Method::CpuFused, Method::CpuAutograd] {
            let distance = reference.distance(method).unwrap();
            println!("{shape} {case:?} {method} {distance:?}");
            assert!(distance.weights <= allowed, "{shape} {case:?} {method}: {distance:?}, allowed {allowed}");
            assert!(distance.loss <= LOSS_TOLERANCE, "{shape} {case:?} {method}: {distance:?}");
        }
    }
}

#[test]
fn numbers_of_the_precision_of_tf32_are_refused_in_every_case() {
    for (shape, case) in cases() {
        let mut reference = Reference::new(case, shape).unwrap();
        let allowed = reference.allowance().unwrap();
        to_tf32(reference.sealed.get_mut(DATA_ENTRY).unwrap());
        let distance = reference.distance(Method::CpuFused).unwrap();
        assert!(distance.weights > 2.0 * allowed, "{shape} {case:?}: {distance:?}, allowed {allowed}");
    }
}

#[test]
fn an_optimizer_constant_that_is_slightly_wrong_is_refused() {
    let adamw = |lr, beta1, beta2, eps, weight_decay| Optimizer::Adamw { lr, beta1, beta2, eps, weight_decay };
    let wrong = [
        (Case::Gradient, Optimizer::Sgd { lr: 5.0005 }),
        (Case::Sgd, Optimizer::Sgd { lr: 0.05005 }),
        (Case::Linear, adamw(1.001e-3, 0.9, 0.999, 1e-8, 0.01)),
        (Case::Linear, adamw(1e-3, 0.899, 0.999, 1e-8, 0.01)),
        (Case::Linear, adamw(1e-3, 0.9, 0.998, 1e-8, 0.01)),
        (Case::Linear, adamw(1e-3, 0.9, 0.999, 1e-8, 0.0)),
        (Case::Damped, adamw(1e-3, 0.9, 0.999, 0.99e-3, 0.01)),
        (Case::Adamw, adamw(1e-3, 0.9, 0.99, 1e-8, 0.01)),
    ];
    for (case, optimizer) in wrong {
        let mut reference = Reference::new(case, Shape::Tiny).unwrap();
        reference.config.optimizer = optimizer;
        let distance = reference.distance(Method::CpuFused).unwrap();
        assert!(distance.weights > 2.0 * case.tolerance(), "{case:?} {optimizer:?}: {distance:?}");
    }
}

/// Rounds every value of a safetensors file to the 11 significant bits of TF32 (Veltkamp's splitting).
fn to_tf32(file: &mut [u8]) {
    let header = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize + 8;
    for bytes in file[header..].as_chunks_mut::<4>().0 {
        let value = f32::from_le_bytes(*bytes);
        let scaled = value * 8193.0;
        *bytes = (scaled - (scaled - value)).to_le_bytes();
    }
}

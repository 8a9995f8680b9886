//! Each operation against candle's slow composition of it, forward and backward, and against finite differences.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use candle_core::{D, DType, Device, Result, Tensor, Var};
use glasshouse_train::ops::{
    Dropout, Packing, RopeTable, attention, linear, linear_cross_entropy, lora_linear, rms_norm, rope, swiglu,
};

const CPU: Device = Device::Cpu;

fn normal(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1f32, shape, &CPU).unwrap()
}

fn var(shape: &[usize]) -> Var {
    Var::from_tensor(&normal(shape)).unwrap()
}

fn apart(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let wide = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
    let error = (wide(a) - wide(b)).unwrap().abs().unwrap().flatten_all().unwrap();
    error.max(0).unwrap().to_scalar::<f32>().unwrap()
}

/// Value and gradients of ours are those of the slow one; the gradients are those of finite differences, too.
fn check(inputs: &[Var], ours: impl Fn(&[Tensor]) -> Result<Tensor>, slow: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let tensors: Vec<Tensor> = inputs.iter().map(|input| input.as_tensor().clone()).collect();
    let (found, expected) = (ours(&tensors).unwrap(), slow(&tensors).unwrap());
    assert!(apart(&found, &expected) < 2e-5, "value: {}", apart(&found, &expected));
    // Any scalar of the result will do; this one has another gradient at every place.
    let mix = normal(found.dims());
    let scalar = |result: Tensor| result.broadcast_mul(&mix)?.sum_all();
    let found = scalar(found).unwrap().backward().unwrap();
    let expected = scalar(expected).unwrap().backward().unwrap();
    for (number, input) in inputs.iter().enumerate() {
        let (found, expected) = (found.get(input).unwrap(), expected.get(input).unwrap());
        assert!(apart(found, expected) < 5e-5, "gradient {number}: {}", apart(found, expected));
        let direction = normal(input.dims());
        let step = 1e-2;
        let at = |sign: f64| {
            let mut moved = tensors.clone();
            moved[number] = (&tensors[number] + (&direction * (sign * step)).unwrap()).unwrap();
            f64::from(scalar(ours(&moved).unwrap()).unwrap().to_scalar::<f32>().unwrap())
        };
        let measured = (at(1.0) - at(-1.0)) / (2.0 * step);
        let along = (found * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let tolerance = 0.01 * (1.0 + measured.abs());
        assert!((f64::from(along) - measured).abs() < tolerance, "difference {number}: {along} {measured}");
    }
}

#[test]
fn rms_norm_is_its_formula() {
    let weight = normal(&[12]);
    let slow = |t: &[Tensor]| {
        let mean = t[0].sqr()?.mean_keepdim(D::Minus1)?;
        t[0].broadcast_div(&(mean + 1e-6)?.sqrt()?)?.broadcast_mul(&weight)
    };
    check(&[var(&[2, 5, 12])], |t| rms_norm(&t[0], &weight, 1e-6), slow);
}

#[test]
fn swiglu_is_its_formula() {
    let slow = |t: &[Tensor]| t[0].narrow(1, 0, 9)?.silu()? * t[0].narrow(1, 9, 9)?;
    check(&[var(&[6, 18])], |t| swiglu(&t[0]), slow);
}

#[test]
fn rope_turns_each_token_by_its_own_position() {
    let (rows, length, heads, dim) = (2, 3, 2, 8);
    let positions = [5u32, 0, 1, 2, 3, 31];
    let table = RopeTable::new(1e4, dim, 32, &CPU).unwrap();
    let on_device = Tensor::new(&positions, &CPU).unwrap();
    let angles = |f: fn(f64) -> f64| {
        let of =
            |p: u32| (0..dim).map(move |i| f(f64::from(p) * 1e4f64.powf(-2.0 * (i % (dim / 2)) as f64 / dim as f64)));
        let values: Vec<f32> = positions.into_iter().flat_map(of).map(|x| x as f32).collect();
        Tensor::from_vec(values, (rows, length, 1, dim), &CPU).unwrap()
    };
    let slow = |t: &[Tensor]| {
        let (low, high) = (t[0].narrow(3, 0, dim / 2)?, t[0].narrow(3, dim / 2, dim / 2)?);
        let turned = Tensor::cat(&[high.neg()?, low], 3)?;
        t[0].broadcast_mul(&angles(f64::cos))? + turned.broadcast_mul(&angles(f64::sin))?
    };
    check(&[var(&[rows, length, heads, dim])], |t| rope(&t[0], &on_device, &table), slow);
    let beyond = Tensor::new(&[5u32, 0, 1, 2, 3, 32], &CPU).unwrap();
    assert!(rope(&normal(&[rows, length, heads, dim]), &beyond, &table).is_err());
}

/// With every score of the square at once, and a mask.
fn slow_attention(t: &[Tensor], documents: &[u32]) -> Result<Tensor> {
    let (rows, length, heads, dim) = t[0].dims4()?;
    let group = heads / t[1].dim(2)?;
    let mask: Vec<f32> = (0..rows * length * length)
        .map(|i| {
            let (row, query, key) = (i / length / length, i / length % length, i % length);
            let same = documents[row * length + query] == documents[row * length + key];
            if key <= query && same { 0.0 } else { f32::NEG_INFINITY }
        })
        .collect();
    let mask = Tensor::from_vec(mask, (rows, 1, length, length), &CPU)?;
    let repeat = |x: &Tensor| -> Result<Tensor> {
        let (rows, length, kv, dim) = x.dims4()?;
        x.reshape((rows, length, kv, 1, dim))?
            .broadcast_as((rows, length, kv, group, dim))?
            .reshape((rows, length, heads, dim))
    };
    let [q, k, v] =
        [t[0].clone(), repeat(&t[1])?, repeat(&t[2])?].map(|x| x.transpose(1, 2).unwrap().contiguous().unwrap());
    let scores = (q.matmul(&k.t()?.contiguous()?)? / (dim as f64).sqrt())?.broadcast_add(&mask)?;
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let powers = scores.broadcast_sub(&largest)?.exp()?;
    let p = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
    p.matmul(&v)?.transpose(1, 2)
}

#[test]
fn attention_is_softmax_over_each_document_up_to_the_query() {
    for (rows, length, heads, kv, dim, documents) in [
        (1, 1, 1, 1, 2, vec![0]),
        (2, 5, 4, 2, 4, vec![0, 0, 0, 0, 0, 1, 1, 2, 2, 7]),
        (1, 7, 3, 3, 6, vec![0, 1, 1, 1, 4, 4, 4]),
        (2, 6, 4, 1, 2, vec![0, 0, 0, 1, 1, 1, 0, 1, 2, 3, 4, 5]),
    ] {
        let packing = Packing::new(rows, length, &documents, &CPU).unwrap();
        let inputs = [var(&[rows, length, heads, dim]), var(&[rows, length, kv, dim]), var(&[rows, length, kv, dim])];
        check(&inputs, |t| attention(&t[0], &t[1], &t[2], &packing), |t| slow_attention(t, &documents));
    }
}

/// Longer than a block of queries, with documents that begin in the middle of one and keys that no query sees any more.
#[test]
fn attention_over_several_blocks_is_the_same() {
    let (rows, length, heads, kv, dim) = (2, 600, 2, 1, 4);
    let mut documents = vec![0u32; rows * length];
    for (place, document) in documents.iter_mut().enumerate() {
        *document = [0, 130, 131, 400].iter().filter(|start| place % length >= **start).count() as u32;
    }
    let packing = Packing::new(rows, length, &documents, &CPU).unwrap();
    let inputs = [var(&[rows, length, heads, dim]), var(&[rows, length, kv, dim]), var(&[rows, length, kv, dim])];
    let tensors: Vec<Tensor> = inputs.iter().map(|input| input.as_tensor().clone()).collect();
    let found = attention(&tensors[0], &tensors[1], &tensors[2], &packing).unwrap();
    let expected = slow_attention(&tensors, &documents).unwrap();
    assert!(apart(&found, &expected) < 1e-5);
    let mix = normal(found.dims());
    let backward = |x: &Tensor| (x * &mix).unwrap().sum_all().unwrap().backward().unwrap();
    let (found, expected) = (backward(&found), backward(&expected.contiguous().unwrap()));
    for input in &inputs {
        assert!(apart(found.get(input).unwrap(), expected.get(input).unwrap()) < 1e-4);
    }
}

#[test]
fn frozen_linear_gives_no_gradient_to_its_weight() {
    let (weight, bias) = (var(&[4, 6]), var(&[4]));
    let slow = |t: &[Tensor]| t[0].matmul(&weight.t()?)?.broadcast_add(bias.as_tensor());
    let x = var(&[5, 6]);
    check(std::slice::from_ref(&x), |t| linear(&t[0], weight.as_tensor(), Some(bias.as_tensor())), slow);
    let gradients = linear(x.as_tensor(), weight.as_tensor(), None).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&x).is_some() && gradients.get(&weight).is_none() && gradients.get(&bias).is_none());
}

#[test]
fn lora_linear_trains_a_and_b_and_not_the_weight() {
    let (weight, bias) = (var(&[4, 6]), normal(&[4]));
    let slow = |t: &[Tensor]| {
        let base = t[0].matmul(&weight.as_detached_tensor().t()?)?.broadcast_add(&bias)?;
        base + (t[0].matmul(&t[1].t()?)?.matmul(&t[2].t()?)? * 0.7)?
    };
    let inputs = [var(&[5, 6]), var(&[2, 6]), var(&[4, 2])];
    check(&inputs, |t| lora_linear(&t[0], weight.as_tensor(), Some(&bias), &t[1], &t[2], 0.7, None), slow);
    let loss = lora_linear(inputs[0].as_tensor(), weight.as_tensor(), None, &inputs[1], &inputs[2], 1.0, None).unwrap();
    assert!(loss.sum_all().unwrap().backward().unwrap().get(&weight).is_none());
}

/// The mask is that of a pass over ones: the same in forward and backward by the seed alone.
#[test]
fn lora_dropout_is_the_same_in_forward_and_backward() {
    let weight = normal(&[4, 6]);
    let rate = Dropout { p: 0.4, seed: 3 };
    let eye = Tensor::eye(6, DType::F32, &CPU).unwrap();
    let zero = Tensor::zeros((6, 6), DType::F32, &CPU).unwrap();
    let ones = Tensor::ones((5, 6), DType::F32, &CPU).unwrap();
    let mask = lora_linear(&ones, &zero, None, &eye, &eye, 1.0, Some(rate)).unwrap();
    let kept = mask.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(kept.contains(&0.0) && kept.iter().all(|m| *m == 0.0 || (m - 1.0 / 0.6).abs() < 1e-6), "{kept:?}");
    let slow =
        |t: &[Tensor]| t[0].matmul(&weight.t()?)? + ((&t[0] * &mask)?.matmul(&t[1].t()?)?.matmul(&t[2].t()?)? * 0.7)?;
    let inputs = [var(&[5, 6]), var(&[2, 6]), var(&[4, 2])];
    check(&inputs, |t| lora_linear(&t[0], &weight, None, &t[1], &t[2], 0.7, Some(rate)), slow);
}

#[test]
fn linear_cross_entropy_is_its_formula() {
    let weight = normal(&[11, 6]);
    let targets = Tensor::new(&[3u32, 0, 10, 7], &CPU).unwrap();
    let slow = |t: &[Tensor]| {
        let logits = t[0].matmul(&weight.t()?)?;
        let largest = logits.max_keepdim(1)?.detach();
        let log = (logits.broadcast_sub(&largest)?.exp()?.sum_keepdim(1)?.log()? + largest)?;
        let picked = logits.gather(&targets.unsqueeze(1)?, 1)?;
        (log - picked)?.sum_all()? / 5.0
    };
    check(&[var(&[4, 6])], |t| linear_cross_entropy(&t[0], &weight, &targets, 5.0), slow);
    let outside = Tensor::new(&[3u32, 0, 11, 7], &CPU).unwrap();
    assert!(linear_cross_entropy(&normal(&[4, 6]), &weight, &outside, 1.0).is_err());
}

#[test]
fn bf16_agrees_with_f32_to_its_precision() {
    let half = |x: &Tensor| x.to_dtype(DType::BF16).unwrap();
    let wide = |x: &Tensor| half(x).to_dtype(DType::F32).unwrap();
    let (x, weight) = (normal(&[7, 16]), normal(&[16]));
    let error =
        apart(&rms_norm(&half(&x), &half(&weight), 1e-6).unwrap(), &rms_norm(&wide(&x), &wide(&weight), 1e-6).unwrap());
    assert!(error < 0.04, "{error}");
    let error = apart(&swiglu(&half(&x)).unwrap(), &swiglu(&wide(&x)).unwrap());
    assert!(error < 0.04, "{error}");
    let matrix = normal(&[5, 16]);
    let error =
        apart(&linear(&half(&x), &half(&matrix), None).unwrap(), &linear(&wide(&x), &wide(&matrix), None).unwrap());
    assert!(error < 0.1, "{error}");
    let packing = Packing::new(1, 9, &[0; 9], &CPU).unwrap();
    let [q, k, v] = [normal(&[1, 9, 4, 8]), normal(&[1, 9, 2, 8]), normal(&[1, 9, 2, 8])];
    let error = apart(
        &attention(&half(&q), &half(&k), &half(&v), &packing).unwrap(),
        &attention(&wide(&q), &wide(&k), &wide(&v), &packing).unwrap(),
    );
    assert!(error < 0.05, "{error}");
}

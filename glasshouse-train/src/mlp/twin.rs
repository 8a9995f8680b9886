//! The device's plan, run on the CPU with every access checked: what the CUDA path is held against where there is no GPU.

use super::config::{MlpConfig, Optimizer, Shape, Tuning};
use super::data::{Floats, MlpData};
use super::generate;
use super::optim::OptimizerState;
use super::plan::{Gemm, Op, Plan, STATE, TILE_COLUMNS, Tiles, UpdateOp};
use super::step::CpuTrainer;

struct Twin {
    plan: Plan,
    arena: Vec<f32>,
    optimizer: OptimizerState,
    /// Side operations as late as the plan allows, instead of as early: a plan that is right allows both.
    late: bool,
}

impl Twin {
    fn new(config: &MlpConfig, data: &MlpData, tuning: Tuning, late: bool) -> Self {
        let plan = Plan::new(config, tuning);
        // What was never written must never be read.
        let mut arena = vec![f32::NAN; plan.arena];
        arena[plan.x..][..data.x.len()].copy_from_slice(&data.x);
        arena[plan.y..][..data.y.len()].copy_from_slice(&data.y);
        arena[plan.params.clone()].copy_from_slice(&plan.to_device(&data.weights));
        arena[plan.state..][..STATE].copy_from_slice(&Plan::initial_state());
        let optimizer = OptimizerState::new(config.optimizer, data.layout.total);
        Self { plan, arena, optimizer, late }
    }

    fn epoch(&mut self) {
        let mut waiting = Vec::new();
        for op in self.plan.ops.clone() {
            match op {
                Op::Gemm(gemm) if gemm.side && self.late => waiting.push(gemm),
                Op::Gemm(gemm) => self.gemm(&gemm),
                Op::BiasRelu { z, bias, columns, count } => {
                    for i in 0..count {
                        self.arena[z + i] = (self.arena[z + i] + self.arena[bias + i % columns]).max(0.0);
                    }
                }
                Op::Loss { output, bias, target, delta, squared, scale, tiles } => {
                    let mut sums = vec![0.0; tiles.across() * tiles.chunks()];
                    self.tile_sums(&tiles, |arena, at, row, column| {
                        let error = arena[output + at] + arena[bias + column] - arena[target + at];
                        sums[row / tiles.chunk * tiles.across() + column / TILE_COLUMNS] += error * error;
                        arena[delta + at] = error * scale;
                        error * scale
                    });
                    self.arena[squared..][..sums.len()].copy_from_slice(&sums);
                }
                Op::Mask { delta, activation, tiles } => self.tile_sums(&tiles, |arena, at, _, _| {
                    if arena[activation + at] <= 0.0 {
                        arena[delta + at] = 0.0;
                    }
                    arena[delta + at]
                }),
                Op::Fork => {}
                Op::Join => waiting.drain(..).for_each(|gemm| self.gemm(&gemm)),
                Op::Update(update) => self.update(&update),
            }
        }
        assert!(waiting.is_empty(), "work on the side that nothing waits for");
    }

    fn gemm(&mut self, gemm: &Gemm) {
        let Gemm { transpose, m, n, k, leading, strides, .. } = *gemm;
        let index = |transposed: bool, row: usize, column: usize, leading: usize| {
            if transposed { column + row * leading } else { row + column * leading }
        };
        for part in 0..gemm.batch {
            let Gemm { a, b, c, .. } = *gemm;
            let [a, b, c] = [a + part * strides[0], b + part * strides[1], c + part * strides[2]];
            for column in 0..n {
                for row in 0..m {
                    let product = |i| {
                        let left = self.arena[a + index(transpose[0], row, i, leading[0])];
                        f64::from(left) * f64::from(self.arena[b + index(transpose[1], i, column, leading[1])])
                    };
                    self.arena[c + index(false, row, column, leading[2])] = (0..k).map(product).sum::<f64>() as f32;
                }
            }
        }
    }

    fn tile_sums(&mut self, tiles: &Tiles, mut value: impl FnMut(&mut [f32], usize, usize, usize) -> f32) {
        for chunk in 0..tiles.chunks() {
            let mut sums = vec![0.0; tiles.columns];
            for row in chunk * tiles.chunk..((chunk + 1) * tiles.chunk).min(tiles.rows) {
                for (column, sum) in sums.iter_mut().enumerate() {
                    *sum += value(&mut self.arena, row * tiles.columns + column, row, column);
                }
            }
            self.arena[tiles.sums + chunk * tiles.stride..][..tiles.columns].copy_from_slice(&sums);
        }
    }

    fn update(&mut self, op: &UpdateOp) {
        let gradient: Vec<f32> = (0..op.weights + op.biases)
            .map(|i| match i.checked_sub(op.weights) {
                None => (0..op.splits).map(|part| self.arena[op.gradients + part * op.gradient_stride + i]).sum(),
                Some(i) => (0..op.chunks).map(|part| self.arena[op.sums + part * op.sum_stride + i]).sum::<f32>(),
            })
            .collect();
        let update = self.optimizer.next();
        let [m, v] = &mut self.optimizer.moments;
        update.apply(&mut self.arena[self.plan.params.clone()], &gradient, m, v);
    }

    fn loss(&self) -> f64 {
        self.arena[self.plan.squared.clone()].iter().map(|sum| f64::from(*sum)).sum::<f64>() * self.plan.mean
    }

    fn weights(&self) -> Floats {
        self.plan.to_flat(&self.arena[self.plan.params.clone()])
    }
}

fn configs() -> Vec<MlpConfig> {
    let base = MlpConfig { seed: 5, ..MlpConfig::new(Shape::Tiny) };
    let sizes = [(vec![5, 3], 7), (vec![9, 17, 40, 2], 36), (vec![3, 1, 1], 1), (vec![4, 8, 8, 33], 40)];
    let mut configs = vec![MlpConfig { batch: 24, ..base.clone() }];
    configs.extend(sizes.map(|(layers, batch)| MlpConfig { layers, batch, ..base.clone() }));
    configs
}

#[test]
fn the_plan_trains_as_the_cpu_does() {
    for config in configs() {
        for optimizer in [Optimizer::ADAMW, Optimizer::SGD] {
            for (splits, overlap, late) in [(1, false, false), (4, true, false), (4, true, true), (3, true, true)] {
                let config = MlpConfig { optimizer, ..config.clone() };
                let data = generate::data(&config);
                let mut twin = Twin::new(&config, &data, Tuning { splits, overlap }, late);
                let mut cpu = CpuTrainer::new(&config, data);
                (0..3).for_each(|_| twin.epoch());
                let expected = cpu.advance(3);
                assert!((twin.loss() - expected).abs() < 1e-5 * expected.max(1.0), "{} {expected}", twin.loss());
                for (i, (seen, expected)) in twin.weights().iter().zip(cpu.weights.iter()).enumerate() {
                    assert!((seen - expected).abs() < 1e-5, "{config:?} {splits} {i}: {seen} {expected}");
                }
            }
        }
    }
}

/// Late and early side work must give the same bits: nothing that it reads or writes is touched before the join.
#[test]
fn the_side_races_with_nothing() {
    for config in configs() {
        let data = generate::data(&config);
        let weights = [false, true].map(|late| {
            let mut twin = Twin::new(&config, &data, Tuning { splits: 2, overlap: true }, late);
            (0..3).for_each(|_| twin.epoch());
            twin.weights()
        });
        assert_eq!(weights[0], weights[1]);
    }
}

#[test]
fn device_order_goes_there_and_back() {
    let config = &configs()[2];
    let plan = Plan::new(config, Tuning::of(config));
    let flat: Vec<f32> = (0..plan.params.len()).map(|i| i as f32).collect();
    let there = plan.to_device(&flat);
    assert_ne!(there[..], flat[..]);
    assert_eq!(plan.to_flat(&there)[..], flat[..]);
}

#[test]
fn the_initial_state_is_two_ones() {
    let state = Plan::initial_state();
    let bits = |i: usize| u64::from(state[i].to_bits()) | u64::from(state[i + 1].to_bits()) << 32;
    assert_eq!([f64::from_bits(bits(0)), f64::from_bits(bits(2))], [1.0, 1.0]);
}

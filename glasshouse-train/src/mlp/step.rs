use rayon::prelude::*;

use super::config::MlpConfig;
use super::data::{Floats, MlpData};
use super::gemm::{Into, Matrix, multiply};
use super::optim::OptimizerState;
use super::params::Layout;

/// Most rows that are taken forward and back at once, so that their activations stay in a core's cache.
const BLOCK_ROWS: usize = 128;
/// Most parts that the rows are split into. Fixed, whatever the machine: gradients are summed part by part, so the
/// split decides the bits, and the number of threads must not.
const MAX_LANES: usize = 8;
/// Fewest rows worth a lane of their own.
const MIN_LANE_ROWS: usize = 64;
/// Weights that one task sums gradients for and updates.
const UPDATE_CHUNK: usize = 1 << 14;

/// Training on the CPU: weights, optimizer state and every buffer that an epoch needs.
///
/// Rows are split into a fixed number of lanes. Each lane goes forward and back over its rows in blocks and keeps its
/// own gradient; then the lanes' gradients are summed in order, and the weights updated in the same pass. Two parallel
/// regions an epoch, no allocation, and bits that do not depend on the number of threads.
pub(crate) struct CpuTrainer {
    layout: Layout,
    pub(crate) weights: Floats,
    optimizer: OptimizerState,
    lanes: Vec<Lane>,
    /// Makes the squared error's sum its mean.
    mean: f64,
}

struct Lane {
    rows: usize,
    x: Floats,
    y: Floats,
    /// Output of each layer for one block, after ReLU where there is one.
    activations: Vec<Floats>,
    /// Gradient by a layer's output for one block; two, as one makes the other.
    deltas: [Floats; 2],
    gradient: Floats,
    squared_error: f64,
}

impl CpuTrainer {
    pub(crate) fn new(config: &MlpConfig, data: MlpData) -> Self {
        let lane_rows = data.rows.div_ceil(MAX_LANES).max(MIN_LANE_ROWS);
        let lanes = data
            .x
            .chunks(lane_rows * data.inputs)
            .zip(data.y.chunks(lane_rows * data.outputs))
            .map(|(x, y)| Lane::new(&data.layout, x, y))
            .collect();
        Self {
            optimizer: OptimizerState::new(config.optimizer, data.layout.total),
            lanes,
            mean: 1.0 / (data.rows as f64 * data.outputs as f64),
            layout: data.layout,
            weights: data.weights,
        }
    }

    /// Trains and gives the loss of the last epoch, as it was before that epoch's update.
    pub(crate) fn advance(&mut self, epochs: u64) -> f64 {
        // Entering the pool once keeps its wake-up latency out of every epoch.
        rayon::scope(|_| {
            for _ in 0..epochs {
                self.epoch();
            }
        });
        self.lanes.iter().map(|lane| lane.squared_error).sum::<f64>() * self.mean
    }

    fn epoch(&mut self) {
        let (layout, weights) = (&self.layout, &self.weights);
        let scale = (2.0 * self.mean) as f32;
        self.lanes.par_iter_mut().for_each(|lane| lane.run(layout, weights, scale));

        let update = self.optimizer.next();
        let [m, v] = &mut self.optimizer.moments;
        let lanes = &self.lanes;
        let update_chunk = |index: usize, w: &mut [f32], m: &mut [f32], v: &mut [f32]| {
            let start = index * UPDATE_CHUNK;
            for at in (0..w.len()).step_by(SUM) {
                let end = (at + SUM).min(w.len());
                let mut sum = [0.0; SUM];
                for lane in lanes {
                    for (sum, g) in sum.iter_mut().zip(&lane.gradient[start + at..start + end]) {
                        *sum += g;
                    }
                }
                let moment = if m.is_empty() { 0..0 } else { at..end };
                update.apply(&mut w[at..end], &sum[..end - at], &mut m[moment.clone()], &mut v[moment]);
            }
        };
        if m.is_empty() {
            let chunks = self.weights.par_chunks_mut(UPDATE_CHUNK).enumerate();
            chunks.for_each(|(i, w)| update_chunk(i, w, &mut [], &mut []));
        } else {
            self.weights
                .par_chunks_mut(UPDATE_CHUNK)
                .zip(m.par_chunks_mut(UPDATE_CHUNK))
                .zip(v.par_chunks_mut(UPDATE_CHUNK))
                .enumerate()
                .for_each(|(i, ((w, m), v))| update_chunk(i, w, m, v));
        }
    }
}

/// Gradients summed at a time, in registers or the first cache.
const SUM: usize = 256;

impl Lane {
    fn new(layout: &Layout, x: &[f32], y: &[f32]) -> Self {
        let inputs = layout.layers.first().map_or(1, |layer| layer.inputs);
        let rows = x.len() / inputs;
        let block = rows.min(BLOCK_ROWS);
        let zeros = |length: usize| Floats::new(vec![0.0; length]);
        let widest = layout.layers.iter().map(|layer| layer.outputs).max().unwrap_or(0);
        Self {
            rows,
            x: Floats::new(x.to_vec()),
            y: Floats::new(y.to_vec()),
            activations: layout.layers.iter().map(|layer| zeros(block * layer.outputs)).collect(),
            deltas: [zeros(block * widest), zeros(block * widest)],
            gradient: zeros(layout.total),
            squared_error: 0.0,
        }
    }

    /// Forward and back over all rows of this lane; leaves `gradient` and `squared_error`.
    fn run(&mut self, layout: &Layout, weights: &[f32], scale: f32) {
        self.squared_error = 0.0;
        for start in (0..self.rows).step_by(BLOCK_ROWS) {
            let rows = (self.rows - start).min(BLOCK_ROWS);
            self.forward(layout, weights, start, rows);
            let into = if start == 0 { Into::Overwrite } else { Into::Add };
            self.backward(layout, weights, start, rows, scale, into);
        }
    }

    fn forward(&mut self, layout: &Layout, weights: &[f32], start: usize, rows: usize) {
        for (l, layer) in layout.layers.iter().enumerate() {
            let (before, after) = self.activations.split_at_mut(l);
            let input = match before.last() {
                Some(activation) => &activation[..rows * layer.inputs],
                None => &self.x[start * layer.inputs..(start + rows) * layer.inputs],
            };
            let output = &mut after[0][..rows * layer.outputs];
            let weight = Matrix::new(&weights[layer.weight.clone()], layer.outputs, layer.inputs);
            multiply(output, Into::Overwrite, Matrix::new(input, rows, layer.inputs), weight.transposed());
            let bias = &weights[layer.bias.clone()];
            let is_last = l + 1 == layout.layers.len();
            for row in output.chunks_exact_mut(layer.outputs) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    let sum = *value + bias;
                    // A sum that is not a number stays one, so that the loss shows it.
                    *value = if sum < 0.0 && !is_last { 0.0 } else { sum };
                }
            }
        }
    }

    fn backward(&mut self, layout: &Layout, weights: &[f32], start: usize, rows: usize, scale: f32, into: Into) {
        let [mut delta, mut next] = self.deltas.each_mut();
        let Some(output) = self.activations.last() else { return };
        let outputs = self.y.len() / self.rows;
        let target = &self.y[start * outputs..(start + rows) * outputs];
        for ((delta, output), target) in delta.iter_mut().zip(output.iter()).zip(target) {
            let error = output - target;
            self.squared_error += f64::from(error) * f64::from(error);
            *delta = error * scale;
        }
        for (l, layer) in layout.layers.iter().enumerate().rev() {
            let by_output = &delta[..rows * layer.outputs];
            let input = match l.checked_sub(1) {
                Some(below) => &self.activations[below][..rows * layer.inputs],
                None => &self.x[start * layer.inputs..(start + rows) * layer.inputs],
            };
            let by_weight = &mut self.gradient[layer.weight.clone()];
            let by_output_matrix = Matrix::new(by_output, rows, layer.outputs);
            multiply(by_weight, into, by_output_matrix.transposed(), Matrix::new(input, rows, layer.inputs));
            let by_bias = &mut self.gradient[layer.bias.clone()];
            if into == Into::Overwrite {
                by_bias.fill(0.0);
            }
            for row in by_output.chunks_exact(layer.outputs) {
                for (sum, delta) in by_bias.iter_mut().zip(row) {
                    *sum += delta;
                }
            }
            if l > 0 {
                let by_input = &mut next[..rows * layer.inputs];
                let weight = Matrix::new(&weights[layer.weight.clone()], layer.outputs, layer.inputs);
                multiply(by_input, Into::Overwrite, by_output_matrix, weight);
                for (delta, activation) in by_input.iter_mut().zip(input) {
                    *delta = if *activation > 0.0 { *delta } else { 0.0 };
                }
                std::mem::swap(&mut delta, &mut next);
            }
        }
    }
}

use std::ops::Range;

use super::config::{MlpConfig, Optimizer, Tuning};
use super::data::Floats;
use super::params::Layout;

/// One epoch on a device as a list of operations over one arena of f32 values.
///
/// The list is made once and knows nothing of CUDA: the device enqueues it (or captures it into a graph), and the tests
/// run the same list on the CPU with every access checked. One arena is one allocation, so wiping it wipes everything.
///
/// On the device all weights come first and all biases after them, so that the update treats each as one run.
pub(crate) struct Plan {
    /// Values in the arena.
    pub(crate) arena: usize,
    pub(crate) x: usize,
    pub(crate) y: usize,
    /// Weights, then biases.
    pub(crate) params: Range<usize>,
    /// beta1^t and beta2^t as f64, then the factors 1 / (1 - beta^t) of the step under way as f32.
    pub(crate) state: usize,
    /// Sums of squared errors, to be added up on the host.
    pub(crate) squared: Range<usize>,
    /// Makes the sum of squared errors their mean.
    pub(crate) mean: f64,
    pub(crate) ops: Vec<Op>,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    Gemm(Gemm),
    /// `z = max(z + bias, 0)` over `count` values in rows of `columns`.
    BiasRelu {
        z: usize,
        bias: usize,
        columns: usize,
        count: usize,
    },
    /// `delta = (output + bias - target) * scale`, its column sums, and sums of the squared errors, one a tile. Also
    /// counts the step: multiplies the state's powers and works out its factors.
    Loss {
        output: usize,
        bias: usize,
        target: usize,
        delta: usize,
        squared: usize,
        scale: f32,
        tiles: Tiles,
    },
    /// `delta = 0` where `activation` is not above 0, and its column sums.
    Mask {
        delta: usize,
        activation: usize,
        tiles: Tiles,
    },
    /// From here on, operations on the side see everything before.
    Fork,
    /// From here on, everything sees what was done on the side.
    Join,
    Update(UpdateOp),
}

/// Column-major `C = op(A) op(B)`, as BLAS writes it; `batch` of them at these strides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gemm {
    pub(crate) transpose: [bool; 2],
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: usize,
    pub(crate) b: usize,
    pub(crate) c: usize,
    /// Leading dimensions of A, B and C.
    pub(crate) leading: [usize; 3],
    pub(crate) batch: usize,
    pub(crate) strides: [usize; 3],
    /// Whether it may run beside what is not on the side.
    pub(crate) side: bool,
}

/// How `[rows, columns]` is cut: tiles of [`TILE_COLUMNS`] columns and `chunk` rows. Column sums of chunk `i` go to
/// `sums + i * stride`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tiles {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) chunk: usize,
    pub(crate) sums: usize,
    pub(crate) stride: usize,
}

/// Adds up the parts of every gradient in order, then updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct UpdateOp {
    pub(crate) params: usize,
    pub(crate) moments: [usize; 2],
    pub(crate) state: usize,
    /// Number of weights; `splits` parts of their gradients lie at `gradients`, `gradient_stride` apart.
    pub(crate) weights: usize,
    pub(crate) splits: usize,
    pub(crate) gradients: usize,
    pub(crate) gradient_stride: usize,
    /// Number of biases; `chunks` parts of their gradients lie at `sums`, `sum_stride` apart.
    pub(crate) biases: usize,
    pub(crate) chunks: usize,
    pub(crate) sums: usize,
    pub(crate) sum_stride: usize,
}

/// Columns of a tile: a warp's width.
pub(crate) const TILE_COLUMNS: usize = 32;
/// Most chunks of rows; each costs the update one addition a bias.
const MAX_CHUNKS: usize = 32;
/// Regions begin at multiples of 256 bytes, as device allocations do.
const ALIGN: usize = 64;
/// Values of `Plan::state`: two f64 and two f32.
pub(crate) const STATE: usize = 6;

impl Tiles {
    pub(crate) fn chunks(&self) -> usize {
        self.rows.div_ceil(self.chunk)
    }

    pub(crate) fn across(&self) -> usize {
        self.columns.div_ceil(TILE_COLUMNS)
    }
}

impl Plan {
    pub(crate) fn new(config: &MlpConfig, tuning: Tuning) -> Self {
        let layout = Layout::new(&config.layers);
        let layers = &layout.layers;
        let rows = config.batch;
        let mut end = 0;
        let mut take = |length: usize| {
            let start = end;
            end += length.next_multiple_of(ALIGN);
            start
        };
        let weights: usize = layers.iter().map(|layer| layer.weight.len()).sum();
        let biases: usize = layers.iter().map(|layer| layer.bias.len()).sum();
        let (inputs, outputs) = (config.layers[0], config.layers[layers.len()]);
        let splits = (1..=tuning.splits.clamp(1, rows)).rev().find(|splits| rows.is_multiple_of(*splits)).unwrap_or(1);
        let chunk = rows.div_ceil(MAX_CHUNKS).next_multiple_of(8);
        let [gradient_stride, sum_stride] = [weights, biases].map(|length| length.next_multiple_of(ALIGN));

        let (x, y) = (take(rows * inputs), take(rows * outputs));
        let params = take(layout.total);
        let has_moments = matches!(config.optimizer, Optimizer::Adamw { .. });
        let moments = [(); 2].map(|()| take(if has_moments { layout.total } else { 0 }));
        let state = take(STATE);
        let activations: Vec<_> = layers.iter().map(|layer| take(rows * layer.outputs)).collect();
        let deltas: Vec<_> = layers.iter().map(|layer| take(rows * layer.outputs)).collect();
        let gradients = take(splits * gradient_stride);
        let sums = take(rows.div_ceil(chunk) * sum_stride);
        let tiles = |columns, bias| Tiles { rows, columns, chunk, sums: sums + bias, stride: sum_stride };
        let output_tiles = tiles(outputs, 0);
        let squared_length = output_tiles.across() * output_tiles.chunks();
        let squared = take(squared_length);
        let mean = 1.0 / (rows as f64 * outputs as f64);

        // (weight, bias) of each layer within their runs.
        let mut starts = Vec::with_capacity(layers.len());
        let (mut weight, mut bias) = (0, 0);
        for layer in layers {
            starts.push((weight, bias));
            weight += layer.weight.len();
            bias += layer.bias.len();
        }

        let mut ops = Vec::new();
        for (l, layer) in layers.iter().enumerate() {
            let input = if l == 0 { x } else { activations[l - 1] };
            let (weight, bias) = (params + starts[l].0, params + weights + starts[l].1);
            ops.push(Op::Gemm(Gemm {
                transpose: [true, false],
                leading: [layer.inputs, layer.inputs, layer.outputs],
                ..Gemm::plain([layer.outputs, rows, layer.inputs], [weight, input, activations[l]])
            }));
            if l + 1 < layers.len() {
                let count = rows * layer.outputs;
                ops.push(Op::BiasRelu { z: activations[l], bias, columns: layer.outputs, count });
            } else {
                let (output, delta, scale) = (activations[l], deltas[l], (2.0 * mean) as f32);
                let tiles = tiles(outputs, starts[l].1);
                ops.push(Op::Loss { output, bias, target: y, delta, squared, scale, tiles });
            }
        }
        let overlap = tuning.overlap && layers.len() > 1;
        for (l, layer) in layers.iter().enumerate().rev() {
            let input = if l == 0 { x } else { activations[l - 1] };
            let side = overlap && l > 0;
            if side {
                ops.push(Op::Fork);
            }
            let part = rows / splits;
            ops.push(Op::Gemm(Gemm {
                transpose: [false, true],
                leading: [layer.inputs, layer.outputs, layer.inputs],
                batch: splits,
                strides: [part * layer.inputs, part * layer.outputs, gradient_stride],
                side,
                ..Gemm::plain([layer.inputs, layer.outputs, part], [input, deltas[l], gradients + starts[l].0])
            }));
            if l > 0 {
                let below = deltas[l - 1];
                ops.push(Op::Gemm(Gemm {
                    leading: [layer.inputs, layer.outputs, layer.inputs],
                    ..Gemm::plain([layer.inputs, rows, layer.outputs], [params + starts[l].0, deltas[l], below])
                }));
                let tiles = tiles(layer.inputs, starts[l - 1].1);
                ops.push(Op::Mask { delta: below, activation: activations[l - 1], tiles });
            }
        }
        if overlap {
            ops.push(Op::Join);
        }
        let chunks = output_tiles.chunks();
        ops.push(Op::Update(UpdateOp {
            params,
            moments,
            state,
            weights,
            splits,
            gradients,
            gradient_stride,
            biases,
            chunks,
            sums,
            sum_stride,
        }));
        let (params, squared) = (params..params + layout.total, squared..squared + squared_length);
        Self { arena: end, x, y, params, state, squared, mean, ops, layout }
    }

    /// Parameters from layer by layer to all weights, then all biases.
    pub(crate) fn to_device(&self, flat: &[f32]) -> Floats {
        let mut values = Floats::new(Vec::with_capacity(flat.len()));
        for range in self.device_order() {
            values.extend_from_slice(&flat[range]);
        }
        values
    }

    /// The way back.
    pub(crate) fn to_flat(&self, values: &[f32]) -> Floats {
        let mut flat = Floats::new(vec![0.0; values.len()]);
        let mut rest = values;
        for range in self.device_order() {
            let (part, after) = rest.split_at(range.len());
            flat[range].copy_from_slice(part);
            rest = after;
        }
        flat
    }

    /// State before the first step: both powers are 1.
    pub(crate) fn initial_state() -> [f32; STATE] {
        let [low, high] = [1.0f64.to_bits() as u32, (1.0f64.to_bits() >> 32) as u32].map(f32::from_bits);
        [low, high, low, high, 0.0, 0.0]
    }

    fn device_order(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let layers = &self.layout.layers;
        layers.iter().map(|layer| layer.weight.clone()).chain(layers.iter().map(|layer| layer.bias.clone()))
    }
}

impl Gemm {
    fn plain([m, n, k]: [usize; 3], [a, b, c]: [usize; 3]) -> Self {
        let leading = [0; 3];
        Self { transpose: [false; 2], m, n, k, a, b, c, leading, batch: 1, strides: [0; 3], side: false }
    }
}

//! One decoder block: forward, what it keeps, and backward by hand.

use candle_core::{Result, Tensor, Var};

use super::lora::Target;
use crate::ops::{
    Adapter, AdapterGradient, Adapters, Dropout, Frozen, Packing, RopeTable, attention_backward, attention_forward,
    rms_norm_backward, rms_norm_forward, rope_in_place, swiglu_backward, swiglu_forward,
};

/// What all blocks of a pass share.
pub(super) struct Pass {
    pub(super) rows: usize,
    pub(super) length: usize,
    pub(super) packing: Packing,
    pub(super) positions: Tensor,
    pub(super) rope: RopeTable,
    pub(super) eps: f64,
    pub(super) scale: f64,
    pub(super) dropout: Option<Dropout>,
}

pub(super) struct Block {
    pub(super) index: u64,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) input_norm: Tensor,
    pub(super) post_norm: Tensor,
    /// Queries, keys and values from one product.
    pub(super) qkv: Adapted,
    pub(super) output: Adapted,
    /// Gate and up from one product.
    pub(super) gate_up: Adapted,
    pub(super) down: Adapted,
}

/// A frozen linear layer and the adapters over its columns.
pub(super) struct Adapted {
    pub(super) frozen: Frozen,
    pub(super) adapters: Vec<Trained>,
}

/// An adapter's variables, f32.
pub(super) struct Trained {
    pub(super) target: Target,
    pub(super) column: usize,
    pub(super) a: Var,
    pub(super) b: Var,
}

/// What forward keeps of a block.
pub(super) enum Kept {
    /// Only its input: backward computes the rest again.
    Input(Tensor),
    /// Everything that backward reads.
    All(Box<Activations>),
}

pub(super) struct Activations {
    x: Tensor,
    /// Rotated.
    qkv: Tensor,
    /// Only where `o_proj` is adapted.
    attended: Option<Tensor>,
    middle: Tensor,
    gate_up: Tensor,
    adapters: BlockAdapters,
}

/// The adapters as this pass uses them.
struct BlockAdapters {
    qkv: Option<Adapters>,
    output: Option<Adapters>,
    gate_up: Option<Adapters>,
    down: Option<Adapters>,
}

/// Variables and their gradients.
pub(super) type Gradients = Vec<(Var, Tensor)>;

impl Block {
    /// `x [tokens, hidden]` to the same; keeps nothing, the input, or everything.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<(Tensor, Activations)> {
        let adapters = self.adapters(pass)?;
        let normed = rms_norm_forward(x, &self.input_norm, pass.eps)?;
        let qkv = self.qkv.frozen.forward(&normed)?;
        adapt(adapters.qkv.as_ref(), &normed, &qkv)?;
        drop(normed);
        self.rotate(&qkv, pass, false)?;
        let [q, k, v] = self.split(&qkv, pass)?;
        let attended = attention_forward(&q, &k, &v, &pass.packing)?.reshape((x.dim(0)?, ()))?;
        let middle = self.output.frozen.forward_onto(x, &attended)?;
        adapt(adapters.output.as_ref(), &attended, &middle)?;
        let normed = rms_norm_forward(&middle, &self.post_norm, pass.eps)?;
        let gate_up = self.gate_up.frozen.forward(&normed)?;
        adapt(adapters.gate_up.as_ref(), &normed, &gate_up)?;
        drop(normed);
        let inner = swiglu_forward(&gate_up)?;
        let y = self.down.frozen.forward_onto(&middle, &inner)?;
        adapt(adapters.down.as_ref(), &inner, &y)?;
        let attended = adapters.output.is_some().then_some(attended);
        Ok((y, Activations { x: x.clone(), qkv, attended, middle, gate_up, adapters }))
    }

    /// From the gradient of the result, which it uses up, to that of the input; the lowest block needs none.
    pub(super) fn backward(
        &self,
        kept: Kept,
        dy: Tensor,
        pass: &Pass,
        lowest: bool,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let kept = match kept {
            Kept::All(kept) => *kept,
            Kept::Input(x) => self.forward(&x, pass)?.1,
        };
        let Activations { x, qkv, attended, middle, gate_up, adapters } = kept;

        let dinner = self.down.frozen.backward(&dy)?;
        if let Some(down) = &adapters.down {
            let inner = swiglu_forward(&gate_up)?;
            self.down.collect(gradients, down.backward(&inner, &dy, Some(&dinner))?);
        }
        swiglu_backward(&gate_up, &dinner)?;
        drop(dinner);
        let dgate_up = gate_up;
        let dnormed = self.gate_up.frozen.backward(&dgate_up)?;
        if let Some(adapters) = &adapters.gate_up {
            let normed = rms_norm_forward(&middle, &self.post_norm, pass.eps)?;
            self.gate_up.collect(gradients, adapters.backward(&normed, &dgate_up, Some(&dnormed))?);
        }
        drop(dgate_up);
        let dmiddle = dy;
        rms_norm_backward(&dmiddle, &middle, &dnormed, &self.post_norm, pass.eps)?;
        drop((dnormed, middle));

        let dattended = self.output.frozen.backward(&dmiddle)?;
        if let (Some(adapters), Some(attended)) = (&adapters.output, &attended) {
            self.output.collect(gradients, adapters.backward(attended, &dmiddle, Some(&dattended))?);
        }
        let dqkv = qkv.zeros_like()?;
        let [q, k, v] = self.split(&qkv, pass)?;
        let [dq, dk, dv] = self.split(&dqkv, pass)?;
        let dattended = dattended.reshape(q.shape())?;
        attention_backward([&q, &k, &v], &dattended, &pass.packing, [&dq, &dk, &dv])?;
        drop((dattended, q, k, v, qkv));
        self.rotate(&dqkv, pass, true)?;

        let dnormed = match lowest {
            true => None,
            false => Some(self.qkv.frozen.backward(&dqkv)?),
        };
        if let Some(adapters) = &adapters.qkv {
            let normed = rms_norm_forward(&x, &self.input_norm, pass.eps)?;
            self.qkv.collect(gradients, adapters.backward(&normed, &dqkv, dnormed.as_ref())?);
        }
        let Some(dnormed) = dnormed else { return Ok(None) };
        let dx = dmiddle;
        rms_norm_backward(&dx, &x, &dnormed, &self.input_norm, pass.eps)?;
        Ok(Some(dx))
    }

    /// All adapters, in the order of the forward pass.
    pub(super) fn trained(&self) -> impl Iterator<Item = &Trained> {
        [&self.qkv, &self.output, &self.gate_up, &self.down].into_iter().flat_map(|adapted| &adapted.adapters)
    }

    fn adapters(&self, pass: &Pass) -> Result<BlockAdapters> {
        let of = |place: u64, adapted: &Adapted| {
            if adapted.adapters.is_empty() {
                return Ok(None);
            }
            // Each layer of each block drops by a seed of its own.
            let seed = |seed: u64| crate::rng::Stream::new(seed, self.index * 4 + place).word(0);
            let dropout = pass.dropout.map(|dropout| Dropout { seed: seed(dropout.seed), ..dropout });
            let used = |trained: &Trained| Adapter {
                a: trained.a.as_detached_tensor(),
                b: trained.b.as_detached_tensor(),
                column: trained.column,
            };
            let adapters: Vec<Adapter> = adapted.adapters.iter().map(used).collect();
            Adapters::new(&adapters, pass.scale, dropout, adapted.frozen.weight.dtype()).map(Some)
        };
        Ok(BlockAdapters {
            qkv: of(0, &self.qkv)?,
            output: of(1, &self.output)?,
            gate_up: of(2, &self.gate_up)?,
            down: of(3, &self.down)?,
        })
    }

    /// Queries, keys and values as slices of `[tokens, columns]`.
    fn split(&self, qkv: &Tensor, pass: &Pass) -> Result<[Tensor; 3]> {
        let all = qkv.reshape((pass.rows, pass.length, self.heads + 2 * self.kv_heads, ()))?;
        let of = |start, count| all.narrow(2, start, count);
        let keys = self.heads;
        Ok([of(0, self.heads)?, of(keys, self.kv_heads)?, of(keys + self.kv_heads, self.kv_heads)?])
    }

    /// Queries and keys.
    fn rotate(&self, qkv: &Tensor, pass: &Pass, inverse: bool) -> Result<()> {
        let all = qkv.reshape((pass.rows, pass.length, self.heads + 2 * self.kv_heads, ()))?;
        let rotated = all.narrow(2, 0, self.heads + self.kv_heads)?;
        rope_in_place(&rotated, &pass.positions, &pass.rope, inverse)
    }
}

impl Adapted {
    fn collect(&self, gradients: &mut Gradients, found: Vec<AdapterGradient>) {
        for (trained, AdapterGradient { a, b }) in self.adapters.iter().zip(found) {
            gradients.push((trained.a.clone(), a));
            gradients.push((trained.b.clone(), b));
        }
    }
}

fn adapt(adapters: Option<&Adapters>, x: &Tensor, y: &Tensor) -> Result<()> {
    adapters.map_or(Ok(()), |adapters| adapters.forward(x, y))
}

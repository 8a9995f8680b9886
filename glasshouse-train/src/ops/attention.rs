use candle_core::{DType, Device, Result, Tensor, bail};

use super::gemm::gemm;
use super::heads::{gather, scatter};
use super::memory::unwritten;
use super::record::record;
use super::softmax::Block;
use crate::crossing::to_device;

/// Where documents begin in a batch of packed rows, on the host and the device.
#[derive(Clone)]
pub struct Packing {
    rows: usize,
    length: usize,
    /// First token of each token's document within its row.
    first: Vec<u32>,
    on_device: Tensor,
}

impl Packing {
    /// From the id of each token's document, `rows * length`, non-decreasing along each row.
    ///
    /// # Errors
    /// When there are not that many ids, or what candle says of the device.
    pub fn new(rows: usize, length: usize, documents: &[u32], device: &Device) -> Result<Self> {
        let first = Self::firsts(rows, length, documents)?;
        let on_device = to_device(&first, first.len(), device)?;
        Ok(Self { rows, length, first, on_device })
    }

    /// From what [`firsts`](Self::firsts) gave, on the host and the device.
    pub(crate) fn with(rows: usize, length: usize, first: Vec<u32>, on_device: Tensor) -> Self {
        Self { rows, length, first, on_device }
    }

    /// The first token of each token's document within its row.
    pub(crate) fn firsts(rows: usize, length: usize, documents: &[u32]) -> Result<Vec<u32>> {
        if length == 0 || documents.len() != rows * length {
            bail!("{} document ids for {rows} rows of {length}", documents.len());
        }
        let mut first = Vec::with_capacity(documents.len());
        for row in documents.chunks(length) {
            let mut start = 0;
            for (place, document) in row.iter().enumerate() {
                if place > 0 && row.get(place - 1) != Some(document) {
                    start = place as u32;
                }
                first.push(start);
            }
        }
        Ok(first)
    }

    /// The first key that any of the queries from `query` on sees, down to a multiple of what matrix products like.
    fn first_key(&self, query: usize) -> usize {
        let firsts = self.first.iter().skip(query).step_by(self.length);
        firsts.min().map_or(0, |first| *first as usize / KEY_STEP * KEY_STEP)
    }
}

/// Causal attention with grouped queries over packed documents: q `[rows, length, heads, dim]`, k and v `[rows, length,
/// kv_heads, dim]`, giving `[rows, length, heads, dim]`. A token sees the tokens of its document up to itself; scores
/// are scaled by `1 / sqrt(dim)`.
///
/// Works on a block of queries at a time and computes the probabilities again in backward: memory grows with length, not
/// with its square.
///
/// # Errors
/// What candle says of shapes, types or the device.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, packing: &Packing) -> Result<Tensor> {
    let inputs = [q.detach(), k.detach(), v.detach()];
    let [dq, dk, dv] = &inputs;
    let result = attention_forward(dq, dk, dv, packing)?;
    let packing = packing.clone();
    record("attention", [q, k, v], &result, move |grad| {
        let [q, k, v] = &inputs;
        let zero = |x: &Tensor| unwritten(x.shape(), x.dtype(), x.device());
        let gradients = [zero(q)?, zero(k)?, zero(v)?];
        attention_backward([q, k, v], grad, &packing, gradients.each_ref())?;
        Ok(gradients)
    })
}

/// Inputs may be slices of the heads of one larger tensor.
pub(crate) fn attention_forward(q: &Tensor, k: &Tensor, v: &Tensor, packing: &Packing) -> Result<Tensor> {
    let heads = Heads::new([q, k, v], packing)?;
    let gathered = unwritten(heads.q.shape(), q.dtype(), q.device())?;
    for block in heads.blocks() {
        let p = heads.probabilities(&block)?;
        gemm(&block.queries(&gathered)?, &p, &block.keys(&heads.v)?, 1.0, 0.0)?;
    }
    let result = unwritten(q.shape(), q.dtype(), q.device())?;
    scatter(&result, &gathered, heads.kv_heads)?;
    Ok(result)
}

/// Writes the gradients of q, k and v, from that of the result, to slices that may be of one larger tensor.
pub(crate) fn attention_backward(
    inputs: [&Tensor; 3],
    grad: &Tensor,
    packing: &Packing,
    [dq, dk, dv]: [&Tensor; 3],
) -> Result<()> {
    let heads = Heads::new(inputs, packing)?;
    let grad = gather(grad, heads.kv_heads)?;
    let of_q = unwritten(heads.q.shape(), grad.dtype(), grad.device())?;
    // Sums over the blocks of queries.
    let of_k = Tensor::zeros(heads.k.shape(), DType::F32, grad.device())?;
    let of_v = Tensor::zeros(heads.v.shape(), DType::F32, grad.device())?;
    for block in heads.blocks() {
        let p = heads.probabilities(&block)?;
        let block_grad = block.queries(&grad)?;
        gemm(&block.keys(&of_v)?, &p.transpose(1, 2)?, &block_grad, 1.0, 1.0)?;
        let ds = unwritten(p.shape(), p.dtype(), p.device())?;
        gemm(&ds, &block_grad, &block.keys(&heads.v)?.transpose(1, 2)?, 1.0, 0.0)?;
        heads.mask(&block).softmax_backward(&ds, &p)?;
        gemm(&block.queries(&of_q)?, &ds, &block.keys(&heads.k)?, 1.0, 0.0)?;
        gemm(&block.keys(&of_k)?, &ds.transpose(1, 2)?, &block.queries(&heads.q)?, 1.0, 1.0)?;
    }
    scatter(dq, &of_q, heads.kv_heads)?;
    scatter(dk, &of_k, heads.kv_heads)?;
    scatter(dv, &of_v, heads.kv_heads)
}

const KEY_STEP: usize = 64;
/// Queries of a block at most: more leave more scores above the diagonal, fewer make smaller matrix products.
const QUERIES: usize = 256;
/// Scores of a block at most.
const SCORES: usize = 1 << 28;

/// The inputs, heads of a group together.
struct Heads<'a> {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: &'a Packing,
    kv_heads: usize,
    group: usize,
    dim: usize,
}

/// Some queries of every row, and the keys that they see.
struct Range {
    query: usize,
    queries: usize,
    key: usize,
    keys: usize,
    group: usize,
}

impl<'a> Heads<'a> {
    fn new([q, k, v]: [&Tensor; 3], packing: &'a Packing) -> Result<Self> {
        let (rows, length, heads, dim) = q.dims4()?;
        let kv_heads = k.dim(2)?;
        let like = [rows, length, kv_heads, dim];
        if k.dims() != like || v.dims() != like || (rows, length) != (packing.rows, packing.length) {
            bail!(
                "attention: q {:?}, k {:?}, v {:?} of {}x{}",
                q.dims(),
                k.dims(),
                v.dims(),
                packing.rows,
                packing.length
            );
        }
        let group = heads.checked_div(kv_heads).unwrap_or(0);
        let [q, k, v] = [gather(q, kv_heads)?, gather(k, kv_heads)?, gather(v, kv_heads)?];
        Ok(Self { q, k, v, packing, kv_heads, group, dim })
    }

    fn blocks(&self) -> impl Iterator<Item = Range> + use<'_> {
        let (length, group) = (self.packing.length, self.group);
        let per_query = self.packing.rows * self.kv_heads * group * length;
        let step = (SCORES / per_query.max(1)).clamp(16, QUERIES);
        (0..length).step_by(step).map(move |query| {
            let queries = step.min(length - query);
            let key = self.packing.first_key(query);
            Range { query, queries, key, keys: query + queries - key, group }
        })
    }

    fn mask(&self, range: &Range) -> Block<'_> {
        Block {
            first: &self.packing.on_device,
            length: self.packing.length,
            kv_heads: self.kv_heads,
            group: self.group,
            first_query: range.query,
            first_key: range.key,
            scale: 1.0 / (self.dim as f32).sqrt(),
        }
    }

    /// `[rows * kv_heads, queries * group, keys]`.
    fn probabilities(&self, range: &Range) -> Result<Tensor> {
        let shape = (self.q.dim(0)?, range.queries * range.group, range.keys);
        let scores = unwritten(shape, self.q.dtype(), self.q.device())?;
        gemm(&scores, &range.queries(&self.q)?, &range.keys(&self.k)?.transpose(1, 2)?, 1.0, 0.0)?;
        self.mask(range).softmax(&scores)?;
        Ok(scores)
    }
}

impl Range {
    fn queries(&self, x: &Tensor) -> Result<Tensor> {
        x.narrow(1, self.query * self.group, self.queries * self.group)
    }

    fn keys(&self, x: &Tensor) -> Result<Tensor> {
        x.narrow(1, self.key, self.keys)
    }
}

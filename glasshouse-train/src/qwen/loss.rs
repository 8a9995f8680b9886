use candle_core::Tensor;
use candle_core::backprop::GradStore;

use super::QwenError;
use super::block::{Kept, Pass};
use super::model::Qwen2;
use crate::ops::{put_rows, rms_norm_backward, take_rows};

/// What one forward pass gives, and all that its backward pass needs.
pub struct Loss<'model> {
    pub(super) model: &'model Qwen2,
    pub(super) value: Tensor,
    pub(super) targets: usize,
    /// Rows and their length.
    pub(super) size: (usize, usize),
    /// None when nothing was counted.
    pub(super) tape: Option<Tape>,
}

impl Loss<'_> {
    /// The loss, f32, a scalar on the device.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Targets that were counted.
    pub fn targets(&self) -> usize {
        self.targets
    }

    /// The gradient of every trainable variable, f32. Takes the loss, since what forward kept is used up on the way.
    /// A batch without targets gives gradients of zero.
    ///
    /// # Errors
    /// [`QwenError::OutOfMemory`], [`QwenError::Device`].
    pub fn backward(self) -> Result<GradStore, QwenError> {
        let (model, size) = (self.model, self.size);
        let run = || match self.tape {
            Some(tape) => tape.backward(model),
            None => {
                let mut zeros = GradStore::default();
                for (_, variable) in &model.trainable {
                    zeros.insert(variable.as_tensor(), variable.zeros_like()?);
                }
                Ok(zeros)
            }
        };
        run().map_err(|error| model.failed("the backward pass", size, &error))
    }
}

/// From the targets back to the embedding.
pub(super) struct Tape {
    pub(super) pass: Pass,
    pub(super) kept: Vec<Kept>,
    /// The last block's output.
    pub(super) last: Tensor,
    pub(super) counted: Counted,
    /// Of the normed rows that count.
    pub(super) gradient: Tensor,
}

/// The rows whose labels count.
pub(super) struct Counted {
    /// All, when there is no index.
    pub(super) rows: Option<Tensor>,
    pub(super) labels: Tensor,
}

impl Tape {
    fn backward(self, model: &Qwen2) -> candle_core::Result<GradStore> {
        let Self { pass, mut kept, last, counted, gradient } = self;
        let of_rows = gradient.zeros_like()?;
        rms_norm_backward(&of_rows, &counted.of(&last)?, &gradient, &model.parts.norm, pass.eps)?;
        let mut dx = Some(match &counted.rows {
            None => of_rows,
            Some(rows) => put_rows(&of_rows, rows, last.dim(0)?)?,
        });
        drop((last, gradient));
        let mut gradients = Vec::with_capacity(model.trainable.len());
        for (index, block) in model.parts.blocks.iter().enumerate().rev() {
            if let (Some(kept), Some(dy)) = (kept.pop(), dx.take()) {
                dx = block.backward(kept, dy, &pass, index == 0, &mut gradients)?;
            }
        }
        let mut store = GradStore::default();
        for (variable, gradient) in gradients {
            store.insert(variable.as_tensor(), gradient);
        }
        Ok(store)
    }
}

impl Counted {
    /// Those rows of a matrix of all.
    pub(super) fn of(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match &self.rows {
            None => Ok(x.clone()),
            Some(rows) => take_rows(x, rows),
        }
    }
}

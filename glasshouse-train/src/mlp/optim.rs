use super::config::Optimizer;
use super::data::Floats;

/// Optimizer state over the flat weights, and the constants of the next step.
pub(crate) struct OptimizerState {
    optimizer: Optimizer,
    /// beta1^t and beta2^t, as running products.
    powers: [f64; 2],
    /// First and second moment; empty for SGD.
    pub(crate) moments: [Floats; 2],
}

/// One step's constants, in f32 as the update uses them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Update {
    /// See [`Update::apply`].
    Adamw {
        beta1: f32,
        beta2: f32,
        keep: f32,
        lr: f32,
        eps: f32,
        scale_m: f32,
        scale_v: f32,
        one_minus_beta1: f32,
        one_minus_beta2: f32,
    },
    /// `w -= lr * g`.
    Sgd { lr: f32 },
}

impl OptimizerState {
    pub(crate) fn new(optimizer: Optimizer, weights: usize) -> Self {
        let moment = || Floats::new(vec![0.0; if matches!(optimizer, Optimizer::Adamw { .. }) { weights } else { 0 }]);
        Self { optimizer, powers: [1.0; 2], moments: [moment(), moment()] }
    }

    /// Counts a step and gives its constants.
    pub(crate) fn next(&mut self) -> Update {
        match self.optimizer {
            Optimizer::Sgd { lr } => Update::Sgd { lr: lr as f32 },
            Optimizer::Adamw { lr, beta1, beta2, eps, weight_decay } => {
                self.powers[0] *= beta1;
                self.powers[1] *= beta2;
                Update::Adamw {
                    beta1: beta1 as f32,
                    beta2: beta2 as f32,
                    keep: (1.0 - lr * weight_decay) as f32,
                    lr: lr as f32,
                    eps: eps as f32,
                    scale_m: (1.0 / (1.0 - self.powers[0])) as f32,
                    scale_v: (1.0 / (1.0 - self.powers[1])) as f32,
                    one_minus_beta1: (1.0 - beta1) as f32,
                    one_minus_beta2: (1.0 - beta2) as f32,
                }
            }
        }
    }
}

impl Update {
    /// Updates weights by their gradients. Element-wise, so any split of the slices gives the same bits. SGD has no
    /// moments and ignores `m` and `v`, which may then be empty.
    pub(crate) fn apply(self, w: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32]) {
        match self {
            Self::Sgd { lr } => {
                for (w, g) in w.iter_mut().zip(gradient) {
                    *w -= lr * g;
                }
            }
            Self::Adamw { beta1, beta2, keep, lr, eps, scale_m, scale_v, one_minus_beta1, one_minus_beta2 } => {
                for (((w, g), m), v) in w.iter_mut().zip(gradient).zip(m).zip(v) {
                    *m = *m * beta1 + g * one_minus_beta1;
                    *v = *v * beta2 + g * g * one_minus_beta2;
                    *w = *w * keep - lr * ((*m * scale_m) / ((*v * scale_v).sqrt() + eps));
                }
            }
        }
    }
}

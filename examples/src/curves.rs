//! A fine-tuning run's curves at the owner: out of the events that come home, into files.

use std::io;
use std::path::{Path, PathBuf};

use glasshouse_core::channel::Interval;
use glasshouse_core::traits::Progress;
use glasshouse_train::finetune::{Metrics, MetricsWriter};

/// Turns progress events into points and writes them down.
pub struct Curves {
    writer: MetricsWriter,
    /// Steps before this run, when it was resumed.
    first: u64,
    rate: TokenRate,
    loss: Option<f64>,
    eval_loss: Option<f64>,
}

/// Tokens per second out of progress events.
#[derive(Default)]
pub struct TokenRate(Progress);

impl TokenRate {
    /// Of the stretch that `progress` ends. An event may cover more steps than its interval does, when the first of them
    /// were warm-up.
    pub fn of(&mut self, progress: &Progress, interval: Interval) -> Option<f64> {
        let before = std::mem::replace(&mut self.0, *progress);
        let tokens = progress.tokens?.checked_sub(before.tokens.unwrap_or(0))?;
        let steps = progress.done.checked_sub(before.done).filter(|steps| *steps > 0)?;
        let seconds = interval.micros.max(1) as f64 / 1e6;
        Some(tokens as f64 / steps as f64 * interval.units as f64 / seconds)
    }
}

impl Curves {
    /// Files in a folder, for a run that begins after `first` steps.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub fn create(folder: &Path, first: u64) -> io::Result<Self> {
        let writer = MetricsWriter::create(folder)?;
        Ok(Self { writer, first, rate: TokenRate::default(), loss: None, eval_loss: None })
    }

    /// The files.
    pub fn paths(&self) -> &[PathBuf; 2] {
        self.writer.paths()
    }

    /// Adds what an event tells.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, progress: &Progress, interval: Interval) -> io::Result<()> {
        let tokens_per_second = self.rate.of(progress, interval);
        // What was told before is no point of a later step.
        let loss = progress.loss.filter(|loss| self.loss != Some(*loss));
        let eval_loss = progress.eval_loss.filter(|loss| self.eval_loss != Some(*loss));
        (self.loss, self.eval_loss) = (progress.loss, progress.eval_loss);
        self.writer.write(&Metrics {
            step: self.first + progress.done,
            loss,
            eval_loss,
            learning_rate: progress.learning_rate,
            gradient_norm: None,
            tokens: progress.tokens,
            tokens_per_second,
        })
    }

    /// Adds the last evaluation, which comes home with the adapter.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn evaluated(&mut self, step: u64, loss: f64) -> io::Result<()> {
        self.writer.write(&Metrics { step, eval_loss: Some(loss), ..Metrics::default() })
    }
}

//! What a run tells of its progress, for people and for tools: `metrics.jsonl` and a TensorBoard event file.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::tensorboard::EventWriter;

/// One point of a run's curves. What is not known is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Optimizer steps done.
    pub step: u64,
    /// Mean loss per target token, nats. In the curves of a run that is under way it is the latest that was known at this
    /// step, up to three steps old on CUDA; `training_log.jsonl`, which comes home with the adapter, has each step's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Mean loss per target token of the documents held out, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Learning rate of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Norm of all gradients together, before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Tokens trained on so far, padding not counted; in curves, since the run began or went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Tokens per second since the point before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
}

/// Writes points as they come: one JSON object a line, and TensorBoard scalars.
pub struct MetricsWriter {
    lines: BufWriter<File>,
    events: EventWriter<BufWriter<File>>,
    paths: [PathBuf; 2],
}

impl MetricsWriter {
    /// Makes `metrics.jsonl` and `events.out.tfevents.SECONDS.glasshouse` in a folder. An older `metrics.jsonl` is
    /// replaced, so that one folder tells of one run.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let now = now();
        let paths =
            [folder.join("metrics.jsonl"), folder.join(format!("events.out.tfevents.{:.0}.glasshouse", now.trunc()))];
        let [lines, events] = &paths;
        Ok(Self {
            lines: BufWriter::new(File::create(lines)?),
            events: EventWriter::new(BufWriter::new(File::create(events)?), now)?,
            paths,
        })
    }

    /// The two files.
    pub fn paths(&self) -> &[PathBuf; 2] {
        &self.paths
    }

    /// Adds a point.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&mut self, metrics: &Metrics) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, metrics)?;
        self.lines.write_all(b"\n")?;
        self.lines.flush()?;
        let named = [
            ("train/loss", metrics.loss),
            ("eval/loss", metrics.eval_loss),
            ("train/learning_rate", metrics.learning_rate),
            ("train/gradient_norm", metrics.gradient_norm),
            ("train/tokens_per_second", metrics.tokens_per_second),
        ];
        let known: Vec<(&str, f32)> = named.iter().filter_map(|(tag, value)| Some((*tag, (*value)? as f32))).collect();
        match known.is_empty() {
            true => Ok(()),
            false => self.events.scalars(now(), metrics.step, &known),
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_back() {
        let point = Metrics { step: 3, loss: Some(1.5), ..Metrics::default() };
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(text, "{\"step\":3,\"loss\":1.5}");
        assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), point);
    }
}

//! A run as it happens: bars on a terminal, lines otherwise.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use glasshouse_core::channel::{Interval, Phase};
use glasshouse_core::overhead::{Cleanup, Mode};
use glasshouse_core::traits::{Progress, Unit};
use glasshouse_provider::run::RunEvent;
use indicatif::{ProgressBar, ProgressStyle};

use crate::TokenRate;

/// Shows a run on standard error.
pub struct Show {
    bar: Option<ProgressBar>,
    unit: Unit,
    /// Steady state of each segment, to know how far along it is; absent where the work has an end of its own.
    length: Option<Duration>,
    rate: TokenRate,
    eval_loss: Option<f64>,
    segment: String,
    trained: Duration,
    uploaded: bool,
}

impl Show {
    /// For segments whose steady state takes `length`.
    pub fn new(unit: Unit, length: Duration) -> Self {
        Self::with(unit, Some(length))
    }

    /// For work that has an end of its own. Without a terminal each progress event is a line.
    pub fn to_the_end(unit: Unit) -> Self {
        Self::with(unit, None)
    }

    fn with(unit: Unit, length: Option<Duration>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000);
            let style = ProgressStyle::with_template("{prefix:<24} {bar:30} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let (segment, trained, rate) = (String::new(), Duration::ZERO, TokenRate::default());
        Self { bar, unit, length, rate, eval_loss: None, segment, trained, uploaded: false }
    }

    /// Shows one event.
    pub fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Recovered { proof } if proof.outcome == Cleanup::Observed => {
                self.note(&format!("{} was left behind, and is gone, seen twice", proof.allocation));
            }
            RunEvent::Recovered { proof } => {
                self.note(&format!("{} was left behind; its absence was not seen", proof.allocation));
            }
            RunEvent::Renting => self.note("asking for an allocation"),
            RunEvent::Rented { id } => self.note(&format!("allocation {id} answers")),
            RunEvent::Uploading { done, total } if done == total && !self.uploaded => {
                self.uploaded = true;
                self.note(&format!("sealed package sent, {total} bytes"));
            }
            RunEvent::SegmentStarted { position, of, mode } => self.start(*position, *of, *mode),
            RunEvent::Released { .. } => self.step("key released"),
            RunEvent::Phase { phase, .. } => self.phase(*phase),
            RunEvent::Progress { interval, progress, .. } => self.progress(*interval, progress),
            RunEvent::SegmentEnded { completed, .. } => self.end(*completed),
            RunEvent::Ending => self.note("ending the allocation"),
            RunEvent::Ended { cleanup: Cleanup::Observed } => self.note("the allocation is gone, seen twice"),
            RunEvent::Ended { .. } => self.note("the allocation was asked to end; its absence was not seen"),
            _ => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn start(&mut self, position: usize, of: usize, mode: Mode) {
        self.segment = format!("[{}/{of}] {mode}", position.saturating_add(1));
        self.trained = Duration::ZERO;
        match &self.bar {
            Some(bar) => {
                bar.set_position(0);
                bar.set_prefix(self.segment.clone());
                bar.set_message("starting");
            }
            None => self.note("starting"),
        }
    }

    fn phase(&self, phase: Phase) {
        if phase == Phase::Zeroizing {
            self.step("zeroizing");
        }
    }

    fn progress(&mut self, interval: Interval, progress: &Progress) {
        self.trained = self.trained.saturating_add(Duration::from_micros(interval.micros));
        let text = self.describe(interval, progress);
        match &self.bar {
            Some(bar) => {
                let done = match (self.length, progress.total) {
                    (Some(length), _) => self.trained.as_secs_f64() / length.as_secs_f64().max(1e-9),
                    (None, Some(total)) => progress.done as f64 / total.max(1) as f64,
                    (None, None) => 0.0,
                };
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 1000
                bar.set_position((done.clamp(0.0, 1.0) * 1000.0) as u64);
                bar.set_message(text);
            }
            None if self.length.is_none() => self.note(&text),
            None => {}
        }
    }

    /// `12.3 steps/s, loss 0.5`, or `step 3 of 32, loss 0.5, 900 tokens/s, lr 1.0e-4`.
    fn describe(&mut self, interval: Interval, progress: &Progress) -> String {
        #[allow(clippy::cast_precision_loss)] // units of half a second stay far under 2^53
        let rate = interval.units as f64 / (interval.micros.max(1) as f64 / 1e6);
        let loss = |name: &str, loss: Option<f64>, digits| {
            loss.map(|loss| format!(", {name} {loss:.digits$}")).unwrap_or_default()
        };
        let Some(total) = progress.total.filter(|_| self.length.is_none()) else {
            return format!("{rate:.1} {}s/s{}", self.unit, loss("loss", progress.loss, 6));
        };
        let tokens = match self.rate.of(progress, interval) {
            Some(rate) => format!(", {rate:.0} tokens/s"),
            None => format!(", {rate:.1} {}s/s", self.unit),
        };
        let learning_rate = progress.learning_rate.map(|rate| format!(", lr {rate:.2e}")).unwrap_or_default();
        let (unit, done) = (self.unit, progress.done);
        let evaluated = progress.eval_loss.filter(|loss| self.eval_loss != Some(*loss));
        self.eval_loss = progress.eval_loss;
        let losses = loss("loss", progress.loss, 4) + &loss("held-out loss", evaluated, 4);
        format!("{unit} {done} of {total}{losses}{tokens}{learning_rate}")
    }

    fn end(&self, completed: bool) {
        let seconds = self.trained.as_secs_f64();
        let outcome = if completed { "done" } else { "did not complete" };
        let line = format!("{outcome} after {seconds:.1} s of training");
        match &self.bar {
            Some(bar) => bar.println(format!("{} {line}", self.segment)),
            None => self.note(&line),
        }
    }

    /// Something within a segment.
    fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => self.note(text),
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let segment = if self.segment.is_empty() { "" } else { &self.segment };
                let gap = if segment.is_empty() { "" } else { " " };
                let _ = writeln!(io::stderr().lock(), "{segment}{gap}{text}");
            }
        }
    }
}

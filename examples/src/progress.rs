//! A run as it happens: bars on a terminal, lines otherwise.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use glasshouse_core::channel::{Interval, Phase};
use glasshouse_core::overhead::{Cleanup, Mode};
use glasshouse_core::traits::Unit;
use glasshouse_provider::run::RunEvent;
use indicatif::{ProgressBar, ProgressStyle};

/// Shows a run on standard error.
pub struct Show {
    bar: Option<ProgressBar>,
    unit: Unit,
    /// Steady state of each segment, to know how far along it is.
    length: Duration,
    segment: String,
    trained: Duration,
    uploaded: bool,
}

impl Show {
    /// For segments whose steady state takes `length`.
    pub fn new(unit: Unit, length: Duration) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000);
            let style = ProgressStyle::with_template("{prefix:<24} {bar:30} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, unit, length, segment: String::new(), trained: Duration::ZERO, uploaded: false }
    }

    /// Shows one event.
    pub fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Renting => self.note("asking for an allocation"),
            RunEvent::Rented { id } => self.note(&format!("allocation {id} answers")),
            RunEvent::Uploading { done, total } if done == total && !self.uploaded => {
                self.uploaded = true;
                self.note(&format!("sealed package sent, {total} bytes"));
            }
            RunEvent::SegmentStarted { position, of, mode } => self.start(*position, *of, *mode),
            RunEvent::Released { .. } => self.step("key released"),
            RunEvent::Phase { phase, .. } => self.phase(*phase),
            RunEvent::Progress { interval, progress, .. } => self.progress(*interval, progress.loss),
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

    fn progress(&mut self, interval: Interval, loss: Option<f64>) {
        self.trained = self.trained.saturating_add(Duration::from_micros(interval.micros));
        #[allow(clippy::cast_precision_loss)] // units of half a second stay far under 2^53
        let rate = interval.units as f64 / (interval.micros.max(1) as f64 / 1e6);
        let loss = loss.map(|loss| format!(", loss {loss:.6}")).unwrap_or_default();
        if let Some(bar) = &self.bar {
            let done = self.trained.as_secs_f64() / self.length.as_secs_f64().max(1e-9);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 1000
            bar.set_position((done.clamp(0.0, 1.0) * 1000.0) as u64);
            bar.set_message(format!("{rate:.1} {}s/s{loss}", self.unit));
        }
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

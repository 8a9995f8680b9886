//! What protection costs, and how sure that is: pure functions over measured segments.
//!
//! A run is planned by [`Order`], measured into [`SegmentSample`]s, and becomes one [`Row`] by
//! [`Measurement::into_row`]. A row counts only when it meets the evidence bar ([`Exclusion`]); one that does not has no
//! figures at all, so that nothing can add it up by accident. Rows travel in an [`OverheadFile`] and are shown by
//! [`render_text`] and [`render_svg`]. Nothing here reads a clock or does I/O.

mod bar;
mod figure;
mod file;
mod measure;
mod order;
mod random;
mod row;
mod sample;
mod stats;
mod svg;
#[cfg(test)]
mod tests;
mod text;
mod wire;

pub use bar::Exclusion;
pub use figure::{Figure, Label};
pub use file::{MAX_FILE_BYTES, MAX_ROWS, OverheadFile, OverheadFileError, SCHEMA};
pub use order::{Mode, Order, ParseOrderError};
pub use row::{Figures, Lifecycle, Observed, Outcome, PhaseMean, Row, RowFacts, Status, headline, median_overhead};
pub use sample::{
    Attestation, Cleanup, GpuIdentity, Measurement, Phase, Protection, RateInterval, SegmentKind, SegmentSample,
};
pub use stats::{Estimate, Interval, IntervalMethod, MIN_PAIRS, RESAMPLES, SEED, estimate};
pub use svg::render_svg;
pub use text::{Charset, WIDTH, render_text};

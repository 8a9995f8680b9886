//! How much an owner takes of what an allocation says: whoever runs there signs what they like, and what came home must
//! still fit into one record.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::time::Duration;

use glasshouse_core::channel::EventBody;
use glasshouse_core::protocol::encode;
use glasshouse_core::record::MAX_RECORD_BYTES;

use crate::progress;

/// What a record has room for beside events: evidence, verdicts, rows.
const BESIDE_EVENTS: usize = 16 << 20;
/// A signed header in the record's file, in base64 twice over. Every header stays in the record, whatever it is of.
const HEADER_BYTES: usize = 1 << 10;
/// Segments of one run: each has room for 128 KiB, of which its phases, receipt and end take a few dozen.
pub(super) const MOST_SEGMENTS: usize = (MAX_RECORD_BYTES - BESIDE_EVENTS) >> 17;

/// What one segment may come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From its start to its end.
    pub(super) time: Duration,
    /// Bytes of its events in the record.
    pub(super) record: usize,
}

impl Limits {
    /// Of each of so many segments.
    pub(super) fn new(time: Duration, segments: usize) -> Self {
        Self { time, record: share(segments) }
    }
}

/// What an event takes of the record.
pub(super) fn weight(body: &EventBody) -> usize {
    match body {
        EventBody::Progress { .. } => HEADER_BYTES,
        _ => encode(body).len().saturating_mul(2).saturating_add(HEADER_BYTES),
    }
}

/// The interval at which each of so many segments is asked for progress: as wanted, unless the longest that it may train
/// would then come to more than its share of the record holds.
pub(super) fn progress_interval(wanted: Duration, longest: Duration, segments: usize) -> Duration {
    // A quarter of the share is for everything else.
    let most = share(segments).saturating_sub(share(segments) / 4) / HEADER_BYTES;
    wanted.max(progress::shortest(longest, most))
}

fn share(segments: usize) -> usize {
    MAX_RECORD_BYTES.saturating_sub(BESIDE_EVENTS).checked_div(segments).unwrap_or(MAX_RECORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::channel::{Interval, OwnerChannel, RuntimeChannel};
    use glasshouse_core::clock::{Now, UnixMillis};
    use glasshouse_core::fixed::{Blob, Fixed};
    use glasshouse_core::record::RawSegmentRecord;
    use glasshouse_core::secret::Secret;
    use glasshouse_core::traits::Progress;

    #[test]
    fn many_long_segments_share_the_record() {
        let (wanted, hour) = (Duration::from_millis(500), Duration::from_secs(3600));
        assert_eq!(progress_interval(wanted, 24 * hour, 1), wanted);
        assert_eq!(progress_interval(wanted, hour / 60, 64), wanted);
        assert_eq!(progress_interval(wanted, hour, 4), wanted);
        assert!(progress_interval(wanted, hour, 64) > 2 * wanted);
    }

    #[test]
    fn an_event_weighs_what_it_takes_in_the_file() {
        let (secret, id) = (Secret::take(&mut [1; 32]), Fixed([0xff; 32]));
        let (mut runtime, mut owner) = (RuntimeChannel::raw(&secret, id, &id), OwnerChannel::raw(&secret, id, &id));
        let now = Now { wall: UnixMillis(u64::MAX >> 12), boot: Duration::from_secs(1 << 30) };
        let loss = Some(-1.234_567_890_123_456_7e-300);
        let progress = EventBody::Progress {
            progress: Progress { done: u64::MAX, total: Some(u64::MAX), loss, eval_loss: loss, ..Progress::default() },
            interval: Interval { units: u64::MAX, micros: u64::MAX },
        };
        let failed = EventBody::Failed { step: "train".into(), message: "é".repeat(1000) };
        let bodies = [vec![progress; 200], vec![failed; 20]].concat();
        for body in &bodies {
            owner.accept(&runtime.emit(body, now).unwrap()).unwrap();
        }
        let payload = encode(&RawSegmentRecord::from_channel(&owner));
        let file = encode(&Blob(payload)).len();
        let weighed: usize = bodies.iter().map(weight).sum();
        assert!(file <= weighed && weighed < file * 3 / 2, "{file} {weighed}");
    }
}

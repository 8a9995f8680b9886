//! The overhead and its 95 % interval.
//!
//! The statistic is the one that a reader can recompute from a row's two rates: `100 * (1 - protected / raw)`, each the
//! mean over its segments. From [`MIN_PAIRS`] pairs on, pairs are resampled (Efron and Tibshirani 1993, section 8.5) and
//! the percentiles are expanded for small samples (Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
//! section 3.4): plain percentiles of few pairs are too narrow. No bootstrap reaches beyond the pairs that it has, so
//! `n` pairs cover at most `1 - 2^(1 - n)`: 87.5 % with four, 95 % from six on. Below [`MIN_PAIRS`], stretches within
//! each segment are resampled in moving blocks (Künsch 1989); that says nothing of the variance between segments.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde::{Deserialize, Serialize};

use super::random::SplitMix;
use super::sample::RateInterval;

/// The fewest pairs for a paired interval.
pub const MIN_PAIRS: usize = 4;
/// Resamples per interval.
pub const RESAMPLES: usize = 10_000;
/// Seed of every bootstrap, so that anyone gets the same interval from the same samples.
pub const SEED: u64 = 0x676c_6173_7368_6f75;
/// The fewest stretches in a segment for moving blocks to say anything.
const MIN_STRETCHES: usize = 8;
/// Two-sided 95 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// How an interval was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Pairs resampled.
    PairedBootstrap,
    /// Stretches within each segment resampled; without the variance between segments.
    MovingBlockWithinRun,
    /// Too little was measured for an interval.
    None,
}

impl IntervalMethod {
    /// The name as it stands in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PairedBootstrap => "paired-bootstrap",
            Self::MovingBlockWithinRun => "moving-block-within-run",
            Self::None => "none",
        }
    }
}

/// A 95 % interval of the overhead, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// An overhead with its interval, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// `(raw - protected) / raw * 100` of the mean rates.
    pub overhead_pct: f64,
    /// Its interval; nothing when too little was measured.
    pub interval: Option<Interval>,
    /// How the interval was made.
    pub method: IntervalMethod,
}

/// Two compared segments: rates in units per second, and their stretches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) raw: f64,
    pub(super) protected: f64,
    pub(super) raw_stretches: &'a [RateInterval],
    pub(super) protected_stretches: &'a [RateInterval],
}

/// The overhead of rates that are already paired, (raw, protected) in units per second; nothing without a pair.
/// With fewer than [`MIN_PAIRS`] pairs there is no interval: a row's own estimate then looks into the segments.
pub fn estimate(pairs: &[(f64, f64)]) -> Option<Estimate> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(raw, protected)| Pair { raw: *raw, protected: *protected, raw_stretches: &[], protected_stretches: &[] })
        .collect();
    estimate_pairs(&pairs, RESAMPLES)
}

/// `100 * (1 - protected / raw)`.
pub(super) fn overhead(raw: f64, protected: f64) -> f64 {
    (raw - protected) / raw * 100.0
}

pub(super) fn estimate_pairs(pairs: &[Pair<'_>], resamples: usize) -> Option<Estimate> {
    let (raw, protected) = pairs.iter().fold((0.0, 0.0), |(r, p), pair| (r + pair.raw, p + pair.protected));
    let overhead_pct = overhead(raw, protected);
    if pairs.is_empty() || !overhead_pct.is_finite() {
        return None;
    }
    let (method, tail, statistics) = if pairs.len() >= MIN_PAIRS {
        (IntervalMethod::PairedBootstrap, expanded_tail(pairs.len()), resample_pairs(pairs, resamples))
    } else {
        (IntervalMethod::MovingBlockWithinRun, 0.025, resample_blocks(pairs, resamples))
    };
    let interval = percentiles(statistics, tail)
        // Percentiles of a skewed sample can miss the estimate itself; an interval that does would mislead.
        .map(|i| Interval { low: i.low.min(overhead_pct), high: i.high.max(overhead_pct) });
    let method = if interval.is_some() { method } else { IntervalMethod::None };
    Some(Estimate { overhead_pct, interval, method })
}

fn resample_pairs(pairs: &[Pair<'_>], resamples: usize) -> Vec<f64> {
    let mut rng = SplitMix(SEED);
    (0..resamples)
        .map(|_| {
            let drawn = pairs.iter().filter_map(|_| pairs.get(rng.below(pairs.len())));
            let (raw, protected) = drawn.fold((0.0, 0.0), |(r, p), pair| (r + pair.raw, p + pair.protected));
            overhead(raw, protected)
        })
        .collect()
}

fn resample_blocks(pairs: &[Pair<'_>], resamples: usize) -> Vec<f64> {
    let enough = |s: &[RateInterval]| s.len() >= MIN_STRETCHES && s.iter().all(|i| i.seconds > 0.0);
    if !pairs.iter().all(|p| enough(p.raw_stretches) && enough(p.protected_stretches)) {
        return Vec::new();
    }
    let mut rng = SplitMix(SEED);
    (0..resamples)
        .map(|_| {
            let (raw, protected) = pairs.iter().fold((0.0, 0.0), |(r, p), pair| {
                (r + block_rate(pair.raw_stretches, &mut rng), p + block_rate(pair.protected_stretches, &mut rng))
            });
            overhead(raw, protected)
        })
        .collect()
}

/// The rate of one moving-block resample of a segment; blocks of the cube root of its length.
fn block_rate(stretches: &[RateInterval], rng: &mut SplitMix) -> f64 {
    let length = ((stretches.len() as f64).cbrt().ceil() as usize).min(stretches.len()).max(1);
    let blocks = stretches.len().div_ceil(length);
    let starts = stretches.len().saturating_sub(length).saturating_add(1);
    let drawn = (0..blocks).flat_map(|_| stretches.iter().skip(rng.below(starts)).take(length));
    let (units, seconds) =
        drawn.take(stretches.len()).fold((0.0, 0.0), |(u, s), i| (u + i.units as f64, s + i.seconds));
    units / seconds
}

/// The tail probability whose percentiles make an interval as wide as Student's: `Phi(-sqrt(n / (n - 1)) * t)`.
fn expanded_tail(n: usize) -> f64 {
    let n = n as f64;
    let v = n - 1.0;
    // Student's 97.5 % point by Cornish-Fisher (Abramowitz and Stegun 26.7.5).
    let t = Z
        + (Z.powi(3) + Z) / (4.0 * v)
        + (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / (96.0 * v * v)
        + (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / (384.0 * v.powi(3));
    normal_tail((n / v).sqrt() * t)
}

/// `Phi(-x)` for x >= 0, to 1e-7 (Abramowitz and Stegun 26.2.17).
fn normal_tail(x: f64) -> f64 {
    let k = 1.0 / (1.0 + 0.231_641_9 * x);
    let poly =
        k * (0.319_381_530 + k * (-0.356_563_782 + k * (1.781_477_937 + k * (-1.821_255_978 + k * 1.330_274_429))));
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly
}

fn percentiles(mut statistics: Vec<f64>, tail: f64) -> Option<Interval> {
    if statistics.iter().any(|s| !s.is_finite()) {
        return None;
    }
    statistics.sort_unstable_by(f64::total_cmp);
    let cut = (statistics.len() as f64 * tail).floor() as usize;
    let low = statistics.get(cut)?;
    let high = statistics.iter().rev().nth(cut)?;
    Some(Interval { low: *low, high: *high })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uniform(rng: &mut SplitMix) -> f64 {
        (rng.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal enough: twelve uniforms.
    fn normal(rng: &mut SplitMix) -> f64 {
        (0..12).map(|_| uniform(rng)).sum::<f64>() - 6.0
    }

    /// How often intervals of `n` noisy pairs hold the true overhead of 2 %.
    fn coverage(n: usize) -> f64 {
        let mut rng = SplitMix(7);
        let runs = 600;
        let hits = (0..runs)
            .filter(|_| {
                let pairs: Vec<_> = (0..n)
                    .map(|_| Pair {
                        raw: 100.0 + normal(&mut rng) * 0.5,
                        protected: 98.0 + normal(&mut rng) * 0.5,
                        raw_stretches: &[],
                        protected_stretches: &[],
                    })
                    .collect();
                let interval = estimate_pairs(&pairs, 600).unwrap().interval.unwrap();
                interval.low <= 2.0 && 2.0 <= interval.high
            })
            .count();
        hits as f64 / f64::from(runs)
    }

    #[test]
    fn intervals_cover_as_often_as_they_say() {
        // Four pairs reach 87.5 % at best, whatever is done with them; from six on the interval means 95 %.
        assert!((0.85..0.90).contains(&coverage(4)), "{}", coverage(4));
        assert!((0.93..0.98).contains(&coverage(6)), "{}", coverage(6));
        assert!((0.93..0.97).contains(&coverage(12)), "{}", coverage(12));
    }

    #[test]
    fn known_values() {
        let same = estimate(&[(100.0, 99.0); 4]).unwrap();
        assert!((same.overhead_pct - 1.0).abs() < 1e-12);
        let interval = same.interval.unwrap();
        assert!((interval.low - 1.0).abs() < 1e-12 && (interval.high - 1.0).abs() < 1e-12);
        assert_eq!(same.method, IntervalMethod::PairedBootstrap);

        let mixed = estimate(&[(100.0, 100.0), (100.0, 98.0), (100.0, 99.0), (100.0, 99.0)]).unwrap();
        assert!((mixed.overhead_pct - 1.0).abs() < 1e-12);
        assert_eq!(mixed.interval, Some(Interval { low: 0.0, high: 2.0 }), "four pairs give their whole range");
        assert_eq!(estimate(&[(100.0, 99.0), (100.0, 98.0), (100.0, 98.0), (100.0, 97.0)]).unwrap().overhead_pct, 2.0);
    }

    #[test]
    fn too_little_gives_no_interval() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[(0.0, 0.0)]), None);
        let three = estimate(&[(100.0, 99.0); 3]).unwrap();
        assert_eq!((three.interval, three.method), (None, IntervalMethod::None));
    }

    #[test]
    fn moving_blocks_follow_the_noise_within_a_segment() {
        let mut rng = SplitMix(3);
        let mut series = |mean: f64, sd: f64| -> Vec<RateInterval> {
            (0..100).map(|_| RateInterval { units: 1000, seconds: 1000.0 / (mean + sd * normal(&mut rng)) }).collect()
        };
        let width = |raw: &[RateInterval], protected: &[RateInterval]| {
            let pair = Pair { raw: 100.0, protected: 99.0, raw_stretches: raw, protected_stretches: protected };
            let e = estimate_pairs(&[pair], 2000).unwrap();
            assert_eq!(e.method, IntervalMethod::MovingBlockWithinRun);
            e.interval.map(|i| i.high - i.low).unwrap()
        };
        let (quiet, noisy) =
            (width(&series(100.0, 0.1), &series(99.0, 0.1)), width(&series(100.0, 3.0), &series(99.0, 3.0)));
        // Standard error of the difference: sd * sqrt(2 / 100), 3.92 of them wide.
        assert!((0.03..0.09).contains(&quiet), "{quiet}");
        assert!((1.0..2.4).contains(&noisy), "{noisy}");
    }

    #[test]
    fn tails() {
        assert!((normal_tail(Z) - 0.025).abs() < 1e-6);
        assert!((expanded_tail(1_000_000) - 0.025).abs() < 1e-5);
        assert!(expanded_tail(10) < 0.013 && expanded_tail(10) > 0.005, "{}", expanded_tail(10));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn an_interval_holds_its_estimate(pairs in prop::collection::vec((0.1..1e4f64, 0.1..1e4f64), 1..12)) {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(raw, protected)| Pair { raw: *raw, protected: *protected, raw_stretches: &[], protected_stretches: &[] })
                .collect();
            let e = estimate_pairs(&pairs, 200).unwrap();
            if let Some(i) = e.interval {
                prop_assert!(i.low <= e.overhead_pct && e.overhead_pct <= i.high);
            }
            prop_assert_eq!(e.interval.is_some(), pairs.len() >= MIN_PAIRS);
        }
    }
}

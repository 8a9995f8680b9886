//! The evidence bar: what a measurement must show before its numbers count.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::order::Mode;
use super::row::RowFacts;
use super::sample::{Attestation, Cleanup, Measurement, SegmentSample};
use crate::claims::RuntimeState;

/// Why a row does not count. Each says what was missing and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Exclusion {
    /// A raw segment did not run its course.
    RawIncomplete,
    /// A protected segment did not run its course.
    ProtectedIncomplete,
    /// The segments are not those that the order plans.
    OrderNotFollowed,
    /// A protected segment's evidence was not accepted.
    AttestationNotVerified,
    /// A protected runtime did not end zeroized.
    NotZeroized,
    /// The allocation was not seen to be gone.
    CleanupNotObserved,
    /// A segment has no weights digest after warm-up.
    WeightsUnknown,
    /// Raw and protected did not compute the same weights.
    WeightsDiffer,
    /// The segments did not run on one instance and device.
    InstanceDiffers,
    /// The segments did not all train in the same way.
    MethodDiffers,
}

impl Exclusion {
    /// The stable name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::RawIncomplete => "raw-incomplete",
            Self::ProtectedIncomplete => "protected-incomplete",
            Self::OrderNotFollowed => "order-not-followed",
            Self::AttestationNotVerified => "attestation-not-verified",
            Self::NotZeroized => "not-zeroized",
            Self::CleanupNotObserved => "cleanup-not-observed",
            Self::WeightsUnknown => "weights-unknown",
            Self::WeightsDiffer => "weights-differ",
            Self::InstanceDiffers => "instance-differs",
            Self::MethodDiffers => "method-differs",
        }
    }

    /// One sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::RawIncomplete => "a raw segment did not train for its whole duration; look at its log and run again",
            Self::ProtectedIncomplete => {
                "a protected segment did not train for its whole duration; look at its events and run again"
            }
            Self::OrderNotFollowed => {
                "the segments that ran are not those that the order plans, so they cannot be paired; run the whole order"
            }
            Self::AttestationNotVerified => {
                "a protected segment was not attested, so what ran there is unknown; look at the refusal"
            }
            Self::NotZeroized => "a protected runtime did not end zeroized; end the allocation and look at its receipt",
            Self::CleanupNotObserved => {
                "nobody saw the allocation end; check with the provider that it is gone, and run again"
            }
            Self::WeightsUnknown => "a segment published no weights digest after warm-up; run again",
            Self::WeightsDiffer => {
                "raw and protected computed different weights in warm-up, so they did not do the same work"
            }
            Self::InstanceDiffers => {
                "the segments ran on different instances or devices; measure both on one allocation"
            }
            Self::MethodDiffers => {
                "the segments trained in different ways, one of them by a fallback, so they did not do the same work; \
                 look at its log"
            }
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// A segment may stop this much before its duration: clocks are read between units.
const DURATION_TOLERANCE: f64 = 0.95;

/// Everything that keeps a measurement out, each reason once. Empty: it counts.
pub(super) fn exclusions(run: &Measurement, facts: &RowFacts) -> Vec<Exclusion> {
    let complete = |s: &&SegmentSample| {
        s.completed && s.rate().is_some() && s.seconds >= run.duration_seconds * DURATION_TOLERANCE
    };
    let all_complete = |mode| run.segments.iter().filter(|s| s.mode() == mode).all(|s| complete(&s));
    let has = |mode| run.segments.iter().any(|s| s.mode() == mode);
    // A segment that measured nothing says no method; that it is incomplete stands in a reason of its own.
    let methods: BTreeSet<_> = run.segments.iter().filter_map(|s| s.method.as_deref()).collect();
    let digests: BTreeSet<_> = run.segments.iter().filter_map(|s| s.weights_after_warm_up).collect();

    let mut reasons = BTreeSet::new();
    let mut bar = |holds: bool, reason| {
        if !holds {
            reasons.insert(reason);
        }
    };
    bar(has(Mode::Raw) && all_complete(Mode::Raw), Exclusion::RawIncomplete);
    bar(has(Mode::Protected) && all_complete(Mode::Protected), Exclusion::ProtectedIncomplete);
    bar(follows_order(run), Exclusion::OrderNotFollowed);
    bar(run.segments.iter().all(|s| s.weights_after_warm_up.is_some()), Exclusion::WeightsUnknown);
    bar(digests.len() <= 1, Exclusion::WeightsDiffer);
    bar(methods.len() <= 1, Exclusion::MethodDiffers);
    reasons.extend(fact_exclusions(facts));
    reasons.into_iter().collect()
}

/// The part of the bar that a row's own facts show, so that a parsed row is held to it too.
pub(super) fn fact_exclusions(facts: &RowFacts) -> Vec<Exclusion> {
    let bar = [
        (matches!(facts.attestation, Attestation::Verified(_)), Exclusion::AttestationNotVerified),
        (facts.runtime_state == Some(RuntimeState::Zeroized), Exclusion::NotZeroized),
        (facts.cleanup == Cleanup::Observed, Exclusion::CleanupNotObserved),
        (facts.same_instance, Exclusion::InstanceDiffers),
    ];
    bar.into_iter().filter(|(holds, _)| !holds).map(|(_, reason)| reason).collect()
}

fn follows_order(run: &Measurement) -> bool {
    let plan = run.order.plan(run.repeats);
    let mut positions: Vec<_> = run.segments.iter().map(|s| s.position).collect();
    positions.sort_unstable();
    !plan.is_empty()
        && positions.into_iter().eq(0..plan.len())
        && run.segments.iter().all(|s| plan.get(s.position) == Some(&s.mode()))
}

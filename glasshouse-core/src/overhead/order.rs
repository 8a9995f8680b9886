//! In which order raw and protected segments run, and which of them are compared.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a segment runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The training loop alone.
    Raw,
    /// The same loop inside the protected lifecycle.
    Protected,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw",
            Self::Protected => "protected",
        })
    }
}

/// The order of segments on one allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// raw, protected, and again.
    RawFirst,
    /// protected, raw, and again.
    ProtectedFirst,
    /// raw, protected, protected, raw, and again: cancels the effect of order, and drift that is linear in time.
    #[default]
    Abba,
}

impl Order {
    /// Every order.
    pub const ALL: [Self; 3] = [Self::RawFirst, Self::ProtectedFirst, Self::Abba];

    /// The name as it stands in rows and on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RawFirst => "raw-first",
            Self::ProtectedFirst => "protected-first",
            Self::Abba => "abba",
        }
    }

    /// The segments of one run, in order.
    pub fn plan(self, repeats: u16) -> Vec<Mode> {
        let once: &[Mode] = match self {
            Self::RawFirst => &[Mode::Raw, Mode::Protected],
            Self::ProtectedFirst => &[Mode::Protected, Mode::Raw],
            Self::Abba => &[Mode::Raw, Mode::Protected, Mode::Protected, Mode::Raw],
        };
        once.repeat(usize::from(repeats))
    }

    /// Which positions of the plan are compared: (raw, protected), always neighbours. `abba` gives two pairs a repeat.
    pub fn pairs(self, repeats: u16) -> Vec<(usize, usize)> {
        let plan = self.plan(repeats);
        let first = |i: usize| i.saturating_mul(2);
        plan.chunks_exact(2)
            .enumerate()
            .map(|(i, pair)| match pair {
                [Mode::Raw, _] => (first(i), first(i).saturating_add(1)),
                _ => (first(i).saturating_add(1), first(i)),
            })
            .collect()
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no order of segments; use raw-first, protected-first or abba")]
pub struct ParseOrderError(pub String);

impl FromStr for Order {
    type Err = ParseOrderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|o| o.as_str() == text).ok_or_else(|| ParseOrderError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn abba_is_abba() {
        use Mode::{Protected as P, Raw as R};
        assert_eq!(Order::Abba.plan(2), [R, P, P, R, R, P, P, R]);
        assert_eq!(Order::Abba.pairs(2), [(0, 1), (3, 2), (4, 5), (7, 6)]);
        assert_eq!(Order::ProtectedFirst.pairs(1), [(1, 0)]);
    }

    #[test]
    fn names_parse_back() {
        for order in Order::ALL {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        let error = "baab".parse::<Order>().unwrap_err().to_string();
        assert!(error.contains("baab") && error.contains("raw-first"), "{error}");
    }

    proptest! {
        #[test]
        fn plans_are_balanced_and_every_segment_is_in_one_pair(order in prop::sample::select(&Order::ALL), repeats in 0..50u16) {
            let plan = order.plan(repeats);
            let raw = plan.iter().filter(|m| **m == Mode::Raw).count();
            prop_assert_eq!(raw * 2, plan.len());
            let pairs = order.pairs(repeats);
            let mut seen: Vec<_> = pairs.iter().flat_map(|(r, p)| [*r, *p]).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..plan.len()).collect::<Vec<_>>());
            for (r, p) in pairs {
                prop_assert_eq!((plan[r], plan[p]), (Mode::Raw, Mode::Protected));
                prop_assert_eq!(r.abs_diff(p), 1);
            }
        }

        #[test]
        fn abba_cancels_linear_drift(repeats in 1..20u16) {
            let plan = Order::Abba.plan(repeats);
            let sum = |mode| plan.iter().enumerate().filter(|(_, m)| **m == mode).map(|(i, _)| i).sum::<usize>();
            prop_assert_eq!(sum(Mode::Raw), sum(Mode::Protected));
        }
    }
}

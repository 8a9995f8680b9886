//! A segment: a fresh process that attests, trains and zeroizes, and talks to its agent over its pipes alone.

pub(crate) fn main(_registry: &crate::roles::Registry) -> i32 {
    1
}

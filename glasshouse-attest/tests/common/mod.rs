//! What every test of changed evidence shares.

/// Which of `n` changes are tried: about `some` that are spread evenly, or all with GLASSHOUSE_EXHAUSTIVE=1. Of all,
/// GLASSHOUSE_SHARD=2/8 tries every eighth, from the third on: 0/8 to 7/8 in as many processes try all.
pub(crate) fn tried(n: usize, some: usize) -> impl Iterator<Item = usize> {
    if std::env::var_os("GLASSHOUSE_EXHAUSTIVE").is_some() {
        let shard = std::env::var("GLASSHOUSE_SHARD").unwrap_or_else(|_| "0/1".to_owned());
        let parsed =
            shard.split_once('/').and_then(|(i, of)| Some((i.parse::<usize>().ok()?, of.parse::<usize>().ok()?)));
        let (first, step) = parsed.filter(|(i, of)| i < of).expect("GLASSHOUSE_SHARD is like 2/8");
        return (first..n.max(first)).step_by(step);
    }
    // A step that is odd meets every bit of a byte.
    (0..n).step_by((n / some).max(1) | 1)
}

//! What an artifact may be called: checked by the segment that exports it, and again by the owner who writes it.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

/// Files that the owner writes beside artifacts, in the same folder or one that people put there.
const OWNERS: [&str; 9] = [
    "evidence.json",
    "recovered.json",
    "overhead.json",
    "gate",
    "gate.pub",
    "gate.key",
    "gate.store",
    "result.key",
    "journal.jsonl",
];

/// One plain component: no separators, no parent, nothing that a shell or a file system takes for something else, and
/// no file of the owner's. An error says what is wrong.
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    let plain = (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if !plain {
        return Err("its name is no file name: 1 to 128 of A-Z, a-z, 0-9, '.', '-' and '_', not beginning with '.'");
    }
    if OWNERS.iter().any(|owners| owners.eq_ignore_ascii_case(name)) {
        return Err("its name is that of a file of the owner's; choose another");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["adapter_model.safetensors", "loss.csv", "a", "evidence.json.bak"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", ".", "..", "../a", "a/b", "a\\b", ".hidden", "a b", "a\0", "gate.key", "Evidence.JSON", &long] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}

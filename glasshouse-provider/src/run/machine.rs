//! What this machine is, never what it is called.

use std::collections::BTreeSet;

/// Processors of this machine by model and count, `2 x Intel Xeon Platinum 8481C`.
pub(super) fn local_machine() -> String {
    describe(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn describe(cpuinfo: &str) -> String {
    let values = |key: &str| -> Vec<String> {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).collect()
    };
    let count = values("processor").len();
    let models: BTreeSet<String> = values("model name").into_iter().collect();
    match models.into_iter().next() {
        Some(model) => format!("{count} x {model}"),
        None if count > 0 => format!("{count} processors"),
        None => "unknown processors".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        let text = "processor\t: 0\nmodel name\t: A B @ 2GHz\n\nprocessor\t: 1\nmodel name\t: A B @ 2GHz\n";
        assert_eq!(describe(text), "2 x A B @ 2GHz");
        assert_eq!(describe("processor : 0\n"), "1 processors");
        assert_eq!(describe(""), "unknown processors");
    }
}

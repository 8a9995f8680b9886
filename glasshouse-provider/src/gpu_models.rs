//! What a GPU model can do.

/// Compute capability of a GPU by a name that holds its model, as major * 10 + minor: catalogues and schedulers do not tell it.
///
/// Source: NVIDIA, "CUDA GPU Compute Capability". The first entry that the name contains counts, so longer names stand
/// before those they contain.
pub(crate) fn compute_capability(name: &str) -> Option<u32> {
    let name = name.to_uppercase();
    MODELS.iter().find(|(part, _)| name.contains(part)).map(|(_, capability)| *capability)
}

const MODELS: &[(&str, u32)] = &[
    ("B300", 103),
    ("B200", 100),
    ("H200", 90),
    ("H100", 90),
    ("GH200", 90),
    ("RTX PRO", 120),
    ("RTX 5090", 120),
    ("RTX 5080", 120),
    ("RTX 5070", 120),
    ("RTX 5060", 120),
    ("ADA", 89),
    ("L40", 89),
    ("L4", 89),
    ("RTX 4090", 89),
    ("RTX 4080", 89),
    ("RTX 4070", 89),
    ("RTX 4060", 89),
    ("A100", 80),
    ("A800", 80),
    ("A30", 80),
    ("RTX A", 86),
    ("A6000", 86),
    ("A5000", 86),
    ("A4500", 86),
    ("A4000", 86),
    ("A2000", 86),
    ("A40", 86),
    ("A16", 86),
    ("A10", 86),
    ("RTX 3090", 86),
    ("RTX 3080", 86),
    ("RTX 3070", 86),
    ("RTX 3060", 86),
    ("QUADRO RTX", 75),
    ("RTX 2080", 75),
    ("TITAN RTX", 75),
    ("T4", 75),
    ("V100", 70),
    ("P100", 60),
];

#[cfg(test)]
mod tests {
    use super::compute_capability;

    #[test]
    fn names_that_contain_others_are_told_apart() {
        for (name, capability) in [
            ("NVIDIA A100 80GB PCIe", Some(80)),
            ("NVIDIA A100-SXM4-80GB", Some(80)),
            ("NVIDIA A40", Some(86)),
            ("NVIDIA RTX A4000", Some(86)),
            ("NVIDIA RTX 4000 Ada Generation", Some(89)),
            ("NVIDIA RTX 6000 Ada Generation", Some(89)),
            ("NVIDIA GeForce RTX 4090", Some(89)),
            ("NVIDIA L40S", Some(89)),
            ("NVIDIA L4", Some(89)),
            ("NVIDIA H100 80GB HBM3", Some(90)),
            ("NVIDIA GeForce RTX 5090", Some(120)),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", Some(120)),
            ("NVIDIA B200", Some(100)),
            ("Tesla V100-SXM2-16GB", Some(70)),
            ("NVIDIA Z9 of tomorrow", None),
        ] {
            assert_eq!(compute_capability(name), capability, "{name}");
        }
    }
}

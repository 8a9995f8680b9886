//! Data for a run without a data set: questions that have one answer each.

/// Sums of two digits as `{"question", "answer"}`, one a line; always the same.
pub fn demo_data() -> Vec<u8> {
    let sums = (0..10).flat_map(|a| (0..10).map(move |b| (a, b)));
    let lines = sums.map(|(a, b)| format!("{{\"question\":\"What is {a} plus {b}?\",\"answer\":\"{}\"}}\n", a + b));
    lines.collect::<String>().into_bytes()
}

//! `overhead.json`.

use glasshouse_core::overhead::{Charset, MAX_ROWS, OverheadFile, headline, median_overhead, render_svg, render_text};

use crate::check;

/// What is accepted is written again as the same rows, and shown without a control character.
pub fn run(data: &[u8]) {
    let file = match OverheadFile::parse(data) {
        Ok(file) => file,
        Err(error) => return check::one_line(&error.to_string(), 600),
    };
    assert!(file.rows.len() <= MAX_ROWS);
    let text = file.to_json().expect("what was read can be written");
    let again = OverheadFile::parse(text.as_bytes()).expect("what was written can be read");
    assert_eq!(again, file);
    assert_eq!(again.to_json().expect("twice"), text, "two spellings");
    for charset in [Charset::Unicode, Charset::Ascii] {
        let report = render_text(&file.rows, charset);
        check::lines(&report);
        assert!(charset == Charset::Unicode || report.is_ascii());
    }
    check::lines(&render_svg(&file.rows));
    let counted: Vec<_> = file.rows.iter().filter(|row| row.is_valid()).collect();
    assert!(headline(&file.rows).is_none_or(|row| row.is_valid()));
    assert_eq!(median_overhead(&file.rows).is_some(), !counted.is_empty());
    for row in counted {
        let figures = row.figures().expect("a row that counts has figures");
        assert!(!figures.pairs.is_empty() && row.assurance().is_some() && row.facts().same_instance);
        assert!(figures.interval_pct.is_none_or(|(low, high)| low <= high));
        let finite = [figures.raw_rate, figures.protected_rate, figures.overhead_pct].map(|f| f.value().is_finite());
        assert_eq!(finite, [true; 3]);
    }
}

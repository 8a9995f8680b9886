//! The report for a terminal: bars, a table, and what stands against the numbers.

use std::fmt::Write as _;

use super::figure::Figure;
use super::row::{Figures, Observed, Outcome, PhaseMean, Row, headline, median_overhead};
use super::sample::{Attestation, Cleanup};
use super::stats::{IntervalMethod, MIN_PAIRS};

/// The widest line.
pub const WIDTH: usize = 100;
/// Length of the longest bar.
const BAR: usize = 50;

/// Which characters a terminal takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charset {
    /// Block elements for bars.
    #[default]
    Unicode,
    /// Nothing beyond ASCII.
    Ascii,
}

/// The report: one block of bars per row, a table, what the numbers leave open, and the rows that do not count.
/// No line is longer than [`WIDTH`].
pub fn render_text(rows: &[Row], charset: Charset) -> String {
    let mut out = String::from("What protection costs: steady-state training, raw against protected\n");
    if rows.is_empty() {
        out.push_str("\nNothing was measured.\n");
    }
    let counted: Vec<_> =
        rows.iter().enumerate().filter_map(|(i, r)| r.figures().map(|f| (i.saturating_add(1), r, f))).collect();
    for (number, row, figures) in &counted {
        bars(&mut out, *number, row, figures, charset);
    }
    if !counted.is_empty() {
        table(&mut out, &counted);
        summary(&mut out, rows, counted.len());
        lifecycles(&mut out, &counted);
        caveats(&mut out, &counted);
    }
    excluded(&mut out, rows);
    match charset {
        Charset::Unicode => out,
        Charset::Ascii => out.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect(),
    }
}

type Counted<'a> = (usize, &'a Row, &'a Figures);

fn bars(out: &mut String, number: usize, row: &Row, figures: &Figures, charset: Charset) {
    let f = row.facts();
    let place = match &f.gpu {
        Some(gpu) => format!("{} ({}, driver {})", f.device, gpu.model, gpu.driver),
        None => f.device.to_string(),
    };
    let title = format!("[{number}] {} on {place}, {}, {}, one instance", f.workload, f.provider, f.machine);
    wrap(out, "\n  ", "      ", &title);
    let top = figures.raw_rate.value().max(figures.protected_rate.value());
    for (name, rate) in [("raw", figures.raw_rate), ("protected", figures.protected_rate)] {
        let bar = bar(rate.value() / top, charset);
        let _ = writeln!(out, "      {name:<10} {bar} {:>10} {}s/s", short(rate.value()), f.unit);
    }
}

fn table(out: &mut String, counted: &[Counted<'_>]) {
    let _ = writeln!(
        out,
        "\n  {:>3}  {:<15} {:>9} {:>5}  {:>10} {:>10}  {:<14} 95 % interval",
        "#", "order", "each", "pairs", "raw /s", "prot. /s", "overhead"
    );
    let _ = writeln!(out, "  {}", "-".repeat(WIDTH.saturating_sub(4)));
    for (number, row, figures) in counted {
        let f = row.facts();
        let _ = writeln!(
            out,
            "  {number:>3}  {:<15} {:>9} {:>5}  {:>10} {:>10}  {:<14} {}",
            f.order,
            format!("{} s", short(f.duration_sec.value())),
            figures.pairs.len(),
            short(figures.raw_rate.value()),
            short(figures.protected_rate.value()),
            overhead_text(figures),
            interval_text(figures),
        );
        let assurance = row.assurance().map(|a| format!("verified, {a}")).unwrap_or_default();
        let state = f.runtime_state.map(|s| s.as_str()).unwrap_or_default();
        let _ = writeln!(
            out,
            "       {}; attestation {assurance}; runtime {state}; cleanup {}",
            row.status(),
            f.cleanup.as_str()
        );
    }
    if counted.iter().any(|(_, _, f)| f.method == IntervalMethod::MovingBlockWithinRun) {
        out.push_str("       * within the run only, for want of pairs: it leaves out how segments differ\n");
    }
}

fn summary(out: &mut String, rows: &[Row], counted: usize) {
    out.push('\n');
    match headline(rows).and_then(|r| r.figures().map(|f| (r, f))) {
        Some((row, figures)) => {
            let at = rows.iter().position(|r| std::ptr::eq(r, row)).unwrap_or_default().saturating_add(1);
            let _ = writeln!(
                out,
                "  Headline: {} (row {at}, the longest raw-first row, {} s a segment, {}).",
                overhead_text(figures),
                short(row.facts().duration_sec.value()),
                row.status()
            );
        }
        None => out.push_str("  No headline: that is the longest raw-first row, and none counts here.\n"),
    }
    if let Some(median) = median_overhead(rows).filter(|_| counted > 1) {
        let median = if median > 0.0 { format!("{median:.2} %") } else { "within noise".to_owned() };
        let _ = writeln!(out, "  Median of the {counted} rows that count: {median}.");
    }
}

fn lifecycles(out: &mut String, counted: &[Counted<'_>]) {
    out.push_str("\n  Whole life of a segment, apart from the rates above (mean seconds)\n");
    for (number, _, figures) in counted {
        let life = &figures.lifecycle;
        let extra = life.protected_sec.value() - life.raw_sec.value();
        let _ = writeln!(
            out,
            "  {number:>3}  raw {}, protected {}: {extra:+.3} s for each protected segment",
            seconds(life.raw_sec),
            seconds(life.protected_sec),
        );
        let (both, only): (Vec<_>, Vec<_>) = life.phases.iter().partition(|p| p.raw_sec.value() > 0.0);
        let only: Vec<_> = only.iter().map(|p| format!("{} {}", p.name, seconds(p.protected_sec))).collect();
        let pair = |p: &&PhaseMean| format!("{} {}/{}", p.name, seconds(p.raw_sec), seconds(p.protected_sec));
        let both: Vec<_> = both.iter().map(pair).collect();
        for (title, phases) in [("protected only: ", only), ("raw/protected:  ", both)] {
            if !phases.is_empty() {
                wrap(out, &format!("       {title}"), "                       ", &phases.join(", "));
            }
        }
    }
}

fn caveats(out: &mut String, counted: &[Counted<'_>]) {
    out.push_str("\n  What the numbers leave open\n");
    let mut note = |text: &str| wrap(out, "  - ", "    ", text);
    note(
        "Order, warm state (caches, clocks, temperature) and what else runs on the node remain in the numbers. \
         abba cancels order and steady drift; raw-first and protected-first do not.",
    );
    for (number, _, figures) in counted {
        note(&format!("[{number}] {}", interval_note(figures)));
    }
    let mut assurances: Vec<_> = counted.iter().filter_map(|(_, row, _)| row.assurance()).collect();
    assurances.sort_unstable();
    assurances.dedup();
    for assurance in assurances {
        note(&format!("{assurance}: {}.", assurance.meaning()));
    }
    if counted.iter().any(|(_, row, _)| row.facts().duration_sec.value() < 300.0) {
        note(
            "A noise check (under 300 s a segment) shows that nothing is badly wrong, no more; \
             conclusions want 900 s a segment (sustained).",
        );
    }
}

fn interval_note(figures: &Figures) -> String {
    let pairs = figures.pairs.len();
    let plural = if pairs == 1 { "" } else { "s" };
    match figures.method {
        IntervalMethod::PairedBootstrap => {
            let reach = match pairs {
                6.. => "95 %".to_owned(),
                // n pairs reach no further than their own range.
                n => format!(
                    "{:.1} % at best, as so few pairs can; six reach 95 %",
                    100.0 * (1.0 - 2.0 / f64::from(1u32 << n.min(31)))
                ),
            };
            format!(
                "The interval is a paired bootstrap over {pairs} pairs, percentiles expanded for small samples. \
                 It covers {reach}."
            )
        }
        IntervalMethod::MovingBlockWithinRun => format!(
            "The interval is a moving-block bootstrap within {pairs} pair{plural}: it knows how a segment varies, \
             not how segments differ. {MIN_PAIRS} pairs or more give a paired interval."
        ),
        IntervalMethod::None => {
            format!("{pairs} pair{plural} of segments this short give no interval; the figure alone says little.")
        }
    }
}

fn excluded(out: &mut String, rows: &[Row]) {
    let mut title = "\n  Rows that do not count, and stay out of every number above\n";
    for (i, row) in rows.iter().enumerate() {
        let Outcome::Excluded { reasons, observed } = row.outcome() else { continue };
        out.push_str(title);
        title = "";
        let f = row.facts();
        let number = i.saturating_add(1);
        wrap(
            out,
            "  ",
            "       ",
            &format!(
                "{number:>3}  {} {}, {} s each, {}",
                f.workload,
                f.order,
                short(f.duration_sec.value()),
                f.provider
            ),
        );
        let attestation = match &f.attestation {
            Attestation::Verified(a) => format!("verified ({a})"),
            Attestation::Refused(code) => format!("refused ({code})"),
            Attestation::Missing => "missing".to_owned(),
        };
        let state = f.runtime_state.map_or("unknown", |s| s.as_str());
        let cleanup = match f.cleanup {
            Cleanup::Kept => "kept on purpose",
            other => other.as_str(),
        };
        wrap(
            out,
            "       observed  ",
            "                 ",
            &format!("{}; attestation {attestation}; runtime {state}; cleanup {cleanup}", observed_text(observed)),
        );
        out.push_str("       decision  excluded\n");
        for reason in reasons {
            wrap(out, "       reason    ", "                 ", &format!("{}: {reason}", reason.code()));
        }
    }
}

fn observed_text(o: &Observed) -> String {
    let rate = |r: Option<Figure>| r.map_or("none".to_owned(), |r| format!("{} /s", short(r.value())));
    format!(
        "{} of {} segments complete ({} raw, {} protected), {} distinct weights; raw {}, protected {}",
        o.raw_completed.saturating_add(o.protected_completed),
        o.segments_planned,
        o.raw_completed,
        o.protected_completed,
        o.distinct_weights,
        rate(o.raw_rate),
        rate(o.protected_rate)
    )
}

/// The overhead in words: never a speed-up.
pub(super) fn overhead_text(figures: &Figures) -> String {
    match figures.overhead_pct.value() {
        pct if pct > 0.0 => format!("{pct:.2} %"),
        _ => "within noise".to_owned(),
    }
}

/// The interval, with what keeps it from meaning much: zero in it, or nothing but one run behind it.
pub(super) fn interval_text(figures: &Figures) -> String {
    let Some((low, high)) = figures.interval_pct else { return "-".to_owned() };
    let mark = if figures.method == IntervalMethod::MovingBlockWithinRun { " *" } else { "" };
    let noise = if figures.is_within_noise() && figures.overhead_pct.value() > 0.0 { ", within noise" } else { "" };
    format!("{:+.2} to {:+.2} %{mark}{noise}", low.value(), high.value())
}

/// A rate or duration in at most seven characters or so: four significant digits from 1 on.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e7 => format!("{value:.3e}"),
        v if v >= 1000.0 || v == v.trunc() => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn seconds(value: Figure) -> String {
    format!("{:.3}", value.value())
}

fn bar(share: f64, charset: Charset) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let (whole, rest) = (eighths / 8, eighths % 8);
    let mut bar = match charset {
        Charset::Unicode => "█".repeat(whole),
        Charset::Ascii => "#".repeat(whole),
    };
    let partial = match charset {
        Charset::Unicode => ['\0', '▏', '▎', '▍', '▌', '▋', '▊', '▉'].get(rest).copied().filter(|c| *c != '\0'),
        Charset::Ascii => (rest >= 4).then_some('#'),
    };
    bar.extend(partial);
    let missing = BAR.saturating_sub(bar.chars().count());
    bar.push_str(&" ".repeat(missing));
    bar
}

/// Words into lines of at most [`WIDTH`] characters; a longer word is cut.
fn wrap(out: &mut String, first: &str, rest: &str, text: &str) {
    out.push_str(first);
    let mut column = first.trim_start_matches('\n').chars().count();
    let mut fresh = true;
    for word in text.split(' ') {
        let length = word.chars().count();
        if !fresh && column.saturating_add(1).saturating_add(length) > WIDTH {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(rest);
            column = rest.chars().count();
            fresh = true;
        }
        if !fresh {
            out.push(' ');
            column = column.saturating_add(1);
        }
        let room = WIDTH.saturating_sub(column);
        out.extend(word.chars().take(room));
        column = column.saturating_add(length.min(room));
        fresh = false;
    }
    out.push('\n');
}

//! The report as one picture: rates as bars, each pair's overhead as a point, the interval as a line.
//!
//! Self-contained SVG 1.1 with its own background in light and dark, so that it reads the same in a browser, on a
//! page and converted to a bitmap.

use std::fmt::Write as _;

use super::row::{Figures, Outcome, Row};
use super::stats::{IntervalMethod, overhead};
use super::text::{interval_text, overhead_text, short};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 700.0;
const HEAD: f64 = 64.0;
const PANEL: f64 = 176.0;
const EXCLUDED: f64 = 46.0;
const FOOT: f64 = 58.0;

const STYLE: &str = "\
.bg{fill:#ffffff}.t{fill:#1f2328}.m{fill:#59636e}.raw{fill:#8c959f}.prot{fill:#0969da}.pt{fill:#0969da;fill-opacity:.55}\
.ci{stroke:#1f2328;stroke-width:2}.est{fill:#1f2328}.zero{stroke:#59636e;stroke-dasharray:4 3}.ax{stroke:#d1d9e0}\
.bad{fill:#bc4c00}text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;font-size:13px}\
.h{font-size:18px;font-weight:600}.b{font-weight:600}.s{font-size:11px}\
@media(prefers-color-scheme:dark){.bg{fill:#0d1117}.t{fill:#e6edf3}.m{fill:#9198a1}.raw{fill:#6e7681}.prot{fill:#4493f8}\
.pt{fill:#4493f8}.ci{stroke:#e6edf3}.est{fill:#e6edf3}.zero{stroke:#9198a1}.ax{stroke:#30363d}.bad{fill:#f0883e}}";

/// The picture. Rows that do not count are named with their reason and have no figures.
pub fn render_svg(rows: &[Row]) -> String {
    let height: f64 = HEAD + FOOT + rows.iter().map(|r| if r.is_valid() { PANEL } else { EXCLUDED }).sum::<f64>();
    let mut svg = Svg(String::new());
    let _ = writeln!(
        svg.0,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">"#
    );
    let _ = writeln!(svg.0, "<title>What protection costs</title><style>{STYLE}</style>");
    let _ = writeln!(svg.0, r#"<rect class="bg" width="{WIDTH}" height="{height}"/>"#);
    svg.text(24.0, 32.0, "t h", "start", "What protection costs");
    svg.text(24.0, 52.0, "m", "start", "steady-state training rate, raw against protected; a longer bar is faster");
    let scale = Scale::of(rows);
    let mut top = HEAD;
    for (i, row) in rows.iter().enumerate() {
        match row.outcome() {
            Outcome::Counted(figures) => {
                panel(&mut svg, top, i.saturating_add(1), row, figures, scale);
                top += PANEL;
            }
            Outcome::Excluded { reasons, .. } => {
                let what =
                    format!("[{}] {} {}: does not count", i.saturating_add(1), row.facts().workload, row.facts().order);
                let why: Vec<_> = reasons.iter().map(|r| r.code()).collect();
                svg.text(24.0, top + 20.0, "bad b", "start", &what);
                svg.text(24.0, top + 37.0, "m", "start", &clip(&why.join(", "), 110));
                top += EXCLUDED;
            }
        }
    }
    foot(&mut svg, top, rows);
    svg.0.push_str("</svg>\n");
    svg.0
}

fn panel(svg: &mut Svg, top: f64, number: usize, row: &Row, figures: &Figures, scale: Scale) {
    let f = row.facts();
    let place = f.gpu.as_ref().map_or_else(|| f.device.to_string(), |g| g.model.to_string());
    let title = format!("[{number}] {}, {}", f.workload, place);
    svg.text(24.0, top + 22.0, "t b", "start", &clip(&title, 64));
    let pairs = if figures.pairs.len() == 1 { "1 pair".to_owned() } else { format!("{} pairs", figures.pairs.len()) };
    let run = format!("{}, {pairs} of {} s, {}", f.order, short(f.duration_sec.value()), row.status());
    svg.text(WIDTH - 24.0, top + 22.0, "m", "end", &run);

    let fastest = figures.raw_rate.value().max(figures.protected_rate.value());
    for (name, class, rate, y) in
        [("raw", "raw", figures.raw_rate, top + 34.0), ("protected", "prot", figures.protected_rate, top + 54.0)]
    {
        let length = (RIGHT - LEFT) * rate.value() / fastest;
        svg.text(LEFT - 10.0, y + 12.0, "t", "end", name);
        let _ = writeln!(svg.0, r#"<rect class="{class}" x="{LEFT}" y="{y}" width="{length:.1}" height="15" rx="2"/>"#);
        svg.text(RIGHT + 10.0, y + 12.0, "t", "start", &format!("{} {}s/s", short(rate.value()), f.unit));
    }

    let axis = top + 132.0;
    let _ = writeln!(svg.0, r#"<line class="ax" x1="{LEFT}" x2="{RIGHT}" y1="{axis}" y2="{axis}"/>"#);
    for tick in scale.ticks() {
        let (x, low) = (scale.x(tick), axis + 5.0);
        let _ = writeln!(svg.0, r#"<line class="ax" x1="{x:.1}" x2="{x:.1}" y1="{axis}" y2="{low}"/>"#);
        svg.text(x, axis + 18.0, "m s", "middle", &format!("{} %", number_of(tick)));
    }
    let (zero, line) = (scale.x(0.0), top + 80.0);
    let _ = writeln!(svg.0, r#"<line class="zero" x1="{zero:.1}" x2="{zero:.1}" y1="{line}" y2="{axis}"/>"#);
    let (points, interval) = (top + 94.0, top + 116.0);
    svg.text(LEFT - 10.0, points + 4.0, "m", "end", "each pair");
    for (raw, protected) in &figures.pairs {
        let x = scale.x(overhead(raw.value(), protected.value()));
        let _ = writeln!(svg.0, r#"<circle class="pt" cx="{x:.1}" cy="{points}" r="5"/>"#);
    }
    svg.text(LEFT - 10.0, interval + 4.0, "m", "end", "overhead, 95 %");
    if let Some((low, high)) = figures.interval_pct {
        let (a, b) = (scale.x(low.value()), scale.x(high.value()));
        let (y1, y2) = (interval - 5.0, interval + 5.0);
        let within = figures.method == IntervalMethod::MovingBlockWithinRun;
        let dash = if within { r#" stroke-dasharray="3 3""# } else { "" };
        let _ = writeln!(
            svg.0,
            r#"<path class="ci"{dash} fill="none" d="M{a:.1} {y1}V{y2}M{a:.1} {interval}H{b:.1}M{b:.1} {y1}V{y2}"/>"#
        );
    }
    let x = scale.x(figures.overhead_pct.value());
    let _ = writeln!(svg.0, r#"<circle class="est" cx="{x:.1}" cy="{interval}" r="4.5"/>"#);
    svg.text(RIGHT + 10.0, points + 8.0, "t b", "start", &overhead_text(figures));
    for (line, y) in interval_text(figures).split(", ").zip([interval + 6.0, interval + 23.0]) {
        svg.text(RIGHT + 10.0, y, "m", "start", line);
    }
    let how = match figures.method {
        IntervalMethod::PairedBootstrap => "",
        IntervalMethod::MovingBlockWithinRun => {
            "dashed: within the run only, for want of pairs; it leaves out how segments differ"
        }
        IntervalMethod::None => "too little measured for an interval",
    };
    svg.text(LEFT, top + 168.0, "m s", "start", how);
}

fn foot(svg: &mut Svg, top: f64, rows: &[Row]) {
    let mut assurances: Vec<_> = rows.iter().filter(|r| r.is_valid()).filter_map(Row::assurance).collect();
    assurances.sort_unstable();
    assurances.dedup();
    let words: Vec<_> = assurances.iter().map(|a| a.as_str()).collect();
    let attested = match words.is_empty() {
        true => "No row counts.".to_owned(),
        false => format!("Attestation of the rows that count: verified, at assurance {}.", words.join(", ")),
    };
    svg.text(24.0, top + 22.0, "m s", "start", &attested);
    let open = "Left in the numbers: order, warm state and what else runs on the node. A figure at or below zero is noise, not a speed-up.";
    svg.text(24.0, top + 40.0, "m s", "start", open);
}

/// Percent to picture, one scale for all panels, so that they can be compared by eye.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

impl Scale {
    fn of(rows: &[Row]) -> Self {
        let figures = rows.iter().filter_map(Row::figures);
        let values = figures.flat_map(|f| {
            let pairs = f.pairs.iter().map(|(r, p)| overhead(r.value(), p.value()));
            let ends = f.interval_pct.into_iter().flat_map(|(l, h)| [l.value(), h.value()]);
            pairs.chain(ends).chain([f.overhead_pct.value()]).collect::<Vec<_>>()
        });
        // Never narrower than two percent: a microscope on noise would make it look like a finding.
        let (low, high) = values.fold((-1.0_f64, 1.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        let decade = 10f64.powf(((high - low) / 4.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|s| s * decade).into_iter().find(|s| (high - low) / s <= 6.0);
        let step = step.unwrap_or(10.0 * decade);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    fn x(self, pct: f64) -> f64 {
        LEFT + (pct - self.low) / (self.high - self.low) * (RIGHT - LEFT)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as u32;
        (0..=count.min(20)).map(move |i| self.low + f64::from(i) * self.step)
    }
}

fn number_of(tick: f64) -> String {
    let text = format!("{tick:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn clip(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

struct Svg(String);

impl Svg {
    fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let _ = write!(self.0, r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">"#);
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                c => self.0.push(c),
            }
        }
        self.0.push_str("</text>\n");
    }
}

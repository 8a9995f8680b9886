//! What a fine-tuning run came to, in a table and in words.

use std::path::Path;

use glasshouse_core::overhead::{render_svg, render_text};
use glasshouse_provider::run::{OverheadReport, RunReport};
use glasshouse_train::finetune::{EVAL_ARTIFACT, Results, Settings, merge_into};
use glasshouse_train::qwen::adapter::{AdapterFiles, CONFIG_FILE, WEIGHTS_FILE};

use crate::{Curves, charset, say};

type Failure = Box<dyn std::error::Error>;

/// Prints the table of a run that completed, and adds its last evaluation to the curves.
///
/// # Errors
/// An artifact that did not come home, or a file that cannot be written.
pub fn trained(report: &RunReport, settings: &Settings, curves: &mut Curves, out: &Path) -> Result<(), Failure> {
    let results: Results = serde_json::from_slice(&artifact(report, EVAL_ARTIFACT)?)?;
    artifact(report, WEIGHTS_FILE)?;
    if let Some(last) = results.evaluations.last() {
        curves.evaluated(last.step, last.loss).map_err(|e| format!("metrics cannot be written: {e}"))?;
    }
    let row = |name: &str, value: String| say(format_args!("  {name:<20} {value}"));
    say("");
    row("steps", format!("{} of {}", results.steps, settings.steps));
    row("trained parameters", format!("{} over {} frozen", results.trainable_parameters, results.base_parameters));
    if let Some((steps, seconds)) = report.trained.filter(|(steps, _)| *steps > 0) {
        let per_step = results.tokens as f64 / results.steps.max(1) as f64;
        let rate = steps as f64 / seconds.max(1e-9);
        row("speed", format!("{rate:.2} steps/s, {:.0} tokens/s over {seconds:.1} s", rate * per_step));
    }
    row("loss", report.loss.map_or("unknown".to_owned(), |loss| format!("{loss:.4} in the last step that was read")));
    if let (Some(before), Some(after)) = (results.evaluations.first(), results.evaluations.last()) {
        row("held-out loss", format!("{:.4} before, {:.4} after", before.loss, after.loss));
    }
    for artifact in report.artifacts.iter().filter(|artifact| artifact.name.starts_with("adapter_")) {
        row("SHA-256", format!("{}  {}", artifact.sha256, artifact.name));
    }
    match &report.receipt {
        Some(receipt) => row("zeroized", format!("{} region(s) in {} ms", receipt.regions.len(), receipt.millis)),
        None => row("zeroized", "no: a raw run has nothing sealed".to_owned()),
    }
    row("allocation", report.cleanup.as_ref().map_or("unknown".to_owned(), |proof| format!("end {:?}", proof.outcome)));
    let names = report.artifacts.iter().map(|artifact| artifact.name.as_str());
    let own = curves.paths().iter().filter_map(|path| path.file_name()?.to_str());
    let all: Vec<&str> = names.chain(own).chain(["evidence.json", "gate.pub"]).collect();
    say(format_args!("\nWritten to {}: {}", out.display(), all.join(", ")));
    say(format_args!(
        "Verify: cargo run --release --example verify_evidence -- {} --trust {}",
        report.record.display(),
        report.gate_key
    ));
    Ok(())
}

/// Writes the model of `folder` with the adapter of a run added into its weights.
///
/// # Errors
/// Files that cannot be read or written.
pub fn merge(folder: &Path, report: &RunReport, into: &Path) -> Result<(), Failure> {
    let adapter = AdapterFiles { config: artifact(report, CONFIG_FILE)?, weights: artifact(report, WEIGHTS_FILE)? };
    merge_into(folder, &adapter, into)?;
    say(format_args!("Merged into {}", into.display()));
    Ok(())
}

/// Prints a comparison. Whether its row counts.
///
/// # Errors
/// A picture that cannot be written.
pub fn compared(report: &OverheadReport, out: &Path) -> Result<bool, Failure> {
    let rows = std::slice::from_ref(&report.row);
    let picture = out.join("overhead.svg");
    std::fs::write(&picture, render_svg(rows)).map_err(|e| format!("{} cannot be written: {e}", picture.display()))?;
    say(render_text(rows, charset()));
    let steps: Vec<String> = report.samples.iter().map(|sample| sample.units.to_string()).collect();
    say(format_args!("Steps of each segment: {}", steps.join(", ")));
    say(format_args!("\nWritten to {}: overhead.json, overhead.svg, evidence.json, gate.pub", out.display()));
    Ok(report.row.is_valid())
}

fn artifact(report: &RunReport, name: &str) -> Result<Vec<u8>, Failure> {
    let found = report.artifacts.iter().find(|artifact| artifact.name == name);
    Ok(found.ok_or_else(|| format!("{name} did not come home"))?.read()?)
}

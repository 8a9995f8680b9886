//! No cleartext of a raw segment's inputs or artifacts is ever in a file, nor on the way to the allocation.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glasshouse_core::channel::Phase;
use glasshouse_core::claims::Assurance;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::overhead::Order;
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_provider::LocalProvider;
use glasshouse_provider::run::{OverheadRun, RunEvent};

use crate::support::{Listener, Test, block_on, container};

pub(crate) const TESTS: &[Test] = &[("a_raw_segment_writes_no_cleartext", a_raw_segment_writes_no_cleartext)];

#[derive(Default)]
struct Seen {
    files: usize,
    packages: usize,
    artifacts: usize,
    cleartext: Vec<PathBuf>,
}

/// Looks into every file below a folder.
fn search(folder: &Path, canary: &[u8], seen: &mut Seen) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            search(&path, canary, seen);
        } else if let Ok(bytes) = std::fs::read(&path) {
            seen.files += 1;
            seen.packages += usize::from(path.extension().is_some_and(|ending| ending == "package"));
            seen.artifacts += usize::from(path.extension().is_some_and(|ending| ending == "artifact"));
            if bytes.windows(canary.len()).any(|window| window == canary) {
                seen.cleartext.push(path);
            }
        }
    }
}

fn a_raw_segment_writes_no_cleartext() {
    let folder = tempfile::tempdir().unwrap();
    let canary = Fixed::<16>::random().unwrap().to_string();
    let data = canary.repeat(4000);
    let path = folder.path().join("job.package");
    let sealed = PackageBuilder::new("counting")
        .entry("data", Source::Slice(data.as_bytes()))
        // The workload hands this out as an artifact's content.
        .entry("trouble", Source::Slice(format!("canary {canary}").as_bytes()))
        .minimum_assurance(Assurance::SelfReported)
        .seal_to_file(&path)
        .unwrap();
    let (seen, out) = (Arc::new(Mutex::new(Seen::default())), folder.path().join("out"));
    let (look, places) = (Arc::clone(&seen), [std::env::temp_dir(), out.clone()]);
    let report = block_on(
        OverheadRun::builder()
            .provider(LocalProvider::new().container(container()))
            .verifier(Listener { refuse: false })
            .package(path, sealed)
            .out_dir(&out)
            .progress_every(Duration::from_millis(100))
            .order(Order::RawFirst)
            .repeats(1)
            .export(true)
            .duration(Duration::from_millis(200))
            .on_event(move |event| {
                let now = matches!(
                    event,
                    RunEvent::Progress { .. }
                        | RunEvent::Phase { phase: Phase::Opened | Phase::Exporting, .. }
                        | RunEvent::SegmentEnded { .. }
                        | RunEvent::Ending
                );
                let seen = &mut *look.lock().unwrap();
                let agents = std::fs::read_dir(&places[0]).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
                let is_agents = |path: &PathBuf| path.to_string_lossy().contains("glasshouse-agent-");
                for place in agents.filter(is_agents).chain([places[1].clone()]).filter(|_| now) {
                    search(&place, canary.as_bytes(), seen);
                }
            })
            .run(),
    );
    assert!(report.unwrap().row.is_valid());
    let seen = seen.lock().unwrap();
    assert!(seen.packages > 2 && seen.artifacts > 0, "{} files, too few to mean anything", seen.files);
    assert!(seen.cleartext.is_empty(), "{:?}", seen.cleartext);
}

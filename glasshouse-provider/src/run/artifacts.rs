//! Where artifacts go at the owner. Their names come from the allocation, so each is checked before it is a path.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::path::{Path, PathBuf};

use glasshouse_core::fixed::Digest32;
use glasshouse_core::refusal::one_line;

use super::RunError;
use super::files::{Readers, write_whole};
use super::result::TrainedArtifact;
use crate::artifact_name;

/// As many as an agent keeps.
const MAX_ARTIFACTS: usize = 256;

/// The output folder, as artifacts may use it.
pub(super) struct ArtifactFolder {
    folder: PathBuf,
    /// Files of the owner's that may lie there too, under names that only the owner knows.
    taken: Vec<String>,
    /// Bytes of all artifacts together.
    limit: u64,
}

impl ArtifactFolder {
    /// A folder in which `taken` are the owner's own files, for at most `limit` bytes.
    pub(super) fn new<'a>(folder: &Path, taken: impl IntoIterator<Item = &'a Path>, limit: u64) -> Self {
        let names = taken.into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Self { folder: folder.to_owned(), taken: names.collect(), limit }
    }

    /// Refuses a name that is no file's, the owner's own file's, or that of an artifact that is there already.
    pub(super) fn admit(&self, name: &str, so_far: &[TrainedArtifact]) -> Result<(), RunError> {
        let wrong = |why: &str| Err(RunError::Artifact { name: name.to_owned(), why: why.to_owned() });
        if let Err(why) = artifact_name::check(name) {
            return wrong(why);
        }
        // Letter case is no difference on some file systems.
        if self.taken.iter().any(|taken| taken.eq_ignore_ascii_case(name)) {
            return wrong("its name is that of a file of the owner's");
        }
        if so_far.iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
            return wrong("there is another one of this name");
        }
        Ok(())
    }

    /// Refuses artifacts that are too many, or too large together, before the first byte of them is asked for.
    pub(super) fn expect<'a>(&self, announced: impl Iterator<Item = (&'a str, u64)>) -> Result<(), RunError> {
        let (mut count, mut total) = (0_usize, 0_u64);
        for (name, bytes) in announced {
            (count, total) = (count.saturating_add(1), total.saturating_add(bytes));
            let why = if count > MAX_ARTIFACTS {
                format!("it is one of more than {MAX_ARTIFACTS}")
            } else if total > self.limit {
                format!("with it, artifacts are {total} bytes, and this run takes {}; see `artifact_limit`", self.limit)
            } else {
                continue;
            };
            return Err(RunError::Artifact { name: one_line(name), why });
        }
        Ok(())
    }

    /// Makes an artifact durable, and lets go of its bytes: checkpoints of hours do not stay in the owner's memory.
    pub(super) fn keep(&self, name: &str, sha256: Digest32, bytes: &[u8]) -> Result<TrainedArtifact, RunError> {
        let path = write_whole(&self.folder, name, bytes, Readers::Owner)?;
        let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(TrainedArtifact { name: name.to_owned(), sha256, bytes, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::fixed::Fixed;

    #[test]
    fn names_of_a_hostile_allocation_reach_no_other_file() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("out");
        let folder = ArtifactFolder::new(&out, [Path::new("/elsewhere/job.package"), &out.join("my.journal")], 0);
        let (name, path) = ("adapter.bin".to_owned(), out.join("adapter.bin"));
        let there = TrainedArtifact { name, sha256: Fixed([0; 32]), bytes: 0, path };
        folder.admit("sum.bin", std::slice::from_ref(&there)).unwrap();
        let escapes =
            ["..", ".", "", "../gate.key", "/etc/passwd", "a/b", "a\\b", ".bashrc", "a\0b", "a\nb", "C:x", "ü"];
        let reserved =
            ["evidence.json", "EVIDENCE.json", "overhead.json", "gate", "gate.pub", "gate.key", "result.key"];
        let others = ["gate.store", "journal.jsonl", "recovered.json", "job.package", "my.journal", "Adapter.bin"];
        for bad in escapes.iter().chain(&reserved).chain(&others) {
            let error = folder.admit(bad, std::slice::from_ref(&there)).unwrap_err();
            assert!(matches!(error, RunError::Artifact { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn no_more_is_taken_than_was_allowed() {
        let folder = ArtifactFolder::new(Path::new("/out"), [], 100);
        folder.expect([("a", 40), ("b", 60)].into_iter()).unwrap();
        folder.expect((0..MAX_ARTIFACTS).map(|_| ("a", 0))).unwrap();
        let refused = [
            folder.expect([("a", 40), ("b", 61)].into_iter()),
            folder.expect([("a", u64::MAX), ("b", 1)].into_iter()),
            folder.expect((0..=MAX_ARTIFACTS).map(|_| ("a", 0))),
        ];
        for refused in refused {
            assert!(matches!(refused, Err(RunError::Artifact { .. })));
        }
    }
}

//! Artifacts as a segment hands them out: sealed in a protected run, and only ever relayed from here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::wire::ArtifactEntry;

const MAX_ARTIFACTS: usize = 256;

pub(super) struct Artifacts {
    folder: PathBuf,
    /// By name; the file is named by number, so that no name of a segment's reaches the file system.
    by_name: BTreeMap<String, Artifact>,
}

struct Artifact {
    path: PathBuf,
    size: u64,
    complete: bool,
}

impl Artifacts {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, by_name: BTreeMap::new() }
    }

    /// Appends a piece to the artifact of this name.
    pub(super) fn append(&mut self, name: &str, piece: &[u8], last: bool) -> io::Result<()> {
        let count = self.by_name.len();
        if !self.by_name.contains_key(name) {
            if count >= MAX_ARTIFACTS {
                return Err(io::Error::other(format!("more than {MAX_ARTIFACTS} of them")));
            }
            let path = self.folder.join(format!("{count}.artifact"));
            self.by_name.insert(name.to_owned(), Artifact { path, size: 0, complete: false });
        }
        let Some(artifact) = self.by_name.get_mut(name).filter(|artifact| !artifact.complete) else {
            return Err(io::Error::other("it was complete before"));
        };
        File::options().create(true).append(true).open(&artifact.path)?.write_all(piece)?;
        artifact.size = artifact.size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        artifact.complete = last;
        Ok(())
    }

    /// Those that are complete.
    pub(super) fn entries(&self) -> Vec<ArtifactEntry> {
        let complete = self.by_name.iter().filter(|(_, artifact)| artifact.complete);
        complete.map(|(name, artifact)| ArtifactEntry { name: name.clone(), size: artifact.size }).collect()
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.by_name.get(name).filter(|artifact| artifact.complete).map(|artifact| artifact.path.clone())
    }
}

/// Up to `limit` bytes from `offset`; none past the end.
pub(super) fn read_range(path: &Path, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_and_names_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let mut artifacts = Artifacts::new(folder.path().to_owned());
        artifacts.append("../evil", b"ab", false).unwrap();
        assert!(artifacts.entries().is_empty());
        assert!(artifacts.path("../evil").is_none());
        artifacts.append("../evil", b"cd", true).unwrap();
        assert_eq!(artifacts.entries(), [ArtifactEntry { name: "../evil".into(), size: 4 }]);
        let path = artifacts.path("../evil").unwrap();
        assert!(path.starts_with(folder.path()));
        assert_eq!(read_range(&path, 1, 2).unwrap(), b"bc");
        assert_eq!(read_range(&path, 9, 2).unwrap(), b"");
        assert!(artifacts.append("../evil", b"e", true).is_err());
    }
}

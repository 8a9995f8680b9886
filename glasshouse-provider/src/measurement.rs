//! `measurement.json`, as the image build writes it: what the gate expects of the executable and of its image.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::path::{Path, PathBuf};

use glasshouse_core::fixed::{Digest32, Fixed};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Measurements of one build. `scripts/measurement.sh` writes the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// Name of the executable, for people.
    pub executable: String,
    /// SHA-256 of the executable: what the runtime must measure of itself.
    pub sha256: Digest32,
    /// Image reference with its digest, once it was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Digest of the image manifest, once it was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<Digest32>,
}

/// Why a measurement could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasurementError {
    /// The file cannot be read.
    #[error("cannot read {}: {why}; the image build writes it (container/README.md)", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        why: std::io::Error,
    },
    /// The file is something else.
    #[error("{} is no measurement.json: {why}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Measurement {
    /// Measures the executable that runs here: what the runtime measures of itself where a provider starts this very file.
    ///
    /// # Errors
    /// [`MeasurementError::Unreadable`].
    pub fn of_this_executable() -> Result<Self, MeasurementError> {
        let path = PathBuf::from("/proc/self/exe");
        let bytes = std::fs::read(&path).map_err(|why| MeasurementError::Unreadable { path, why })?;
        let name = std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            executable: name.unwrap_or_default(),
            sha256: Fixed(Sha256::digest(&bytes).into()),
            image: None,
            image_digest: None,
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`MeasurementError`]; an image without its digest, or with another one, is malformed.
    pub fn read(path: &Path) -> Result<Self, MeasurementError> {
        let why = |why| MeasurementError::Unreadable { path: path.to_owned(), why };
        let malformed = |why: String| MeasurementError::Malformed { path: path.to_owned(), why };
        let read: Self =
            serde_json::from_slice(&std::fs::read(path).map_err(why)?).map_err(|e| malformed(e.to_string()))?;
        match (&read.image, read.image_digest) {
            (None, None) => Ok(read),
            (Some(image), Some(digest)) if image.ends_with(&format!("@sha256:{digest}")) => Ok(read),
            _ => Err(malformed("its image and its image_digest do not belong together".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn script(arguments: &[&str]) -> std::process::Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/measurement.sh");
        Command::new(script).args(arguments).output().unwrap()
    }

    #[test]
    fn what_the_script_writes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (program, file) = (folder.path().join("program"), folder.path().join("measurement.json"));
        std::fs::write(&program, "abc").unwrap();
        let written = script(&["measure", program.to_str().unwrap()]);
        std::fs::write(&file, &written.stdout).unwrap();
        let read = Measurement::read(&file).unwrap();
        // FIPS 180-2, appendix B.1.
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((read.executable.as_str(), read.sha256.to_string().as_str(), read.image), ("program", sum, None));
        let image = format!("host:5000/me/app:1@sha256:{sum}");
        assert!(script(&["pin", file.to_str().unwrap(), &image]).status.success());
        let read = Measurement::read(&file).unwrap();
        assert_eq!((read.image, read.image_digest.map(|digest| digest.to_string())), (Some(image), Some(sum.into())));
        for bad in ["app:1", "app@sha256:12", &format!("a b@sha256:{sum}")] {
            assert!(!script(&["pin", file.to_str().unwrap(), bad]).status.success(), "{bad}");
        }
    }

    #[test]
    fn halves_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sum = "11".repeat(32);
        for text in [
            "{}".to_owned(),
            format!("{{\"executable\":\"a\",\"sha256\":\"{sum}\",\"image\":\"x\"}}"),
            format!("{{\"executable\":\"a\",\"sha256\":\"{sum}\",\"image\":\"x\",\"image_digest\":\"{sum}\"}}"),
            format!("{{\"executable\":\"a\",\"sha256\":\"{sum}\",\"other\":1}}"),
        ] {
            std::fs::write(file.path(), &text).unwrap();
            assert!(matches!(Measurement::read(file.path()), Err(MeasurementError::Malformed { .. })), "{text}");
        }
    }
}

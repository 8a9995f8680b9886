use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use glasshouse_core::fixed::Fixed;

use super::tsm::{TsmEntry, TsmInterface};

/// Quotes are some 8 KiB and certificate tables 16; the kernel's own limit is 32 for one and as much for the other.
const MAX_BLOB: u64 = 128 * 1024;

/// The kernel's report interface (Linux 6.7, `Documentation/ABI/testing/configfs-tsm-report`): each folder that is made
/// in it is a request, and the kernel puts the request's attributes into it as files.
#[derive(Clone, Debug)]
pub struct ConfigFs {
    root: PathBuf,
}

impl ConfigFs {
    /// Where Linux has it.
    pub fn system() -> Self {
        Self::at("/sys/kernel/config/tsm/report")
    }

    /// Somewhere else.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes a request's folder; dropping the entry takes it away.
    ///
    /// # Errors
    /// As `mkdir(2)`.
    pub fn entry(&self) -> io::Result<ConfigFsEntry> {
        // Not the process's number: in a container a killed process's successor often has the same.
        let name = Fixed::<8>::random().map_err(|_| io::Error::other("the operating system gives no randomness"))?;
        let path = self.root.join(format!("glasshouse-{name}"));
        DirBuilder::new().create(&path)?;
        Ok(ConfigFsEntry { path })
    }
}

impl TsmInterface for ConfigFs {
    fn is_there(&self) -> bool {
        self.root.is_dir()
    }

    fn open(&self) -> io::Result<Box<dyn TsmEntry>> {
        Ok(Box::new(self.entry()?))
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

/// One request.
#[derive(Debug)]
pub struct ConfigFsEntry {
    path: PathBuf,
}

impl ConfigFsEntry {
    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl TsmEntry for ConfigFsEntry {
    fn read(&self, attribute: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path.join(attribute)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BLOB).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn write(&mut self, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        // No creation: the kernel has made every attribute that there is. One write: attributes are set whole.
        let mut file = File::options().write(true).open(self.path.join(attribute))?;
        if file.write(bytes)? == bytes.len() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::WriteZero, "the attribute took a part of the bytes only"))
    }
}

impl Drop for ConfigFsEntry {
    fn drop(&mut self) {
        // Left behind it costs the kernel some memory until the guest ends; there is nobody to tell.
        let _ = fs::remove_dir(&self.path);
    }
}

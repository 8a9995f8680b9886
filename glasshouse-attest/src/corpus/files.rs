use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Reads a regular file of at most 16 MiB: a corpus names its files, and what never ends or never begins (`/dev/zero`, a
/// pipe) must cost no more than its case.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let regular = |metadata: fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file")),
    };
    // Before, as opening some devices does something; after, as it may be another file by then.
    regular(fs::metadata(path)?)?;
    // A pipe is opened without waiting for its other end; files know no such waiting.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    regular(file.metadata()?)?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes)?;
    match u64::try_from(read) {
        Ok(length) if length <= MAX_FILE => Ok(bytes),
        _ => Err(io::Error::other("it is larger than 16 MiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_or_never_begins() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, large, good) = (folder.path().join("pipe"), folder.path().join("large"), folder.path().join("good"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        fs::File::create(&large).unwrap().set_len(MAX_FILE + 1).unwrap();
        fs::write(&good, [7]).unwrap();
        for none in [Path::new("/dev/zero"), folder.path(), pipe.as_path()] {
            assert!(read(none).unwrap_err().to_string().contains("no regular file"), "{}", none.display());
        }
        assert!(read(&large).unwrap_err().to_string().contains("16 MiB"));
        assert_eq!(read(&good).unwrap(), [7]);
    }
}

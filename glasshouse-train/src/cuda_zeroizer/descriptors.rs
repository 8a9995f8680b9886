//! Letting go of a device for good: what the end of this process would do to its open files of the driver's, now.
//!
//! A driver gives memory back when its context ends, and when the last of a process's files of it is closed. After an error
//! that lost the context, the first does not hold for memory out of pools (measured on an H200, notes/zeroization.md:
//! everything that candle allocated stays), and the second does. So each descriptor of the driver's becomes one of
//! `/dev/null`, and each mapping of its files ordinary memory. Nothing is closed or unmapped: numbers and addresses that
//! libraries and threads of the driver's still use cannot become somebody else's.
#![allow(unsafe_code)] // descriptors and mappings that another library made, by their numbers and addresses

use std::ffi::c_void;
use std::fs::{self, File};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::io::DupFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// What NVIDIA's driver calls its files: `/dev/nvidia0`, `/dev/nvidiactl`, `/dev/nvidia-uvm` and others.
#[cfg(feature = "cuda")]
pub(super) const NVIDIA: &str = "/dev/nvidia";

/// What was let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LetGo {
    pub(super) descriptors: usize,
    pub(super) mappings: usize,
}

/// Lets go of every file of this process whose path begins so. No library that uses them works any more.
///
/// # Errors
/// What the operating system says, all of it. Whatever else could be let go of, was.
pub(super) fn let_go(prefix: &str) -> Result<LetGo, String> {
    let_go_by(prefix, replace_mapping)
}

fn let_go_by(prefix: &str, replace: impl FnMut(usize, usize) -> io::Result<()>) -> Result<LetGo, String> {
    let mut failures = Vec::new();
    // Mappings first: they keep a file open that no descriptor refers to any more.
    let mappings = mappings(prefix, replace, &mut failures).unwrap_or_else(|error| {
        failures.push(error);
        0
    });
    let descriptors = descriptors(prefix, &mut failures).unwrap_or_else(|error| {
        failures.push(error);
        0
    });
    match failures.is_empty() {
        true => Ok(LetGo { descriptors, mappings }),
        false => Err(failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

fn mappings(
    prefix: &str,
    mut replace: impl FnMut(usize, usize) -> io::Result<()>,
    failures: &mut Vec<io::Error>,
) -> io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut count = 0_usize;
    for (start, length) in maps.lines().filter_map(|line| mapping(line, prefix)) {
        match replace(start, length) {
            Ok(()) => count = count.saturating_add(1),
            Err(error) => failures.push(error),
        }
    }
    Ok(count)
}

fn descriptors(prefix: &str, failures: &mut Vec<io::Error>) -> io::Result<usize> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let mut count = 0_usize;
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<i32>().ok());
        // One that is gone by now is not ours: the listing's own, for one.
        let target = fs::read_link(&path).unwrap_or_default();
        if let (Some(number), true) = (number, target.to_str().is_some_and(|target| target.starts_with(prefix))) {
            match replace_descriptor(number, &null) {
                Ok(()) => count = count.saturating_add(1),
                Err(error) => failures.push(error),
            }
        }
    }
    Ok(count)
}

/// Where a line of `/proc/self/maps` (proc_pid_maps(5)) says that a file lies whose path begins so.
fn mapping(line: &str, prefix: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    fields.nth(4).filter(|path| path.starts_with(prefix))?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

fn replace_mapping(start: usize, length: usize) -> io::Result<()> {
    let (place, protection) = (start as *mut c_void, ProtFlags::READ | ProtFlags::WRITE);
    // A driver maps more than the machine has: only what is touched afterwards is to count.
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: a mapping of the driver's files, which this program's own code has no reference into: what the driver's
    // library still reads or writes there is ordinary memory then. It is replaced at once, never unmapped.
    unsafe { rustix::mm::mmap_anonymous(place, length, protection, flags) }?;
    Ok(())
}

fn replace_descriptor(number: i32, by: &File) -> io::Result<()> {
    // SAFETY: open, as `/proc/self/fd` just said, and the driver's library's: it is borrowed for this call and not closed.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(rustix::io::dup3(by, &mut place, DupFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn files_of_that_name_are_let_go_of_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let named = |name: &str| folder.path().join(name);
        let bytes = vec![7_u8; 1 << 16];
        let opened = ["gpu0", "gpu-uvm", "other"].map(|name| {
            fs::write(named(name), &bytes).unwrap();
            File::open(named(name)).unwrap()
        });
        // SAFETY: files of this test alone, which nothing changes.
        let mapped = opened.each_ref().map(|file| unsafe { memmap2::MmapOptions::new().map_copy(file) }.unwrap());
        let [gpu, uvm, mut other] = opened;
        drop(uvm); // its mapping stays
        let gone = let_go(named("gpu").to_str().unwrap()).unwrap();
        assert_eq!(gone, LetGo { descriptors: 1, mappings: 2 });
        let mut read = Vec::new();
        (&gpu).read_to_end(&mut read).unwrap();
        assert!(read.is_empty(), "/dev/null");
        let firsts = mapped.each_ref().map(|map| (map[0], map[map.len() - 1]));
        assert_eq!(firsts, [(0, 0), (0, 0), (7, 7)]);
        other.rewind().unwrap();
        assert_eq!(other.read_to_end(&mut read).unwrap(), bytes.len());
        let now = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!now.contains(named("gpu").to_str().unwrap()));
        assert_eq!(let_go(named("gpu").to_str().unwrap()).unwrap(), LetGo { descriptors: 0, mappings: 0 });
    }

    #[test]
    fn what_cannot_be_let_go_of_keeps_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("gpu");
        let files = ["0", "1"].map(|end| {
            let name = folder.path().join(format!("gpu{end}"));
            fs::write(&name, [7_u8; 4096]).unwrap();
            File::open(name).unwrap()
        });
        // SAFETY: files of this test alone, which nothing changes.
        let mapped = files.each_ref().map(|file| unsafe { memmap2::MmapOptions::new().map_copy(file) }.unwrap());
        let mut asked = 0;
        let first_fails = |start, length| {
            asked += 1;
            if asked == 1 { Err(io::Error::other("told to fail")) } else { replace_mapping(start, length) }
        };
        let error = let_go_by(prefix.to_str().unwrap(), first_fails).unwrap_err();
        assert_eq!(error, "told to fail");
        assert_eq!(mapped.iter().filter(|map| map[0] == 0).count(), 1, "the other one");
        for mut file in files {
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert!(read.is_empty(), "/dev/null");
        }
    }

    #[test]
    fn lines_of_maps_are_read() {
        let line = "7f0000000000-7f0000200000 rw-s 00000000 00:06 371                        /dev/nvidia-uvm";
        assert_eq!(mapping(line, "/dev/nvidia"), Some((0x7f00_0000_0000, 0x20_0000)));
        for line in
            ["", "7f-6f rw-s 0 0 0 /dev/nvidia0", "x-y rw-s 0 0 0 /dev/nvidia0", "1-2 rw-p 0 0 0", "1-2 rw-s 0 0 0 /x"]
        {
            assert_eq!(mapping(line, "/dev/nvidia"), None, "{line}");
        }
    }
}

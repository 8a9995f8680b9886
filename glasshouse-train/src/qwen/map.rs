#![allow(unsafe_code)] // memory maps; nothing outside this file makes one

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// Maps a file for reading.
///
/// Should another process cut the file while it is mapped, reading what is gone ends this process by SIGBUS: model
/// directories are not written while a run reads them.
pub(super) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only, and its bytes are only ever copied out as numbers, of which every
    // pattern is valid; that nobody changes the file meanwhile is the documented condition above.
    unsafe { Mmap::map(file) }
}

//! Looking for the canary: in this process's own memory, through `/proc/PID/mem`, and in a core.
#![allow(unsafe_code)] // reads this process's mappings where they are

use std::fs::File;
use std::io::{BufRead as _, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The canary, each byte complemented, so that no copy of this is what a scan finds.
#[derive(Clone, Copy)]
pub(crate) struct Hidden(pub(crate) [u8; 64]);

/// How often it was found: as it is, as f32 values, as token ids; and backwards after its first byte, as large blocks have it,
/// so that they are told from others.
pub(crate) type Found = [u64; 4];

pub(crate) const ENCODINGS: [&str; 4] = ["raw", "f32", "token ids", "in large blocks"];
/// Of these, the large blocks'.
pub(crate) const LARGE: usize = 3;
/// The longest encoding: 64 values of four bytes.
const LONGEST: usize = 256;
const PAGE: usize = 4096;

/// Finds that begin in the first `begins` bytes.
pub(crate) fn count(bytes: &[u8], canary: &Hidden, begins: usize) -> Found {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    let mut found = [0; 4];
    for page in (0..begins).step_by(PAGE) {
        let end = begins.min(page + PAGE);
        // Most of a process is zeros, and the canary's own first bytes are none.
        if bytes[page..end] == ZEROS[..end - page] {
            continue;
        }
        let first = !canary.0[0];
        // Raw and as a token id it begins with its own first byte; as f32 with two zeros, and then this one.
        for at in places_of(&bytes[page..end], first) {
            found[0] += u64::from(is_at(bytes, page + at, canary, 0));
            found[2] += u64::from(is_at(bytes, page + at, canary, 2));
            found[LARGE] += u64::from(is_at(bytes, page + at, canary, LARGE));
        }
        let third = f32::from(first).to_le_bytes()[2];
        let until = bytes.len().min(end + 2);
        for at in places_of(&bytes[(page + 2).min(until)..until], third) {
            found[1] += u64::from(is_at(bytes, page + at, canary, 1));
        }
    }
    found
}

/// Where a byte is. The standard library looks at many bytes at a time for it, in a build without optimization too.
fn places_of(bytes: &[u8], byte: u8) -> impl Iterator<Item = usize> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let skipped = rest.skip_until(byte).ok()?;
        let at = (bytes.len() - rest.len()).checked_sub(1)?;
        (skipped > 0 && bytes[at] == byte).then_some(at)
    })
}

fn is_at(bytes: &[u8], at: usize, canary: &Hidden, encoding: usize) -> bool {
    let values = canary.0.iter().map(|byte| !byte);
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match encoding {
        0 => bytes[at] == !canary.0[0] && values.enumerate().all(|(i, value)| bytes.get(at + i) == Some(&value)),
        1 => values.enumerate().all(|(i, value)| word(at + 4 * i) == Some(f32::from(value).to_bits())),
        LARGE => values.enumerate().all(|(i, value)| bytes.get(at + (64 - i) % 64) == Some(&value)),
        _ => values.enumerate().all(|(i, value)| word(at + 4 * i) == Some(u32::from(value))),
    }
}

fn add(sum: &mut Found, more: Found) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// Mappings that can be read and written: addresses, and whether the kernel itself cannot read them.
fn mappings(process: &str) -> Vec<(usize, usize, bool)> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        rest.starts_with("rw").then_some((address(from)?, address(to)?, rest.contains("secretmem")))
    };
    maps.lines().filter_map(parse).collect()
}

/// Reads this process where it is, secret memory and stacks included.
pub(crate) fn in_process(canary: &Hidden) -> Found {
    let mut sum = [0; 4];
    for (from, to, _) in mappings("self") {
        // SAFETY: a readable mapping that was there a moment ago. The other threads of the test wait meanwhile; what they
        // might write is only compared.
        let bytes = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(from), to - from) };
        add(&mut sum, count(bytes, canary, bytes.len()));
    }
    sum
}

/// Reads another process through the kernel, as root can.
pub(crate) fn through_proc(pid: u32, canary: &Hidden) -> Found {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut sum, mut window) = ([0; 4], vec![0; 1 << 20]);
    for (from, to, is_secret) in mappings(&pid.to_string()) {
        let mut at = from;
        while at < to {
            let length = window.len().min(to - at);
            if let Err(error) = memory.read_exact_at(&mut window[..length], at as u64) {
                // What is not read is not looked at, and only secret memory may be: the kernel cannot read it either.
                assert!(is_secret, "{from:x}-{to:x} of process {pid} cannot be read at {at:x}: {error}");
                break;
            }
            let begins = if length == to - at { length } else { length - LONGEST };
            add(&mut sum, count(&window[..length], canary, begins));
            at += begins;
        }
    }
    sum
}

/// Has gdb write a core and looks there. Otherwise says why there is none.
pub(crate) fn in_core(pid: u32, folder: &Path, canary: &Hidden) -> Result<Found, String> {
    let prefix = folder.join("core");
    let mut gcore = Command::new("gcore");
    gcore.arg("-o").arg(&prefix).arg(pid.to_string()).stdin(Stdio::null());
    let output = gcore.output().map_err(|error| format!("no gcore here (install gdb; {error})"))?;
    let path = folder.join(format!("core.{pid}"));
    if !output.status.success() || !path.exists() {
        return Err(format!("gcore wrote no core: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let (mut file, mut bytes) = (File::open(&path).unwrap(), Vec::new());
    file.read_to_end(&mut bytes).unwrap();
    std::fs::remove_file(path).unwrap();
    Ok(count(&bytes, canary, bytes.len()))
}

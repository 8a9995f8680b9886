//! The wall clock of this executable's processes, as a test sets it: each process on its own, forwards and backwards, while
//! it runs. Setting the machine's would set it for everybody; a namespace of its own has no wall clock.
#![allow(unsafe_code)] // a function of the C library's stands here under its own name

use std::ffi::{c_int, c_long};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::ClockId;

/// Names the file that holds by how much a process's wall clock is off: milliseconds, eight bytes, little-endian.
pub(super) const WALL: &str = "GLASSHOUSE_TEST_WALL";

/// Lets the wall clock of the processes that know this file be so far off.
pub(super) fn set(file: &Path, millis: i64) {
    let file = File::options().write(true).create(true).truncate(false).open(file).unwrap();
    file.write_all_at(&millis.to_le_bytes(), 0).unwrap();
}

/// Lets this process's own be so far off.
pub(crate) fn set_here(millis: i64) {
    HERE.store(millis, Relaxed);
}

/// The wall clock of the process that calls this is another one than the machine's, in the standard library's eyes as well, and
/// its other clocks are not. Otherwise storms with clocks that jump have none.
pub(super) fn it_moves() {
    let machine = || rustix::time::clock_gettime(ClockId::Realtime).tv_sec;
    let seen = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let (file, monotonic) = (off() / 1000, Instant::now());
    assert!((seen() - machine() - file).abs() <= 2, "off by {} s and not {file}", seen() - machine());
    // Where a file says by how much, this is not asked.
    if std::env::var_os(WALL).is_none() {
        for millis in [3_600_000, -3_600_000] {
            set_here(millis);
            assert!((seen() - machine() - millis / 1000).abs() <= 2, "off by {} s", seen() - machine());
        }
        set_here(0);
    }
    assert!(monotonic.elapsed() < Duration::from_secs(60));
}

static HERE: AtomicI64 = AtomicI64::new(0);

fn off() -> i64 {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os(WALL).and_then(|path| File::open(path).ok()));
    let mut bytes = [0; 8];
    match file.as_ref().map(|file| file.read_exact_at(&mut bytes, 0)) {
        Some(Ok(())) => i64::from_le_bytes(bytes),
        _ => HERE.load(Relaxed),
    }
}

/// `struct timespec` of Linux on machines of 64 bits.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanos: c_long,
}

/// What the standard library reads every clock with: the linker takes this executable's function before the C library's. The
/// kernel is asked through rustix, which has no need of either.
///
/// # Safety
/// As clock_gettime(2): `at` is a `struct timespec` that can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, at: *mut Timespec) -> c_int {
    let id = match clock {
        0 => ClockId::Realtime,
        1 => ClockId::Monotonic,
        2 => ClockId::ProcessCPUTime,
        3 => ClockId::ThreadCPUTime,
        5 => ClockId::RealtimeCoarse,
        6 => ClockId::MonotonicCoarse,
        7 => ClockId::Boottime,
        // Nothing here reads another one, and whoever begins to is told.
        _ => return -1,
    };
    let now = rustix::time::clock_gettime(id);
    let millis = if matches!(id, ClockId::Realtime | ClockId::RealtimeCoarse) { off() } else { 0 };
    // SAFETY: the caller's promise.
    unsafe { at.write(Timespec { seconds: now.tv_sec + millis.div_euclid(1000), nanos: now.tv_nsec as c_long }) };
    0
}

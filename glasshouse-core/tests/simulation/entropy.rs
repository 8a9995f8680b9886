//! Randomness that replays: SplitMix64 for the schedule, and the same for every key and nonce that the code under test
//! draws, by standing in for the C library's `getrandom`, which the `getrandom` crate looks up at run time.
#![allow(unsafe_code, unreachable_pub)] // an exported C function over a raw buffer

use std::cell::Cell;
use std::io::Read as _;

/// SplitMix64 (Steele, Lea, Flood 2014): every seed gives a stream of its own.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True this often in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

thread_local! {
    static STREAM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Has this thread draw its randomness from `seed` until the guard is dropped.
pub(crate) fn seeded(seed: u64) -> Seeded {
    STREAM.set(Some(seed));
    Seeded
}

pub(crate) struct Seeded;

impl Drop for Seeded {
    fn drop(&mut self) {
        STREAM.set(None);
    }
}

/// `getrandom(2)` as the C library exports it. Threads without a seed get the kernel's randomness.
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes, as for the function it stands in for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller's promise; zeroed first, so that what the slice covers is initialized.
    let bytes = unsafe {
        buffer.write_bytes(0, length);
        std::slice::from_raw_parts_mut(buffer, length)
    };
    match STREAM.get() {
        Some(state) => {
            let mut rng = Rng(state);
            bytes.iter_mut().for_each(|byte| *byte = rng.next() as u8);
            STREAM.set(Some(rng.0));
        }
        None => {
            if std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_err() {
                return -1;
            }
        }
    }
    length as isize
}

#[test]
fn keys_come_from_the_seed() {
    use glasshouse_core::fixed::Nonce32;
    let draw = |seed| {
        let _seeded = seeded(seed);
        (Nonce32::random().unwrap(), Nonce32::random().unwrap())
    };
    let (first, second) = draw(7);
    assert_eq!((first, second), draw(7), "getrandom was not stood in for, so no seed replays");
    assert!(first != second && draw(7) != draw(8));
    assert_ne!(Nonce32::random().unwrap(), first);
}

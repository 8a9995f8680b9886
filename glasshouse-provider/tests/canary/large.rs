//! Copies of the canary in large blocks: those that are kept when they are freed, and those that go back to the kernel.

/// Of the C library's own pages no more: the allocator gives these pages of their own. Beyond 32 MiB none is kept.
const SIZES: [usize; 2] = [100 << 10, 40 << 20];

/// The canary near the end of each of them, backwards after its first byte. Each is written where it lies.
pub(crate) fn planted(canary: &[u8]) -> [Vec<u8>; 2] {
    SIZES.map(|size| {
        let mut block = vec![0; size];
        let from = size - 1000;
        for (at, byte) in canary.iter().enumerate() {
            block[from + (64 - at) % 64] = *byte;
        }
        block
    })
}

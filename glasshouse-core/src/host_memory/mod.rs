//! The host's memory after a run: an allocator that wipes what is freed, and a zeroizer that wipes and checks the rest.

mod large_blocks;
mod lock_budget;
mod reserved;
mod slots;
mod small_blocks;
mod zero_on_free;
mod zeroizer;

pub use zero_on_free::ZeroOnFree;
pub use zeroizer::{DEVICE_MEMORY_NOT_COVERED, HostZeroizer};

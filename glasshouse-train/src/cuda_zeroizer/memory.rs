//! What a zeroizer needs of a device.

/// A block of device memory that was taken, by its place and length: whoever took it returns it, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its address on the device.
    pub address: u64,
    /// Its size, a multiple of 16 bytes.
    pub bytes: u64,
}

/// A device's memory, as its driver gives it out. Errors are a sentence of the driver's.
pub trait DeviceMemory {
    /// Waits for all work, and has pools give back to the driver what they keep for later. Gives how many bytes they
    /// keep all the same: a pool returns no stretch of memory of which the smallest part is in use.
    fn trim(&mut self) -> Result<u64, String>;

    /// Bytes that are free now, and bytes in all.
    fn free_and_total(&mut self) -> Result<(u64, u64), String>;

    /// Takes a block, or nothing when there is none of this size.
    fn take(&mut self, bytes: u64) -> Option<Block>;

    /// Overwrites a block with zeros.
    fn overwrite(&mut self, block: &Block) -> Result<(), String>;

    /// Reads a block back, all of it, on the device: how many of its 4-byte words are not zero.
    fn words_not_zero(&mut self, block: &Block) -> Result<u64, String>;

    /// Waits until everything asked for has happened, for a bounded time.
    fn wait(&mut self) -> Result<(), String>;

    /// Returns a block to the driver.
    fn give_back(&mut self, block: Block) -> Result<(), String>;
}

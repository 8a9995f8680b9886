use serde::{Deserialize, Serialize};

/// Memory that holds secrets and can be wiped and checked in place.
pub trait WipeTarget: Send {
    /// Its size.
    fn bytes(&self) -> u64;
    /// Overwrites it.
    fn wipe(&mut self) -> Result<(), ZeroizeError>;
    /// Reads it back: whether every byte is what `wipe` left.
    fn is_wiped(&self) -> Result<bool, ZeroizeError>;
}

/// A region with a name for the receipt.
pub struct SecretRegion {
    /// What it held, never a value.
    pub label: String,
    /// The memory.
    pub target: Box<dyn WipeTarget>,
}

/// Why it is not certain that nothing is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZeroizeError {
    /// A region could not be overwritten.
    #[error("{region} could not be wiped: {why}; end the allocation")]
    NotWiped {
        /// Its label.
        region: String,
        /// What happened.
        why: String,
    },
    /// A region read back as not wiped.
    #[error("{region} still holds data after wiping; end the allocation")]
    StillThere {
        /// Its label.
        region: String,
    },
    /// Secret memory is alive that nobody handed over.
    #[error("{bytes} bytes of secret memory are still held: {what}; end the allocation")]
    StillHeld {
        /// How much.
        bytes: u64,
        /// By whom, as far as is known.
        what: String,
    },
}

/// One region as it was wiped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WipedRegion {
    /// What it held.
    pub label: String,
    /// Its size.
    pub bytes: u64,
    /// How it was overwritten.
    pub method: String,
    /// How it was checked.
    pub verification: String,
}

/// What was wiped, how, how it was checked, and what is not covered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Which zeroizer.
    pub zeroizer: String,
    /// Region by region.
    pub regions: Vec<WipedRegion>,
    /// Bytes wiped by the zero-on-free allocator since the segment began; absent when it is not installed.
    pub allocator_bytes: Option<u64>,
    /// Secret bytes that could not be locked in memory.
    pub unlocked_bytes: u64,
    /// Bytes of this process in swap (`VmSwap`); absent where it cannot be read.
    pub swapped_bytes: Option<u64>,
    /// What this receipt does not cover, and why.
    pub not_covered: Vec<String>,
    /// How long it took.
    pub millis: u64,
}

/// Wipes what it was told holds secrets and checks that it did.
///
/// # Contract
/// - `track` may be called at any time before `zeroize`; every tracked region is wiped, then read back.
/// - `zeroize` goes on after a region fails, so that one failure leaves no other region unwiped, and then errors.
/// - It errors whenever it is not sure. A receipt therefore means that every region in it was wiped and checked.
/// - A second `zeroize` returns an empty list of regions or an error, never a claim about memory it no longer holds.
///
/// [`contract::zeroizer`](crate::contract::zeroizer) checks an implementation.
pub trait Zeroizer: Send {
    /// Its name in receipts.
    fn name(&self) -> &'static str;
    /// Tells it of a region.
    fn track(&mut self, region: SecretRegion);
    /// Wipes and checks everything.
    fn zeroize(&mut self) -> Result<Receipt, ZeroizeError>;
}

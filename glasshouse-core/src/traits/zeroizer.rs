use serde::{Deserialize, Serialize};

use crate::secret::KeyMemory;

/// Memory that holds secrets and can be wiped and checked in place.
pub trait WipeTarget: Send {
    /// Its size.
    fn bytes(&self) -> u64;
    /// Overwrites it.
    fn wipe(&mut self) -> Result<(), ZeroizeError>;
    /// Reads it back: whether every byte is what `wipe` left.
    fn is_wiped(&self) -> Result<bool, ZeroizeError>;
}

/// Values for which all bits zero is what wiping leaves: what a workload keeps in boxed slices. They are read back a block
/// at a time: the processor then compares many at once, and what was wiped is read as fast as memory is.
macro_rules! boxed_slices {
    ($($type:ty: $bits:expr;)*) => { $(
        impl WipeTarget for Box<[$type]> {
            fn bytes(&self) -> u64 {
                u64::try_from(size_of_val::<[$type]>(self)).unwrap_or(u64::MAX)
            }
            fn wipe(&mut self) -> Result<(), ZeroizeError> {
                zeroize::Zeroize::zeroize(&mut **self);
                Ok(())
            }
            fn is_wiped(&self) -> Result<bool, ZeroizeError> {
                Ok(self.chunks(1024).all(|block| block.iter().fold(0, |seen, value| seen | $bits(*value)) == 0))
            }
        }
    )* };
}

boxed_slices! {
    u8: std::convert::identity;
    u32: std::convert::identity;
    f32: f32::to_bits; // -0.0 == 0.0, but its bits are not zero
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
    /// More than one of these.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; also: "))]
    Several(Vec<ZeroizeError>),
}

impl ZeroizeError {
    /// What went wrong as one error; nothing when nothing did.
    pub fn of(mut failures: Vec<Self>) -> Option<Self> {
        if failures.len() > 1 { Some(Self::Several(failures)) } else { failures.pop() }
    }

    /// The same under the label by which a zeroizer knows the region: targets do not know their labels.
    #[must_use]
    pub fn of_region(self, label: &str) -> Self {
        match self {
            Self::NotWiped { why, .. } => Self::NotWiped { region: label.to_owned(), why },
            Self::StillThere { .. } => Self::StillThere { region: label.to_owned() },
            other => other,
        }
    }
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

/// What became of the large blocks of the program's allocator: tensors, files that were read, batches. In bytes as the program
/// asked for them, whatever it put into them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargeBlocks {
    /// From which size on a block was large.
    pub from_bytes: u64,
    /// Alive in pages of their own, which core dumps leave out: the most at one time.
    pub peak_bytes: u64,
    /// Of these, not locked in memory: the most at one time.
    pub unlocked_peak_bytes: u64,
    /// Those that had no pages of their own, neither locked nor left out of core dumps: all together since the segment began.
    pub ordinary_bytes: u64,
}

/// What became of the small blocks of the program's allocator: texts, token ids, what a tokenizer keeps. In bytes of the pages
/// that they share, which stay for the next ones, so each is the most there ever was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallBlocks {
    /// Below which size a block was small.
    pub below_bytes: u64,
    /// Pages that held them, which core dumps leave out.
    pub page_bytes: u64,
    /// Of these, not locked in memory.
    pub unlocked_page_bytes: u64,
    /// Blocks that lay elsewhere, neither locked nor left out of core dumps: all together since the segment began, as the
    /// program asked for them.
    pub ordinary_bytes: u64,
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
    /// What became of the allocator's large blocks; absent where they were not guarded, and in receipts from before it was
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_blocks: Option<LargeBlocks>,
    /// What became of its small blocks; absent as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub small_blocks: Option<SmallBlocks>,
    /// Bytes of keys and package plaintext that could not be locked in memory: the most at one time.
    pub unlocked_bytes: u64,
    /// Where the keys were; absent when there were none, and in receipts from before it was said.
    #[serde(default, skip_serializing_if = "KeyMemory::is_none")]
    pub key_memory: KeyMemory,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxed_slices_wipe_and_read_back() {
        let targets: [Box<dyn WipeTarget>; 3] = [
            Box::new(vec![1u8; 10].into_boxed_slice()),
            Box::new(vec![1u32; 10].into_boxed_slice()),
            Box::new(vec![-0.0f32; 10].into_boxed_slice()),
        ];
        for (mut target, bytes) in targets.into_iter().zip([10, 40, 40]) {
            assert_eq!(target.bytes(), bytes);
            assert!(!target.is_wiped().unwrap());
            target.wipe().unwrap();
            assert!(target.is_wiped().unwrap());
        }
    }

    #[test]
    fn several_failures_are_all_told() {
        let one = || ZeroizeError::StillThere { region: "a".to_owned() };
        assert!(ZeroizeError::of(vec![]).is_none());
        assert!(matches!(ZeroizeError::of(vec![one()]), Some(ZeroizeError::StillThere { .. })));
        let both = ZeroizeError::of(vec![one(), one().of_region("b")]).unwrap().to_string();
        assert!(both.contains("a still holds") && both.contains("b still holds"), "{both}");
    }
}

//! Secrets: no `Debug`, no `Clone`, no `Serialize`, wiped on drop, compared in constant time.
//!
//! Both types live in anonymous pages of their own, between guard pages, locked against swapping as far as the limit
//! (`ulimit -l`) allows, left out of core dumps and zero in a forked child. Keys lie in memory that the kernel itself
//! does not map (`memfd_secret`) where it has any. Nothing here grows, so no plaintext is left behind by a move. The
//! [`Ledger`] counts what is alive, what was wiped, what could not be locked, and knows where keys were.

mod buffer;
mod key;
mod ledger;
#[cfg(target_os = "linux")]
mod memfd;
mod memory;
mod pages;

pub use buffer::SecretBuffer;
pub use key::Secret;
pub use ledger::{KeyMemory, Ledger, SecretClass, Tally};

/// Why there is no memory for a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The operating system gave no memory.
    #[error("no memory for {bytes} secret bytes; free some, or run where there is more")]
    OutOfMemory {
        /// How much was asked for.
        bytes: usize,
    },
}

//! Fixed keys, which the seeds are made with too. They guard nothing.

use std::sync::LazyLock;

use glasshouse_core::fixed::{Fixed, Nonce32};
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::secret::Secret;

/// The owner's gate.
pub static GATE: LazyLock<SigningSecret> = LazyLock::new(|| signing(1));
/// A runtime's event key.
pub static EVENTS: LazyLock<SigningSecret> = LazyLock::new(|| signing(2));
/// A key that nothing here is signed with but what a target signs itself.
pub static OTHER: LazyLock<SigningSecret> = LazyLock::new(|| signing(3));
/// The session of every seed that has one.
pub const SESSION: Nonce32 = Fixed([7; 32]);
/// The agent's process of every seed that has one.
pub const BOOT: Nonce32 = Fixed([8; 32]);

fn signing(seed: u8) -> SigningSecret {
    SigningSecret::from_seed(secret(seed))
}

/// A secret of one repeated byte.
pub fn secret(byte: u8) -> Secret<32> {
    Secret::take(&mut [byte; 32])
}

//! The channel keys in the gate's store: sealed to the owner itself, so that the store holds no secret.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use zeroize::Zeroizing;

use super::config::{GateError, OwnerConfig};
use crate::fixed::{Blob, Nonce32};
use crate::protocol::{ReleaseKeys, ResultKey, SealedArtifact, decode, encode, open_artifact, seal_artifact};
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;

/// The name under which the channel keys are sealed. No artifact can have it: `/` is not in a file name.
const CHANNEL_KEYS: &str = "gh/channel-keys";

pub(super) fn seal_channel_keys(config: &OwnerConfig, keys: &ReleaseKeys) -> Result<Blob, GateError> {
    let mut both = Zeroizing::new([0; 64]);
    let (first, second) = both.split_at_mut(32);
    first.copy_from_slice(keys.to_owner.expose());
    second.copy_from_slice(keys.to_runtime.expose());
    let sealed = seal_artifact(&config.result_key.public(), &config.session, CHANNEL_KEYS, both.as_slice())?;
    Ok(Blob(encode(&sealed)))
}

pub(super) fn open_channel_keys(
    result_key: &ResultKey,
    session: &Nonce32,
    sealed: &Blob,
) -> Result<ReleaseKeys, GateError> {
    let sealed: SealedArtifact = decode("sealed channel keys", &sealed.0, 4096)?;
    let mut both = open_artifact(result_key, session, CHANNEL_KEYS, &sealed)?;
    let seen = format!("{} bytes", both.len());
    let malformed = || Refusal::new(Code::MESSAGE_MALFORMED, "two channel keys", seen);
    match both.split_first_chunk_mut::<32>() {
        Some((to_owner, rest)) => match rest.first_chunk_mut::<32>() {
            Some(to_runtime) => {
                Ok(ReleaseKeys { to_owner: Secret::take(to_owner), to_runtime: Secret::take(to_runtime) })
            }
            None => Err(malformed().into()),
        },
        None => Err(malformed().into()),
    }
}

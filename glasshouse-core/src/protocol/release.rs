//! HPKE (RFC 9180): the release in PSK mode, results in base mode.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, PskBundle, Serializable as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keys::{LaunchKeys, ResultKey, RuntimeKey};
use super::messages::Lease;
use crate::fixed::{Blob, Digest48, Nonce32, PublicKey32};
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;
use crate::transcript::Transcript;

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// The two channel keys of one lease epoch, from HPKE's exporter.
pub(crate) struct ReleaseKeys {
    pub(crate) to_owner: Secret<32>,
    pub(crate) to_runtime: Secret<32>,
}

/// What the release is bound to besides the runtime's key.
pub(crate) struct ReleaseContext<'a> {
    pub(crate) launch: &'a LaunchKeys<'a>,
    pub(crate) session: &'a Nonce32,
    pub(crate) t: &'a Digest48,
    pub(crate) evidence: &'a Digest48,
    pub(crate) lease: &'a Lease,
}

impl ReleaseContext<'_> {
    fn info(&self) -> Vec<u8> {
        Transcript::new("gh/release/1").fixed(self.t).fixed(self.evidence).into_bytes()
    }
}

fn exporter_label(to_owner: bool, epoch: u32) -> Vec<u8> {
    let direction = if to_owner { "runtime-to-owner" } else { "owner-to-runtime" };
    Transcript::new("gh/channel/1").lp(direction).u64(u64::from(epoch)).into_bytes()
}

macro_rules! export_keys {
    ($context:expr, $epoch:expr) => {{
        let export = |to_owner| {
            let mut bytes = [0; 32];
            $context.export(&exporter_label(to_owner, $epoch), &mut bytes).map(|()| Secret::take(&mut bytes))
        };
        export(true).and_then(|to_owner| export(false).map(|to_runtime| ReleaseKeys { to_owner, to_runtime }))
    }};
}

/// Seals to the runtime's key. `None` when its key is not a point, or there is no randomness.
pub(crate) fn seal_release(
    context: &ReleaseContext<'_>,
    runtime: &PublicKey32,
    plaintext: &[u8],
) -> Option<(PublicKey32, Blob, ReleaseKeys)> {
    // hpke draws its ephemeral key with a generator that panics when the system has none: ask first.
    getrandom::fill(&mut [0; 1]).ok()?;
    let public = PublicKey::from_bytes(runtime.as_bytes()).ok()?;
    let psk = context.launch.psk();
    let mode = OpModeS::Psk(PskBundle::new(psk.expose(), context.session.as_ref()).ok()?);
    let (enc, mut sender) =
        hpke::setup_sender::<AesGcm256, HkdfSha256, X25519HkdfSha256>(&mode, &public, &context.info()).ok()?;
    let ciphertext = sender.seal(plaintext, &context.lease.aad()).ok()?;
    let keys = export_keys!(sender, context.lease.epoch).ok()?;
    Some((PublicKey32::from(<[u8; 32]>::from(enc.to_bytes())), Blob(ciphertext), keys))
}

/// Opens at the runtime. One refusal for every cause: what failed is nobody's business but ours.
pub(crate) fn open_release(
    context: &ReleaseContext<'_>,
    runtime: &RuntimeKey,
    enc: &PublicKey32,
    ciphertext: &[u8],
) -> Result<(Zeroizing<Vec<u8>>, ReleaseKeys), Refusal> {
    let open = || {
        let private = runtime.private()?;
        let enc = EncappedKey::from_bytes(enc.as_bytes()).ok()?;
        let psk = context.launch.psk();
        let mode = OpModeR::Psk(PskBundle::new(psk.expose(), context.session.as_ref()).ok()?);
        let mut receiver =
            hpke::setup_receiver::<AesGcm256, HkdfSha256, X25519HkdfSha256>(&mode, &private, &enc, &context.info())
                .ok()?;
        let plaintext = receiver.open(ciphertext, &context.lease.aad()).ok()?;
        let keys = export_keys!(receiver, context.lease.epoch).ok()?;
        Some((Zeroizing::new(plaintext), keys))
    };
    open().ok_or_else(|| Refusal::new(Code::RELEASE_UNOPENABLE, "a release sealed to this runtime", "one that is not"))
}

/// An artifact sealed to the owner's result key (HPKE base mode).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedArtifact {
    /// HPKE's encapsulated key.
    pub enc: PublicKey32,
    /// The artifact.
    pub ciphertext: Blob,
}

impl SealedArtifact {
    /// Bytes of the encoding of an artifact of so many bytes. The encapsulated key is 64 hex digits; the ciphertext has a
    /// tag of 16 bytes, and is in base64.
    pub const fn encoded_len(bytes: u64) -> u64 {
        const AROUND: u64 = (r#"{"enc":"","ciphertext":""}"#.len() as u64).saturating_add(64);
        bytes.saturating_add(16).div_ceil(3).saturating_mul(4).saturating_add(AROUND)
    }
}

fn artifact_info(session: &Nonce32, name: &str) -> Vec<u8> {
    Transcript::new("gh/artifact/1").fixed(session).lp(name).into_bytes()
}

/// Seals an artifact so that only the owner can read it, even one who was restarted since.
///
/// # Errors
/// `release-unopenable` when the result key is not a point or there is no randomness.
pub fn seal_artifact(
    owner: &PublicKey32,
    session: &Nonce32,
    name: &str,
    bytes: &[u8],
) -> Result<SealedArtifact, Refusal> {
    let seal = || {
        getrandom::fill(&mut [0; 1]).ok()?;
        let public = PublicKey::from_bytes(owner.as_bytes()).ok()?;
        let info = artifact_info(session, name);
        let (enc, mut sender) =
            hpke::setup_sender::<AesGcm256, HkdfSha256, X25519HkdfSha256>(&OpModeS::Base, &public, &info).ok()?;
        let ciphertext = sender.seal(bytes, &[]).ok()?;
        Some(SealedArtifact { enc: PublicKey32::from(<[u8; 32]>::from(enc.to_bytes())), ciphertext: Blob(ciphertext) })
    };
    seal().ok_or_else(|| Refusal::new(Code::RESULT_KEY_INVALID, "an X25519 result key", owner.short()))
}

/// Opens an artifact at the owner.
///
/// # Errors
/// `artifact-unopenable` when it was sealed to another key, for another session or name, or changed.
pub fn open_artifact(
    key: &ResultKey,
    session: &Nonce32,
    name: &str,
    sealed: &SealedArtifact,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let open = || {
        let private = key.private()?;
        let enc = EncappedKey::from_bytes(sealed.enc.as_bytes()).ok()?;
        let info = artifact_info(session, name);
        let mut receiver =
            hpke::setup_receiver::<AesGcm256, HkdfSha256, X25519HkdfSha256>(&OpModeR::Base, &private, &enc, &info)
                .ok()?;
        receiver.open(&sealed.ciphertext.0, &[]).ok().map(Zeroizing::new)
    };
    open().ok_or_else(|| {
        Refusal::new(
            Code::ARTIFACT_UNOPENABLE,
            format!("{name} sealed to this owner in this session"),
            "one that is not",
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fixed::Fixed;
    use crate::protocol::encode;

    #[test]
    fn the_size_of_a_sealed_artifact_is_known_before_it_is_there() {
        let key = ResultKey::random().unwrap();
        for bytes in [0_usize, 1, 2, 3, 31, 32, 1000] {
            let sealed = seal_artifact(&key.public(), &Fixed([1; 32]), "a", &vec![7; bytes]).unwrap();
            assert_eq!(encode(&sealed).len() as u64, SealedArtifact::encoded_len(bytes as u64), "{bytes}");
            assert_eq!(*open_artifact(&key, &Fixed([1; 32]), "a", &sealed).unwrap(), vec![7; bytes]);
        }
    }
}

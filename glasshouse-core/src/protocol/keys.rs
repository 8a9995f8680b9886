//! Keys: signing, the runtime's HPKE key, the owner's result key, and what the launch secret derives.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use sha2::Sha384;
use zeroize::Zeroize as _;

use crate::fixed::{Digest48, Nonce32, PublicKey32, Signature64};
use crate::secret::Secret;
use crate::transcript::Transcript;

/// An Ed25519 key (RFC 8032): the gate's, or a runtime's event key.
pub struct SigningSecret(Secret<32>);

impl SigningSecret {
    /// A fresh key.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        Secret::random().map(Self)
    }

    /// The key with this 32-byte seed.
    pub fn from_seed(seed: Secret<32>) -> Self {
        Self(seed)
    }

    /// The seed, to be stored by its owner.
    pub fn seed(&self) -> &Secret<32> {
        &self.0
    }

    /// Marks it as a key that signs the receipt and so outlives zeroization.
    #[must_use]
    pub(crate) fn into_session_key(self) -> Self {
        Self(self.0.into_session_key())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey32 {
        PublicKey32::from(self.expand().verifying_key().to_bytes())
    }

    /// Signs some bytes.
    pub fn sign(&self, bytes: &[u8]) -> Signature64 {
        Signature64::from(self.expand().sign(bytes).to_bytes())
    }

    // Expanded for each use and wiped after it: only the seed's locked page holds the key for longer.
    fn expand(&self) -> SigningKey {
        SigningKey::from_bytes(self.0.expose())
    }
}

/// Checks an Ed25519 signature by the strict rules: no small-order keys, one signature per message and key.
pub(crate) fn verify_signature(key: &PublicKey32, bytes: &[u8], signature: &Signature64) -> bool {
    VerifyingKey::from_bytes(key.as_bytes())
        .is_ok_and(|key| key.verify_strict(bytes, &Signature::from_bytes(signature.as_bytes())).is_ok())
}

/// An X25519 key pair that HPKE opens with.
struct HpkeSecret {
    private: Secret<32>,
    public: PublicKey32,
}

impl HpkeSecret {
    fn random() -> Result<Self, getrandom::Error> {
        // RFC 9180 section 7.1.3 DeriveKeyPair: takes fresh input keying material and cannot fail on it.
        let seed = Secret::<32>::random()?;
        let (private, public) = X25519HkdfSha256::derive_keypair(seed.expose());
        let mut bytes: [u8; 32] = private.to_bytes().into();
        Ok(Self { private: Secret::take(&mut bytes), public: PublicKey32::from(<[u8; 32]>::from(public.to_bytes())) })
    }

    fn from_private(private: Secret<32>) -> Option<Self> {
        let key = <X25519HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(private.expose()).ok()?;
        let public = X25519HkdfSha256::sk_to_pk(&key);
        Some(Self { private, public: PublicKey32::from(<[u8; 32]>::from(public.to_bytes())) })
    }
}

macro_rules! hpke_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(HpkeSecret);

        impl $name {
            /// A fresh key.
            ///
            /// # Errors
            /// When the operating system gives no randomness.
            pub fn random() -> Result<Self, getrandom::Error> {
                HpkeSecret::random().map(Self)
            }

            /// The public half.
            pub fn public(&self) -> PublicKey32 {
                self.0.public
            }

            pub(super) fn private(&self) -> Option<<X25519HkdfSha256 as hpke::Kem>::PrivateKey> {
                <X25519HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(self.0.private.expose()).ok()
            }
        }
    };
}

hpke_key! {
    /// The runtime's key for one challenge: the release is sealed to it.
    RuntimeKey
}

hpke_key! {
    /// The owner's key for results, kept by the owner: artifacts are sealed to it, so that a restarted owner can open
    /// them still.
    ResultKey
}

impl ResultKey {
    /// The key with these private bytes; `None` when they are not an X25519 private key.
    pub fn from_private(private: Secret<32>) -> Option<Self> {
        HpkeSecret::from_private(private).map(Self)
    }

    /// The private bytes, to be stored by the owner.
    pub fn private_bytes(&self) -> &Secret<32> {
        &self.0.private
    }
}

/// What the launch secret derives, each with a label of its own (HKDF-SHA-384, RFC 5869).
pub struct LaunchKeys<'a> {
    secret: &'a Secret<32>,
    session: Nonce32,
}

impl<'a> LaunchKeys<'a> {
    /// For one session.
    pub fn new(secret: &'a Secret<32>, session: Nonce32) -> Self {
        Self { secret, session }
    }

    /// HMAC-SHA-384 over T: only who was launched with the secret can make it.
    pub fn mac_transcript(&self, t: &Digest48) -> Digest48 {
        self.mac("gh/mac-t/1", t.as_ref())
    }

    /// HMAC-SHA-384 over the runtime's public keys alone, so that keys swapped on the way are told apart from a
    /// transcript that is wrong.
    pub fn mac_keys(&self, nonce: &Nonce32, hpke: &PublicKey32, event: &PublicKey32) -> Digest48 {
        let keys = Transcript::new("gh/keys/1").fixed(nonce).fixed(hpke).fixed(event).into_bytes();
        self.mac("gh/mac-keys/1", &keys)
    }

    /// The PSK of HPKE's PSK mode.
    pub fn psk(&self) -> Secret<32> {
        self.derive("gh/psk/1")
    }

    /// A key for a purpose outside attestation, by its label: raw segments' channels, the agent's requests.
    pub fn derive(&self, label: &'static str) -> Secret<32> {
        let mut bytes = [0; 32];
        self.expand(label, &mut bytes);
        Secret::take(&mut bytes)
    }

    fn mac(&self, label: &'static str, bytes: &[u8]) -> Digest48 {
        let mut key = [0; 48];
        self.expand(label, &mut key);
        // HMAC takes a key of any length, so that this never fails; a failure would give a MAC that verifies nowhere.
        let tag = Hmac::<Sha384>::new_from_slice(&key).map(|mut mac| {
            mac.update(bytes);
            <[u8; 48]>::from(mac.finalize().into_bytes())
        });
        key.zeroize();
        Digest48::from(tag.unwrap_or([0; 48]))
    }

    fn expand(&self, label: &'static str, out: &mut [u8]) {
        let info = Transcript::new("gh/launch/1").lp(label).fixed(self.session).into_bytes();
        let hkdf = Hkdf::<Sha384>::new(Some(b"gh/launch-salt/1"), self.secret.expose());
        // 48 bytes at most, far under HKDF's limit of 255 blocks.
        let _ = hkdf.expand(&info, out);
    }
}

//! AES-256-GCM (SP 800-38D), detached tags: what packages and records are sealed with.
//!
//! RustCrypto's `aes-gcm` unless the feature `aws-lc` is on; both give the same bytes. The backend is the type
//! [`Aes256Gcm`], chosen once at compile time, so that nothing else in the crate knows which one it is.

/// Bytes of a nonce. No nonce may be used twice with one key; who calls makes sure of it.
pub(crate) type Nonce = [u8; 12];
/// Bytes of a tag.
pub(crate) type Tag = [u8; 16];

/// Something does not authenticate. Says nothing more, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// One key of AES-256-GCM, expanded, wiped on drop.
pub(crate) trait Aead: Sized + Sync {
    /// Expands a key.
    fn new(key: &[u8; 32]) -> Self;

    /// Encrypts in place and gives the tag. `None` only above 64 GiB - 32 bytes, the mode's own limit.
    fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8]) -> Option<Tag>;

    /// Decrypts in place. On failure the buffer holds no plaintext, but possibly no ciphertext either.
    #[allow(dead_code)] // for sealed records; packages open into another buffer
    fn open_in_place(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8], tag: &Tag) -> Result<(), Forged>;

    /// Decrypts from one buffer into another of the same length. On failure `plaintext` holds no plaintext.
    fn open_into(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        ciphertext: &[u8],
        tag: &Tag,
        plaintext: &mut [u8],
    ) -> Result<(), Forged>;
}

#[cfg(not(feature = "aws-lc"))]
pub(crate) type Aes256Gcm = RustCrypto;
#[cfg(feature = "aws-lc")]
pub(crate) type Aes256Gcm = aws_lc::AwsLc;

/// The default backend: pure Rust, VAES and PCLMULQDQ found at run time.
#[cfg_attr(feature = "aws-lc", allow(dead_code))] // then it stays as the other side of the test that both agree
pub(crate) struct RustCrypto(aes_gcm::Aes256Gcm);

impl Aead for RustCrypto {
    fn new(key: &[u8; 32]) -> Self {
        Self(aes_gcm::KeyInit::new(key.into()))
    }

    fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8]) -> Option<Tag> {
        use aes_gcm::aead::AeadInOut as _;
        self.0.encrypt_inout_detached(nonce.into(), aad, text.into()).ok().map(Into::into)
    }

    fn open_in_place(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8], tag: &Tag) -> Result<(), Forged> {
        use aes_gcm::aead::AeadInOut as _;
        self.0.decrypt_inout_detached(nonce.into(), aad, text.into(), tag.into()).map_err(|_| Forged)
    }

    fn open_into(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        ciphertext: &[u8],
        tag: &Tag,
        plaintext: &mut [u8],
    ) -> Result<(), Forged> {
        use aes_gcm::aead::{AeadInOut as _, inout::InOutBuf};
        let text = InOutBuf::new(ciphertext, plaintext).map_err(|_| Forged)?;
        self.0.decrypt_inout_detached(nonce.into(), aad, text, tag.into()).map_err(|_| Forged)
    }
}

#[cfg(feature = "aws-lc")]
mod aws_lc {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as LcNonce, UnboundKey};

    use super::{Aead, Forged, Nonce, Tag};

    /// AWS-LC (C and assembly): stitched AVX-512 AES-GCM where the machine has it. Cleanses its key on drop.
    pub(crate) struct AwsLc(Option<LessSafeKey>);

    impl AwsLc {
        fn key(&self) -> Result<&LessSafeKey, Forged> {
            self.0.as_ref().ok_or(Forged)
        }
    }

    impl Aead for AwsLc {
        fn new(key: &[u8; 32]) -> Self {
            // A key of 32 bytes is always accepted; were it not, every call would refuse instead of panicking.
            Self(UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new))
        }

        fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8]) -> Option<Tag> {
            let nonce = LcNonce::assume_unique_for_key(*nonce);
            let tag = self.key().ok()?.seal_in_place_separate_tag(nonce, Aad::from(aad), text).ok()?;
            tag.as_ref().try_into().ok()
        }

        fn open_in_place(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8], tag: &Tag) -> Result<(), Forged> {
            let nonce = LcNonce::assume_unique_for_key(*nonce);
            let opened = self.key()?.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text);
            opened.map(|_| ()).map_err(|_| Forged)
        }

        fn open_into(
            &self,
            nonce: &Nonce,
            aad: &[u8],
            ciphertext: &[u8],
            tag: &Tag,
            plaintext: &mut [u8],
        ) -> Result<(), Forged> {
            if ciphertext.len() != plaintext.len() {
                return Err(Forged);
            }
            let nonce = LcNonce::assume_unique_for_key(*nonce);
            let opened = self.key()?.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, plaintext);
            opened.map_err(|_| Forged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Test case 16 of "The Galois/Counter Mode of Operation", appendix B (McGrew and Viega).
    #[test]
    fn published_vector() {
        let key: [u8; 32] = hex::decode("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
            .unwrap()
            .try_into()
            .unwrap();
        let nonce: Nonce = hex::decode("cafebabefacedbaddecaf888").unwrap().try_into().unwrap();
        let aad = hex::decode("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
        let text = hex::decode(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        )
        .unwrap();
        let mut sealed = text.clone();
        let tag = Aes256Gcm::new(&key).seal_in_place(&nonce, &aad, &mut sealed).unwrap();
        assert_eq!(
            hex::encode(&sealed),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        );
        assert_eq!(hex::encode(tag), "76fc6ece0f4e1768cddf8853bb2d551b");
        let mut opened = vec![0; text.len()];
        Aes256Gcm::new(&key).open_into(&nonce, &aad, &sealed, &tag, &mut opened).unwrap();
        assert_eq!(opened, text);
    }

    proptest! {
        #[test]
        fn opens_what_it_sealed_and_nothing_else(key: [u8; 32], nonce: Nonce, aad: Vec<u8>, text: Vec<u8>, bit: usize) {
            let aead = Aes256Gcm::new(&key);
            let mut sealed = text.clone();
            let tag = aead.seal_in_place(&nonce, &aad, &mut sealed).unwrap();
            let mut reference = text.clone();
            let reference_tag = RustCrypto::new(&key).seal_in_place(&nonce, &aad, &mut reference).unwrap();
            prop_assert_eq!((&sealed, tag), (&reference, reference_tag), "the backends disagree");

            let mut opened = vec![0; text.len()];
            prop_assert_eq!(aead.open_into(&nonce, &aad, &sealed, &tag, &mut opened), Ok(()));
            prop_assert_eq!(&opened, &text);
            let mut in_place = sealed.clone();
            prop_assert_eq!(aead.open_in_place(&nonce, &aad, &mut in_place, &tag), Ok(()));
            prop_assert_eq!(&in_place, &text);

            let mut forged = [sealed.as_slice(), &tag].concat();
            let bit = bit % (forged.len() * 8);
            forged[bit / 8] ^= 1 << (bit % 8);
            let (body, forged_tag) = forged.split_last_chunk::<16>().unwrap();
            let mut opened = vec![0; text.len()];
            prop_assert_eq!(aead.open_into(&nonce, &aad, body, forged_tag, &mut opened), Err(Forged));
            prop_assert!(opened.iter().all(|b| *b == 0), "something was decrypted before it was authenticated");
        }
    }
}

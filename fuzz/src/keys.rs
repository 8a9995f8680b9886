//! Fixed keys, which the seeds are made with too. They guard nothing.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use glasshouse_attest_gen::nvidia::sign;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Fixed, Nonce32};
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::secret::Secret;
use rsa::{BoxedUint, RsaPrivateKey};

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

/// When hardware's evidence is appraised: 2026-11-23T00:00:00Z.
pub const AT: UnixMillis = UnixMillis(1_795_392_000_000);

/// An RSA-2048 key for tokens: the generator's own, of 4096 bits, sign a few times a second under a sanitizer.
pub static RSA: LazyLock<RsaPrivateKey> = LazyLock::new(|| {
    let number = |text: &str| BoxedUint::from_be_slice_vartime(&hex::decode(text).unwrap());
    RsaPrivateKey::from_p_q(number(P), number(Q), BoxedUint::from(65537u64)).unwrap()
});

const P: &str = "ed5a981a3512c9d507eb06b60ebf5dd54fae69fc6a45efda163932b7f114bcc88c4a6a5e8e4057d53fcae65bdc936463a7f54a3d\
                 8c1d876ba13a6b78c60262356ff396fa7f5a11c47b7402392b58bcf2899f0436d3ca09911d75d3ea358af589a4b0127da6261e4f\
                 52e2ff5cdddd426e50261cab31ed24208da7bc1ab8dd4715";
const Q: &str = "ec1639a0081812faec6af2446710eb1d9d8b39d8bd48f97d00ecc0cda8a8a4b7104a2590e8bfc65da109fa23f2e6ddcfcc1e5cd1\
                 f9e60d0e6cae3053325d813ef1d5899dfa6adbba076dea8ebbab731241abbe082c596a2751b2c79f4e324fcf032952bcc658c24a\
                 966541993b6ffafba3615f9a738375628b1b2dfa9d5736bf";

/// DER: tag, length, content.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut der = vec![tag];
    match content.len() {
        short @ 0..128 => der.push(short as u8),
        long => {
            let length: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            der.push(0x80 | length.len() as u8);
            der.extend(length);
        }
    }
    der.extend(content);
    der
}

/// A certificate or revocation list with these bytes inside, signed with a key of the generator's by ECDSA P-384.
pub fn certified(to_be_signed: &[u8], signer: &str) -> Vec<u8> {
    const ECDSA_SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
    let signature = sign(signer, to_be_signed).to_der();
    tlv(0x30, &[to_be_signed, ECDSA_SHA384, &tlv(3, &[&[0], signature.as_bytes()])])
}

/// What a certificate or revocation list was signed over: the first part of the outer sequence.
pub fn to_be_signed(der: &[u8]) -> &[u8] {
    let inside = &der[header(der)..];
    let length = header(inside) + content(inside);
    &inside[..length]
}

/// Bytes of tag and length.
fn header(der: &[u8]) -> usize {
    if der[1] < 128 { 2 } else { 2 + usize::from(der[1] & 0x7f) }
}

fn content(der: &[u8]) -> usize {
    if der[1] < 128 {
        usize::from(der[1])
    } else {
        der[2..header(der)].iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
    }
}

/// CERTIFICATE blocks.
pub fn pem(chain: &[Vec<u8>]) -> Vec<u8> {
    let block =
        |der: &Vec<u8>| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    chain.iter().map(block).collect::<String>().into_bytes()
}

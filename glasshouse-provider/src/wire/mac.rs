#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use glasshouse_core::fixed::{Digest48, Fixed, Nonce32};
use glasshouse_core::secret::Secret;
use glasshouse_core::transcript::{Transcript, sha384};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha384;

/// Key of the MAC on every request and answer: HKDF-SHA-384 (RFC 5869) of the launch secret under a label of its own.
///
/// What the MAC keeps out is a network that is not the provider: whoever reads the launch secret can compute it, and
/// everything that must be safe from them is sealed or signed inside the bodies.
pub(crate) struct MacKey(Secret<48>);

/// What a request's MAC covers: its head alone, which holds the body's digest, so that it is checked before a byte of the
/// body is taken.
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// The id of the agent's process that it is for. Absent in the `hello` that asks for it.
    pub(crate) boot: Option<&'a Nonce32>,
    pub(crate) counter: u64,
    /// SHA-384 of the body.
    pub(crate) body: &'a Digest48,
}

/// What an answer's MAC covers: the answer, and the very request that it answers.
pub(crate) struct ResponseHead<'a> {
    pub(crate) request: &'a Digest48,
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl MacKey {
    pub(crate) fn derive(launch_secret: &Secret<32>) -> Self {
        let mut key = [0; 48];
        // Expanding to one hash length is always within RFC 5869's bound; a key that stayed zero would verify nothing
        // that the other side made.
        if Hkdf::<Sha384>::new(None, launch_secret.expose()).expand(b"gh/http/1", &mut key).is_err() {
            key.fill(0);
        }
        Self(Secret::take(&mut key))
    }

    /// The MAC of a request (RFC 2104 over SHA-384).
    pub(crate) fn request(&self, head: &RequestHead<'_>) -> Digest48 {
        self.tag(&Self::request_bytes(head))
    }

    /// Whether a request carries its MAC, in constant time.
    pub(crate) fn check_request(&self, head: &RequestHead<'_>, mac: &Digest48) -> bool {
        self.check(&Self::request_bytes(head), mac)
    }

    /// The MAC of an answer.
    pub(crate) fn response(&self, head: &ResponseHead<'_>) -> Digest48 {
        self.tag(&Self::response_bytes(head))
    }

    /// Whether an answer carries its MAC, in constant time.
    pub(crate) fn check_response(&self, head: &ResponseHead<'_>, mac: &Digest48) -> bool {
        self.check(&Self::response_bytes(head), mac)
    }

    fn request_bytes(head: &RequestHead<'_>) -> Vec<u8> {
        Transcript::new("gh/http-request/2")
            .lp(head.method)
            .lp(head.path)
            .lp(head.query)
            .optional(head.boot)
            .u64(head.counter)
            .fixed(head.body)
            .into_bytes()
    }

    fn response_bytes(head: &ResponseHead<'_>) -> Vec<u8> {
        Transcript::new("gh/http-answer/1")
            .fixed(head.request)
            .u64(u64::from(head.status))
            .fixed(sha384(head.body))
            .into_bytes()
    }

    fn keyed(&self, bytes: &[u8]) -> Option<Hmac<Sha384>> {
        // HMAC takes keys of any length: this is `None` for no key there is.
        let mut mac = Hmac::<Sha384>::new_from_slice(self.0.expose()).ok()?;
        mac.update(bytes);
        Some(mac)
    }

    fn tag(&self, bytes: &[u8]) -> Digest48 {
        self.keyed(bytes).map_or(Fixed([0; 48]), |mac| Fixed(mac.finalize().into_bytes().into()))
    }

    fn check(&self, bytes: &[u8], tag: &Digest48) -> bool {
        self.keyed(bytes).is_some_and(|mac| mac.verify_slice(tag.as_bytes()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Nonce32 = Fixed([1; 32]);

    fn mac(key: &MacKey, head: (&str, &str, &str, Option<Nonce32>, u64, &[u8])) -> Digest48 {
        let (method, path, query, boot, counter, body) = head;
        key.request(&RequestHead { method, path, query, boot: boot.as_ref(), counter, body: &sha384(body) })
    }

    #[test]
    fn every_part_of_a_request_counts() {
        let key = MacKey::derive(&Secret::take(&mut [7; 32]));
        let heads: [(_, _, _, _, _, &[u8]); 8] = [
            ("POST", "/v1/segments", "a=b", Some(BOOT), 4, b"body"),
            ("PUT", "/v1/segments", "a=b", Some(BOOT), 4, b"body"),
            ("POST", "/v1/segment", "sa=b", Some(BOOT), 4, b"body"),
            ("POST", "/v1/segments", "a=c", Some(BOOT), 4, b"body"),
            ("POST", "/v1/segments", "a=b", Some(Fixed([2; 32])), 4, b"body"),
            ("POST", "/v1/segments", "a=b", None, 4, b"body"),
            ("POST", "/v1/segments", "a=b", Some(BOOT), 5, b"body"),
            ("POST", "/v1/segments", "a=b", Some(BOOT), 4, b"bodz"),
        ];
        let macs: std::collections::BTreeSet<_> = heads.iter().map(|head| mac(&key, *head)).collect();
        assert_eq!(macs.len(), heads.len());
        assert_ne!(mac(&MacKey::derive(&Secret::take(&mut [8; 32])), heads[0]), mac(&key, heads[0]));
        let (method, path, query, boot, counter) = ("POST", "/v1/segments", "a=b", Some(&BOOT), 4);
        let head = RequestHead { method, path, query, boot, counter, body: &sha384(b"body") };
        assert!(key.check_request(&head, &mac(&key, heads[0])));
        assert!(!key.check_request(&head, &mac(&key, heads[1])));
    }

    #[test]
    fn an_answer_belongs_to_its_request() {
        let key = MacKey::derive(&Secret::take(&mut [7; 32]));
        let [one, two] = [1, 2].map(|counter| mac(&key, ("GET", "/", "", Some(BOOT), counter, b"")));
        let mac = key.response(&ResponseHead { request: &one, status: 200, body: b"{}" });
        assert!(key.check_response(&ResponseHead { request: &one, status: 200, body: b"{}" }, &mac));
        assert!(!key.check_response(&ResponseHead { request: &two, status: 200, body: b"{}" }, &mac));
        assert!(!key.check_response(&ResponseHead { request: &one, status: 404, body: b"{}" }, &mac));
    }
}

//! Why something was refused: a stable code, what was expected, what was seen, what to do.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// The stable name of one reason to refuse. Programs match on it; its text never changes meaning.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Code(Cow<'static, str>);

impl Code {
    /// A code of a verifier's own, in lower-case words joined by hyphens.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Code {
    /// Takes 1 to 64 of `a-z`, `0-9` and `-`: nothing else can ride in a code that a peer names.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
            return Ok(Self(Cow::Owned(name)));
        }
        Err(de::Error::custom("expected a code: 1 to 64 of a-z, 0-9 and -"))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $advice:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self::new($text);)*

            /// Every code of this crate.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What to do about it, for the codes of this crate.
            pub fn advice(&self) -> Option<&'static str> {
                match self.as_str() { $($text => Some($advice),)* _ => None }
            }
        }
    };
}

codes! {
    /// A message is not what the wire format allows.
    MESSAGE_MALFORMED = "message-malformed", "check that both sides run compatible versions";
    /// A message is larger than its limit.
    MESSAGE_TOO_LARGE = "message-too-large", "the peer is broken or hostile; end the allocation";
    /// A message nests deeper than any message of the protocol.
    MESSAGE_TOO_DEEP = "message-too-deep", "the peer is broken or hostile; end the allocation";
    /// A JSON object names one key twice.
    MESSAGE_DUPLICATE_KEY = "message-duplicate-key", "the peer is broken or hostile; end the allocation";
    /// A message belongs to another session.
    SESSION_MISMATCH = "session-mismatch", "send each message to the session that it was made for";
    /// A message came in a state that does not take it.
    OUT_OF_ORDER = "out-of-order", "follow the protocol's order: challenge, evidence, verdict, events";
    /// The challenge does not come from the gate that this runtime was launched for.
    GATE_KEY_FOREIGN = "gate-key-foreign", "launch the allocation with the key of the gate that will use it";
    /// A signature does not verify.
    SIGNATURE_INVALID = "signature-invalid", "the message was changed on the way or made with another key";
    /// The nonce was used before.
    NONCE_REPLAYED = "nonce-replayed", "ask for a new challenge";
    /// The gate never issued this nonce.
    NONCE_UNKNOWN = "nonce-unknown", "answer the challenge of this session";
    /// The challenge is older than its expiry by the gate's monotonic clock.
    CHALLENGE_EXPIRED = "challenge-expired", "ask for a new challenge and answer it at once";
    /// Too many challenges for one session.
    RETRIES_EXHAUSTED = "retries-exhausted", "find out why attestation fails, then start a new session";
    /// The launch secret's MAC over the transcript does not verify.
    LAUNCH_SECRET_WRONG = "launch-secret-wrong", "someone between owner and runtime, or another allocation, answered";
    /// The runtime's keys were exchanged on the way.
    KEYS_SWAPPED = "keys-swapped", "someone between owner and runtime put keys of their own in; end the allocation";
    /// T as claimed differs from T as the gate computes it.
    COMPOSITE_HASH_MISMATCH = "composite-hash-mismatch", "the evidence does not describe this session; do not retry with it";
    /// The package digest differs.
    PACKAGE_DIGEST_MISMATCH = "package-digest-mismatch", "upload the package that this session was made for";
    /// The manifest digest differs.
    MANIFEST_HASH_MISMATCH = "manifest-hash-mismatch", "upload the package that this session was made for";
    /// The bytes do not begin like a package.
    PACKAGE_MALFORMED = "package-malformed", "pass the file that sealing wrote";
    /// A manifest is not the one spelling of a valid manifest.
    MANIFEST_MALFORMED = "manifest-malformed", "the package was changed after it was sealed, or made by another version";
    /// A package ends before its manifest says so.
    PACKAGE_TRUNCATED = "package-truncated", "upload the package again";
    /// A package goes on after its manifest says that it ends.
    PACKAGE_EXTENDED = "package-extended", "upload the package again";
    /// Nothing at the start of a package authenticates: another key, or everything replaced.
    PACKAGE_UNOPENABLE = "package-unopenable", "use the key that sealing returned with this package";
    /// A chunk authenticates nowhere in its package.
    PACKAGE_CHUNK_FORGED = "package-chunk-forged", "upload the package again";
    /// Two chunks of one package stand in each other's place.
    PACKAGE_CHUNK_SWAPPED = "package-chunk-swapped", "upload the package again";
    /// A chunk stands before its place.
    PACKAGE_CHUNK_REORDERED = "package-chunk-reordered", "upload the package again";
    /// A chunk stands once more after its place.
    PACKAGE_CHUNK_REPEATED = "package-chunk-repeated", "upload the package again";
    /// An authentic package whose index disagrees with its manifest.
    PACKAGE_INDEX_MALFORMED = "package-index-malformed", "seal the package again with a version that works";
    /// The image digest differs.
    IMAGE_DIGEST_MISMATCH = "image-digest-mismatch", "pin the image by digest and pass that digest as reference value";
    /// The container id or its source differs.
    CONTAINER_ID_MISMATCH = "container-id-mismatch", "another allocation answered; end it and start again";
    /// The running executable is not the expected one.
    RUNTIME_MEASUREMENT_MISMATCH = "runtime-measurement-mismatch", "pass the measurement.json of the build that runs there";
    /// Anti-debug is off.
    ANTI_DEBUG_DISABLED = "anti-debug-disabled", "start the runtime with the anti-debug level that the policy asks for";
    /// The anti-debug profile or level is weaker than expected.
    ANTI_DEBUG_DOWNGRADE = "anti-debug-downgrade", "start the runtime with the anti-debug level that the policy asks for";
    /// The anti-debug level is stronger than the one that was launched, so that T cannot match.
    ANTI_DEBUG_MISMATCH = "anti-debug-mismatch", "pass the anti-debug level that the runtime is launched with";
    /// The runtime's state is not `ready`.
    RUNTIME_STATE_INVALID = "runtime-state-invalid", "start a fresh segment and attest before it does anything else";
    /// The runtime's timestamp is too old.
    TIMESTAMP_STALE = "timestamp-stale", "set the allocation's clock, or start a fresh segment";
    /// The runtime's timestamp is in the future.
    TIMESTAMP_FUTURE = "timestamp-future", "set the allocation's clock";
    /// The evidence answers another policy.
    POLICY_DIGEST_MISMATCH = "policy-digest-mismatch", "use one policy for challenge and appraisal";
    /// The assurance reached is below the package's minimum.
    ASSURANCE_TOO_LOW = "assurance-too-low", "run on hardware that attests, or seal the package with a lower minimum";
    /// The evidence kind is not one that the verifier appraises.
    EVIDENCE_KIND_UNSUPPORTED = "evidence-kind-unsupported", "use a verifier for this kind of evidence";
    /// The CPU quote does not bind T and the GPU evidence.
    REPORT_DATA_MISMATCH = "report-data-mismatch", "the quote was made for another session, key or GPU";
    /// A token's claims differ from the evidence beside it.
    JWT_CLAIM_MISMATCH = "jwt-claim-mismatch", "the token was made for another session or changed";
    /// A token is malformed or its algorithm is not the expected one.
    JWT_ALGORITHM = "jwt-algorithm", "only the algorithm that the policy names is accepted";
    /// A token is malformed.
    JWT_MALFORMED = "jwt-malformed", "the attestor is broken or hostile";
    /// A token asks to be verified with the public key as a shared secret.
    JWT_KEY_CONFUSION = "jwt-key-confusion", "the token is an attack; end the allocation";
    /// A token's signature does not verify.
    JWT_SIGNATURE = "jwt-signature", "the token was changed or signed with another key";
    /// A verdict was not made by the gate for this evidence.
    VERDICT_FORGED = "verdict-forged", "someone between owner and runtime answered; end the run";
    /// A release was made for another session.
    RELEASE_FOREIGN = "release-foreign", "use the release of this session";
    /// The release does not open with this runtime's key, transcript and launch secret.
    RELEASE_UNOPENABLE = "release-unopenable", "the release was made for another runtime or changed";
    /// This session has had its release; only the same bytes may be sent again.
    ALREADY_RELEASED = "already-released", "start a new session";
    /// The owner's result key is not usable.
    RESULT_KEY_INVALID = "result-key-invalid", "make a new result key";
    /// An artifact does not open with the owner's result key.
    ARTIFACT_UNOPENABLE = "artifact-unopenable", "use the result key of the run, and fetch the artifact again";
    /// The lease is over by time.
    LEASE_EXPIRED = "lease-expired", "ask for a longer lease, or renew it with fresh evidence";
    /// The lease is over by steps.
    LEASE_STEPS = "lease-steps-exhausted", "ask for a lease with more steps";
    /// The host's clock went back behind the lease's start.
    CLOCK_SET_BACK = "clock-set-back", "the host's clock was changed; start a new session";
    /// A record was sent before.
    RECORD_REPLAYED = "record-replayed", "the channel is under attack or broken; end the run";
    /// A record is missing or out of order.
    RECORD_REORDERED = "record-reordered", "ask for the records again from the last one that was taken";
    /// A record does not open.
    RECORD_FORGED = "record-forged", "the channel is under attack or broken; end the run";
    /// The event chain has a gap.
    CHAIN_GAP = "chain-gap", "an event is missing; the record cannot count";
    /// Two events claim one place in the chain.
    CHAIN_FORK = "chain-fork", "two histories exist; the record cannot count";
    /// An event's signature does not verify.
    CHAIN_SIGNATURE = "chain-signature", "the event was changed or made by another runtime";
    /// An event's body is not the one that its header was signed for.
    CHAIN_BODY = "chain-body", "the event was changed; the record cannot count";
    /// The chain does not end with a terminal event.
    TERMINAL_EVENT_MISSING = "terminal-event-missing", "the end of the run was not seen; nothing may be concluded from it";
    /// Something follows the terminal event.
    EVENT_AFTER_TERMINAL = "event-after-terminal", "the chain was extended after its end; the record cannot count";
}

/// A refusal: nothing was released, nothing was accepted, and this is why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error(
    "{code}: expected {}, saw {}{}", one_line(.expected), one_line(.seen),
    .advice.as_ref().map(|a| format!("; {}", one_line(a))).unwrap_or_default()
)]
pub struct Refusal {
    /// The stable reason.
    pub code: Code,
    /// What would have been accepted.
    pub expected: String,
    /// What was there instead. Never a secret.
    pub seen: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Refusal {
    /// A refusal with this crate's advice for the code.
    pub fn new(code: Code, expected: impl fmt::Display, seen: impl fmt::Display) -> Self {
        let advice = code.advice().map(str::to_owned);
        Self { code, expected: one_line(&expected.to_string()), seen: one_line(&seen.to_string()), advice }
    }
}

/// What a peer wrote, fit for a terminal and a log: nothing but printable characters, no more than 300 of them.
pub fn one_line(text: &str) -> String {
    clipped(text, 300)
}

/// The same, with no more than `limit` characters.
pub(crate) fn clipped(text: &str, limit: usize) -> String {
    text.chars().map(|c| if printable(c) { c } else { '?' }).take(limit).collect()
}

/// Neither a control character nor one that cannot be seen and changes how what follows is read.
pub(crate) fn printable(c: char) -> bool {
    let invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !invisible
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_distinct_and_advised() {
        let names: BTreeSet<_> = Code::ALL.iter().map(Code::as_str).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
            assert!(code.advice().is_some(), "{code}");
        }
    }

    #[test]
    fn a_peer_cannot_write_to_the_terminal_or_fill_the_log() {
        let seen = format!("\u{1b}[2Jgone\r\n{}", "x".repeat(1 << 20));
        let refusal = Refusal::new(Code::CONTAINER_ID_MISMATCH, "host:1", seen);
        assert!(refusal.to_string().len() < 600);
        assert!(!refusal.to_string().contains(char::is_control));
    }

    #[test]
    fn a_refusal_that_a_peer_wrote_is_shown_clean() {
        let text = "\\u001b[2J\\u202e".repeat(200);
        let json = |code: &str| format!(r#"{{"code":"{code}","expected":"{text}","seen":"{text}","advice":"{text}"}}"#);
        let refusal: Refusal = serde_json::from_str(&json("nonce-replayed")).unwrap();
        let shown = refusal.to_string();
        assert!(shown.chars().count() < 1000 && shown.chars().all(printable), "{shown}");
        for code in ["", "a b", "\\u001b[2J", "Nonce", &"a".repeat(65)] {
            assert!(serde_json::from_str::<Refusal>(&json(code)).is_err(), "{code}");
        }
    }

    #[test]
    fn one_sentence() {
        let refusal = Refusal::new(Code::NONCE_REPLAYED, "a fresh nonce", "00ff");
        assert_eq!(refusal.to_string(), "nonce-replayed: expected a fresh nonce, saw 00ff; ask for a new challenge");
    }
}

//! Why a record does not hold.

use crate::clock::UnixMillis;
use crate::fixed::{Nonce32, PublicKey32};
use crate::refusal::{Refusal, one_line};

/// Why a record was not accepted. Each has a stable code and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not a DSSE envelope.
    #[error("this is not a record: {why}; pass the evidence.json of a run")]
    Envelope {
        /// What is wrong with it.
        why: String,
    },
    /// The same content in another spelling: it was edited or written by something else.
    #[error("the record's {what} is not spelled as it was signed: the file was edited; get the original")]
    NotCanonical {
        /// Which layer.
        what: &'static str,
    },
    /// The envelope holds something other than a statement.
    #[error("the envelope does not hold an in-toto statement; pass the evidence.json of a run")]
    PayloadType,
    /// The envelope names another key than the statement.
    #[error("the key that the envelope names is not the one in the record: the record was edited or signed again")]
    KeyId,
    /// The envelope's signature does not verify.
    #[error("the record's signature does not verify: it was edited after signing; get the original")]
    Signature,
    /// Signed, but by someone else.
    #[error("the record is signed by {}, not by the trusted key {}; check which gate made it", .seen, .trusted)]
    UntrustedSigner {
        /// The key that was given.
        trusted: PublicKey32,
        /// The key that signed.
        seen: PublicKey32,
    },
    /// The statement is not one of ours.
    #[error("the record's statement cannot be read: {why}; check that it was made by a compatible version")]
    Statement {
        /// What is wrong with it.
        why: String,
    },
    /// The subjects are not the artifacts of the sessions.
    #[error("the record's subjects are not the artifacts that its sessions signed for; do not trust the artifacts")]
    Subjects,
    /// A session's messages do not fit together.
    #[error("session {}: {refusal}", .session.short())]
    Session {
        /// Which.
        session: Nonce32,
        /// Why, with the protocol's own code.
        refusal: Box<Refusal>,
    },
    /// Two sessions have one id.
    #[error("session {} is in the record twice; it cannot count", .session.short())]
    SessionTwice {
        /// Which.
        session: Nonce32,
    },
    /// A session's end was not seen.
    #[error(
        "session {}: its {events} events verify, but the terminal event is missing; \
         the end of the run was not seen and nothing may be concluded from it", .session.short()
    )]
    TerminalMissing {
        /// Which.
        session: Nonce32,
        /// How many events there are.
        events: u64,
    },
    /// A session ended without a receipt.
    #[error("session {}: it ended without a zeroization receipt; treat what it held as exposed", .session.short())]
    ReceiptMissing {
        /// Which.
        session: Nonce32,
    },
    /// The stated time is before the run.
    #[error(
        "at {at} this run had not begun: its first challenge is from {from}; \
         the clock is another machine's or wrong, state a time from {from} to {until}"
    )]
    BeforeChallenge {
        /// The stated time.
        at: UnixMillis,
        /// The first challenge.
        from: UnixMillis,
        /// The end of the last lease.
        until: UnixMillis,
    },
    /// The stated time is after the last lease.
    #[error(
        "at {at} this run was over: its last lease ended at {until}; \
         the clock is another machine's, or state a time from {from} to {until}"
    )]
    AfterLease {
        /// The stated time.
        at: UnixMillis,
        /// The first challenge.
        from: UnixMillis,
        /// The end of the last lease.
        until: UnixMillis,
    },
    /// An overhead row belongs to another record.
    #[error("overhead row {row} does not belong to this record: {why}; it was moved here")]
    RowForeign {
        /// Which, from 1.
        row: usize,
        /// What does not fit.
        why: &'static str,
    },
    /// A row counts, but the sessions do not show what it says.
    #[error("overhead row {row} is not what its sessions show: {why}; it cannot count")]
    RowUnproven {
        /// Which, from 1.
        row: usize,
        /// What does not fit.
        why: &'static str,
    },
    /// The cleanup proof contradicts itself.
    #[error("the cleanup proof does not hold: {why}; check with the provider that the allocation is gone")]
    Cleanup {
        /// What does not fit.
        why: &'static str,
    },
    /// A claim names a source that cannot have made it.
    #[error("claim {name:?} is labelled with a source that did not make it; do not rely on it")]
    ClaimMislabelled {
        /// The claim.
        name: String,
    },
    /// The verifier that was given appraises the evidence otherwise.
    #[error("session {}: appraised again, the evidence is refused: {refusal}", .session.short())]
    Appraisal {
        /// Which.
        session: Nonce32,
        /// Why.
        refusal: Box<Refusal>,
    },
}

impl RecordError {
    /// The stable code; for what the protocol refuses, the protocol's.
    pub fn code(&self) -> &str {
        match self {
            Self::Envelope { .. } => "record-envelope",
            Self::NotCanonical { .. } => "record-not-canonical",
            Self::PayloadType => "record-payload-type",
            Self::KeyId => "record-key-id",
            Self::Signature => "record-signature",
            Self::UntrustedSigner { .. } => "record-untrusted-signer",
            Self::Statement { .. } => "record-statement",
            Self::Subjects => "record-subjects",
            Self::Session { refusal, .. } | Self::Appraisal { refusal, .. } => refusal.code.as_str(),
            Self::SessionTwice { .. } => "record-session-twice",
            Self::TerminalMissing { .. } => "terminal-event-missing",
            Self::ReceiptMissing { .. } => "receipt-missing",
            Self::BeforeChallenge { .. } => "time-before-challenge",
            Self::AfterLease { .. } => "time-after-lease",
            Self::RowForeign { .. } => "overhead-row-foreign",
            Self::RowUnproven { .. } => "overhead-row-unproven",
            Self::Cleanup { .. } => "cleanup-unproven",
            Self::ClaimMislabelled { .. } => "claim-mislabelled",
        }
    }

    pub(super) fn envelope(refusal: &Refusal) -> Self {
        Self::Envelope { why: plain(refusal) }
    }

    pub(super) fn statement(refusal: &Refusal) -> Self {
        Self::Statement { why: plain(refusal) }
    }

    pub(super) fn session(session: Nonce32, mut refusal: Refusal) -> Self {
        refusal.seen = one_line(&refusal.seen);
        refusal.expected = one_line(&refusal.expected);
        Self::Session { session, refusal: Box::new(refusal) }
    }
}

fn plain(refusal: &Refusal) -> String {
    one_line(&format!("expected {}, saw {}", refusal.expected, refusal.seen))
}

//! The event chain: each event names the digest of the one before, from a genesis that binds the verdict.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use super::event::{EventBody, EventHeader};
use crate::fixed::{Digest48, Nonce32, PublicKey32};
use crate::protocol::{Signed, Verdict, decode};
use crate::refusal::{Code, Refusal};
use crate::transcript::{Transcript, sha384};

/// `prev_hash` of the first event: SHA-384(`"gh/chain/1"` || T || digest of the signed verdict).
pub fn genesis(t: &Digest48, verdict: &Signed<Verdict>) -> Digest48 {
    Transcript::new("gh/chain/1").fixed(t).fixed(verdict.digest()).sha384()
}

/// The genesis of a raw segment, which has neither T nor verdict.
pub fn raw_genesis(session: &Nonce32) -> Digest48 {
    Transcript::new("gh/chain-raw/1").fixed(session).sha384()
}

/// Follows a chain event by event and refuses what does not continue it.
#[derive(Clone, Debug)]
pub struct ChainVerifier {
    session: Nonce32,
    key: PublicKey32,
    next: u64,
    previous: Digest48,
    ended: bool,
}

impl ChainVerifier {
    /// A chain that has only its genesis.
    pub fn new(session: Nonce32, key: PublicKey32, genesis: Digest48) -> Self {
        Self { session, key, next: 0, previous: genesis, ended: false }
    }

    /// The session.
    pub const fn session(&self) -> Nonce32 {
        self.session
    }

    /// The key that signs the events.
    pub const fn key(&self) -> PublicKey32 {
        self.key
    }

    /// The number of events so far.
    pub const fn len(&self) -> u64 {
        self.next
    }

    /// Whether there is none yet.
    pub const fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// Whether a terminal event has been taken.
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Takes the next event's header.
    ///
    /// # Errors
    /// `chain-signature`, `session-mismatch`, `event-after-terminal`, `chain-gap`, `chain-fork`.
    pub fn accept_header(&mut self, signed: &Signed<EventHeader>) -> Result<EventHeader, Refusal> {
        let header = signed.verify(&self.key).map_err(|refusal| {
            if refusal.code == Code::SIGNATURE_INVALID {
                Refusal::new(Code::CHAIN_SIGNATURE, refusal.expected, refusal.seen)
            } else {
                refusal
            }
        })?;
        if header.session != self.session {
            return Err(Refusal::new(Code::SESSION_MISMATCH, self.session.short(), header.session.short()));
        }
        if self.ended {
            return Err(Refusal::new(Code::EVENT_AFTER_TERMINAL, "nothing", format!("event {}", header.seq)));
        }
        if header.seq != self.next {
            let code = if header.seq > self.next { Code::CHAIN_GAP } else { Code::CHAIN_FORK };
            return Err(Refusal::new(code, format!("event {}", self.next), format!("event {}", header.seq)));
        }
        if header.previous != self.previous {
            let expected = format!("event {} after {}", header.seq, self.previous.short());
            return Err(Refusal::new(Code::CHAIN_FORK, expected, format!("after {}", header.previous.short())));
        }
        self.next = self.next.saturating_add(1);
        self.previous = signed.digest();
        self.ended = header.terminal;
        Ok(header)
    }

    /// Takes the next event with its body.
    ///
    /// # Errors
    /// As [`accept_header`](Self::accept_header); `chain-body` when the body is not the one signed for.
    pub fn accept(&mut self, signed: &Signed<EventHeader>, body: &[u8]) -> Result<(EventHeader, EventBody), Refusal> {
        let mut ahead = self.clone();
        let header = ahead.accept_header(signed)?;
        let body = check_body(&header, body)?;
        *self = ahead;
        Ok((header, body))
    }

    /// Checks that the chain came to its end.
    ///
    /// # Errors
    /// `terminal-event-missing`.
    pub fn finish(&self) -> Result<(), Refusal> {
        if self.ended {
            return Ok(());
        }
        let seen = format!("{} events, none of them terminal", self.next);
        Err(Refusal::new(Code::TERMINAL_EVENT_MISSING, "a terminal event", seen))
    }
}

/// Reads a body and checks it against its header.
///
/// # Errors
/// `chain-body`, or as [`decode`].
pub fn check_body(header: &EventHeader, body: &[u8]) -> Result<EventBody, Refusal> {
    if sha384(body) != header.body {
        let expected = format!("the body of event {}", header.seq);
        return Err(Refusal::new(Code::CHAIN_BODY, expected, "another body"));
    }
    let body: EventBody = decode("event", body, EventBody::LIMIT)?;
    if body.is_terminal() != header.terminal {
        return Err(Refusal::new(
            Code::CHAIN_BODY,
            "a header that says whether the event is the last",
            "one that errs",
        ));
    }
    Ok(body)
}

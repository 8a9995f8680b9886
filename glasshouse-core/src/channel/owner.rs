//! The owner's end: opens records, follows the chain, seals commands.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use super::chain::{ChainVerifier, raw_genesis};
use super::event::{Event, EventBody, EventHeader};
use super::record::{Command, Direction, RecordKey, SealedRecord};
use super::runtime::raw_keys;
use crate::fixed::{Digest48, Nonce32, PublicKey32};
use crate::protocol::{ReleaseKeys, decode, encode};
use crate::refusal::Refusal;
use crate::secret::Secret;

/// The owner's end of one session's channel.
pub struct OwnerChannel {
    incoming: RecordKey,
    outgoing: RecordKey,
    chain: ChainVerifier,
    events: Vec<Event>,
}

impl OwnerChannel {
    pub(crate) fn new(
        session: Nonce32,
        event_key: PublicKey32,
        keys: ReleaseKeys,
        epoch: u32,
        genesis: Digest48,
    ) -> Self {
        Self {
            incoming: RecordKey::new(keys.to_owner, session, Direction::ToOwner, epoch),
            outgoing: RecordKey::new(keys.to_runtime, session, Direction::ToRuntime, epoch),
            chain: ChainVerifier::new(session, event_key, genesis),
            events: Vec::new(),
        }
    }

    /// The channel of a raw segment, under the agent's process that has this `boot` id.
    pub fn raw(launch_secret: &Secret<32>, session: Nonce32, boot: &Nonce32) -> Self {
        let (signer, keys) = raw_keys(launch_secret, session, boot);
        Self::new(session, signer.public(), keys, 0, raw_genesis(&session))
    }

    /// Opens the next record and follows the chain. Nothing changes when it is refused.
    ///
    /// # Errors
    /// `record-…`, `chain-…`, or as [`decode`].
    pub fn accept(&mut self, record: &SealedRecord) -> Result<(EventHeader, EventBody), Refusal> {
        self.accept_kept(record, || Ok(()))
    }

    /// As [`accept`](Self::accept), and `keep` makes the record durable between its checks and its acceptance: a record
    /// that was not kept was not taken either.
    pub(crate) fn accept_kept<E: From<Refusal>>(
        &mut self,
        record: &SealedRecord,
        keep: impl FnOnce() -> Result<(), E>,
    ) -> Result<(EventHeader, EventBody), E> {
        let (chain, events) = (&mut self.chain, &mut self.events);
        self.incoming.open(record, |plaintext| {
            let event: Event = decode("event", plaintext, SealedRecord::LIMIT)?;
            let mut ahead = chain.clone();
            let accepted = ahead.accept(&event.header, &event.body.0)?;
            keep()?;
            *chain = ahead;
            events.push(event);
            Ok(accepted)
        })
    }

    /// Seals a command.
    ///
    /// # Errors
    /// `message-too-large` after 2^64 of them.
    pub fn command(&mut self, command: &Command) -> Result<SealedRecord, Refusal> {
        self.outgoing.seal(&encode(command))
    }

    /// The sequence number of the next record expected.
    pub const fn next(&self) -> u64 {
        self.incoming.next()
    }

    /// Every event so far, as signed.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The chain so far.
    pub const fn chain(&self) -> &ChainVerifier {
        &self.chain
    }
}

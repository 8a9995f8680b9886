//! The gate's memory in this process: for tests, and for runs whose owner need not survive a crash.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::store::{BurnOutcome, CommittedRelease, GateStore, StoreError};
use crate::channel::SealedRecord;
use crate::fixed::Nonce32;

/// What any store remembers; the file store replays its journal into one of these.
#[derive(Default)]
pub(super) struct State {
    nonces: HashMap<(Nonce32, Nonce32), bool>,
    issued: HashMap<Nonce32, u32>,
    releases: HashMap<Nonce32, CommittedRelease>,
    records: HashMap<Nonce32, Vec<SealedRecord>>,
}

impl State {
    pub(super) fn issue(&mut self, session: Nonce32, nonce: Nonce32) -> u32 {
        self.nonces.insert((session, nonce), false);
        let count = self.issued.entry(session).or_default();
        *count = count.saturating_add(1);
        *count
    }

    pub(super) fn outcome_of_burning(&self, session: &Nonce32, nonce: &Nonce32) -> BurnOutcome {
        match self.nonces.get(&(*session, *nonce)) {
            None => BurnOutcome::Unknown,
            Some(true) => BurnOutcome::Replayed,
            Some(false) => BurnOutcome::Fresh,
        }
    }

    pub(super) fn burn(&mut self, session: Nonce32, nonce: Nonce32) {
        self.nonces.insert((session, nonce), true);
    }

    pub(super) fn may_commit(&self, session: &Nonce32) -> Result<(), StoreError> {
        if self.releases.contains_key(session) {
            return Err(StoreError::AlreadyReleased { session: session.short() });
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, release: CommittedRelease) {
        self.releases.insert(release.session, release);
    }

    pub(super) fn sessions(&self) -> Vec<Nonce32> {
        self.releases.keys().copied().collect()
    }

    pub(super) fn committed(&self, session: &Nonce32) -> Option<CommittedRelease> {
        self.releases.get(session).cloned()
    }

    pub(super) fn keep(&mut self, session: Nonce32, record: SealedRecord) {
        let kept = self.records.entry(session).or_default();
        if kept.last() != Some(&record) {
            kept.push(record);
        }
    }

    pub(super) fn kept(&self, session: &Nonce32) -> Vec<SealedRecord> {
        self.records.get(session).cloned().unwrap_or_default()
    }
}

/// A [`GateStore`] without durability.
#[derive(Default)]
pub struct MemoryGateStore(Mutex<State>);

impl MemoryGateStore {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change is one insertion, so that a panic elsewhere cannot leave half of one behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateStore for MemoryGateStore {
    fn issue(&self, session: &Nonce32, nonce: &Nonce32) -> Result<u32, StoreError> {
        Ok(self.state().issue(*session, *nonce))
    }

    fn burn(&self, session: &Nonce32, nonce: &Nonce32) -> Result<BurnOutcome, StoreError> {
        let mut state = self.state();
        let outcome = state.outcome_of_burning(session, nonce);
        if outcome == BurnOutcome::Fresh {
            state.burn(*session, *nonce);
        }
        Ok(outcome)
    }

    fn commit(&self, release: &CommittedRelease) -> Result<(), StoreError> {
        let mut state = self.state();
        state.may_commit(&release.session)?;
        state.commit(release.clone());
        Ok(())
    }

    fn sessions(&self) -> Result<Vec<Nonce32>, StoreError> {
        Ok(self.state().sessions())
    }

    fn committed(&self, session: &Nonce32) -> Result<Option<CommittedRelease>, StoreError> {
        Ok(self.state().committed(session))
    }

    fn keep(&self, session: &Nonce32, record: &SealedRecord) -> Result<(), StoreError> {
        self.state().keep(*session, record.clone());
        Ok(())
    }

    fn kept(&self, session: &Nonce32) -> Result<Vec<SealedRecord>, StoreError> {
        Ok(self.state().kept(session))
    }
}

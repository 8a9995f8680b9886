//! What an owner that was killed left behind.

use std::collections::BTreeMap;

use glasshouse_core::overhead::{Cleanup, Label};
use glasshouse_core::record::CleanupProof;
use glasshouse_core::traits::{Allocation, ProviderError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pause::{from_now, pause};
use super::{OpenEntry, Supervisor, SupervisorError};
use crate::clock;
use crate::roles::note;

/// What was found, and what came of it.
#[derive(Debug)]
pub struct Reaped {
    /// The end of each allocation that was found. One whose outcome is not `observed` stays in the journal.
    pub ended: Vec<CleanupProof>,
    /// Names of those that the provider had and the journal did not: another journal's, or a lost one's.
    pub strays: Vec<String>,
    /// Why the provider did not tell what it has. Then only what the journal has was ended.
    pub unlisted: Option<ProviderError>,
    /// What the journal still has, of every provider: allocations that nobody has seen to be gone.
    pub unconfirmed: Vec<OpenEntry>,
}

impl Reaped {
    /// Whether nothing of this owner is left, as far as provider and journal can tell.
    pub fn is_clean(&self) -> bool {
        self.unlisted.is_none()
            && self.unconfirmed.is_empty()
            && self.ended.iter().all(|proof| proof.outcome == Cleanup::Observed)
    }
}

impl Supervisor {
    /// Ends everything that the journal has of this provider and that nobody saw the end of: what an owner who was
    /// killed left behind. Gives a proof for each; one whose outcome is not `observed` stays in the journal, and so does
    /// what it has of other providers: each is said on standard error, and is in
    /// [`Journal::open_entries`](super::Journal::open_entries).
    ///
    /// # Errors
    /// [`SupervisorError::Unjournalled`] with every proof, after everything was asked to end; a provider that does not answer
    /// leaves its allocations unconfirmed.
    pub async fn recover(&self) -> Result<Vec<CleanupProof>, SupervisorError> {
        let entries = self.core.journal.open_entries();
        let mine = entries.into_iter().filter(|entry| entry.provider == self.core.provider.name()).collect();
        let ended = self.end_all(mine).await;
        self.say_unconfirmed();
        ended
    }

    /// Ends everything that bears this owner's mark: what the provider lists and what the journal has. For an owner that
    /// was killed, or whose journal is lost. It also ends what another process of this owner is using at the moment.
    ///
    /// # Errors
    /// As [`Self::recover`], also when a stray cannot be written into the journal: it is ended all the same.
    pub async fn reap(&self) -> Result<Reaped, SupervisorError> {
        let (listed, unlisted) = match self.list().await {
            Ok(listed) => (listed, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let provider = self.core.provider.name();
        let mut entries = self.core.journal.open_entries();
        entries.retain(|entry| entry.provider == provider);
        let mut strays = Vec::new();
        for Allocation { id, name, .. } in listed {
            if let Some(known) = entries.iter_mut().find(|entry| entry.name == name) {
                known.id.get_or_insert(id);
                continue;
            }
            // Written down first, so that it is not lost when this owner is killed too. A journal that takes no more is no
            // reason to leave it running: that its end cannot be written either is then what is said.
            let journal = &self.core.journal;
            let entry = OpenEntry::new(&*self.core.provider, &name);
            let _ = journal.asking(&entry).and_then(|()| journal.created(&name, &id));
            entries.push(OpenEntry { id: Some(id), ..entry });
            strays.push(name);
        }
        let ended = self.end_all(entries).await;
        self.say_unconfirmed();
        let ended = ended?;
        Ok(Reaped { ended, strays, unlisted, unconfirmed: self.core.journal.open_entries() })
    }

    /// What of this owner's the provider shows, asked for again when it does not answer.
    async fn list(&self) -> Result<Vec<Allocation>, ProviderError> {
        let (prefix, patience) = (self.owner.prefix(), self.core.patience);
        let deadline = from_now(patience.settle);
        loop {
            match self.core.answer("list_owned", self.core.provider.list_owned()).await {
                Ok(owned) => return Ok(owned.into_iter().filter(|a| a.name.starts_with(&prefix)).collect()),
                Err(error @ (ProviderError::Unauthorized { .. } | ProviderError::Refused { .. })) => return Err(error),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(error) => pause(patience.poll, Some(&error), deadline).await,
            }
        }
    }

    /// All at once: one that does not end must not hold up the others.
    async fn end_all(&self, entries: Vec<OpenEntry>) -> Result<Vec<CleanupProof>, SupervisorError> {
        let (mut ending, mut names) = (JoinSet::new(), BTreeMap::new());
        for entry in entries {
            let core = self.core.clone();
            let hidden = entry.hidden(core.patience.settle, core.patience.create(), core.patience.late);
            let name = entry.id.as_ref().map_or_else(|| entry.name.clone(), |id| id.0.clone());
            names.insert(ending.spawn(async move { core.end(&entry, hidden).await }).id(), name);
        }
        let (mut proofs, mut failed) = (Vec::new(), None);
        while let Some(ended) = ending.join_next_with_id().await {
            match (ended, &failed) {
                (Ok((_, Ok(proof))), _) => proofs.push(proof),
                (Ok((_, Err(SupervisorError::Unjournalled { proof, .. }))), Some(_)) => proofs.push(*proof),
                (Ok((_, Err(error))), _) => failed = Some(error),
                // A provider that panics over one of them says nothing of the others, and nothing was seen of this one.
                (Err(panicked), _) => {
                    let name = names.remove(&panicked.id()).unwrap_or_default();
                    note(format_args!("the end of {name} broke off: {panicked}"));
                    let provider = Label::lossy(self.core.provider.name());
                    proofs.push(CleanupProof::new(provider, name, Some(clock::wall()), Vec::new(), None));
                }
            }
        }
        match failed {
            None => Ok(proofs),
            Some(SupervisorError::Unjournalled { proof, error, .. }) => {
                Err(SupervisorError::Unjournalled { proof, error, others: proofs.into() })
            }
            Some(error) => Err(error),
        }
    }

    fn say_unconfirmed(&self) {
        for OpenEntry { provider, name, id, .. } in self.core.journal.open_entries() {
            let id = id.map(|id| format!(" ({id})")).unwrap_or_default();
            note(format_args!("{provider} may still have, and bill, {name}{id}: nobody has seen it gone; look there"));
        }
    }
}

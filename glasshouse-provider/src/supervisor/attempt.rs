//! One try: written down, asked for once, adopted when in doubt, ended when it comes to nothing.

use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::traits::{Allocation, CreateOutcome, LaunchSpec, Offer, ProviderError};
use tokio::time::Instant;

use super::boot::{Boot, Terms, Up};
use super::pause::{from_now, pause};
use super::rent::Failed;
use super::{OpenEntry, RentRequest, Rented, Supervisor, SupervisorError};

impl Supervisor {
    pub(super) async fn attempt(&self, offer: &Offer, request: &RentRequest) -> Result<Rented, Failed> {
        let core = &self.core;
        let stop = |error| Failed { name: String::new(), error, over: false };
        let spec = self.launch_spec(request).map_err(stop)?;
        let stop = |error| Failed { name: spec.name.clone(), error, over: false };
        let terms = Terms::new(&spec.name, offer, request);
        core.ledger.promise(&spec.name, offer.price_per_hour, request.time_limit).map_err(stop)?;
        let mut entry = OpenEntry::new(&*core.provider, &spec.name);
        if let Err(error) = core.journal.asking(&entry) {
            core.ledger.forget(&spec.name);
            return Err(stop(error.into()));
        }
        let (allocation, seen) = self.ask(offer, &spec, &mut entry).await?;
        let answered = Instant::now();
        let hidden = |seen: bool| if seen { Duration::ZERO } else { left(core.patience.settle, answered) };
        entry.id = Some(allocation.id.clone());
        if let Err(error) = core.journal.created(&entry.name, &allocation.id) {
            // Nothing goes on running that the journal cannot follow. It still has the name, should this not end it.
            let _ = core.end(&entry, hidden(seen)).await;
            return Err(stop(error.into()));
        }
        let secret = Arc::new(spec.launch_secret);
        let mut boot = Boot::new(self, &allocation, &terms, &secret);
        boot.seen = seen;
        let up = boot.until_up().await;
        let seen = boot.seen;
        match up {
            Ok(Up { client, container, allocation }) => Ok(Rented {
                core: core.clone(),
                entry,
                terms,
                ended: false,
                allocation,
                container,
                launch_secret: secret.clone(),
                client,
                tried: Vec::new(),
            }),
            Err(error) => {
                // An end that cannot be journalled is still open there: the next run looks again.
                let over = core.is_ended(&entry, hidden(seen)).await && may_be_better_elsewhere(&error);
                Err(Failed { name: entry.name, error, over })
            }
        }
    }

    /// Asks for it, once. Gives the allocation, and whether the provider has shown it beyond its answer.
    async fn ask(&self, offer: &Offer, spec: &LaunchSpec, entry: &mut OpenEntry) -> Result<(Allocation, bool), Failed> {
        let core = &self.core;
        match core.answer_within(core.patience.create(), "create", core.provider.create(offer, spec)).await {
            Ok(CreateOutcome::Created(allocation)) => Ok((allocation, false)),
            Ok(CreateOutcome::NoCapacity) => {
                Err(self.never_made(entry, SupervisorError::NoCapacity { offer: offer.id.clone() }))
            }
            // Definite: the provider understood and did nothing.
            Err(
                error @ (ProviderError::Refused { .. }
                | ProviderError::Unauthorized { .. }
                | ProviderError::OutOfFunds { .. }
                | ProviderError::RateLimited { .. }),
            ) => Err(self.never_made(entry, error.into())),
            Err(error) => self.adopt(entry, error).await,
        }
    }

    /// The provider did nothing, and says so.
    fn never_made(&self, entry: &OpenEntry, error: SupervisorError) -> Failed {
        self.core.ledger.forget(&entry.name);
        let (error, over) = match self.core.journal.gone(&entry.name) {
            Ok(()) => (error, true),
            Err(journal) => (journal.into(), false),
        };
        let over = over && may_be_better_elsewhere(&error);
        Failed { name: entry.name.clone(), error, over }
    }

    /// A create that went wrong may have made an allocation: it is looked for, and taken or ruled out, never repeated.
    async fn adopt(&self, entry: &mut OpenEntry, error: ProviderError) -> Result<(Allocation, bool), Failed> {
        let core = &self.core;
        if let ProviderError::Ambiguous { allocation: Some(id), .. } = &error {
            // It was made, and something is wrong with it.
            entry.id = Some(id.clone());
            // So that the next owner has it too. A journal that takes no more is said with the end.
            let _ = core.journal.created(&entry.name, id);
            return Err(self.rule_out(entry, error, core.patience.settle).await);
        }
        let (answered, deadline) = (Instant::now(), from_now(core.patience.settle));
        loop {
            let mut wait = None;
            match core.answer("find", core.provider.find(&entry.name)).await {
                Ok(found) => {
                    let mut found = found.into_iter();
                    if let Some(first) = found.next() {
                        // Should there be two of a name, one is one too many.
                        let further: Vec<_> = found.map(|allocation| allocation.id).collect();
                        let _ = core.request(further.iter()).await;
                        return Ok((first, true));
                    }
                }
                Err(error) => wait = Some(error),
            }
            if Instant::now() >= deadline {
                break;
            }
            pause(core.patience.poll, wait.as_ref(), deadline).await;
        }
        // Not seen over the whole time in which it would have shown. Still, only two sightings of absence close it.
        Err(self.rule_out(entry, error, left(core.patience.settle, answered)).await)
    }

    /// Ends whatever there may be, hidden or not.
    async fn rule_out(&self, entry: &OpenEntry, error: ProviderError, hidden: Duration) -> Failed {
        let (name, provider) = (entry.name.clone(), self.core.provider.name());
        match self.core.is_ended(entry, hidden).await {
            true => Failed { name, error: error.into(), over: true },
            false => {
                let in_doubt = SupervisorError::InDoubt { provider, name: name.clone(), why: error.to_string() };
                Failed { name, error: in_doubt, over: false }
            }
        }
    }

    fn launch_spec(&self, request: &RentRequest) -> Result<LaunchSpec, SupervisorError> {
        request.launch(self.owner.fresh_name()?)
    }
}

/// What is left of the time for which something may be hidden whose create was answered then. By this clock: the one on the
/// wall may be set meanwhile. In whole seconds, so that this waits rather longer than shorter.
fn left(settle: Duration, answered: Instant) -> Duration {
    settle.saturating_sub(Duration::from_secs(answered.elapsed().as_secs()))
}

/// Whether another offer can fare better: not against one's own budget, account, key, journal or clock.
const fn may_be_better_elsewhere(error: &SupervisorError) -> bool {
    !matches!(
        error,
        SupervisorError::Journal(_)
            | SupervisorError::Unjournalled { .. }
            | SupervisorError::Provider(ProviderError::Unauthorized { .. } | ProviderError::OutOfFunds { .. })
            | SupervisorError::OverBudget { .. }
            | SupervisorError::NoTimeLimit
            | SupervisorError::OutOfTime { .. }
            | SupervisorError::NoRandomness
    )
}

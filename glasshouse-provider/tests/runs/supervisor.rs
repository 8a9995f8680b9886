//! What the supervisor does when a provider misbehaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use glasshouse_core::fixed::Fixed;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::traits::{AllocationState, OfferFilter};
use glasshouse_provider::MemoryProvider;
use glasshouse_provider::memory::{Call, Fault};
use glasshouse_provider::supervisor::{
    BootBudgets, BootPhase, Journal, Patience, RentRequest, Rented, Supervisor, SupervisorError,
};

use crate::storms::wall;
use crate::support::{Test, block_on};

pub(crate) const TESTS: &[Test] = &[
    ("a_create_in_doubt_is_adopted", a_create_in_doubt_is_adopted),
    ("a_create_that_failed_is_ruled_out", a_create_that_failed_is_ruled_out),
    ("unknown_right_after_create_is_waited_for", unknown_right_after_create_is_waited_for),
    ("an_end_that_is_ignored_stays_in_the_journal", an_end_that_is_ignored_stays_in_the_journal),
    ("an_end_is_proven_whatever_the_clock_does", an_end_is_proven_whatever_the_clock_does),
    (
        "what_may_be_hidden_is_waited_for_whatever_the_clock_does",
        what_may_be_hidden_is_waited_for_whatever_the_clock_does,
    ),
    ("above_the_cap_is_ended", above_the_cap_is_ended),
    ("no_capacity_leaves_nothing", no_capacity_leaves_nothing),
    ("an_early_exit_is_told", an_early_exit_is_told),
];

pub(crate) const QUICK: Patience = Patience {
    boot: BootBudgets::each(Duration::from_millis(150)),
    settle: Duration::from_millis(60),
    late: Duration::from_millis(20),
    poll: Duration::from_millis(5),
    watch: Duration::from_millis(20),
    absence_spacing: Duration::from_millis(5),
    end: Duration::from_millis(200),
};

pub(crate) fn request(cap: Option<f64>) -> RentRequest {
    RentRequest {
        filter: OfferFilter { max_price_per_hour: cap, ..OfferFilter::default() },
        image: None,
        gate_key: Fixed([1; 32]),
        linger: Duration::from_secs(1),
        env: BTreeMap::new(),
        disk_gib: None,
        time_limit: None,
    }
}

/// With time to see an end, however busy this machine is.
const UNHURRIED: Patience = Patience { end: Duration::from_secs(5), ..QUICK };

fn rent(provider: MemoryProvider, cap: Option<f64>) -> (Arc<MemoryProvider>, Arc<Journal>, SupervisorError) {
    rent_within(QUICK, provider, cap)
}

fn rent_within(
    patience: Patience,
    provider: MemoryProvider,
    cap: Option<f64>,
) -> (Arc<MemoryProvider>, Arc<Journal>, SupervisorError) {
    let (provider, journal) = (Arc::new(provider), Arc::new(Journal::memory()));
    let supervisor = Supervisor::new(provider.clone(), journal.clone()).patience(patience);
    let rented: Result<Rented, _> = block_on(supervisor.rent(&request(cap)));
    (provider, journal, rented.err().expect("a provider in memory has no agent"))
}

fn count(provider: &MemoryProvider, call: Call) -> usize {
    provider.calls().into_iter().filter(|made| *made == call).count()
}

fn a_create_in_doubt_is_adopted() {
    for names_it in [false, true] {
        let provider = MemoryProvider::new().fault(Call::Create, [Fault::FailsButHappens { names_it }]);
        let (provider, journal, error) = rent(provider, None);
        // Adopted, so it came to waiting for its agent; what an error names is ended. Never created twice.
        assert_eq!(matches!(error, SupervisorError::Stuck { .. }), !names_it, "{error}");
        assert_eq!(count(&provider, Call::Create), 1);
        assert!(provider.existing().is_empty() && journal.open_entries().is_empty());
    }
}

fn a_create_that_failed_is_ruled_out() {
    let (provider, journal, error) = rent(MemoryProvider::new().fault(Call::Create, [Fault::Fails]), None);
    assert!(matches!(error, SupervisorError::Provider(_)), "{error}");
    assert_eq!(count(&provider, Call::Create), 1);
    assert!(count(&provider, Call::Find) > 2);
    assert!(journal.open_entries().is_empty());
}

fn unknown_right_after_create_is_waited_for() {
    let provider = MemoryProvider::new().fault(Call::Observe, [Fault::NotFound, Fault::NotFound, Fault::Nonsense]);
    let (provider, _, error) = rent(provider, None);
    assert!(
        matches!(error, SupervisorError::Stuck { phase: BootPhase::Reachable, state: AllocationState::Running, .. }),
        "{error}"
    );
    assert!(provider.existing().is_empty());
}

fn an_end_that_is_ignored_stays_in_the_journal() {
    let provider = MemoryProvider::new().fault(Call::Terminate, vec![Fault::Ignored; 10_000]);
    let (provider, journal, error) = rent(provider, None);
    assert!(matches!(error, SupervisorError::Stuck { .. }), "{error}");
    assert_eq!(journal.open_entries().len(), provider.existing().len());
    let proofs = block_on(Supervisor::new(provider, journal.clone()).patience(QUICK).recover()).unwrap();
    assert_eq!(proofs[0].outcome, Cleanup::Unconfirmed);
    assert_eq!(journal.open_entries().len(), 1);
}

/// Does something while this process's wall clock is set on by `step` milliseconds, every millisecond.
fn while_the_clock_is_set<T>(step: i64, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (1..).take_while(|_| !over.load(SeqCst)) {
                wall::set_here(n * step);
                std::thread::sleep(Duration::from_millis(1));
            }
            wall::set_here(0);
        });
        let done = work();
        over.store(true, SeqCst);
        done
    })
}

/// Record and journal say the same of an end during which the owner's clock is set back or forwards again and again.
fn an_end_is_proven_whatever_the_clock_does() {
    for step in [-60_000, 60_000] {
        let provider = MemoryProvider::new().fault(Call::Terminate, vec![Fault::Ignored; 400]);
        let (provider, journal, _) = rent(provider, None);
        assert_eq!(journal.open_entries().len(), 1);
        provider.fail(Call::Terminate, []);
        let supervisor = Supervisor::new(provider.clone(), journal.clone()).patience(UNHURRIED);
        let proofs = while_the_clock_is_set(step, || block_on(supervisor.recover()).unwrap());
        let seen = &proofs[0];
        assert!(seen.absent_at.is_sorted(), "{seen:?}");
        assert_eq!(seen.outcome, Cleanup::Observed, "{seen:?}");
        assert!(provider.existing().is_empty() && journal.open_entries().is_empty());
    }
}

/// A fresh allocation may not be shown for a while. A clock that is set forwards does not make that while any shorter.
fn what_may_be_hidden_is_waited_for_whatever_the_clock_does() {
    for step in [-60_000, 60_000] {
        let made = Fault::FailsButHappens { names_it: false };
        // It shows after it was looked for in vain, and before its absence means anything.
        let provider = MemoryProvider::new().fault(Call::Create, [made]).hidden(Duration::from_millis(95));
        let (provider, journal, error) = while_the_clock_is_set(step, || rent_within(UNHURRIED, provider, None));
        assert!(provider.existing().is_empty(), "it goes on running unseen: {error}");
        assert!(journal.open_entries().is_empty());
    }
}

fn above_the_cap_is_ended() {
    // The offer fits, the allocation does not.
    let provider = MemoryProvider::new().price(0.4);
    let (provider, _, error) = rent(provider, Some(0.1));
    assert!(matches!(error, SupervisorError::NoOffer { .. }), "{error}");
    assert_eq!(count(&provider, Call::Create), 0);
}

fn no_capacity_leaves_nothing() {
    let (_, journal, error) = rent(MemoryProvider::new().fault(Call::Create, [Fault::NoCapacity]), None);
    assert!(matches!(error, SupervisorError::NoOffer { .. }), "{error}");
    assert!(journal.open_entries().is_empty());
}

fn an_early_exit_is_told() {
    let states = [AllocationState::Pulling, AllocationState::Exited(Some(7))];
    let (provider, journal, error) = rent(MemoryProvider::new().boot(states), None);
    assert!(error.to_string().contains("exit code 7"), "{error}");
    assert!(provider.existing().is_empty() && journal.open_entries().is_empty());
}

//! What an owner may spend, for how long, on how many offers, and what of its own it finds again.

use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::traits::{AllocationState, Endpoint, Offer, Provider as _, ProviderError};
use glasshouse_provider::MemoryProvider;
use glasshouse_provider::contract::Answers;
use glasshouse_provider::memory::{Call, Fault};
use glasshouse_provider::supervisor::{
    BootPhase, Journal, OwnerTag, Patience, RentRequest, Supervisor, SupervisorError,
};

use crate::spec;
use crate::supervised::request;

const HOUR: Duration = Duration::from_secs(3600);

struct Owner {
    provider: Arc<MemoryProvider>,
    journal: Arc<Journal>,
    supervisor: Supervisor,
}

fn owner(provider: MemoryProvider, with: impl FnOnce(Supervisor) -> Supervisor) -> Owner {
    let (provider, journal) = (Arc::new(provider), Arc::new(Journal::memory()));
    let supervisor = Supervisor::new(provider.clone(), journal.clone()).dial(Arc::new(Answers(journal.clone())));
    let supervisor = with(supervisor.owner(OwnerTag::new("ann").unwrap()));
    Owner { provider, journal, supervisor }
}

impl Owner {
    fn is_clean(&self) -> bool {
        self.provider.existing().is_empty() && self.journal.open_entries().is_empty()
    }

    fn creates(&self) -> usize {
        self.provider.calls().into_iter().filter(|call| *call == Call::Create).count()
    }
}

fn cards(offers: usize) -> MemoryProvider {
    MemoryProvider::new().cards("4090", offers).endpoint(Endpoint::Direct(([127, 0, 0, 1], 1).into()))
}

fn limited(limit: Option<Duration>) -> RentRequest {
    RentRequest { time_limit: limit, ..request() }
}

#[tokio::test(start_paused = true)]
async fn a_price_that_rises_above_the_cap_ends_it() {
    let owner = owner(cards(1), |supervisor| supervisor);
    let rented = owner.supervisor.rent(&request()).await.unwrap();
    let calm = tokio::time::timeout(Duration::from_secs(600), rented.watch()).await;
    assert!(calm.is_err(), "nothing is wrong with it");
    owner.provider.set_price(1.01);
    let error = rented.watch().await;
    assert!(matches!(error, SupervisorError::TooExpensive { price, .. } if price > 1.0), "{error}");
    rented.end().await.unwrap();
    assert!(owner.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_counts_from_the_create_and_leaves_time_to_stop() {
    let owner = owner(cards(1), |supervisor| supervisor);
    let began = tokio::time::Instant::now();
    let rented = owner.supervisor.rent(&limited(Some(HOUR))).await.unwrap();
    let error = rented.watch().await;
    assert!(matches!(error, SupervisorError::OutOfTime { limit: HOUR, .. }), "{error}");
    let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
    assert!(began.elapsed() >= HOUR - minute && began.elapsed() < HOUR - minute + second, "{:?}", began.elapsed());
    tokio::time::sleep_until(began + HOUR).await;
    rented.end().await.unwrap();
    // At half a dollar an hour.
    assert!((owner.supervisor.spent() - 0.5).abs() < 0.01, "{}", owner.supervisor.spent());
}

#[tokio::test(start_paused = true)]
async fn waiting_that_costs_nothing_does_not_count() {
    let mut queue = vec![AllocationState::Scheduling; 10];
    queue.push(AllocationState::Running);
    let owner = owner(cards(1).price(0.0).boot(queue), |supervisor| supervisor);
    let began = tokio::time::Instant::now();
    let rented = owner.supervisor.rent(&limited(Some(HOUR))).await.unwrap();
    let queued = began.elapsed();
    assert!(queued > Duration::from_secs(10), "{queued:?}");
    rented.watch().await;
    assert!(began.elapsed() >= queued + HOUR - Duration::from_secs(61), "{:?}", began.elapsed());
    rented.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_end_is_asked_for_whether_anybody_can_look_or_not() {
    let owner = owner(cards(1), |supervisor| supervisor);
    let rented = owner.supervisor.rent(&request()).await.unwrap();
    owner.provider.fail(Call::Find, vec![Fault::Fails; 10_000]);
    let proof = rented.end().await.unwrap();
    assert!(owner.provider.existing().is_empty(), "it bills on");
    // It was not seen to be gone, and the journal says so until it is.
    assert_ne!(proof.outcome, glasshouse_core::overhead::Cleanup::Observed);
    assert_eq!(owner.journal.open_entries().len(), 1);
    owner.provider.fail(Call::Find, []);
    assert!(owner.supervisor.reap().await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn absence_says_nothing_while_the_request_is_turned_away() {
    let owner = owner(cards(1), |supervisor| supervisor);
    let rented = owner.supervisor.rent(&request()).await.unwrap();
    // An outage: it is in no answer, and its end is taken by nobody.
    owner.provider.hide(Duration::MAX);
    owner.provider.fail(Call::Terminate, vec![Fault::Fails; 10_000]);
    let proof = rented.end().await.unwrap();
    assert_ne!(proof.outcome, glasshouse_core::overhead::Cleanup::Observed);
    assert_eq!((owner.provider.existing().len(), owner.journal.open_entries().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn another_accounts_absence_proves_nothing() {
    let journal = Arc::new(Journal::memory());
    let of = |account: &str| {
        let supervisor = Supervisor::new(Arc::new(cards(1).of_account(account)), journal.clone());
        supervisor.dial(Arc::new(Answers(journal.clone())))
    };
    let rented = of("a").rent(&request()).await.unwrap();
    // Its owner is killed, and comes back with the key of another account.
    let _killed = std::mem::ManuallyDrop::new(rented);
    let reaped = of("b").reap().await.unwrap();
    assert!(!reaped.is_clean() && journal.open_entries().len() == 1, "{reaped:?}");
    // The account that it was asked of may say so.
    assert!(of("a").reap().await.unwrap().is_clean() && journal.open_entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_promised_before_it_is_spent() {
    let owner = owner(cards(2), |supervisor| supervisor.budget(1.2));
    let error = owner.supervisor.rent(&limited(None)).await.err().unwrap();
    assert!(matches!(error, SupervisorError::NoTimeLimit), "{error}");
    let error = owner.supervisor.rent(&limited(Some(3 * HOUR))).await.err().unwrap();
    assert!(matches!(error, SupervisorError::OverBudget { worst, .. } if (worst - 1.5).abs() < 1e-9), "{error}");
    assert_eq!(owner.creates(), 0, "nothing was asked for");

    let first = owner.supervisor.rent(&limited(Some(2 * HOUR))).await.unwrap();
    let error = owner.supervisor.rent(&limited(Some(HOUR))).await.err().unwrap();
    assert!(matches!(error, SupervisorError::OverBudget { left, .. } if (left - 0.2).abs() < 1e-9), "{error}");
    // A price that rises, below the cap, to where its worst case is beyond the budget.
    owner.provider.set_price(0.9);
    let error = first.watch().await;
    assert!(matches!(error, SupervisorError::OverBudget { .. }), "{error}");
    first.end().await.unwrap();
    // What was not used is there again.
    owner.provider.set_price(0.5);
    owner.supervisor.rent(&limited(Some(2 * HOUR))).await.unwrap().end().await.unwrap();
    assert!(owner.is_clean());
}

#[tokio::test(start_paused = true)]
async fn offers_are_tried_in_turn_and_not_for_ever() {
    let stuck = || cards(9).boot([AllocationState::Pulling]);
    let gave_up = owner(stuck(), |supervisor| supervisor.attempts(3));
    let error = gave_up.supervisor.rent(&request()).await.err().unwrap();
    let SupervisorError::GaveUp { tried, .. } = &error else { panic!("{error}") };
    let mut names: Vec<_> = tried.iter().map(|tried| tried.name.as_str()).collect();
    names.dedup();
    assert_eq!((names.len(), gave_up.creates()), (3, 3), "each with a name of its own");
    assert!(names.iter().all(|name| name.starts_with("gh-ann-")), "{names:?}");
    for tried in tried {
        let SupervisorError::Stuck { phase, budget, .. } = &tried.error else { panic!("{}", tried.error) };
        assert_eq!((*phase, *budget), (BootPhase::Pull, Patience::REMOTE.boot.pull));
    }
    assert!(error.to_string().contains("stuck in phase pull for more than 900 s"), "{error}");
    assert!(gave_up.is_clean());
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_rented_while_the_last_one_may_still_be_there() {
    let immortal = cards(9).boot([AllocationState::Starting]).fault(Call::Terminate, vec![Fault::Ignored; 10_000]);
    let owner = owner(immortal, |supervisor| supervisor.attempts(5));
    let error = owner.supervisor.rent(&request()).await.err().unwrap();
    // It shows itself as ending all the time, and does not end.
    assert!(matches!(error, SupervisorError::Stuck { .. }), "{error}");
    assert_eq!((owner.creates(), owner.journal.open_entries().len()), (1, 1));
    let reaped = owner.supervisor.reap().await.unwrap();
    assert!(!reaped.is_clean() && reaped.unconfirmed == owner.journal.open_entries(), "{reaped:?}");
}

#[tokio::test(start_paused = true)]
async fn offers_are_asked_for_again_and_a_long_wait_is_the_callers() {
    let offline = cards(9).fault(Call::Offers, vec![Fault::Fails; 3]);
    let owner = owner(offline, |supervisor| supervisor);
    // Offers are asked for again; too long a wait is the caller's to decide on.
    owner.supervisor.rent(&request()).await.unwrap().end().await.unwrap();
    let patient = Fault::RateLimited { retry_after: Some(HOUR) };
    let busy = self::owner(cards(9).fault(Call::Create, [patient]), |supervisor| supervisor);
    let error = busy.supervisor.rent(&request()).await.err().unwrap();
    let SupervisorError::Provider(ProviderError::RateLimited { retry_after, .. }) = error else { panic!("{error}") };
    assert_eq!((retry_after, busy.creates()), (Some(HOUR), 1));
    assert!(busy.is_clean());
}

#[tokio::test(start_paused = true)]
async fn reap_finds_what_no_journal_has_and_leaves_what_is_anothers() {
    let owner = owner(cards(1), |supervisor| supervisor);
    let offer = Offer {
        id: "memory-offer-1".into(),
        gpu: None,
        gpu_count: 0,
        price_per_hour: 0.5,
        location: None,
        traffic: None,
    };
    for name in ["gh-ann-1", "gh-ann-2", "gh-anna-1", "someone-elses"] {
        owner.provider.create(&offer, &spec(name)).await.unwrap();
    }
    let reaped = owner.supervisor.reap().await.unwrap();
    assert!(reaped.is_clean(), "{reaped:?}");
    assert_eq!(
        (reaped.strays.as_slice(), reaped.ended.len()),
        (&["gh-ann-1".to_owned(), "gh-ann-2".to_owned()][..], 2)
    );
    let left: Vec<_> = owner.provider.list_owned().await.unwrap().into_iter().map(|left| left.name).collect();
    assert_eq!(left, ["gh-anna-1", "someone-elses"]);
    // A provider that does not say what it has is not one that has nothing.
    let silent = self::owner(cards(1).fault(Call::ListOwned, vec![Fault::Nonsense; 10_000]), |supervisor| supervisor);
    let reaped = silent.supervisor.reap().await.unwrap();
    assert!(!reaped.is_clean() && reaped.unlisted.is_some(), "{reaped:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_create_makes_late_is_reaped() {
    let owner = owner(cards(1).fault(Call::Create, [Fault::HappensUnanswered]), |supervisor| supervisor);
    // Its owner dies in the create, which the provider goes on with, and shows when it is through.
    owner.provider.hide(Patience::REMOTE.settle + Patience::REMOTE.late / 2);
    let request = request();
    let cut = tokio::time::timeout(Duration::from_secs(1), owner.supervisor.rent(&request)).await;
    assert!(cut.is_err());
    assert!(owner.supervisor.reap().await.unwrap().is_clean());
    assert!(owner.is_clean(), "it bills on");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_an_error_names_is_journalled() {
    let made = Fault::FailsButHappens { names_it: true };
    let immortal = cards(1).fault(Call::Create, [made]).fault(Call::Terminate, vec![Fault::Fails; 10_000]);
    let owner = owner(immortal, |supervisor| supervisor);
    owner.supervisor.rent(&request()).await.err().unwrap();
    let open = owner.journal.open_entries();
    assert_eq!(open.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>(), [owner.provider.existing().pop()]);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_closes_what_it_has_shown() {
    let owner = owner(cards(1).of_account("old key"), |supervisor| supervisor);
    let _killed = std::mem::ManuallyDrop::new(owner.supervisor.rent(&request()).await.unwrap());
    owner.provider.set_account("new key");
    let reaped = owner.supervisor.reap().await.unwrap();
    assert!(reaped.is_clean() && owner.is_clean(), "{reaped:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_one_holds_up_no_other() {
    let owner = owner(cards(2), |supervisor| supervisor);
    let first = owner.supervisor.rent(&request()).await.unwrap();
    // Agents answer for what was asked for last, by the millisecond.
    std::thread::sleep(Duration::from_millis(5));
    let second = owner.supervisor.rent(&request()).await.unwrap();
    let _killed = [first, second].map(std::mem::ManuallyDrop::new);
    owner.provider.fail(Call::Find, [Fault::Panics]);
    let reaped = owner.supervisor.reap().await.unwrap();
    assert!(!reaped.is_clean() && reaped.ended.len() == 2 && reaped.unconfirmed.len() == 1, "{reaped:?}");
    assert_eq!(owner.provider.existing().len(), 1, "the other one is gone");
    assert!(owner.supervisor.reap().await.unwrap().is_clean() && owner.is_clean());
}

//! One life of the owner: it ends what the one before left, then rents for every job that is not done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glasshouse_core::fixed::Fixed;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::traits::OfferFilter;
use glasshouse_provider::supervisor::{Journal, JournalError, OwnerTag, RentRequest, Supervisor};
use tokio::task::JoinSet;

use crate::provider::Line;
use crate::world::CAP;

/// Jobs that are not done, with the tries at each.
pub(crate) type Jobs = Arc<Mutex<BTreeMap<usize, u32>>>;

/// Lives until everything is done or it is killed. Gives whether it was killed.
pub(crate) async fn live(line: Arc<Line>, journal: &Path, jobs: &Jobs) -> bool {
    let mut tasks = JoinSet::new();
    let killed = {
        let work = work(line.clone(), journal, jobs, &mut tasks);
        tokio::select! {
            biased;
            () = line.killed.notified() => true,
            () = work => false,
        }
    };
    tasks.shutdown().await;
    // What a reap had under way was aborted with it; let it be dropped, or it keeps the journal locked.
    for _ in 0..1000 {
        match Journal::open(journal) {
            Err(JournalError::InUse { .. }) => tokio::task::yield_now().await,
            _ => break,
        }
    }
    killed
}

async fn work(line: Arc<Line>, journal: &Path, jobs: &Jobs, tasks: &mut JoinSet<()>) {
    let journal = Arc::new(Journal::open(journal).unwrap());
    let supervisor = supervisor(&line, journal);
    supervisor.reap().await.unwrap();
    let supervisor = Arc::new(supervisor);
    let open: Vec<usize> = jobs.lock().unwrap().keys().copied().collect();
    for number in open {
        let (supervisor, jobs) = (supervisor.clone(), jobs.clone());
        tasks.spawn(async move { job(&supervisor, number, &jobs).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

pub(crate) fn supervisor(line: &Arc<Line>, journal: Arc<Journal>) -> Supervisor {
    Supervisor::new(line.clone(), journal).owner(OwnerTag::new("storm").unwrap()).dial(line.clone()).budget(1e6)
}

/// Rents, uses, ends; again when that came to nothing, for a while.
async fn job(supervisor: &Supervisor, number: usize, jobs: &Jobs) {
    for _ in 0..12 {
        let tries = {
            let mut jobs = jobs.lock().unwrap();
            let tries = jobs.get_mut(&number).unwrap();
            *tries += 1;
            *tries
        };
        let Ok(rented) = supervisor.rent(&request(number, tries)).await else {
            tokio::time::sleep(Duration::from_secs(20)).await;
            continue;
        };
        let _ = tokio::time::timeout(Duration::from_secs(90), rented.watch()).await;
        if rented.end().await.is_ok_and(|proof| proof.outcome == Cleanup::Observed) {
            jobs.lock().unwrap().remove(&number);
            return;
        }
    }
}

fn request(job: usize, tries: u32) -> RentRequest {
    RentRequest {
        filter: OfferFilter { max_price_per_hour: Some(CAP), gpu_count: Some(1), ..OfferFilter::default() },
        image: None,
        gate_key: Fixed([1; 32]),
        linger: Duration::from_secs(60),
        env: BTreeMap::from([("JOB".to_owned(), job.to_string()), ("TRY".to_owned(), tries.to_string())]),
        disk_gib: None,
        time_limit: Some(Duration::from_secs(4 * 3600)),
    }
}

/// What the journal has, as the next owner will read it.
pub(crate) fn remembered(journal: &Path) -> BTreeSet<String> {
    let journal = Journal::open(journal).unwrap();
    journal.open_entries().into_iter().map(|entry| entry.name).collect()
}

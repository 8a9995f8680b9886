//! Clocks that differ by hours: those of provider and owner, and those of an owner and of the next one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::killed::{Mortal, When, reap};
use super::{Answers, Bench, Trouble, check, fresh_owner, holds, longest, nothing_bills, request};
use crate::clock;
use crate::supervisor::{Journal, Supervisor};

const HOUR: Duration = Duration::from_secs(3600);

/// The bill is found where it is found on other days, times are the owner's, and nothing ends sooner or later for it. Then
/// an owner dies in its create, and the next one's clock is another one.
pub(super) async fn differ(bench: &impl Bench, trouble: Trouble, bills: bool) -> Result<(), String> {
    let proof = check(bench, trouble).await?.ok_or("nothing was rented")?;
    let now = clock::wall().0;
    let is_now = |at: u64| at.abs_diff(now) < u64::try_from(HOUR.as_millis()).unwrap_or(u64::MAX);
    holds(!bills || proof.spend.is_some(), || "the bill was not found".to_owned())?;
    let told = proof.absent_at.iter().chain(&proof.requested_at).chain(proof.spend.iter().map(|spend| &spend.read_at));
    let strange: Vec<_> = told.filter(|at| !is_now(at.0)).collect();
    holds(strange.is_empty(), || format!("the proof has times that were never: {strange:?}"))?;
    another_life(bench, trouble.hours_off()).await
}

async fn another_life(bench: &impl Bench, hours: i64) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (path, tag) = (folder.path().join("journal"), fresh_owner()?);
    // Offers, and create.
    let mortal = Arc::new(Mortal::new(bench.provider(), 2, When::After));
    let life = async {
        let journal = Arc::new(Journal::open(&path).map_err(|error| error.to_string())?);
        let supervisor = Supervisor::new(mortal.clone(), journal.clone()).patience(bench.patience());
        let supervisor = supervisor.owner(tag.clone()).dial(Arc::new(Answers(journal)));
        let outlived = supervisor.rent(&request(bench)).await.err();
        Err(format!("its owner lived through its create: {outlived:?}"))
    };
    tokio::select! {
        () = mortal.death() => {}
        lived = life => return lived,
    }
    set_off(&path, hours)?;
    let began = Instant::now();
    reap(bench, &path, tag).await?;
    let (took, limit) = (began.elapsed(), longest(&bench.patience()));
    holds(took <= limit, || format!("reaping took {took:?}, more than {limit:?}"))?;
    nothing_bills(bench).await
}

/// A journal as an owner with another clock would have written it.
fn set_off(journal: &Path, hours: i64) -> Result<(), String> {
    let text = std::fs::read_to_string(journal).map_err(|error| error.to_string())?;
    let by = hours.saturating_mul(i64::try_from(HOUR.as_millis()).unwrap_or(i64::MAX));
    let mut moved = String::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let at = line.get_mut("at").ok_or("a line of the journal has no time")?;
        *at = at.as_u64().and_then(|at| at.checked_add_signed(by)).ok_or("a time that is none")?.into();
        moved.push_str(&format!("{line}\n"));
    }
    holds(!moved.is_empty(), || "its owner journalled nothing before its create".to_owned())?;
    std::fs::write(journal, moved).map_err(|error| error.to_string())
}

//! `providers`, as a function: the example is nothing else, and tests run it as it is.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::record::CleanupProof;
use glasshouse_core::traits::{OfferFilter, Provider};
use glasshouse_provider::supervisor::{Journal, JournalError, OwnerTag, Supervisor, SupervisorError};

use crate::{CloudName, ProviderName, fail, journals, line, misused, price, say};

type Failure = Box<dyn std::error::Error>;

/// Lists offers, allocations and journals, and ends what was left behind.
#[derive(Parser)]
#[command(name = "providers")]
enum Arguments {
    /// What could be rented now, the cheapest first.
    Offers(Wanted),
    /// Everything that exists at the provider under the names that runs give.
    Owned(Place),
    /// What the journals of earlier runs have that nobody saw the end of.
    Journal(Runs),
    /// Ends what earlier runs left, as their journals tell, and shows what is there after that. Runs that go on keep theirs.
    Reap {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        runs: Runs,
        /// Ends too what the provider has of this owner and no journal does, such as that of a lost folder.
        #[arg(long)]
        strays: bool,
        /// Whose strays, by the tag in their names (gh-TAG-...); what ~/.glasshouse/owner says when not given.
        #[arg(long, value_name = "TAG", requires = "strays")]
        owner: Option<OwnerTag>,
    },
}

#[derive(clap::Args)]
struct Place {
    /// Which provider.
    #[arg(long, value_enum)]
    provider: ProviderName,
}

#[derive(clap::Args)]
struct Wanted {
    #[command(flatten)]
    place: Place,
    /// GPU model, or a part of its name.
    #[arg(long)]
    gpu: Option<String>,
    /// How many GPUs.
    #[arg(long, value_name = "COUNT")]
    gpus: Option<u32>,
    /// Highest price, US dollars per hour.
    #[arg(long, value_name = "DOLLARS", value_parser = price)]
    max_price: Option<f64>,
    /// Only this class of machines.
    #[arg(long, value_enum)]
    cloud: Option<CloudName>,
    /// Least memory of each GPU, GiB.
    #[arg(long, value_name = "GIB")]
    min_memory: Option<u32>,
    /// Least disk, GiB.
    #[arg(long, value_name = "GIB")]
    min_disk: Option<u32>,
    /// Only machines with a direct TCP port.
    #[arg(long)]
    direct_port: bool,
}

#[derive(clap::Args)]
struct Runs {
    /// Folder with the output folders of runs, or one of these.
    #[arg(long, default_value = "glasshouse-out")]
    out: PathBuf,
}

/// The whole program. Exit status 0 when it did what was asked (for `reap`: everything was seen to be gone), 1 otherwise, 2
/// for a bad command line.
pub fn providers() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail("providers", error),
    };
    let place = match &arguments {
        Arguments::Offers(Wanted { place, .. }) | Arguments::Owned(place) | Arguments::Reap { place, .. } => {
            Some(place)
        }
        Arguments::Journal(_) => None,
    };
    let provider = match place.map(|place| place.provider.connect()).transpose() {
        Ok(provider) => provider,
        Err(why) => return misused("providers", why),
    };
    let done = match (&arguments, provider) {
        (Arguments::Offers(wanted), Some(provider)) => runtime.block_on(offers(&*provider, wanted)),
        (Arguments::Owned(_), Some(provider)) => runtime.block_on(owned(&*provider)).map(|_| true),
        (Arguments::Reap { runs, strays, owner, .. }, Some(provider)) => {
            runtime.block_on(reap(provider, runs, strays.then_some(owner.as_ref())))
        }
        (Arguments::Journal(runs), _) | (Arguments::Reap { runs, .. }, None) => Ok(show(runs)),
        (Arguments::Offers(_) | Arguments::Owned(_), None) => Ok(false),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("providers", error),
    }
}

async fn offers(provider: &dyn Provider, wanted: &Wanted) -> Result<bool, Failure> {
    let filter = OfferFilter {
        gpu: wanted.gpu.clone(),
        gpu_count: wanted.gpus,
        max_price_per_hour: wanted.max_price,
        cloud: wanted.cloud.map(|cloud| cloud.text().to_owned()),
        min_memory_gib: wanted.min_memory,
        min_disk_gib: wanted.min_disk,
        direct_port: wanted.direct_port,
        ..OfferFilter::default()
    };
    let mut offers = provider.offers(&filter).await?;
    offers.sort_by(|a, b| a.price_per_hour.total_cmp(&b.price_per_hour));
    offers.iter().for_each(|offer| say(line(offer)));
    say(format_args!("{} offers of {} fit", offers.len(), provider.name()));
    Ok(true)
}

/// Lists it, and says how many there are.
async fn owned(provider: &dyn Provider) -> Result<usize, Failure> {
    let owned = provider.list_owned().await?;
    for allocation in &owned {
        say(format_args!(
            "{:>9}  {}  {}",
            format!("${:.3}/h", allocation.price_per_hour),
            allocation.id,
            allocation.name
        ));
    }
    say(format_args!("{} allocations on {} under the names that runs give", owned.len(), provider.name()));
    Ok(owned.len())
}

/// Whether every journal could be read.
fn show(runs: &Runs) -> bool {
    let (mut open, mut readable) = (0_usize, true);
    for file in journals(&runs.out) {
        match file.journal {
            Ok(journal) => {
                for entry in journal.open_entries() {
                    let id = entry.id.map_or_else(|| "no id was told".to_owned(), |id| id.0);
                    let at = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(entry.asked_at.0));
                    let at = at.map(|at| humantime::format_rfc3339_seconds(at).to_string()).unwrap_or_default();
                    say(format_args!("{}  {}  {}  {id}  {}", at, entry.provider, entry.name, file.path.display()));
                    open = open.saturating_add(1);
                }
            }
            Err(JournalError::InUse { .. }) => say(format_args!("{}: its run goes on", file.path.display())),
            Err(error) => {
                readable = false;
                say(error);
            }
        }
    }
    say(format_args!("{open} allocations that nobody saw the end of"));
    readable
}

/// Whether everything was seen to be gone. What goes wrong with one journal is said, and the others' are ended all the same.
/// With strays: of an owner, or of this user.
async fn reap(provider: Arc<dyn Provider>, runs: &Runs, strays: Option<Option<&OwnerTag>>) -> Result<bool, Failure> {
    let (mut all_gone, mut in_use) = (true, None);
    for file in journals(&runs.out) {
        let ended = match file.journal {
            Ok(journal) => {
                let ended = Supervisor::new(provider.clone(), journal).recover().await;
                ended.inspect_err(told_beside).map_err(Failure::from)
            }
            Err(JournalError::InUse { .. }) => {
                say(format_args!("{}: its run goes on, and is left alone", file.path.display()));
                in_use.get_or_insert(file.path);
                continue;
            }
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(proofs) => all_gone &= proofs.iter().map(told).fold(true, |all, gone| all & gone),
            Err(error) => all_gone &= passed_over(&file.path, error),
        }
    }
    // Nothing tells a stray from what a run uses at the moment.
    let refused = in_use.filter(|_| strays.is_some());
    match strays {
        Some(owner) if refused.is_none() => match reap_strays(&provider, runs, owner).await {
            Ok(gone) => all_gone &= gone,
            Err(error) => all_gone &= passed_over(&runs.out, error),
        },
        _ => {}
    }
    let left = owned(&*provider).await?;
    if let Some(journal) = refused {
        return Err(format!("the run of {} goes on and would be ended too; end it first", journal.display()).into());
    }
    if left > 0 && strays.is_none() {
        say(
            "Those are of runs that go on, of other owners, or of journals that are not here: --strays ends this owner's.",
        );
    }
    Ok(all_gone)
}

async fn reap_strays(provider: &Arc<dyn Provider>, runs: &Runs, owner: Option<&OwnerTag>) -> Result<bool, Failure> {
    std::fs::create_dir_all(&runs.out)?;
    // A journal of its own, so that one that is not seen to be gone is found again by the next reap.
    let journal = Arc::new(Journal::open(runs.out.join("journal.jsonl"))?);
    let supervisor = Supervisor::new(provider.clone(), journal);
    let reaped =
        owner.cloned().into_iter().fold(supervisor, Supervisor::owner).reap().await.inspect_err(told_beside)?;
    Ok(reaped.ended.iter().map(told).fold(reaped.is_clean(), |all, gone| all & gone))
}

/// Says why something was not done. Not everything is gone then.
fn passed_over(path: &Path, error: Failure) -> bool {
    let _ = writeln!(io::stderr().lock(), "providers: {}: {error}", path.display());
    false
}

/// What ended beside the one whose end could not be journalled.
fn told_beside(error: &SupervisorError) {
    if let SupervisorError::Unjournalled { others, .. } = error {
        for proof in others.iter() {
            told(proof);
        }
    }
}

/// Whether it is gone.
fn told(proof: &CleanupProof) -> bool {
    let gone = proof.outcome == Cleanup::Observed;
    let seen = if gone { "gone, seen twice" } else { "asked to end; its absence was not seen, run this again" };
    say(format_args!("{}: {seen}", proof.allocation));
    gone
}

//! Slurm through its own commands: `sbatch` with GRES GPUs and a time limit, `squeue`, `scontrol`, `scancel`.
//!
//! Source: the manual pages sbatch(1), squeue(1), scontrol(1), scancel(1), sinfo(1) of Slurm 22.05. No accounting
//! database is needed. The owner and the nodes share a folder, as clusters do with home directories.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod builder;
mod command;
mod files;
mod job;
mod offers;
mod submit;

pub use builder::SlurmBuilder;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use glasshouse_core::claims::ContainerId;
use glasshouse_core::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer,
    OfferFilter, Provider, ProviderError, Spend,
};
use serde_json::Value;

use crate::clock;
use crate::plan::{Plan, id_to_be};
use crate::rest::ConfigError;
use builder::Settings;
use command::Failed;
use job::{Job, JobId};

const NAME: &str = "slurm";
const CONTAINER_SOURCE: &str = "slurm-job";

/// A [`Provider`] whose allocations are batch jobs of this user. The job's name is the allocation's, and stands in its id
/// behind the number: what has the same number and another name is not believed to be it, and not ended.
///
/// A job that ended by itself is seen, with its exit code, until its end is asked for or Slurm forgets it (`MinJobAge`).
#[derive(Debug)]
pub struct SlurmProvider {
    settings: Settings,
    /// Jobs whose end was asked for: once they have ended they are gone.
    ended: Mutex<BTreeSet<AllocationId>>,
}

impl SlurmProvider {
    /// Starts from the defaults.
    pub fn builder() -> SlurmBuilder {
        SlurmBuilder::new()
    }

    /// Every setting at its default: this executable as the agent, Slurm's commands from `PATH`.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no folder for the jobs' output.
    pub fn from_env() -> Result<Self, ConfigError> {
        SlurmBuilder::new().build()
    }

    /// The commands that submitting this job and ending it would run, without running them. The launch secret is not in
    /// them: it goes with the environment.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] as `create` would.
    pub fn plan(&self, offer: &Offer, spec: &LaunchSpec) -> Result<Plan, ProviderError> {
        let submission = self.submission(offer, spec)?;
        let id = id_to_be();
        let (of_one, cancel) = (squeue(&["--states=all", &format!("--jobs={id}")]), scancel(&spec.name, &id.0));
        let said = |call, command: &str, arguments: &[String], input: Option<String>, plan: Plan| {
            plan.with(call, format!("{command} {}", arguments.join(" ")), input.map(Value::from), spec)
        };
        let plan = said("offers", "sinfo", &offers::SINFO.map(str::to_owned), None, Plan::new(offer, spec));
        let plan = said("create", "sbatch", &submission.arguments, Some(submission.script), plan);
        let plan = said("observe", "squeue", &of_one, None, plan);
        let plan = said("request_terminate", "scancel", &cancel, None, plan);
        Ok(said("find", "squeue", &squeue(&OWN_JOBS), None, plan))
    }

    /// Jobs of this user that are not over.
    async fn living(&self, call: &'static str) -> Result<Vec<Job>, ProviderError> {
        let jobs = self.jobs(call, &OWN_JOBS).await.map_err(|failed| failed.into_error(call))?;
        Ok(jobs.into_iter().filter(|job| !job.is_over()).collect())
    }

    async fn jobs(&self, call: &'static str, which: &[&str]) -> Result<Vec<Job>, Failed> {
        let arguments = squeue(which);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let text = self.settings.run_again("squeue", &arguments).await?;
        let jobs: Option<Vec<Job>> = text.lines().filter(|line| !line.trim().is_empty()).map(Job::read).collect();
        // One that was left out would look like absence.
        jobs.ok_or_else(|| Failed::Nonsense(format!("squeue for {call} shows a job that cannot be read")))
    }

    async fn job(&self, call: &'static str, id: &AllocationId) -> Result<Job, ProviderError> {
        let gone = || ProviderError::NotFound { provider: NAME, id: id.clone() };
        let JobId { number, .. } = JobId::parse(id).ok_or_else(gone)?;
        match self.jobs(call, &["--states=all", &format!("--jobs={number}")]).await {
            // With its name: the number alone may be another job's by now.
            Ok(jobs) => jobs.into_iter().find(|job| job.allocation.id == *id).ok_or_else(gone),
            // "Invalid job id specified": squeue of a single job that Slurm has forgotten.
            Err(Failed::Said { words, .. }) if words.contains("Invalid job id") => Err(gone()),
            Err(failed) => Err(failed.into_error(call)),
        }
    }

    fn was_ended(&self, id: &AllocationId) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// `ExitCode=CODE:SIGNAL` of `scontrol show job`; absent when a signal ended it.
    async fn exit_code(&self, job: &Job) -> Option<i32> {
        let number = job.number.to_string();
        let text = self.settings.run_again("scontrol", &["--oneliner", "show", "job", &number]).await.ok()?;
        let (code, signal) = text.rsplit_once(" ExitCode=")?.1.split_whitespace().next()?.split_once(':')?;
        code.parse().ok().filter(|_| signal == "0")
    }

    async fn endpoint(&self, job: &Job) -> Option<Endpoint> {
        let port = files::port(&self.settings.output(JobId::parse(&job.allocation.id)?)).await?;
        let text =
            self.settings.run_again("scontrol", &["--oneliner", "show", "node", job.host.as_deref()?]).await.ok()?;
        let address = text.split_once(" NodeAddr=")?.1.split_whitespace().next()?.to_owned();
        let found = tokio::net::lookup_host((address, port)).await.ok()?.next()?;
        Some(Endpoint::Direct(found))
    }
}

#[async_trait]
impl Provider for SlurmProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn account(&self) -> Option<String> {
        // Its commands ask the cluster of this file.
        let own = self.settings.configuration.as_ref().map(|file| file.display().to_string());
        let inherited = || std::env::var("SLURM_CONF").ok();
        Some(own.or_else(inherited).unwrap_or_else(|| "its default configuration".to_owned()))
    }

    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        self.partitions(filter).await
    }

    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let submission = self.submission(offer, spec)?;
        let number = self.submit(&submission).await?;
        Ok(CreateOutcome::Created(JobId { number, name: &spec.name }.allocation()))
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        let jobs = self.living("find").await?;
        Ok(jobs.into_iter().map(|job| job.allocation).filter(|allocation| allocation.name == name).collect())
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let job = self.job("observe", id).await?;
        let state = match job.state() {
            AllocationState::Exited(_) if self.was_ended(id) => {
                return Err(ProviderError::NotFound { provider: NAME, id: id.clone() });
            }
            AllocationState::Exited(_) => AllocationState::Exited(self.exit_code(&job).await),
            state => state,
        };
        let endpoint = if state == AllocationState::Running { self.endpoint(&job).await } else { None };
        Ok(Observation {
            container: Some(ContainerId { source: CONTAINER_SOURCE.to_owned(), value: job.number.to_string() }),
            gpu_count: Some(job.gpus).filter(|_| state == AllocationState::Running),
            endpoints: endpoint.into_iter().collect(),
            state,
            allocation: job.allocation,
        })
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        let gone = || ProviderError::NotFound { provider: NAME, id: id.clone() };
        let job = JobId::parse(id).ok_or_else(gone)?;
        let from = after.and_then(|after| after.parse().ok()).unwrap_or(0);
        match files::lines(&self.settings.errors(job), from).await {
            Ok(chunk) => Ok(chunk),
            // A job that waits has no file yet.
            Err(_) => self.job("logs", id).await.map(|_| LogChunk { lines: Vec::new(), next: from.to_string() }),
        }
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        let Some(JobId { number, name }) = JobId::parse(id) else { return Ok(()) };
        let arguments = scancel(name, &number.to_string());
        let said = self.settings.run_again("scancel", &arguments.each_ref().map(String::as_str)).await;
        match said {
            Ok(_) => {}
            Err(Failed::Said { words, .. }) if words.contains("Invalid job id") => {}
            Err(failed) => return Err(failed.into_error("request_terminate")),
        }
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        Ok(())
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        let jobs = self.living("list_owned").await?;
        let owned = jobs.into_iter().map(|job| job.allocation);
        Ok(owned.filter(|allocation| allocation.name.starts_with(&self.settings.tag)).collect())
    }

    async fn spend(&self, _id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        Ok(Some(Spend { dollars: 0.0, read_at: clock::wall(), is_final: true }))
    }
}

const OWN_JOBS: [&str; 2] = ["--me", "--states=all"];

fn squeue(which: &[&str]) -> Vec<String> {
    let format = format!("--format={}", job::FORMAT);
    ["--noheader", &format].iter().chain(which).map(|argument| (*argument).to_owned()).collect()
}

/// Of a job that is over it says `Invalid job id`, and of one that has another name nothing: it leaves it alone.
fn scancel(name: &str, number: &str) -> [String; 2] {
    [format!("--name={name}"), number.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_are_two_accounts() {
        let folder = tempfile::tempdir().unwrap();
        let of = |file: &str| {
            let builder = SlurmProvider::builder().folder(folder.path()).program("/bin/true").configuration(file);
            builder.build().unwrap().account()
        };
        assert_eq!(of("/etc/one/slurm.conf").as_deref(), Some("/etc/one/slurm.conf"));
        assert_ne!(of("/etc/one/slurm.conf"), of("/etc/other/slurm.conf"));
    }
}

//! `sbatch`: one job that runs the agent. The launch goes with the environment, by name: command lines are public.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use glasshouse_core::traits::{LaunchSpec, Offer, ProviderError};

use super::command::Failed;
use super::job::is_plain;
use super::offers::Wanted;
use super::{CONTAINER_SOURCE, NAME, SlurmProvider};
use crate::roles::agent_environment;

/// What the nodes' programs need of the owner's environment.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR"];

pub(super) struct Submission {
    pub(super) arguments: Vec<String>,
    pub(super) script: String,
    pub(super) env: BTreeMap<String, String>,
}

impl SlurmProvider {
    pub(super) fn submission(&self, offer: &Offer, spec: &LaunchSpec) -> Result<Submission, ProviderError> {
        let refused = |why: String| ProviderError::Refused { provider: NAME, call: "create", why };
        let wanted = Wanted::parse(&offer.id).ok_or_else(|| refused(format!("{:?} is no offer of it", offer.id)))?;
        if spec.image.is_some() {
            let why = "it runs a program, not an image; leave the image out and pin the executable's measurement";
            return Err(refused(why.to_owned()));
        }
        if !is_plain(&spec.name) {
            return Err(refused(format!("the name {:?} is more than letters, digits, - _ .", spec.name)));
        }
        let env = agent_environment(
            spec,
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.settings.port)),
            Some(CONTAINER_SOURCE),
        );
        let is_variable = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if let Some(name) = env.keys().find(|name| name.is_empty() || !is_variable(name)) {
            return Err(refused(format!("{name:?} is no name of an environment variable")));
        }
        let inherited = INHERITED.into_iter().filter(|name| !env.contains_key(*name));
        let exported: Vec<&str> = env.keys().map(String::as_str).chain(inherited).collect();
        let folder = self.settings.folder.display();
        let mut arguments = vec![
            "--parsable".to_owned(),
            format!("--job-name={}", spec.name),
            format!("--partition={}", wanted.partition),
            "--nodes=1".to_owned(),
            "--ntasks=1".to_owned(),
            format!("--cpus-per-task={}", self.settings.cpus.max(1)),
            // A job that ran once must not run again by itself: it would be another runtime with the same secret.
            "--no-requeue".to_owned(),
            format!("--output={folder}/%x-%j.out"),
            format!("--error={folder}/%x-%j.err"),
            format!("--export={}", exported.join(",")),
        ];
        if wanted.gpus > 0 {
            let kind = wanted.kind.map_or_else(String::new, |kind| format!("{kind}:"));
            arguments.push(format!("--gres=gpu:{kind}{}", wanted.gpus));
        }
        if let Some(gib) = self.settings.memory_gib {
            arguments.push(format!("--mem={gib}G"));
        }
        if wanted.disk_gib > 0 {
            arguments.push(format!("--tmp={}G", wanted.disk_gib));
        }
        if let Some(limit) = spec.time_limit {
            arguments.push(format!("--time={}", minutes(limit)));
        }
        let program = self.settings.program.display();
        let script = format!("#!/bin/sh\nexec '{program}'\n");
        Ok(Submission { arguments, script, env })
    }

    /// Gives the job's number.
    pub(super) async fn submit(&self, submission: &Submission) -> Result<u64, ProviderError> {
        let arguments: Vec<&str> = submission.arguments.iter().map(String::as_str).collect();
        // Once: a submission that did not come back may have arrived, and is looked up by its name.
        let text = self.settings.run("sbatch", &arguments, &submission.env, &submission.script).await;
        let text = text.map_err(|failed| failed.into_error("create"))?;
        // `JOBID`, or `JOBID;CLUSTER`.
        let id = text.trim().split(';').next().and_then(|id| id.parse::<u64>().ok());
        id.ok_or_else(|| {
            // It was accepted, and under which number is not known.
            let why = Failed::Nonsense("sbatch gave no job number".to_owned()).into_error("create").to_string();
            ProviderError::Ambiguous { provider: NAME, call: "create", why, allocation: None }
        })
    }
}

/// Whole minutes, upwards: Slurm counts in them.
fn minutes(limit: Duration) -> u64 {
    limit.as_secs().div_ceil(60).max(1)
}

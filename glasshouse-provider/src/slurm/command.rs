//! Running Slurm's commands.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use glasshouse_core::traits::ProviderError;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::NAME;
use super::builder::Settings;
use crate::rest::printable_end;

/// What Slurm says when it did nothing and will not (slurm_errno.c of Slurm 22.05, and sbatch's own words about partitions). Whatever is not here may have been done all the same, so a create that ends so is looked up.
const DEFINITE: [&str; 27] = [
    "invalid partition specified",
    "Invalid partition name specified",
    "No partition specified or system default partition",
    "User's group not permitted to use this partition",
    "Access/permission denied",
    "Requested node configuration is not available",
    "Requested nodes not in this partition",
    "Invalid node name specified",
    "Node count specification invalid",
    "More processors requested than permitted",
    "CPU count per node can not be satisfied",
    "Memory required by task is not available",
    "Memory specification can not be satisfied",
    "Invalid generic resource (gres) specification",
    "Invalid Trackable RESource (TRES) specification",
    "Requested time limit is invalid",
    "Time limit specification required, but not provided",
    "Job violates accounting/QOS policy",
    "Invalid account or account/partition combination specified",
    "Invalid qos specification",
    "Invalid wckey specification",
    "Invalid license specification",
    "Invalid feature specification",
    "Invalid user id",
    "Invalid job id specified",
    "System submissions disabled",
    "Pathname of a file, directory or other parameter too long",
];

/// Why a command gave nothing.
pub(super) enum Failed {
    /// It did not even start.
    NotThere(String),
    /// It said no.
    Said {
        words: String,
        /// Whether the controller can have done it all the same.
        is_open: bool,
    },
    /// It did not come back.
    TimedOut,
    /// Its output is not what it should be.
    Nonsense(String),
}

impl Failed {
    pub(super) fn into_error(self, call: &'static str) -> ProviderError {
        let (provider, ambiguous) =
            (NAME, |why: String| ProviderError::Ambiguous { provider: NAME, call, why, allocation: None });
        match self {
            Self::NotThere(why) => ProviderError::Refused { provider, call, why },
            Self::Said { words, is_open: true } => ambiguous(words),
            Self::Said { words, is_open: false } => ProviderError::Refused { provider, call, why: words },
            Self::TimedOut => ambiguous("its command did not come back".to_owned()),
            Self::Nonsense(why) => ProviderError::Unintelligible { provider, call, why },
        }
    }
}

impl Settings {
    /// Runs a command that may be repeated, and repeats it while the controller does not answer.
    pub(super) async fn run_again(&self, name: &str, arguments: &[&str]) -> Result<String, Failed> {
        let mut tried = 1;
        loop {
            match self.run(name, arguments, &BTreeMap::new(), "").await {
                Err(Failed::TimedOut | Failed::Said { is_open: true, .. }) if tried < self.tries => {
                    tokio::time::sleep(Duration::from_millis(500).saturating_mul(tried)).await;
                    tried = tried.saturating_add(1);
                }
                other => return other,
            }
        }
    }

    pub(super) async fn run(
        &self,
        name: &str,
        arguments: &[&str],
        env: &BTreeMap<String, String>,
        input: &str,
    ) -> Result<String, Failed> {
        let path = self.commands.as_ref().map_or_else(|| name.into(), |folder| folder.join(name));
        let mut command = Command::new(&path);
        command.args(arguments).envs(env).env("LC_ALL", "C").kill_on_drop(true);
        // A Ctrl-C is the owner's to see to: it must not end a submission between its request and its answer.
        command.process_group(0);
        if let Some(file) = &self.configuration {
            command.env("SLURM_CONF", file);
        }
        let no_start = |e: std::io::Error| {
            Failed::NotThere(format!("{} does not start: {e}; install Slurm's commands, or say where", path.display()))
        };
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(no_start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read it says why itself. Scripts are far smaller than a pipe's buffer.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let finished = tokio::time::timeout(self.patience, child.wait_with_output()).await;
        let cut_off = |e: std::io::Error| Failed::Said { words: format!("{name}: {e}"), is_open: true };
        let output = finished.map_err(|_| Failed::TimedOut)?.map_err(cut_off)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(said(name, output.status, &String::from_utf8_lossy(&output.stderr)))
    }
}

/// What a command that failed comes to. The reason is the last thing it says: sites put words of their own before it.
fn said(name: &str, status: ExitStatus, stderr: &str) -> Failed {
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // Without an exit code a signal ended it, in the middle of whatever it did.
    let is_definite = status.code().is_some() && DEFINITE.iter().any(|words| last.contains(words));
    let words = printable_end(stderr);
    Failed::Said {
        words: if words.is_empty() { format!("{name} failed: {status}") } else { words },
        is_open: !is_definite,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::slurm::SlurmProvider;
    use crate::slurm::submit::Submission;

    /// A provider whose `sbatch` is this script, which another process writes: one that this one has open for writing could
    /// not be run.
    fn provider(folder: &Path, script: &str) -> SlurmProvider {
        std::fs::write(folder.join("text"), format!("#!/bin/sh\n{script}\n")).unwrap();
        let mut install = std::process::Command::new("install");
        let installed = install.arg("-m755").arg(folder.join("text")).arg(folder.join("sbatch")).status().unwrap();
        assert!(installed.success());
        SlurmProvider::builder().commands(folder).folder(folder).program("/bin/true").build().unwrap()
    }

    async fn submit(script: &str) -> Result<u64, ProviderError> {
        let folder = tempfile::tempdir().unwrap();
        let empty = Submission { arguments: Vec::new(), script: String::new(), env: BTreeMap::new() };
        provider(folder.path(), script).submit(&empty).await
    }

    #[tokio::test]
    async fn only_a_known_refusal_is_definite() {
        let failing = "echo 'sbatch: error: Batch job submission failed: ";
        for unclear in [
            "kill -INT $$; sleep 5".to_owned(),
            "kill -9 $$".to_owned(),
            "exit 1".to_owned(),
            format!("{failing}Message receive failure' >&2; exit 1"),
            format!("{failing}Unable to contact slurm controller (connect failure)' >&2; exit 1"),
            format!("{failing}Something of a later version' >&2; exit 1"),
            // A banner that says what a refusal says.
            format!(
                "echo 'Access/permission denied to whom this is not for' >&2; {failing}Message receive failure' >&2; exit 1"
            ),
            // A refusal that was said, and then a signal.
            format!("{failing}Invalid qos specification' >&2; kill -9 $$"),
        ] {
            let error = submit(&unclear).await.unwrap_err();
            assert!(matches!(error, ProviderError::Ambiguous { .. }), "{unclear}: {error}");
        }
        for words in ["Invalid partition name specified", "Invalid qos specification"] {
            let error = submit(&format!("{failing}{words}' >&2; exit 1")).await.unwrap_err();
            assert!(matches!(&error, ProviderError::Refused { why, .. } if why.contains(words)), "{error}");
        }
        assert_eq!(submit("echo 12").await.unwrap(), 12);
    }

    #[tokio::test]
    async fn the_reason_is_read_behind_a_banner() {
        let banner =
            "i=0; while [ $i -lt 40 ]; do echo 'Welcome to the cluster of the institute' >&2; i=$((i+1)); done";
        for (words, definite) in
            [("Invalid qos specification", true), ("Zero Bytes were transmitted or received", false)]
        {
            let error = submit(&format!("{banner}; echo 'sbatch: error: {words}' >&2; exit 1")).await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(matches!(error, ProviderError::Refused { .. }), definite, "{error}");
        }
    }

    #[tokio::test]
    async fn a_signal_to_the_owners_group_does_not_reach_a_command() {
        // The field behind the name, the state and the parent is the process group: its own process id.
        let group = submit("read -r _ _ _ _ group _ </proc/$$/stat; test $group = $$ && echo 7").await;
        assert_eq!(group.unwrap(), 7);
    }
}

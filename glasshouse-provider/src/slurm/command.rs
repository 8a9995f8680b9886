//! Running Slurm's commands.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use glasshouse_core::traits::ProviderError;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::NAME;
use super::builder::Settings;
use crate::rest::printable;

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
        let output = finished.map_err(|_| Failed::TimedOut)?.map_err(no_start)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = printable(&String::from_utf8_lossy(&output.stderr));
        let is_open = ["Unable to contact", "timed out", "Connection refused", "Zero Bytes", "Socket", "try again"]
            .iter()
            .any(|sign| words.contains(sign));
        Err(Failed::Said { words: if words.is_empty() { format!("{name} failed") } else { words }, is_open })
    }
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::SlurmProvider;
use super::job::JobId;
use crate::rest::ConfigError;

/// Sets a [`SlurmProvider`] up.
#[derive(Clone, Debug)]
pub struct SlurmBuilder {
    folder: Option<PathBuf>,
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) tag: String,
    /// The agent's executable on the nodes.
    pub(super) program: PathBuf,
    /// Where Slurm's commands are; `PATH` when absent.
    pub(super) commands: Option<PathBuf>,
    pub(super) configuration: Option<PathBuf>,
    /// Shared with the nodes.
    pub(super) folder: PathBuf,
    pub(super) partition: Option<String>,
    pub(super) port: u16,
    pub(super) cpus: u32,
    pub(super) memory_gib: Option<u32>,
    pub(super) gpu_memory_gib: Option<u32>,
    pub(super) cuda: Option<u32>,
    pub(super) patience: Duration,
    pub(super) tries: u32,
}

impl Settings {
    /// Where a job's standard output goes: the one line with the agent's address.
    pub(super) fn output(&self, job: JobId<'_>) -> PathBuf {
        self.folder.join(format!("{}-{}.out", job.name, job.number))
    }

    /// Where its standard error goes: the agent's log.
    pub(super) fn errors(&self, job: JobId<'_>) -> PathBuf {
        self.folder.join(format!("{}-{}.err", job.name, job.number))
    }
}

impl SlurmBuilder {
    pub(super) fn new() -> Self {
        Self {
            folder: None,
            settings: Settings {
                tag: "gh-".to_owned(),
                program: std::env::current_exe().unwrap_or_default(),
                commands: None,
                configuration: None,
                folder: PathBuf::new(),
                partition: None,
                port: 0,
                cpus: 1,
                memory_gib: None,
                gpu_memory_gib: None,
                cuda: None,
                patience: Duration::from_secs(30),
                tries: 3,
            },
        }
    }

    /// The agent's executable, by its path on the nodes; this executable's own when not given.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.program = path.into();
        self
    }

    /// A folder that the nodes see under the same path; `~/.glasshouse/slurm` when not given. Made if need be.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.folder = Some(path.into());
        self
    }

    /// Where `sbatch` and the others are; found through `PATH` when not given.
    #[must_use]
    pub fn commands(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.commands = Some(folder.into());
        self
    }

    /// Slurm's configuration file (`SLURM_CONF`); the commands' own default when not given.
    #[must_use]
    pub fn configuration(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.configuration = Some(file.into());
        self
    }

    /// Only this partition; every one that is up when not given.
    #[must_use]
    pub fn partition(mut self, name: impl Into<String>) -> Self {
        self.settings.partition = Some(name.into());
        self
    }

    /// Prefix of the job names that `list_owned` counts as this owner's; `gh-` when not given.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.settings.tag = tag.into();
        self
    }

    /// Where agents listen; any free port when not given, so that several jobs fit on one node.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.settings.port = port;
        self
    }

    /// Processor cores of a job; 1 when not given.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.settings.cpus = cpus;
        self
    }

    /// Memory of a job, GiB; the partition's default when not given.
    #[must_use]
    pub fn memory_gib(mut self, gib: u32) -> Self {
        self.settings.memory_gib = Some(gib);
        self
    }

    /// What Slurm does not know of the nodes' GPUs: memory of each in GiB, and the driver's CUDA version as
    /// major * 10 + minor. Without it, filters that ask for these fit no partition.
    #[must_use]
    pub fn gpu_facts(mut self, memory_gib: u32, cuda: u32) -> Self {
        (self.settings.gpu_memory_gib, self.settings.cuda) = (Some(memory_gib), Some(cuda));
        self
    }

    /// Checks the settings and makes the folder.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] when there is no such folder, or a path is not absolute.
    pub fn build(mut self) -> Result<SlurmProvider, ConfigError> {
        let home = || std::env::home_dir().map(|home| home.join(".glasshouse/slurm"));
        let folder = self.folder.or_else(home).unwrap_or_default();
        let bad = |what, path: &Path, why| ConfigError::BadValue { what, value: path.display().to_string(), why };
        for (what, path) in [("the folder", &folder), ("the program", &self.settings.program)] {
            // Slurm's file name patterns and the script take them literally otherwise.
            let text = path.to_str().unwrap_or("%");
            if !path.is_absolute() || text.contains(['%', '\\', '\'', '\n']) {
                return Err(bad(what, path, "it must be absolute, without %, quotes, backslashes or line breaks"));
            }
        }
        if std::fs::create_dir_all(&folder).is_err() {
            return Err(bad("the folder", &folder, "it cannot be made; choose another that the nodes see too"));
        }
        self.settings.folder = folder;
        Ok(SlurmProvider { settings: self.settings, ended: Mutex::new(BTreeSet::new()) })
    }
}

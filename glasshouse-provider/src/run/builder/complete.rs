//! From what a tool gave to a run that has everything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::fixed::{Digest32, Fixed, PublicKey32};
use glasshouse_core::traits::LaunchSpec;

use super::{Listener, RunBuilder};
use crate::measurement::{Measurement, MeasurementError};
use crate::run::setup::{Setup, agent_env};
use crate::run::{Gate, RunError};
use crate::supervisor::{Journal, RentRequest};

impl<K> RunBuilder<K> {
    /// What is rented for it.
    fn rent_request(&self, gate_key: PublicKey32) -> RentRequest {
        RentRequest {
            filter: self.filter.clone(),
            image: self.image.clone(),
            gate_key,
            linger: self.linger,
            env: agent_env(&self.env, self.anti_debug),
            disk_gib: self.disk_gib,
            time_limit: self.time_limit,
        }
    }

    /// Checks that everything is there.
    pub(in crate::run) fn complete(mut self) -> Result<(K, Setup, Listener), RunError> {
        crate::roles::ensure_owner()?;
        let missing = |what, call| RunError::Missing { what, call };
        let provider = self.provider.take().ok_or_else(|| missing("a provider", "provider"))?;
        let out = self.out.take().ok_or_else(|| missing("an output folder", "out_dir"))?;
        crate::run::files::prepare_folder(&out)?;
        let runtime = match self.runtime {
            Some(measurement) => measurement,
            None if provider.name() == "local" => own_executable()?,
            None => return Err(missing("the measurement of the executable that runs there", "runtime_measurement")),
        };
        let gate = match self.gate.take() {
            Some(gate) => gate,
            None => Gate::open(&Gate::folder_in(&out))?,
        };
        let request = self.rent_request(gate.public());
        let journal_path = self.journal.unwrap_or_else(|| out.join("journal.jsonl"));
        let setup = Setup {
            verifier: self.verifier.ok_or_else(|| missing("a verifier", "verifier"))?,
            package: self.package.ok_or_else(|| missing("a package", "package"))?,
            journal: Arc::new(Journal::open(&journal_path)?),
            journal_path,
            provider,
            gate,
            runtime,
            out,
            device: self.device,
            warmup_units: self.warmup_units,
            budget: self.budget,
            progress: self.progress,
            export: self.export,
            lease: self.lease,
            challenge_ttl: Duration::from_secs(60),
            max_skew: Duration::from_secs(120),
            max_challenges: 3,
            container: self.container,
            anti_debug: self.anti_debug,
            request,
            allow_cleartext: self.allow_cleartext,
            handle_signals: self.handle_signals,
            stop: self.stop,
            patience: self.patience,
            supervise: self.supervise,
            segments: 1,
            artifact_limit: self.artifact_limit,
        };
        Ok((self.kind, setup, self.listener.unwrap_or_else(|| Box::new(|_| {}))))
    }
}

/// The measurement that a segment of the local provider makes of itself, when it runs this executable.
fn own_executable() -> Result<Digest32, RunError> {
    let measured = Measurement::of_this_executable();
    let unreadable = |e: MeasurementError| RunError::File {
        path: PathBuf::from("/proc/self/exe"),
        what: "measured",
        why: e.to_string(),
    };
    Ok(measured.map_err(unreadable)?.sha256)
}

impl<K> RunBuilder<K> {
    /// What this run would be rented with, for a dry run: nothing is asked for, nothing written. Name and secret are made
    /// for this call alone, and without a gate its key is all zeros.
    ///
    /// # Errors
    /// [`RunError::NoRandomness`].
    pub fn launch(&self) -> Result<LaunchSpec, RunError> {
        let gate_key = self.gate.as_ref().map_or(Fixed([0; 32]), Gate::public);
        let tag = Fixed::<8>::random().map_err(|_| RunError::NoRandomness)?;
        self.rent_request(gate_key).launch(format!("gh-dryrun-{tag}")).map_err(|_| RunError::NoRandomness)
    }
}

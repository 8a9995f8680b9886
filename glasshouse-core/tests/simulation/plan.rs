//! What goes wrong in one run, drawn from its seed.

use std::time::Duration;

use crate::entropy::Rng;

/// What happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Drop,
    Duplicate,
    Delay,
    Truncate,
    Reorder,
    Flip,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Drop, Self::Duplicate, Self::Delay, Self::Truncate, Self::Reorder, Self::Flip];
}

/// A runtime that must never get a key, listening and answering beside the genuine one, or in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Impostor {
    /// Was launched with another secret.
    OtherSecret,
    /// Runs another executable.
    OtherProgram,
    /// Can be debugged.
    Debuggable,
    /// Has left the state in which it may attest.
    NotReady,
    /// Knows the secret and tells the right claims, but no hardware vouches for them.
    NoQuote,
    /// Has another package.
    OtherPackage,
    /// Puts its own keys into the genuine runtime's evidence.
    SwapsKeys,
}

impl Impostor {
    pub(crate) const ALL: [Self; 7] = [
        Self::OtherSecret,
        Self::OtherProgram,
        Self::Debuggable,
        Self::NotReady,
        Self::NoQuote,
        Self::OtherPackage,
        Self::SwapsKeys,
    ];
}

/// A defect put in on purpose: the simulation has to see every one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// The verifier takes every quote.
    VerifierTakesAnything,
    /// The store says that a release is durable and writes nothing.
    StoreForgetsReleases,
    /// The store says that a record is durable and writes nothing.
    StoreForgetsRecords,
    /// The owner acknowledges more than it has.
    OwnerAcknowledgesAhead,
    /// The owner acknowledges the end before it has the artifact.
    OwnerForgetsArtifact,
    /// The owner takes the measurement for the end.
    OwnerTrustsProgress,
    /// The owner waits for ever.
    OwnerHasNoDeadline,
    /// The runtime trains on after its lease.
    RuntimeIgnoresLease,
    /// The runtime keeps its key when it zeroizes.
    RuntimeKeepsKey,
    /// The runtime waits for its owner for ever.
    RuntimeLingersForEver,
    /// The runtime says that it did all that was asked when it was stopped.
    RuntimeOverstates,
}

impl Sabotage {
    pub(crate) const ALL: [Self; 11] = [
        Self::VerifierTakesAnything,
        Self::StoreForgetsReleases,
        Self::StoreForgetsRecords,
        Self::OwnerAcknowledgesAhead,
        Self::OwnerForgetsArtifact,
        Self::OwnerTrustsProgress,
        Self::OwnerHasNoDeadline,
        Self::RuntimeIgnoresLease,
        Self::RuntimeKeepsKey,
        Self::RuntimeLingersForEver,
        Self::RuntimeOverstates,
    ];

    /// What is said of it.
    pub(crate) fn violates(self) -> &'static [&'static str] {
        match self {
            Self::VerifierTakesAnything => &["a key was released to a runtime that is not attested"],
            Self::StoreForgetsReleases => &["a release was sent that the store does not have", "releases were sent"],
            Self::StoreForgetsRecords | Self::OwnerAcknowledgesAhead => &["records were acknowledged"],
            Self::OwnerForgetsArtifact => &["the artifact is not there"],
            Self::OwnerTrustsProgress | Self::RuntimeOverstates => &["a run is reported as done"],
            Self::OwnerHasNoDeadline => &["the owner is stuck"],
            Self::RuntimeIgnoresLease => &["after its lease"],
            Self::RuntimeKeepsKey => &["a key is alive after the receipt"],
            Self::RuntimeLingersForEver => &["the runtime is stuck"],
        }
    }
}

/// Everything about a run that is not an answer of the code under test. Rates are per thousand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// By [`Fault`], for each message.
    pub(crate) network: [u64; 6],
    /// Exactly this message gets exactly this fault, besides.
    pub(crate) single: Option<(u64, Fault)>,
    /// At this millisecond the owner dies, besides.
    pub(crate) owner_dies_at: Option<u64>,
    /// For each half second.
    pub(crate) clock_jumps: u64,
    /// Also jumps that [`Now`](glasshouse_core::clock::Now) rules out: then no deadline can be held.
    pub(crate) boot_runs_back: bool,
    pub(crate) owner_crashes: u64,
    pub(crate) segment_crashes: u64,
    pub(crate) agent_crashes: u64,
    /// For each change of the gate's store.
    pub(crate) disk: u64,
    pub(crate) impostor: Option<Impostor>,
    /// Whether the genuine runtime is there at all.
    pub(crate) genuine: bool,
    /// A gate that this runtime was not launched for.
    pub(crate) foreign_gate: bool,
    /// Two sessions of the gate over one store.
    pub(crate) rival: bool,
    pub(crate) training_fails: bool,
    /// When the owner asks to stop, in seconds.
    pub(crate) stop_at: Option<u64>,
    pub(crate) units: u64,
    pub(crate) lease: Duration,
    pub(crate) max_units: Option<u64>,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Plan {
    /// A run in which nothing goes wrong.
    pub(crate) fn calm(seed: u64) -> Self {
        Self {
            seed,
            network: [0; 6],
            single: None,
            owner_dies_at: None,
            clock_jumps: 0,
            boot_runs_back: false,
            owner_crashes: 0,
            segment_crashes: 0,
            agent_crashes: 0,
            disk: 0,
            impostor: None,
            genuine: true,
            foreign_gate: false,
            rival: false,
            training_fails: false,
            stop_at: None,
            units: 12,
            lease: Duration::from_secs(120),
            max_units: None,
            sabotage: None,
        }
    }

    /// From calm to stormy.
    pub(crate) fn random(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x706c_616e);
        let mut plan = Self { units: rng.between(4, 24), ..Self::calm(seed) };
        let severity = rng.below(6);
        let ceiling = [0, 30, 80, 150, 300, 500][severity as usize];
        plan.network = std::array::from_fn(|_| if rng.chance(600) { rng.between(0, ceiling) } else { 0 });
        let mut sometimes = |per_mille, rates: &[u64]| if rng.chance(per_mille) { rng.pick(rates) } else { 0 };
        plan.clock_jumps = sometimes(350, &[5, 20, 60]);
        plan.owner_crashes = sometimes(350, &[4, 12, 40]);
        plan.segment_crashes = sometimes(200, &[3, 10]);
        plan.agent_crashes = sometimes(120, &[3, 10]);
        plan.disk = sometimes(350, &[20, 60, 200]);
        plan.boot_runs_back = plan.clock_jumps > 0 && rng.chance(150);
        plan.impostor = rng.chance(400).then(|| rng.pick(&Impostor::ALL));
        plan.genuine = plan.impostor.is_none() || plan.impostor == Some(Impostor::SwapsKeys) || rng.chance(700);
        plan.foreign_gate = rng.chance(200);
        plan.rival = rng.chance(200);
        plan.training_fails = rng.chance(60);
        plan.stop_at = rng.chance(100).then(|| rng.between(1, 40));
        plan.lease = Duration::from_secs(rng.pick(&[10, 30, 120, 3600]));
        plan.max_units = rng.chance(120).then(|| rng.between(1, 30));
        plan
    }
}

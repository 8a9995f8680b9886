//! What a runtime says of itself, and how far that can be believed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fixed::{Digest32, Digest48};

/// How far an appraisal can be believed. Ordered: a later one includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Assurance {
    /// No TEE. Protects against network attackers, replay and accidents; a malicious host can forge all of it.
    SelfReported,
    /// A CPU TEE's quote verified to the vendor's root, with launch measurements that cover kernel, initrd, driver and
    /// root file system.
    CpuTee,
    /// `CpuTee`, and every GPU's confidential-computing report verified and bound to the same session.
    CpuTeeGpuCc,
}

impl Assurance {
    /// The name as it stands in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SelfReported => "SelfReported",
            Self::CpuTee => "CpuTee",
            Self::CpuTeeGpuCc => "CpuTeeGpuCc",
        }
    }

    /// One sentence on what it does and does not promise.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::SelfReported => {
                "the runtime measured itself: this stops network attackers, replay and accidents; a malicious host can forge it"
            }
            Self::CpuTee => "a CPU TEE measured the guest; the GPU and its link are outside the measurement",
            Self::CpuTeeGpuCc => {
                "a CPU TEE measured the guest and every GPU attested; that these GPUs are in this machine rests on the measured guest"
            }
        }
    }
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which attestor made the evidence. Part of T.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceKind {
    /// The runtime's own measurements in an EAT-style token.
    Software,
    /// An Intel TDX quote.
    Tdx,
    /// An AMD SEV-SNP report.
    SevSnp,
    /// A Google Confidential Space token.
    ConfidentialSpace,
}

impl EvidenceKind {
    /// The name as it stands in T and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Tdx => "tdx",
            Self::SevSnp => "sev-snp",
            Self::ConfidentialSpace => "confidential-space",
        }
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An identifier of the place a runtime runs in, with where it was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerId {
    /// Where it was read: `cgroup`, `boot-id`, `runpod-pod-id`, `vast-container-id`, `slurm-job`, …
    pub source: String,
    /// The identifier; `host:<boot id>` where there is no container, so that it says so.
    pub value: String,
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.value, self.source)
    }
}

/// How hard a runtime makes it to read its memory from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AntiDebugLevel {
    /// Nothing is applied.
    Off,
    /// Not dumpable, no core files, no tracer, nothing preloaded.
    Basic,
    /// `Basic`, and the kernel restricts ptrace to descendants or less, where it can.
    Strict,
}

impl AntiDebugLevel {
    /// The name as it stands in T and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Basic => "basic",
            Self::Strict => "strict",
        }
    }
}

impl fmt::Display for AntiDebugLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The anti-debug profile as applied and read back, not as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AntiDebug {
    /// Version of the list of checks, `glasshouse-anti-debug/1`.
    pub profile: String,
    /// The level whose checks all hold.
    pub level: AntiDebugLevel,
    /// `PR_GET_DUMPABLE` read back as 0.
    pub not_dumpable: bool,
    /// `RLIMIT_CORE` read back as 0/0.
    pub no_core_files: bool,
    /// `TracerPid` in `/proc/self/status` is 0.
    pub no_tracer: bool,
    /// Nothing in `LD_PRELOAD`, `LD_AUDIT` or `/etc/ld.so.preload`.
    pub no_preload: bool,
    /// `/proc/sys/kernel/yama/ptrace_scope`; absent where the kernel has no Yama.
    pub ptrace_scope: Option<u8>,
}

impl AntiDebug {
    /// The first check that the claimed level needs and that does not hold.
    pub fn failed_check(&self) -> Option<&'static str> {
        let strict = self.level == AntiDebugLevel::Strict;
        match self.level {
            AntiDebugLevel::Off => None,
            _ if !self.not_dumpable => Some("the process is dumpable"),
            _ if !self.no_core_files => Some("core files are allowed"),
            _ if !self.no_tracer => Some("a tracer is attached"),
            _ if !self.no_preload => Some("a library is preloaded"),
            _ if strict && self.ptrace_scope.is_none_or(|scope| scope < 1) => Some("ptrace is not restricted"),
            _ => None,
        }
    }
}

/// The only profile so far.
pub const ANTI_DEBUG_PROFILE: &str = "glasshouse-anti-debug/1";

/// Where a runtime stands. Only `Ready` may be given a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeState {
    /// Hardened, nothing opened, no key held.
    Ready,
    /// Holds a key and trains.
    Training,
    /// Wiping what it held.
    Zeroizing,
    /// Wiped and verified.
    Zeroized,
    /// Failed; whether it wiped is in the receipt, if there is one.
    Failed,
}

impl RuntimeState {
    /// The name as it stands in T and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Training => "training",
            Self::Zeroizing => "zeroizing",
            Self::Zeroized => "zeroized",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for RuntimeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an attestor measures of the place and the program, before any session is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Which attestor this is.
    pub kind: EvidenceKind,
    /// SHA-256 of the container image's manifest, where the launch gave one.
    pub image_digest: Option<Digest32>,
    /// Where this runs.
    pub container: ContainerId,
    /// SHA-256 of the running executable.
    pub runtime_measurement: Digest32,
    /// Anti-debug, read back.
    pub anti_debug: AntiDebug,
    /// State at the time of measuring.
    pub state: RuntimeState,
}

/// What the owner expects to see in [`Claims`]: reference values (RFC 9334), each from the owner's own knowledge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// The attestor that must answer.
    pub kind: EvidenceKind,
    /// The image that was launched, when it was pinned by digest.
    pub image_digest: Option<Digest32>,
    /// The place that was rented, as the provider names it.
    pub container: ContainerId,
    /// The executable that was launched, from `measurement.json` or the owner's own file.
    pub runtime_measurement: Digest32,
    /// The anti-debug profile and level that must hold.
    pub anti_debug_profile: String,
    /// The anti-debug level that must hold.
    pub anti_debug_level: AntiDebugLevel,
    /// The policy that the verifier appraises by.
    pub policy_digest: Digest48,
    /// Nothing is released below this.
    pub minimum_assurance: Assurance,
}

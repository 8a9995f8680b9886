use glasshouse_core::claims::{Assurance, EvidenceKind};
use glasshouse_core::clock::UnixMillis;
use serde::{Deserialize, Deserializer, Serialize};

use crate::nvidia::NvidiaPolicy;
use crate::snp::SnpPolicy;
use crate::tdx::DcapPolicy;
use crate::tokens::{ConfidentialSpacePolicy, MAX_CLOCK_AHEAD_SECONDS, NrasPolicy};

/// What an owner asks of a machine with a TEE. `policy.schema.json` in this crate describes it as JSON,
/// `policy.example.json` is one; no other members are allowed anywhere in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardwarePolicy {
    /// The CPU's TEE, one of three, and what is asked of it.
    pub cpu: CpuPolicy,
    /// What is asked of GPUs and switches that attest.
    #[serde(default)]
    pub gpu: GpuPolicy,
    /// What must be reached. A package that is sealed with the same minimum tells the runtime, which then says at once what
    /// keeps it from that, such as a GPU whose confidential computing is off.
    pub minimum_assurance: MinimumAssurance,
    /// Appraises certificates, revocation data, collateral and tokens as they were at this time, milliseconds since 1970,
    /// instead of at the time that the verifier is called with.
    ///
    /// An appraisal needs the time to find out what has lapsed since: a key that was revoked yesterday is not revoked at last
    /// week's time. A gate therefore appraises at its own clock, and an audit at the verdict's time or the one that it is
    /// asked for; neither needs this. It is for rehearsals with collateral that was kept, and for sites whose bundle has run
    /// out. What it pins stands in the policy's digest and in every verdict. Freshness does not move with it: nonces and
    /// clocks of a session are the gate's to check, at its own time.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "a_time")]
    pub dangerous_at: Option<UnixMillis>,
}

/// The CPU's TEE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuPolicy {
    /// Intel TDX.
    Tdx(DcapPolicy),
    /// AMD SEV-SNP.
    SevSnp(SnpPolicy),
    /// Google Confidential Space.
    ConfidentialSpace(ConfidentialSpaceSession),
}

/// What is asked of Google's tokens in a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfidentialSpaceSession {
    /// The only audience that is accepted, exactly.
    pub audience: String,
    /// Everything else.
    #[serde(default)]
    pub token: ConfidentialSpacePolicy,
}

/// What is asked of GPUs and switches. Fields that a JSON document leaves out have these defaults: any number of any
/// devices, no tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuPolicy {
    /// Of each device: floors of driver and VBIOS, modes, revocation lists.
    pub devices: NvidiaPolicy,
    /// Exactly so many GPUs.
    pub gpus: Option<u32>,
    /// Exactly so many switches.
    pub switches: Option<u32>,
    /// The only devices that are accepted, by the serial number of their own certificate in hex (`device-serial` in
    /// claims); empty accepts all. With it, another machine's genuine GPU is refused even where the guest relays it.
    pub serials: Vec<String>,
    /// What is asked of tokens of NVIDIA's service; without it they are refused. A token never stands for a report.
    pub tokens: Option<NrasPolicy>,
    /// Refuses devices that come without a token.
    pub require_token: bool,
}

/// What an appraisal must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinimumAssurance {
    /// [`Assurance::CpuTee`].
    CpuTee,
    /// [`Assurance::CpuTeeGpuCc`].
    CpuTeeGpuCc,
}

impl MinimumAssurance {
    /// The assurance.
    pub const fn level(self) -> Assurance {
        match self {
            Self::CpuTee => Assurance::CpuTee,
            Self::CpuTeeGpuCc => Assurance::CpuTeeGpuCc,
        }
    }
}

/// Why a policy can accept nothing, or not what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It has no reference values that cover the launch.
    #[error("the policy has no {0}; without launch measurements nothing is a CPU TEE: measure the guest and add them")]
    NoLaunchMeasurements(&'static str),
    /// A relaxation that no assurance above `SelfReported` can be given under.
    #[error("the policy sets {0}, under which nothing is a CPU TEE; leave it out")]
    Relaxed(&'static str),
    /// It asks for confidential GPUs and does not compare all of their measurements.
    #[error("the policy asks for CpuTeeGpuCc and sets {0}; leave one of them out")]
    UnmeasuredGpus(&'static str),
    /// It accepts tokens of a far future.
    #[error(
        "the policy lets tokens lie {0} seconds ahead of the clock; {MAX_CLOCK_AHEAD_SECONDS} are the most, set the clock right"
    )]
    ClockAhead(u32),
    /// It asks for something and leaves no way to it.
    #[error("the policy can accept nothing: {0}")]
    AcceptsNothing(&'static str),
    /// A device's serial number is not lower-case hex.
    #[error("{0:?} in gpu.serials is no serial number in lower-case hex; copy device-serial from a verdict")]
    Serial(String),
}

impl HardwarePolicy {
    /// The kind of evidence that it is about.
    pub const fn kind(&self) -> EvidenceKind {
        match &self.cpu {
            CpuPolicy::Tdx(_) => EvidenceKind::Tdx,
            CpuPolicy::SevSnp(_) => EvidenceKind::SevSnp,
            CpuPolicy::ConfidentialSpace(_) => EvidenceKind::ConfidentialSpace,
        }
    }

    /// Every relaxation that is in force, under the part that it relaxes, for the verdict.
    pub fn relaxations(&self) -> Vec<String> {
        let (part, cpu) = match &self.cpu {
            CpuPolicy::Tdx(policy) => ("cpu.tdx", policy.relaxations()),
            CpuPolicy::SevSnp(policy) => ("cpu.sev-snp", policy.relaxations()),
            CpuPolicy::ConfidentialSpace(policy) => ("cpu.confidential-space", policy.token.relaxations()),
        };
        let under =
            |part: &str, names: Vec<String>| names.into_iter().map(|n| format!("{part}.{n}")).collect::<Vec<_>>();
        let tokens = self.gpu.tokens.as_ref().map(NrasPolicy::relaxations).unwrap_or_default();
        let pinned = self.dangerous_at.map(|time| format!("dangerous_at {time}")).into_iter().collect();
        [pinned, under(part, cpu), under("gpu.devices", self.gpu.devices.relaxations()), under("gpu.tokens", tokens)]
            .concat()
    }

    /// Whether it can accept anything at the assurance that it asks for.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn check(&self) -> Result<(), PolicyError> {
        let (relaxed, measured, what) = match &self.cpu {
            CpuPolicy::Tdx(p) => (
                (p.dangerous_no_measurements, p.dangerous_allow_debug),
                p.measurements.iter().any(|reference| p.covers(reference)),
                "cpu.tdx.measurements with mrtd, rtmr0, rtmr1 and rtmr2",
            ),
            CpuPolicy::SevSnp(p) => (
                (p.dangerous_no_measurements, p.dangerous_allow_debug),
                !p.measurements.is_empty(),
                "cpu.sev-snp.measurements",
            ),
            CpuPolicy::ConfidentialSpace(p) => (
                (p.token.dangerous_no_measurements, p.token.dangerous_allow_debug),
                !p.token.measurements.is_empty(),
                "cpu.confidential-space.token.measurements",
            ),
        };
        match relaxed {
            (true, _) => return Err(PolicyError::Relaxed("dangerous_no_measurements")),
            (_, true) => return Err(PolicyError::Relaxed("dangerous_allow_debug")),
            _ if !measured => return Err(PolicyError::NoLaunchMeasurements(what)),
            _ => {}
        }
        let gpus = self.minimum_assurance == MinimumAssurance::CpuTeeGpuCc;
        let devices = &self.gpu.devices;
        let unmeasured = [
            (devices.dangerous_no_measurements, "gpu.devices.dangerous_no_measurements"),
            (devices.allow_missing_driver_rim, "gpu.devices.allow_missing_driver_rim"),
            (devices.allow_missing_vbios_rim, "gpu.devices.allow_missing_vbios_rim"),
        ];
        if let Some((_, name)) = unmeasured.into_iter().find(|(relaxed, _)| gpus && *relaxed) {
            return Err(PolicyError::UnmeasuredGpus(name));
        }
        let nobody = |issuers: Option<&Vec<String>>| issuers.is_some_and(Vec::is_empty);
        let space = match &self.cpu {
            CpuPolicy::ConfidentialSpace(policy) => Some(&policy.token.issuers),
            CpuPolicy::Tdx(_) | CpuPolicy::SevSnp(_) => None,
        };
        let tokens = self.gpu.tokens.as_ref();
        let nothing = [
            (
                gpus && self.gpu.gpus == Some(0),
                "it asks for CpuTeeGpuCc and for no GPU in gpu.gpus; leave one of them out",
            ),
            (
                self.gpu.require_token && tokens.is_none(),
                "gpu.require_token needs gpu.tokens, which says whose tokens count; add it, or leave the other out",
            ),
            (
                nobody(tokens.map(|t| &t.issuers)),
                "gpu.tokens.issuers is empty; name an issuer, or leave gpu.tokens out",
            ),
            (nobody(space), "cpu.confidential-space.token.issuers is empty; name an issuer, or leave the member out"),
            (
                devices.features.is_empty(),
                "gpu.devices.features is empty; name a mode, or say gpu.gpus 0 to have no GPU",
            ),
        ];
        if let Some((_, why)) = nothing.into_iter().find(|(so, _)| *so) {
            return Err(PolicyError::AcceptsNothing(why));
        }
        let google = match &self.cpu {
            CpuPolicy::ConfidentialSpace(policy) => policy.token.max_clock_ahead_seconds,
            CpuPolicy::Tdx(_) | CpuPolicy::SevSnp(_) => 0,
        };
        let ahead = google.max(self.gpu.tokens.as_ref().map_or(0, |tokens| tokens.max_clock_ahead_seconds));
        if ahead > MAX_CLOCK_AHEAD_SECONDS {
            return Err(PolicyError::ClockAhead(ahead));
        }
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match self.gpu.serials.iter().find(|serial| !is_hex(serial)) {
            Some(serial) => Err(PolicyError::Serial(serial.clone())),
            None => Ok(()),
        }
    }
}

/// A time, where the member is there: it can be left out, and is never null.
fn a_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixMillis>, D::Error> {
    UnixMillis::deserialize(deserializer).map(Some)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;

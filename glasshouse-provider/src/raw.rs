//! What a raw segment is told beyond the wire's plain fields: its job, and the key of its inputs.
//!
//! Raw segments are not attested, and whoever runs the allocation can read all that they do. Their inputs are a sealed
//! package all the same, under a key of its own that is sealed to who knows the launch secret: so that nobody else on the
//! way reads them, that no cleartext is written to a disk, and that raw and protected segments open the same file in the
//! same way.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use glasshouse_core::fixed::{Digest48, Fixed, Nonce32};
use glasshouse_core::job::JobSpec;
use glasshouse_core::package::PackageDigests;
use glasshouse_core::protocol::{LaunchKeys, ResultKey, SealedArtifact, open_artifact, seal_artifact};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::secret::Secret;
use serde::{Deserialize, Serialize};

/// The name under which the key is sealed. No artifact can have it: `/` is not in a file name.
const INPUTS: &str = "gh/raw-inputs";

/// What a raw segment does, and what with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawOrder {
    job: JobSpec,
    /// The data key of its package, and the package's two digests.
    inputs: SealedArtifact,
}

impl RawOrder {
    /// Largest encoding accepted.
    pub(crate) const LIMIT: usize = JobSpec::LIMIT + 1024;

    /// An order for one session.
    pub(crate) fn seal(
        job: JobSpec,
        data_key: &Secret<32>,
        digests: &PackageDigests,
        launch_secret: &Secret<32>,
        session: &Nonce32,
    ) -> Result<Self, Refusal> {
        let plaintext = zeroizing([data_key.expose().as_slice(), digests.package.as_ref(), digests.manifest.as_ref()]);
        let key = raw_key(launch_secret, *session)?;
        Ok(Self { job, inputs: seal_artifact(&key.public(), session, INPUTS, plaintext.expose())? })
    }

    /// What it says, to who has the launch secret.
    pub(crate) fn open(
        self,
        launch_secret: &Secret<32>,
        session: &Nonce32,
    ) -> Result<(JobSpec, Secret<32>, PackageDigests), Refusal> {
        let opened = open_artifact(&raw_key(launch_secret, *session)?, session, INPUTS, &self.inputs)?;
        let malformed = || Refusal::new(Code::MESSAGE_MALFORMED, "a data key and two digests", "something else");
        let (key, digests) = opened.split_first_chunk::<32>().ok_or_else(malformed)?;
        let (package, manifest) = digests.split_first_chunk::<48>().ok_or_else(malformed)?;
        let manifest = <[u8; 48]>::try_from(manifest).map_err(|_| malformed())?;
        let digests = PackageDigests { package: Digest48::from(*package), manifest: Fixed(manifest) };
        Ok((self.job, Secret::take(&mut { *key }), digests))
    }
}

/// What is meant for the owner or the segment of a raw session alone is sealed to this key; both derive it.
pub(crate) fn raw_key(launch_secret: &Secret<32>, session: Nonce32) -> Result<ResultKey, Refusal> {
    let private = LaunchKeys::new(launch_secret, session).derive("gh/raw/sealed/1");
    let invalid = || Refusal::new(Code::RESULT_KEY_INVALID, "an X25519 key", "bytes that are none");
    ResultKey::from_private(private).ok_or_else(invalid)
}

fn zeroizing(parts: [&[u8]; 3]) -> Secret<128> {
    let filled = Secret::fill_with(|bytes| {
        let mut at = bytes.iter_mut();
        parts.into_iter().flatten().for_each(|byte| {
            if let Some(place) = at.next() {
                *place = *byte;
            }
        });
        Ok::<(), std::convert::Infallible>(())
    });
    match filled {
        Ok(secret) => secret,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::job::Budget;
    use glasshouse_core::traits::Device;

    fn job() -> JobSpec {
        let workload = "mlp".to_owned();
        let (device, budget) = (Device::Cpu, Budget::Units(3));
        JobSpec { workload, device, warmup_units: 1, budget, progress_millis: 10, export: false }
    }

    #[test]
    fn only_the_launch_secret_and_its_session_open_an_order() {
        let (launch, session) = (Secret::take(&mut [1; 32]), Fixed([2; 32]));
        let digests = PackageDigests { package: Fixed([3; 48]), manifest: Fixed([4; 48]) };
        let order = RawOrder::seal(job(), &Secret::take(&mut [5; 32]), &digests, &launch, &session).unwrap();
        let text = serde_json::to_string(&order).unwrap();
        assert!(text.len() <= RawOrder::LIMIT, "{}", text.len());
        let (seen, key, opened) = order.clone().open(&launch, &session).unwrap();
        assert_eq!((seen, key.expose(), opened), (job(), &[5; 32], digests));
        let other = Secret::take(&mut [9; 32]);
        assert_eq!(order.clone().open(&other, &session).err().unwrap().code, Code::ARTIFACT_UNOPENABLE);
        assert_eq!(order.open(&launch, &Fixed([9; 32])).err().unwrap().code, Code::ARTIFACT_UNOPENABLE);
    }
}

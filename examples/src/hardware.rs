//! The command line of evidence of hardware: the owner's policy, the vendors' collateral, and who signed it.

use std::path::{Path, PathBuf};

use clap::Args;
use glasshouse_attest::collateral::{Bundle, CollateralStore};
use glasshouse_attest::hardware::{HardwareCollateral, HardwarePolicy, HardwareRoots, HardwareVerifier};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::PublicKey32;

use crate::warn;

type Failure = Box<dyn std::error::Error>;

/// How evidence of a TEE and of confidential GPUs is appraised: policy, bundle and its key, or none.
#[derive(Args, Clone, Debug, Default)]
pub struct HardwareArguments {
    /// The policy that evidence of hardware is appraised by, JSON as glasshouse-attest/policy.schema.json describes it.
    #[arg(long, requires = "bundle_key")]
    pub policy: Option<PathBuf>,
    /// The signed bundle of the vendors' collateral. A run without one uses the newest that a run here has seen, which must
    /// still count; an audit needs it.
    #[arg(long, requires = "bundle_key")]
    pub bundle: Option<PathBuf>,
    /// The public key of whoever signed the bundle: 64 hex digits, or a file that holds them.
    #[arg(long, value_parser = public_key, requires = "policy")]
    pub bundle_key: Option<PublicKey32>,
    /// Weakens: appraises what the vendors signed as of this time instead of now (of an audit: instead of the time that it is
    /// about), RFC 3339, to the second; the verdict says so. What was revoked or ran out since passes.
    #[arg(long, value_name = "TIME", value_parser = whole_seconds, requires = "policy")]
    pub dangerous_at: Option<UnixMillis>,
}

impl HardwareArguments {
    /// The verifier of a run that begins now. The store remembers the newest bundle seen, and older ones are refused, whatever
    /// the time that they are appraised at. What the policy relaxes is said on standard error before anything is rented.
    ///
    /// # Errors
    /// What is wrong with a file, or the refusal of the bundle.
    pub fn for_a_run(
        &self,
        roots: HardwareRoots,
        store: &Path,
        now: UnixMillis,
    ) -> Result<Option<HardwareVerifier>, Failure> {
        let accept = |file: Option<&[u8]>, key: &PublicKey32, at| {
            let store = CollateralStore::open(store, *key)?;
            let Some(file) = file else {
                return Ok(store
                    .cached(at)?
                    .ok_or("no run here has seen a bundle of this key yet; pass one with --bundle")?);
            };
            // Seen is seen for good: a bundle of the future would shut out every one of the present.
            let issued = Bundle::open(file, key, at)?.issued_at;
            if issued > now {
                return Err(format!("the bundle was issued at {issued}, and it is {now}: set the clock right").into());
            }
            Ok(store.accept(file, at)?)
        };
        let verifier = self.verifier(roots, now, accept)?;
        for relaxation in verifier.iter().flat_map(|verifier| verifier.policy().relaxations()) {
            warn(format_args!("the policy is relaxed: {relaxation}"));
        }
        Ok(verifier)
    }

    /// The verifier of an audit, which looks back: the bundle must be of that time, and need not be the newest.
    ///
    /// # Errors
    /// As [`Self::for_a_run`].
    pub fn for_an_audit(&self, roots: HardwareRoots, at: UnixMillis) -> Result<Option<HardwareVerifier>, Failure> {
        self.verifier(roots, at, |file, key, at| {
            let file = file.ok_or("an audit needs the bundle of the time that it is about; pass it with --bundle")?;
            Ok(Bundle::open(file, key, at)?.collateral()?)
        })
    }

    fn verifier(
        &self,
        roots: HardwareRoots,
        at: UnixMillis,
        collateral: impl FnOnce(Option<&[u8]>, &PublicKey32, UnixMillis) -> Result<HardwareCollateral, Failure>,
    ) -> Result<Option<HardwareVerifier>, Failure> {
        let (Some(policy), Some(key)) = (&self.policy, &self.bundle_key) else {
            return Ok(None);
        };
        let mut policy: HardwarePolicy = serde_json::from_slice(&read(policy)?)
            .map_err(|e| format!("{} is no policy of hardware: {e}; see policy.example.json", policy.display()))?;
        // What the verdict prints is what the policy's digest covers.
        policy.dangerous_at = self.dangerous_at.or(policy.dangerous_at).map(to_the_second);
        let file = self.bundle.as_deref().map(read).transpose()?;
        let collateral = collateral(file.as_deref(), key, policy.dangerous_at.unwrap_or(at))?;
        Ok(Some(HardwareVerifier::new(policy, roots, collateral)?))
    }
}

/// A public key: 64 hex digits, or a file that holds them.
///
/// # Errors
/// What is wrong with it, for the command line's message.
pub fn public_key(text: &str) -> Result<PublicKey32, String> {
    let from_file;
    let digits = if text.len() == 64 && !Path::new(text).exists() {
        text
    } else {
        from_file = std::fs::read_to_string(text).map_err(|e| format!("neither 64 hex digits nor a file: {e}"))?;
        from_file.trim()
    };
    PublicKey32::from_hex(digits).ok_or_else(|| "a key has 64 lower-case hex digits".to_owned())
}

fn whole_seconds(text: &str) -> Result<UnixMillis, String> {
    crate::time(text).map(to_the_second)
}

fn to_the_second(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0 / 1000 * 1000)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}

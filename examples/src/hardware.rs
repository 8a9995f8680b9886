//! The command line of evidence of hardware: the owner's policy, the vendors' collateral, and who signed it.

use std::path::{Path, PathBuf};

use clap::Args;
use glasshouse_attest::collateral::{Bundle, CollateralStore};
use glasshouse_attest::hardware::{HardwareCollateral, HardwarePolicy, HardwareRoots, HardwareVerifier};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::PublicKey32;

type Failure = Box<dyn std::error::Error>;

/// How evidence of a TEE and of confidential GPUs is appraised: all three, or none.
#[derive(Args, Clone, Debug, Default)]
pub struct HardwareArguments {
    /// The policy that evidence of hardware is appraised by, JSON as glasshouse-attest/policy.schema.json describes it.
    #[arg(long, requires = "bundle")]
    pub policy: Option<PathBuf>,
    /// The signed bundle of the vendors' collateral.
    #[arg(long, requires = "bundle_key")]
    pub bundle: Option<PathBuf>,
    /// The public key of whoever signed the bundle: 64 hex digits, or a file that holds them.
    #[arg(long, value_parser = public_key, requires = "policy")]
    pub bundle_key: Option<PublicKey32>,
}

impl HardwareArguments {
    /// The verifier of a run that begins now. The store remembers the newest bundle seen, and older ones are refused.
    ///
    /// # Errors
    /// What is wrong with a file, or the refusal of the bundle.
    pub fn for_a_run(
        &self,
        roots: HardwareRoots,
        store: &Path,
        now: UnixMillis,
    ) -> Result<Option<HardwareVerifier>, Failure> {
        self.verifier(roots, |file, key| Ok(CollateralStore::open(store, *key)?.accept(file, now)?))
    }

    /// The verifier of an audit, which looks back: the bundle must be of that time, and need not be the newest.
    ///
    /// # Errors
    /// As [`Self::for_a_run`].
    pub fn for_an_audit(&self, roots: HardwareRoots, at: UnixMillis) -> Result<Option<HardwareVerifier>, Failure> {
        self.verifier(roots, |file, key| Ok(Bundle::open(file, key, at)?.collateral()?))
    }

    fn verifier(
        &self,
        roots: HardwareRoots,
        collateral: impl FnOnce(&[u8], &PublicKey32) -> Result<HardwareCollateral, Failure>,
    ) -> Result<Option<HardwareVerifier>, Failure> {
        let (Some(policy), Some(bundle), Some(key)) = (&self.policy, &self.bundle, &self.bundle_key) else {
            return Ok(None);
        };
        let policy: HardwarePolicy = serde_json::from_slice(&read(policy)?)
            .map_err(|e| format!("{} is no policy of hardware: {e}; see policy.example.json", policy.display()))?;
        let collateral = collateral(&read(bundle)?, key)?;
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

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}

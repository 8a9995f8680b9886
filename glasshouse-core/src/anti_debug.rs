//! What a process does before any secret is in its memory: agents and segments as the first thing of all, and an attestor
//! that hardens once more, to claim it.
//!
//! `PR_SET_DUMPABLE` 0 is what counts: no core dump is written (a pipe in `core_pattern` ignores `RLIMIT_CORE`), and
//! another process needs `CAP_SYS_PTRACE` to attach or to read `/proc/PID/mem`. It also gives `/proc/self` to root, so a
//! process that is not root can no longer read its own `environ`: what is wanted of that is read before. Both last until
//! `exec`.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::io;
use std::sync::OnceLock;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// A protection that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("{check} cannot be applied to this process: {error}")]
pub struct NotApplied {
    /// Which one.
    pub check: &'static str,
    /// What the kernel says.
    #[source]
    pub error: io::Error,
}

/// Leaves no core file and lets no other process of the same user look into this one, for good.
///
/// # Errors
/// [`NotApplied`].
pub fn apply() -> Result<(), NotApplied> {
    preloaded_at_start();
    let not_applied = |check| move |error: rustix::io::Errno| NotApplied { check, error: error.into() };
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(not_applied("core limit"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(not_applied("dumpable"))
}

/// Whether the loader was told to preload a library when this process began. A program may take `LD_PRELOAD` out of its
/// own environment, and so may what was preloaded; the kernel's copy stays. Read once, while the process is still
/// dumpable. True when it cannot be read.
pub fn preloaded_at_start() -> bool {
    static AT_START: OnceLock<bool> = OnceLock::new();
    *AT_START.get_or_init(|| std::fs::read("/proc/self/environ").map_or(true, |environ| sets_preload(&environ)))
}

fn sets_preload(environ: &[u8]) -> bool {
    environ.split(|byte| *byte == 0).any(|entry| {
        [b"LD_PRELOAD=".as_slice(), b"LD_AUDIT="]
            .iter()
            .any(|name| entry.strip_prefix(*name).is_some_and(|value| !value.is_empty()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // `apply` itself is tested in processes of their own: in this one it would stay.
    #[test]
    fn an_environment_with_preload_is_seen() {
        assert!(sets_preload(b"A=1\0LD_PRELOAD=/x.so\0") && sets_preload(b"LD_AUDIT=x"));
        assert!(!sets_preload(b"LD_PRELOAD=\0XLD_PRELOAD=/x.so\0LD_LIBRARY_PATH=/x\0"));
    }
}

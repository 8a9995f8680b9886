//! Anti-debug: applied once per process, and read back from the kernel each time it is claimed.
//!
//! What is applied, and why it is enough, stands in [`glasshouse_core::anti_debug`]; roles of a run apply it before they
//! read their launch, and hardening again changes nothing. Root on the same kernel is not stopped by any of this; it is why
//! this evidence is `SelfReported`.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU8, Ordering};

use glasshouse_core::anti_debug::{self, preloaded_at_start};
use glasshouse_core::claims::{ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel};
use glasshouse_core::traits::AttestError;
use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit};

/// Applies a level to this process, for good, and reads it back. Call it first thing in a runtime, before any secret is
/// in memory and before privileges are dropped. `Off` applies nothing. Children inherit it until they `exec`.
///
/// # Errors
/// [`AttestError::NotHardened`] naming the check that does not hold; [`AttestError::Unreadable`] when one cannot be read.
pub fn harden(level: AntiDebugLevel) -> Result<AntiDebug, AttestError> {
    let _ = preloaded_at_start();
    if level >= AntiDebugLevel::Basic {
        anti_debug::apply().map_err(|e| AttestError::NotHardened { check: e.check, why: e.error.to_string() })?;
    }
    APPLIED.fetch_max(rank(level), Ordering::SeqCst);
    let now = read_back()?;
    if now.level < level {
        let why = AntiDebug { level, ..now }.failed_check().unwrap_or("it was not applied");
        return Err(AttestError::NotHardened { check: level.as_str(), why: format!("{why}; {}", advice(level)) });
    }
    Ok(now)
}

/// What holds of this process now. The level is the one that [`harden`] applied, or less when its checks no longer hold;
/// never more, so that one launch says the same on every kernel.
///
/// # Errors
/// [`AttestError::Unreadable`] when a check cannot be read; nothing is assumed in its place.
pub fn read_back() -> Result<AntiDebug, AttestError> {
    let dumpable = dumpable_behavior().map_err(|error| unreadable("PR_GET_DUMPABLE", error))?;
    let core = getrlimit(Resource::Core);
    let mut now = AntiDebug {
        profile: ANTI_DEBUG_PROFILE.to_owned(),
        level: AntiDebugLevel::Off,
        not_dumpable: dumpable == DumpableBehavior::NotDumpable,
        no_core_files: core == Rlimit { current: Some(0), maximum: Some(0) },
        no_tracer: !is_traced()?,
        no_preload: !is_preloaded()?,
        ptrace_scope: ptrace_scope()?,
    };
    now.level = applied().min(level_of(&now));
    Ok(now)
}

/// The highest level whose checks all hold, whatever level the profile itself names.
pub fn level_of(profile: &AntiDebug) -> AntiDebugLevel {
    [AntiDebugLevel::Strict, AntiDebugLevel::Basic]
        .into_iter()
        .find(|level| AntiDebug { level: *level, ..profile.clone() }.failed_check().is_none())
        .unwrap_or(AntiDebugLevel::Off)
}

/// The highest level that was asked of [`harden`] in this process.
static APPLIED: AtomicU8 = AtomicU8::new(rank(AntiDebugLevel::Off));

const fn rank(level: AntiDebugLevel) -> u8 {
    match level {
        AntiDebugLevel::Off => 0,
        AntiDebugLevel::Basic => 1,
        AntiDebugLevel::Strict => 2,
    }
}

fn applied() -> AntiDebugLevel {
    match APPLIED.load(Ordering::SeqCst) {
        0 => AntiDebugLevel::Off,
        1 => AntiDebugLevel::Basic,
        _ => AntiDebugLevel::Strict,
    }
}

fn advice(level: AntiDebugLevel) -> &'static str {
    match level {
        AntiDebugLevel::Strict => "strict also needs kernel.yama.ptrace_scope at 1 or more; set it, or ask for basic",
        _ => "detach debuggers, unset LD_PRELOAD and LD_AUDIT, empty /etc/ld.so.preload, and start again",
    }
}

/// A tracer attaches to a thread, so every thread is asked. One that ends meanwhile is no longer traced.
fn is_traced() -> Result<bool, AttestError> {
    let what = "TracerPid";
    for task in fs::read_dir("/proc/self/task").map_err(|error| unreadable(what, error))? {
        let task = task.map_err(|error| unreadable(what, error))?;
        let status = match fs::read_to_string(task.path().join("status")) {
            Ok(status) => status,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => continue,
            Err(error) => return Err(unreadable(what, error)),
        };
        match tracer_pid(&status) {
            Some(0) => {}
            Some(_) => return Ok(true),
            None => return Err(unreadable(what, io::Error::other("no such line in /proc/self/task/…/status"))),
        }
    }
    Ok(false)
}

fn tracer_pid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim().parse().ok()
}

/// The loader's variables as the kernel handed them over at exec, or as they are now, or its file.
fn is_preloaded() -> Result<bool, AttestError> {
    let set_now = ["LD_PRELOAD", "LD_AUDIT"].iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
    let file = match fs::read("/etc/ld.so.preload") {
        Ok(text) => names_a_library(&text),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(unreadable("/etc/ld.so.preload", error)),
    };
    Ok(set_now || file || preloaded_at_start())
}

/// glibc's format: names apart by blanks or colons, `#` to the end of the line is a comment.
fn names_a_library(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b'#').next())
        .any(|line| line.iter().any(|byte| !byte.is_ascii_whitespace() && *byte != b':'))
}

fn ptrace_scope() -> Result<Option<u8>, AttestError> {
    match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(text) => {
            text.trim().parse().map(Some).map_err(|_| unreadable("ptrace_scope", io::Error::other("no number")))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable("ptrace_scope", error)),
    }
}

fn unreadable(what: &'static str, error: impl Into<io::Error>) -> AttestError {
    AttestError::Unreadable { what, why: error.into().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_hold(ptrace_scope: Option<u8>) -> AntiDebug {
        AntiDebug {
            profile: ANTI_DEBUG_PROFILE.to_owned(),
            level: AntiDebugLevel::Off,
            not_dumpable: true,
            no_core_files: true,
            no_tracer: true,
            no_preload: true,
            ptrace_scope,
        }
    }

    #[test]
    fn a_level_is_what_its_checks_say() {
        assert_eq!(level_of(&all_hold(None)), AntiDebugLevel::Basic, "nothing restricts ptrace without Yama");
        assert_eq!(level_of(&all_hold(Some(1))), AntiDebugLevel::Strict);
        assert_eq!(level_of(&all_hold(Some(0))), AntiDebugLevel::Basic);
        for one in [
            AntiDebug { not_dumpable: false, ..all_hold(Some(1)) },
            AntiDebug { no_core_files: false, ..all_hold(Some(1)) },
            AntiDebug { no_tracer: false, ..all_hold(Some(1)) },
            AntiDebug { no_preload: false, ..all_hold(Some(1)) },
        ] {
            assert_eq!(level_of(&one), AntiDebugLevel::Off, "{one:?}");
        }
    }

    #[test]
    fn kernel_texts() {
        assert_eq!(tracer_pid("Name:\tx\nTracerPid:\t0\nUid:\t0\n"), Some(0));
        assert_eq!(tracer_pid("TracerPid:\t4711"), Some(4711));
        assert_eq!(tracer_pid("TracerPid:\tno"), None);
        assert_eq!(tracer_pid("XTracerPid:\t0"), None);
        assert!(names_a_library(b"# none\n /lib/x.so\n") && !names_a_library(b"# /lib/x.so\n \t\n:\n"));
    }

    #[test]
    fn reading_back_changes_nothing_and_claims_nothing() {
        // The test runner is never hardened here (tests/hardened.rs does that in a child), so it must not say it is.
        let before = dumpable_behavior().unwrap();
        let now = read_back().unwrap();
        assert_eq!(now.not_dumpable, before == DumpableBehavior::NotDumpable);
        assert_eq!(now.level, AntiDebugLevel::Off);
        assert_eq!(dumpable_behavior().unwrap(), before);
    }
}

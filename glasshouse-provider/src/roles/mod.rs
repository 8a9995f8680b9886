//! One executable, three roles: the owner's tool, the agent on an allocation, and each segment it starts; and helpers that a
//! segment starts for what it can no longer do itself.

mod launch;
mod registry;

pub(crate) use launch::{
    ANTI_DEBUG_VARIABLE, Hold, Launch, OwnEnd, ROLE_VARIABLE, anti_debug_level, container_source, enter_agent,
    launch_environment,
};
pub use launch::{LaunchError, agent_environment};
pub use registry::{DeviceFacts, Registry, SegmentContext};

use std::io::Write as _;
use std::process::Command;

use glasshouse_core::anti_debug;
use glasshouse_core::claims::AntiDebugLevel;

/// Turns this process into an agent or a segment when it was launched as one, and returns when it is the owner's.
///
/// Call it first thing in `main`, before any argument is read and before any async runtime exists. In the agent's and
/// in a segment's process it does not return: it serves, then exits.
pub fn serve_if_launched(registry: Registry) {
    let role = match std::env::var(ROLE_VARIABLE) {
        Err(std::env::VarError::NotPresent) => return,
        role => role.unwrap_or_default(),
    };
    let main: &dyn Fn() -> i32 = match role.as_str() {
        "agent" => &crate::agent::main,
        "segment" => &|| crate::segment::main(&registry),
        other => match registry.find_helper(other) {
            Some(helper) => &|| help(helper),
            None => &|| {
                note(format_args!("{ROLE_VARIABLE} is no role of this program; unset it to run it yourself"));
                64 // EX_USAGE
            },
        },
    };
    let code = match harden() {
        Ok(()) => main(),
        Err(e) => {
            note(format_args!("this {role} cannot start: {e}"));
            1
        }
    };
    std::process::exit(code)
}

/// A helper outlives nobody: it ends with the thread that started it and waits for it.
fn help(helper: &dyn Fn() -> i32) -> i32 {
    if let Err(e) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)) {
        note(format_args!("this helper cannot start: {e}"));
        return 1;
    }
    // The kernel says nothing of a parent that was gone before it was asked to.
    let started_by = std::env::var(HELPER_OF_VARIABLE).ok().and_then(|id| id.parse().ok());
    if started_by != Some(std::os::unix::process::parent_id()) {
        note(format_args!("this helper cannot start: whoever started it is gone"));
        return 1;
    }
    helper()
}

/// The process that a helper's command was made in, and that has to be its parent.
const HELPER_OF_VARIABLE: &str = "GLASSHOUSE_HELPER_OF";

/// The command that starts this executable again as the helper of that name: hardened as a segment is before it runs, with
/// its environment, and nothing of its memory.
pub fn helper_command(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(format!("glasshouse-{name}")).env(ROLE_VARIABLE, name);
    command.env(HELPER_OF_VARIABLE, std::process::id().to_string());
    command
}

/// Before a byte of the launch is read, which begins with the launch secret. A level that asks for more is for the
/// segment's attestor to reach, and to claim.
fn harden() -> Result<(), LaunchError> {
    if anti_debug_level()? == AntiDebugLevel::Off {
        return Ok(());
    }
    anti_debug::apply().map_err(|e| LaunchError::NotHardened(e.to_string()))
}

/// A run was started inside an agent or a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process is an agent or a segment; call serve_if_launched first thing in main, and start runs after it")]
pub struct InsideRole;

/// Refuses to go on in a process that was launched as an agent or a segment, so that no run starts itself again.
///
/// # Errors
/// [`InsideRole`] when the role variable is set.
pub fn ensure_owner() -> Result<(), InsideRole> {
    if std::env::var_os(ROLE_VARIABLE).is_some() { Err(InsideRole) } else { Ok(()) }
}

/// One line of the agent's or a segment's log. A log nobody reads any more must not stop a zeroization, so what cannot
/// be written is dropped.
pub(crate) fn note(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "glasshouse: {line}");
}

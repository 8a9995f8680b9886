//! One executable, three roles: the owner's tool, the agent on an allocation, and each segment it starts.

mod launch;
mod registry;

pub(crate) use launch::{
    ANTI_DEBUG_VARIABLE, Hold, Launch, OwnEnd, ROLE_VARIABLE, anti_debug_level, container_source, enter_agent,
    launch_environment,
};
pub use launch::{LaunchError, agent_environment};
pub use registry::{DeviceFacts, Registry, SegmentContext};

use std::io::Write as _;

use glasshouse_core::anti_debug;
use glasshouse_core::claims::AntiDebugLevel;

/// Turns this process into an agent or a segment when it was launched as one, and returns when it is the owner's.
///
/// Call it first thing in `main`, before any argument is read and before any async runtime exists. In the agent's and
/// in a segment's process it does not return: it serves, then exits.
pub fn serve_if_launched(registry: Registry) {
    let code = match std::env::var(ROLE_VARIABLE).as_deref() {
        Err(std::env::VarError::NotPresent) => return,
        Ok(role @ ("agent" | "segment")) => match (harden(), role) {
            (Err(e), _) => {
                note(format_args!("this {role} cannot start: {e}"));
                1
            }
            (Ok(()), "agent") => crate::agent::main(),
            (Ok(()), _) => crate::segment::main(&registry),
        },
        _ => {
            note(format_args!("{ROLE_VARIABLE} is neither agent nor segment; unset it to run this program yourself"));
            64 // EX_USAGE
        }
    };
    std::process::exit(code)
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

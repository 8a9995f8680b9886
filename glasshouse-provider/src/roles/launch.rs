#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use glasshouse_core::claims::AntiDebugLevel;
use glasshouse_core::fixed::{Digest32, Fixed, PublicKey32};
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::LaunchSpec;
use serde::{Deserialize, Serialize};

use crate::local::ProcessId;

/// Tells a process its role.
pub(crate) const ROLE_VARIABLE: &str = "GLASSHOUSE_ROLE";
/// The anti-debug level that agent and segments apply: `off`, `basic` (when absent) or `strict`.
pub(crate) const ANTI_DEBUG_VARIABLE: &str = "GLASSHOUSE_ANTI_DEBUG";
/// Where the container id is to be read that the owner expects, by its source's name; the kernel when absent.
const CONTAINER_SOURCE_VARIABLE: &str = "GLASSHOUSE_CONTAINER_SOURCE";
const LAUNCH_VARIABLE: &str = "GLASSHOUSE_LAUNCH";
const SECRET_VARIABLE: &str = "GLASSHOUSE_LAUNCH_SECRET";
const MAX_LAUNCH: u64 = 64 << 10;

/// What keeps an agent alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hold {
    /// The owner holds the other end of standard input.
    Pipe,
    /// Requests that carry the MAC; without one for the linger time the owner is gone.
    Linger,
}

/// How an allocation is ended from inside: where, and the variables in which its provider hands it its id and a key that is
/// good for it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnEnd {
    /// Address under which the id is deleted, with a slash at its end.
    pub(crate) collection: String,
    pub(crate) id_variable: String,
    pub(crate) key_variable: String,
}

/// What an agent is told at its start, without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) gate_key: PublicKey32,
    pub(crate) linger_millis: u64,
    pub(crate) image_digest: Option<Digest32>,
    pub(crate) bind: SocketAddr,
    pub(crate) hold: Hold,
    pub(crate) owner: Option<ProcessId>,
    pub(crate) scratch: Option<PathBuf>,
    /// What is left to do when its owner has been gone too long.
    pub(crate) own_end: Option<OwnEnd>,
}

/// Why a launch could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The launch is missing or not one.
    #[error("the launch is unreadable: {0}; start agents through a provider, not by hand")]
    Unreadable(String),
    /// A protection could not be applied, and nothing secret may be in memory before it is.
    #[error("{0}; look at the allocation's limits, or ask for anti-debug level off")]
    NotHardened(String),
    /// The program could not start itself again without the secret in its environment.
    #[error("cannot take the launch secret out of the environment: {0}")]
    Exec(String),
}

impl Launch {
    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_millis)
    }

    pub(crate) fn new(spec: &LaunchSpec, bind: SocketAddr, hold: Hold) -> Self {
        Self {
            name: spec.name.clone(),
            gate_key: spec.gate_key,
            linger_millis: u64::try_from(spec.linger.as_millis()).unwrap_or(u64::MAX),
            image_digest: spec.image_digest,
            bind,
            hold,
            owner: None,
            scratch: None,
            own_end: None,
        }
    }

    /// Writes the secret and then the rest as a length (u32, big-endian) and JSON.
    pub(crate) fn write(&self, secret: &Secret<32>, mut to: impl Write) -> io::Result<()> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).map_err(|_| io::Error::other("launch too large"))?;
        to.write_all(secret.expose())?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(&json)?;
        to.flush()
    }

    /// Reads what [`Self::write`] wrote and leaves everything after it unread.
    pub(crate) fn read(mut from: impl Read) -> Result<(Self, Secret<32>), LaunchError> {
        let unreadable = |e: io::Error| LaunchError::Unreadable(format!("standard input: {e}"));
        let (mut secret, mut length) = ([0; 32], [0; 4]);
        from.read_exact(&mut secret).map_err(unreadable)?;
        let secret = Secret::take(&mut secret);
        from.read_exact(&mut length).map_err(unreadable)?;
        let length = u64::from(u32::from_be_bytes(length));
        if length > MAX_LAUNCH {
            return Err(LaunchError::Unreadable(format!("it claims {length} bytes")));
        }
        let mut json = Vec::new();
        from.take(length).read_to_end(&mut json).map_err(unreadable)?;
        let launch = serde_json::from_slice(&json).map_err(|e| LaunchError::Unreadable(e.to_string()))?;
        Ok((launch, secret))
    }
}

/// The environment that makes an executable an agent, for a provider that can hand over nothing else.
///
/// It holds the launch secret: whoever operates the allocation can read it, as they could read any other hand-over.
/// The agent takes it out of its own environment before it does anything else. `container_source` is the source's name in
/// the container id that the provider's observations give; without one the kernel is asked.
pub fn agent_environment(
    spec: &LaunchSpec,
    bind: SocketAddr,
    container_source: Option<&str>,
) -> BTreeMap<String, String> {
    launch_environment(spec, &Launch::new(spec, bind, Hold::Linger), container_source)
}

/// The same for a launch that says more.
pub(crate) fn launch_environment(
    spec: &LaunchSpec,
    launch: &Launch,
    container_source: Option<&str>,
) -> BTreeMap<String, String> {
    let mut env = spec.env.clone();
    if let Some(source) = container_source {
        env.insert(CONTAINER_SOURCE_VARIABLE.to_owned(), source.to_owned());
    }
    env.insert(ROLE_VARIABLE.to_owned(), "agent".to_owned());
    // A struct of strings and numbers always has a JSON form. In hex: some providers take the environment as flags or
    // lists, where quotes, spaces and commas mean something.
    env.insert(LAUNCH_VARIABLE.to_owned(), hex::encode(serde_json::to_vec(launch).unwrap_or_default()));
    env.insert(SECRET_VARIABLE.to_owned(), Fixed(*spec.launch_secret.expose()).to_string());
    env
}

/// The agent's launch, from its standard input. A launch in the environment is first moved there: the program replaces
/// itself with a fresh one whose environment (and `/proc/self/environ`) never held the secret.
pub(crate) fn enter_agent() -> Result<(Launch, Secret<32>), LaunchError> {
    let Some(secret) = std::env::var_os(SECRET_VARIABLE) else {
        return Launch::read(io::stdin().lock());
    };
    let unreadable = |what: &str| LaunchError::Unreadable(what.to_owned());
    let mut secret: Fixed<32> =
        secret.to_str().and_then(Fixed::from_hex).ok_or_else(|| unreadable("the secret is not 64 hex digits"))?;
    let secret = Secret::take(&mut secret.0);
    let launch = std::env::var(LAUNCH_VARIABLE).map_err(|_| unreadable("GLASSHOUSE_LAUNCH is missing"))?;
    let launch = hex::decode(&launch).map_err(|e| unreadable(&format!("GLASSHOUSE_LAUNCH: {e}")))?;
    let launch: Launch = serde_json::from_slice(&launch).map_err(|e| unreadable(&format!("GLASSHOUSE_LAUNCH: {e}")))?;
    Err(exec_without_secret(&launch, &secret))
}

/// Returns only when it failed.
fn exec_without_secret(launch: &Launch, secret: &Secret<32>) -> LaunchError {
    let exec = |e: io::Error| LaunchError::Exec(e.to_string());
    let (reader, writer) = match io::pipe() {
        Ok(ends) => ends,
        Err(e) => return exec(e),
    };
    // A launch is far smaller than a pipe's buffer, so writing before anyone reads cannot block.
    if let Err(e) = launch.write(secret, &writer) {
        return exec(e);
    }
    drop(writer);
    let error = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env_remove(SECRET_VARIABLE)
        .env_remove(LAUNCH_VARIABLE)
        .stdin(Stdio::from(reader))
        .exec();
    exec(error)
}

/// The name of the container id's source, where the launch gave one.
pub(crate) fn container_source() -> Option<String> {
    std::env::var(CONTAINER_SOURCE_VARIABLE).ok()
}

/// The level that the environment asks for; one it does not know is an error, so that a typing error weakens nothing.
pub(crate) fn anti_debug_level() -> Result<AntiDebugLevel, LaunchError> {
    match std::env::var(ANTI_DEBUG_VARIABLE).as_deref() {
        Err(std::env::VarError::NotPresent) | Ok("basic") => Ok(AntiDebugLevel::Basic),
        Ok("off") => Ok(AntiDebugLevel::Off),
        Ok("strict") => Ok(AntiDebugLevel::Strict),
        _ => Err(LaunchError::Unreadable(format!("{ANTI_DEBUG_VARIABLE} is not off, basic or strict"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            name: "gh-test".into(),
            gate_key: Fixed([1; 32]),
            linger_millis: 5,
            image_digest: None,
            bind: ([127, 0, 0, 1], 0).into(),
            hold: Hold::Pipe,
            owner: None,
            scratch: None,
            own_end: None,
        }
    }

    #[test]
    fn a_launch_survives_the_pipe() {
        let mut bytes = Vec::new();
        launch().write(&Secret::take(&mut [9; 32]), &mut bytes).unwrap();
        bytes.extend_from_slice(b"rest");
        let mut from = bytes.as_slice();
        let (read, secret) = Launch::read(&mut from).unwrap();
        assert_eq!((read, secret.expose(), from), (launch(), &[9; 32], b"rest".as_slice()));
    }

    #[test]
    fn a_bad_launch_is_an_error() {
        let mut huge = vec![0; 32];
        huge.extend_from_slice(&u32::MAX.to_be_bytes());
        for bytes in [&[][..], &[0; 40], &huge] {
            assert!(matches!(Launch::read(bytes), Err(LaunchError::Unreadable(_))));
        }
    }
}

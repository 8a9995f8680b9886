//! One agent process: how it is started, watched and ended.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use glasshouse_core::traits::{LaunchSpec, LogChunk};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::process::{AGENT_ARGUMENT, ProcessId, session_members};
use crate::grace;
use crate::roles::{Hold, Launch, ROLE_VARIABLE};

const LOG_LINES: usize = 2000;
const LOG_LINE_BYTES: u64 = 4096;

/// Which executable is the agent.
pub(super) enum Program {
    Own,
    Other(PathBuf),
}

/// The one line that an agent writes to standard output once it listens, or cannot.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum AgentReport {
    Listening(SocketAddr),
    Failed(String),
}

/// What the register knows of an agent.
pub(super) struct Look {
    pub(super) name: String,
    pub(super) address: Option<SocketAddr>,
    pub(super) ending: bool,
    pub(super) code: Option<i32>,
}

/// Gets the agent's address, or why it has none.
pub(super) type Hello = oneshot::Receiver<Result<SocketAddr, String>>;

pub(super) struct AgentChild {
    process: ProcessId,
    name: String,
    pub(super) address: Option<SocketAddr>,
    ending: bool,
    /// Closing it tells the agent that its owner is gone.
    control: Option<ChildStdin>,
    exit: Arc<Mutex<Option<ExitStatus>>>,
    log: Arc<Mutex<Log>>,
    /// Removed with everything in it when the register lets the agent go, however that ended.
    _scratch: tempfile::TempDir,
}

#[derive(Default)]
struct Log {
    dropped: u64,
    lines: VecDeque<String>,
}

impl AgentChild {
    /// Starts an agent.
    pub(super) fn spawn(program: &Program, spec: &LaunchSpec, bind: SocketAddr) -> Result<(Self, Hello), String> {
        let path = match program {
            // The link, not the path behind it: the same file even when a build has just replaced it.
            Program::Own => PathBuf::from("/proc/self/exe"),
            Program::Other(path) => path.clone(),
        };
        let scratch = tempfile::Builder::new()
            .prefix("glasshouse-agent-")
            .tempdir()
            .map_err(|e| format!("cannot make a directory for the agent: {e}"))?;
        let mut launch = Launch::new(spec, bind, Hold::Pipe);
        launch.owner = ProcessId::of_self();
        launch.scratch = Some(scratch.path().to_owned());
        let mut child = Command::new(&path)
            .arg(AGENT_ARGUMENT)
            .arg(&spec.name)
            .envs(&spec.env)
            .env(ROLE_VARIABLE, "agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {} as the agent: {e}", path.display()))?;
        // It cannot be reaped before the waiter below runs, so its start time can still be read.
        let Some(process) = ProcessId::of(child.id()) else {
            let _ = (child.kill(), child.wait());
            return Err("cannot read the agent's start time in /proc; is it mounted?".to_owned());
        };
        let control = child.stdin.take();
        let (tell, hello) = oneshot::channel();
        let log = Arc::<Mutex<Log>>::default();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || drop(tell.send(read_report(stdout))));
        }
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            std::thread::spawn(move || read_log(stderr, &log));
        }
        if let Some(mut control) = control.as_ref() {
            // An agent that ended at once breaks this pipe; its report or its exit says why.
            let _ = launch.write(&spec.launch_secret, &mut control);
        }
        let exit = Arc::default();
        wait_in_background(child, process, Arc::clone(&exit));
        let name = spec.name.clone();
        let agent = Self { process, name, address: None, ending: false, control, exit, log, _scratch: scratch };
        Ok((agent, hello))
    }

    pub(super) fn process(&self) -> ProcessId {
        self.process
    }

    pub(super) fn look(&self) -> Look {
        let exit = *self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        Look {
            name: self.name.clone(),
            address: self.address,
            ending: self.ending,
            code: exit.and_then(|exit| exit.code()),
        }
    }

    pub(super) fn log(&self, after: u64) -> LogChunk {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = usize::try_from(after.saturating_sub(log.dropped)).unwrap_or(usize::MAX);
        let count = u64::try_from(log.lines.len()).unwrap_or(u64::MAX);
        LogChunk {
            lines: log.lines.iter().skip(skip).cloned().collect(),
            next: log.dropped.saturating_add(count).to_string(),
        }
    }

    /// Asks it to end; what is left after `grace` is killed. Asking again changes nothing.
    pub(super) fn request_end(&mut self, grace: Duration) {
        self.control = None;
        if !std::mem::replace(&mut self.ending, true) {
            end_in_background(self.process, grace);
        }
    }

    /// Ends it for good and lets it go.
    pub(super) fn end(mut self, grace: Duration) {
        self.request_end(grace);
    }
}

/// Asks an agent to end, and kills whatever is left of its session after `grace`.
pub(super) fn end_in_background(process: ProcessId, grace: Duration) {
    process.signal(Signal::TERM);
    std::thread::spawn(move || {
        end_session(process, grace);
    });
}

/// Waits until nothing of an agent's session is left, and kills what is after `grace`.
fn end_session(leader: ProcessId, grace: Duration) {
    let asked = Instant::now();
    while asked.elapsed() < grace {
        if !leader.is_alive() && session_members(leader.pid).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // The leader first, so that it starts nothing new; then what it left behind, until nothing is left.
    leader.signal(Signal::KILL);
    for _ in 0..50 {
        let left = session_members(leader.pid);
        if left.is_empty() {
            return;
        }
        left.iter().for_each(|member| member.signal(Signal::KILL));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reaps the agent. What an agent that died leaves behind learns it from its pipe; a segment that was not yet so far
/// that it listens there is asked, and killed if need be, from the moment of that death on.
fn wait_in_background(mut child: Child, process: ProcessId, exit: Arc<Mutex<Option<ExitStatus>>>) {
    std::thread::spawn(move || {
        let status = child.wait().ok();
        *exit.lock().unwrap_or_else(PoisonError::into_inner) = status;
        session_members(process.pid).iter().for_each(|member| member.signal(Signal::TERM));
        end_session(process, grace::ALLOCATION);
    });
}

fn read_report(stdout: impl Read) -> Result<SocketAddr, String> {
    let mut line = String::new();
    BufReader::new(stdout.take(LOG_LINE_BYTES)).read_line(&mut line).map_err(|e| e.to_string())?;
    match serde_json::from_str(&line) {
        Ok(AgentReport::Listening(address)) => Ok(address),
        Ok(AgentReport::Failed(why)) => Err(why),
        Err(_) => Err("the program is no agent: it must call serve_if_launched first thing in main".to_owned()),
    }
}

fn read_log(stderr: impl Read, log: &Mutex<Log>) {
    let mut reader = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LOG_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.lines.len() >= LOG_LINES {
            log.lines.pop_front();
            log.dropped = log.dropped.saturating_add(1);
        }
        log.lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

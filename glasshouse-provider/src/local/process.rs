//! Processes of this machine as `/proc` shows them. A process is its id and its start time: ids are used again.

use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// First argument of every agent, by which it is found again.
pub(crate) const AGENT_ARGUMENT: &str = "glasshouse-agent";

/// A process, distinct from every earlier and later one of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks between boot and its start (proc(5)).
    pub start: u64,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) id: ProcessId,
    pub(crate) zombie: bool,
    pub(crate) session: u32,
}

impl ProcessId {
    /// This process.
    pub(crate) fn of_self() -> Option<Self> {
        stat(std::process::id()).map(|stat| stat.id)
    }

    /// The process that has this id now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| stat.id)
    }

    /// Whether exactly this process runs. A zombie does not: it holds no memory and runs no code.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.id == *self && !stat.zombie)
    }

    /// Signals exactly this process; nothing when it is gone.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        // The descriptor pins the process, so that the check cannot be overtaken by another use of the id.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.is_alive() {
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
}

/// Every living process of a session: an agent leads its own, and its segments stay in it.
pub(crate) fn session_members(session: u32) -> Vec<ProcessId> {
    pids().filter_map(stat).filter(|stat| stat.session == session && !stat.zombie).map(|stat| stat.id).collect()
}

/// Every living agent of this user, with its name.
pub(crate) fn agents() -> Vec<(ProcessId, String)> {
    let me = rustix::process::getuid().as_raw();
    pids()
        .filter(|pid| user_of(*pid) == Some(me))
        .filter_map(|pid| Some((stat(pid).filter(|s| !s.zombie)?.id, agent_name(pid)?)))
        .collect()
}

/// The name in the command line of an agent.
pub(crate) fn agent_name(pid: u32) -> Option<String> {
    let line = std::fs::read(proc_path(pid, "cmdline")).ok()?;
    let mut arguments = line.split(|byte| *byte == 0).skip(1);
    (arguments.next()? == AGENT_ARGUMENT.as_bytes()).then_some(())?;
    String::from_utf8(arguments.next()?.to_vec()).ok().filter(|name| !name.is_empty())
}

/// The real user id, from `status`: the files of a process that cannot be dumped all belong to root.
fn user_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(proc_path(pid, "status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

fn proc_path(pid: u32, file: &str) -> std::path::PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

fn pids() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(pid, &std::fs::read_to_string(proc_path(pid, "stat")).ok()?)
}

/// proc(5): `pid (comm) state ppid pgrp session …`, start time in field 22. `comm` may hold anything, `)` included.
fn parse_stat(pid: u32, text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        id: ProcessId { pid, start: fields.get(19)?.parse().ok()? },
        zombie: matches!(*fields.first()?, "Z" | "X" | "x"),
        session: fields.get(3)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_shift_fields() {
        let text = "7 (a) Z 1 (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 1 1";
        let stat = parse_stat(7, text).unwrap();
        assert_eq!(stat, Stat { id: ProcessId { pid: 7, start: 4242 }, zombie: false, session: 7 });
        for bad in ["", "7 (a", "7 (a) S 1"] {
            assert_eq!(parse_stat(7, bad), None);
        }
    }

    #[test]
    fn another_start_is_another_process() {
        let me = ProcessId::of_self().unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start: me.start + 1, ..me }.is_alive());
    }

    #[test]
    fn a_zombie_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = ProcessId::of(child.id());
        while id.is_some_and(|id| id.is_alive()) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(child.wait().unwrap().success());
    }
}

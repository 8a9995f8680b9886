//! One case: start the three processes, stop one, kill one, and look at what the others make of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::check::{self, Left};
use crate::hooks::{FOLDER, GO, REACHED, STOP};
use crate::owner::{ARGUMENT, Ended};
use crate::support::{MEASURES_NOTHING, children_of, eventually, kill, runs};
use crate::table::{Gate, Step};

const FIVE: Duration = Duration::from_secs(5);
/// The machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// The owner, between two messages; it goes on after the kill.
    Owner,
    /// The segment, within its work; it hangs there, so that only the way out without it is left.
    Segment,
}

/// Which process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Segment,
    Agent,
    Owner,
}

pub(crate) struct Case {
    pub(crate) step: &'static Step,
    pub(crate) victim: Victim,
}

/// What a case came to.
pub(crate) struct Seen {
    pub(crate) what: String,
    /// How long the longest-lived process went on after the one that holds it was killed.
    pub(crate) outlived: Option<Duration>,
}

impl Case {
    pub(crate) fn name(&self) -> String {
        format!("{:?}@{}", self.victim, self.step.name).to_lowercase()
    }

    /// Panics when anything is not as it must be.
    pub(crate) fn run(&self) -> Seen {
        let folder = tempfile::tempdir().unwrap();
        let mut owner = self.start(folder.path());
        let reached = || folder.path().join(REACHED).exists();
        eventually("the step is reached", PATIENCE, || reached() || owner.try_wait().unwrap().is_some());
        assert!(reached(), "{}: the run ended before it: {}", self.name(), logs(folder.path()));
        let agent = *children_of(owner.id()).first().expect("an agent");
        if self.step.segment.is_some() {
            eventually("there is a segment", PATIENCE, || !children_of(agent).is_empty());
        }
        let segment = children_of(agent).first().copied();
        if let (Some(segment), "await-challenge" | "record-kept") = (segment, self.step.name) {
            eventually("the segment waits", PATIENCE, || is_quiet(segment));
        }
        let outlived = match self.victim {
            Victim::Segment => {
                kill(segment.expect("a segment"), Signal::KILL);
                None
            }
            Victim::Agent => {
                kill(agent, Signal::KILL);
                segment.map(|segment| outlives(&[segment]))
            }
            Victim::Owner => {
                kill(owner.id(), Signal::KILL);
                owner.wait().unwrap();
                Some(outlives(&segment.into_iter().chain([agent]).collect::<Vec<_>>()))
            }
        };
        if self.step.stops == Where::Owner {
            std::fs::write(folder.path().join(GO), "").unwrap();
        }
        let what = if self.victim == Victim::Owner {
            self.of_the_agent(folder.path())
        } else {
            eventually("the owner ends", PATIENCE, || owner.try_wait().unwrap().is_some());
            self.of_the_owner(folder.path())
        };
        let kept = check::leftovers(folder.path(), &self.left());
        let outlived_by = outlived.map(|outlived| format!(", all gone after {outlived:.1?}")).unwrap_or_default();
        Seen { what: format!("{what} [{kept} records kept]{outlived_by}"), outlived }
    }

    fn start(&self, folder: &Path) -> Child {
        let scratch = folder.join("tmp");
        std::fs::create_dir(&scratch).unwrap();
        let log = std::fs::File::create(folder.join("owner.log")).unwrap();
        Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .arg(folder)
            .env(FOLDER, folder)
            .env(STOP, self.step.name)
            .env("TMPDIR", &scratch)
            .env(MEASURES_NOTHING, "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// The living owner's error: of the right kind, and naming the step.
    fn of_the_owner(&self, folder: &Path) -> String {
        let ended = std::fs::read(folder.join("ended.json")).unwrap_or_else(|e| panic!("{e}: {}", logs(folder)));
        let Ended { kind, says } = serde_json::from_slice(&ended).unwrap();
        match (self.victim, self.step.segment) {
            (Victim::Segment, Some(step)) => {
                assert!(["segment-lost", "segment-ended"].contains(&kind.as_str()), "{kind}: {says}");
                let step = format!("killed by signal 9 in step {step}");
                assert!(says.contains(&step), "{kind}: {says}, and not {step}");
            }
            _ => {
                let (expected, begins) = self.step.owner;
                assert_eq!(kind, expected, "{says}");
                assert!(says.contains(begins), "{says}, and not {begins}");
            }
        }
        if says.is_empty() { "the run is complete".to_owned() } else { says }
    }

    /// What agent and segment say of an owner who is gone.
    fn of_the_agent(&self, folder: &Path) -> String {
        let log = std::fs::read_to_string(folder.join("agent.log")).unwrap_or_default();
        let said = log.lines().find(|line| line.contains("agent ends: the owner is gone"));
        let mut said = said.unwrap_or_else(|| panic!("{}", logs(folder))).to_owned();
        if let Some(step) = self.step.segment {
            let step = format!(" in step {step}");
            let segment = if self.step.is_raw() { "segment raw-0 " } else { "segment protected-0 " };
            let exit = log.lines().find(|line| line.contains(segment) && line.contains(&step));
            said = exit.unwrap_or_else(|| panic!("no{step} in {}", logs(folder))).to_owned();
        }
        said.trim_start_matches("glasshouse: ").to_owned()
    }

    /// What must be left of it on disk.
    fn left(&self) -> Left {
        let dead = self.victim == Victim::Owner;
        let released = match self.step.gate {
            Gate::Nothing => false,
            Gate::Deciding => !dead,
            Gate::Committed | Gate::Everything => true,
        };
        let begun = self.step.gate >= Gate::Committed && ["train", "export", "zeroize"].contains(&self.step.name);
        Left {
            owner_died: dead,
            released,
            complete: self.step.gate == Gate::Everything,
            acknowledges: !dead && begun,
            raw: self.step.is_raw(),
        }
    }
}

/// How long the last of these processes lives on.
fn outlives(processes: &[u32]) -> Duration {
    let began = Instant::now();
    eventually("nothing outlives who started it", 2 * FIVE, || !processes.iter().any(|pid| runs(*pid)));
    let took = began.elapsed();
    assert!(took < FIVE, "{took:?}");
    took
}

/// Whether a process's first thread sleeps and did not run for a while.
fn is_quiet(pid: u32) -> bool {
    let look = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/status")).unwrap_or_default();
        let lines = status.lines().filter(|line| line.starts_with("State:") || line.contains("ctxt_switches"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = look();
    std::thread::sleep(Duration::from_millis(250));
    before.first().is_some_and(|state| state.contains("S (sleeping)")) && before == look()
}

fn logs(folder: &Path) -> String {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    format!("owner: {}\nagent: {}\nended: {}", read("owner.log"), read("agent.log"), read("ended.json"))
}

//! One line of `squeue` about a job.

use glasshouse_core::traits::{Allocation, AllocationId, AllocationState};

use crate::rest::printable;

/// Id, state, batch host, GRES, name; the name last, for it may hold anything.
pub(super) const FORMAT: &str = "%A|%T|%B|%b|%j";

/// The id of an allocation: `NUMBER@NAME`. Numbers begin anew when they run out, and when a controller loses its state; what
/// has this one's number and another name is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobId<'a> {
    pub(super) number: u64,
    pub(super) name: &'a str,
}

impl<'a> JobId<'a> {
    /// An id in the spelling that this backend has for it.
    pub(super) fn parse(id: &'a AllocationId) -> Option<Self> {
        let (number, name) = id.0.split_once('@')?;
        let spelled = |parsed: &u64| parsed.to_string() == number;
        Some(Self { number: number.parse().ok().filter(spelled)?, name: Some(name).filter(|name| is_plain(name))? })
    }

    pub(super) fn allocation(self) -> Allocation {
        let id = AllocationId(format!("{}@{}", self.number, self.name));
        Allocation { id, name: self.name.to_owned(), price_per_hour: 0.0 }
    }
}

/// A name that no command takes for anything else.
pub(super) fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_plain)
}

pub(super) struct Job {
    pub(super) allocation: Allocation,
    pub(super) number: u64,
    /// The node that the batch script runs on.
    pub(super) host: Option<String>,
    pub(super) gpus: u32,
    state: String,
}

impl Job {
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut fields = line.splitn(5, '|').map(str::trim);
        let number = fields.next()?.parse::<u64>().ok()?;
        let state = fields.next()?.to_owned();
        let host = fields.next().filter(|host| !host.is_empty() && !matches!(*host, "n/a" | "(null)" | "N/A"));
        let gpus = fields.next().map_or(0, gpus);
        let allocation = JobId { number, name: fields.next()? }.allocation();
        Some(Self { allocation, number, host: host.map(str::to_owned), gpus, state })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state(), AllocationState::Exited(_))
    }

    /// squeue(1), JOB STATE CODES.
    pub(super) fn state(&self) -> AllocationState {
        match self.state.as_str() {
            "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => {
                AllocationState::Scheduling
            }
            "CONFIGURING" => AllocationState::Starting,
            "RUNNING" => AllocationState::Running,
            "COMPLETING" | "STAGE_OUT" | "SIGNALING" => AllocationState::Terminating,
            "COMPLETED" | "FAILED" | "CANCELLED" | "TIMEOUT" | "NODE_FAIL" | "OUT_OF_MEMORY" | "BOOT_FAIL"
            | "DEADLINE" | "PREEMPTED" | "REVOKED" => AllocationState::Exited(None),
            other => AllocationState::Unknown(printable(other)),
        }
    }
}

/// `gres:gpu:2`, `gpu:a100:1(IDX:0)`: how many.
fn gpus(text: &str) -> u32 {
    let of_one = |part: &str| -> Option<u32> {
        let part = part.split('(').next()?;
        let words = part.split(':').skip_while(|word| *word != "gpu").skip(1);
        match words.last() {
            Some(last) => last.parse().ok().or(Some(1)),
            None => part.contains("gpu").then_some(1),
        }
    };
    text.split(',').filter_map(of_one).fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_says_what_it_says() {
        let job = Job::read("12|RUNNING|node1|gres:gpu:2|gh-1|odd name").unwrap();
        assert_eq!((job.number, job.allocation.name.as_str()), (12, "gh-1|odd name"));
        assert_eq!(JobId::parse(&job.allocation.id), None, "a name that this backend never gives");
        assert_eq!((job.host.as_deref(), job.gpus, job.state()), (Some("node1"), 2, AllocationState::Running));
        for (text, count) in [("N/A", 0), ("gres:gpu", 1), ("gres:gpu:a100:4(S:0)", 4), ("gpu:1,shard:3", 1)] {
            assert_eq!(gpus(text), count, "{text}");
        }
        let state = |state: &str| Job::read(&format!("1|{state}|n/a|N/A|x")).unwrap();
        assert_eq!(state("HIBERNATING").state(), AllocationState::Unknown("HIBERNATING".into()));
        assert!(state("OUT_OF_MEMORY").is_over() && !state("COMPLETING").is_over());
        assert!(state("PENDING").host.is_none() && Job::read("x|RUNNING").is_none());
        let job = state("RUNNING");
        assert_eq!(JobId::parse(&job.allocation.id), Some(JobId { number: 1, name: "x" }));
        for bad in ["", "7", "7@", "@x", "007@x", "7@-x", "7@a b", "7@../x", "x@7"] {
            assert_eq!(JobId::parse(&AllocationId(bad.into())), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".*") {
            let _ = Job::read(&line);
        }
    }
}

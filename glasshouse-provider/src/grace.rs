//! How long processes that hold secrets may still take once they have to end. In one place, because each limit must be later
//! than the one inside it: who kills a segment before its own limit is over takes the time to zeroize from it.

use std::time::Duration;

/// From the end of a lease, from a signal, and again from the end of the work: the batch or the export that is under way,
/// letting go, and zeroization take seconds. A device that gives errors, or stops answering once the workload has let go of it,
/// takes at most 30 s (`glasshouse_train::cuda_zeroizer::LONGEST`), 10 s until this process has let go of it, and 30 s more in a
/// second process. A workload that hangs in its own release takes all of it, and then its process is ended without a receipt.
pub(crate) const LETTING_GO: Duration = Duration::from_secs(120);
/// Once the agent, and with it the owner, is gone, a segment ends within this; then the kernel takes its memory.
pub(crate) const SEGMENT: Duration = Duration::from_millis(4000);
/// An agent that ends kills the segments that are left after this.
pub(crate) const AGENT_KILLS: Duration = Duration::from_millis(4250);
/// It waits no longer than this for the kernel to take them.
pub(crate) const AGENT_LETS_GO: Duration = Duration::from_millis(4400);
/// It ends itself after this, whatever it waits for. Where nobody else ends its allocation, it asks for that end first.
pub(crate) const AGENT: Duration = Duration::from_millis(4500);
/// What is left of a local agent's session after this is killed: all of it is gone within 5 s.
pub(crate) const ALLOCATION: Duration = Duration::from_millis(4700);

const _: () = assert!(SEGMENT.as_millis() < AGENT_KILLS.as_millis());
const _: () = assert!(AGENT_KILLS.as_millis() < AGENT_LETS_GO.as_millis());
const _: () = assert!(AGENT_LETS_GO.as_millis() < AGENT.as_millis());
const _: () = assert!(AGENT.as_millis() < ALLOCATION.as_millis());
const _: () = assert!(ALLOCATION.as_millis() < 5000);

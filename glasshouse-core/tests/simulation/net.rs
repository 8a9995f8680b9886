//! The network: frames under way, and what happens to them. Nothing on it is trusted by either side.

use std::collections::BTreeMap;

use glasshouse_core::fixed::Nonce32;
use glasshouse_core::protocol::LaunchKeys;
use glasshouse_core::secret::Secret;
use glasshouse_core::transcript::sha384;

use crate::entropy::Rng;
use crate::plan::{Fault, Plan};

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Owner,
    Allocation,
}

/// A frame: what the transport under the sessions carries, one byte for its kind ahead.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    Challenge(Vec<u8>),
    Release(Vec<u8>),
    Command(Vec<u8>),
    /// Asks for records from this one on.
    Poll(Vec<u8>),
    /// Everything before this is durable at the owner.
    Ack(Vec<u8>),
    Fetch(Vec<u8>),
    Evidence(Vec<u8>),
    Refused(Vec<u8>),
    Records(Vec<u8>),
    Artifact(Vec<u8>),
}

macro_rules! kinds {
    ($($tag:literal $name:ident)*) => {
        impl Frame {
            pub(crate) fn to_bytes(&self) -> Vec<u8> {
                let (tag, body) = match self { $(Self::$name(body) => ($tag, body),)* };
                let mut bytes = vec![tag];
                bytes.extend_from_slice(body);
                bytes
            }

            pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let (tag, body) = bytes.split_first()?;
                match tag { $($tag => Some(Self::$name(body.to_vec())),)* _ => None }
            }

            pub(crate) fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }
        }
    };
}

kinds! {
    1 Challenge 2 Release 3 Command 4 Poll 5 Ack 6 Fetch 11 Evidence 12 Refused 13 Records 14 Artifact
}

/// A number under the launch secret's MAC, as the agent's requests are: another's poll or acknowledgement counts nothing.
pub(crate) fn sealed_number(secret: &Secret<32>, session: Nonce32, label: u8, number: u64) -> Vec<u8> {
    let mut body = vec![label];
    body.extend_from_slice(&number.to_be_bytes());
    let mac = LaunchKeys::new(secret, session).mac_transcript(&sha384(&body));
    body.extend_from_slice(mac.as_bytes());
    body
}

pub(crate) fn open_number(secret: &Secret<32>, session: Nonce32, label: u8, bytes: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?);
    (sealed_number(secret, session, label, number) == bytes).then_some(number)
}

struct Flight {
    due: u64,
    order: u64,
    to: Side,
    bytes: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Network {
    flights: Vec<Flight>,
    /// Frames handed over so far.
    pub(crate) sent: u64,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) trace: Vec<String>,
}

impl Network {
    /// Takes a frame at `now` (true milliseconds).
    pub(crate) fn send(&mut self, plan: &Plan, rng: &mut Rng, now: u64, to: Side, frame: &Frame) {
        let mut bytes = frame.to_bytes();
        let index = self.sent;
        self.sent += 1;
        let mut happens = |fault: Fault| {
            let drawn = rng.chance(plan.network[fault as usize]) || plan.single == Some((index, fault));
            if drawn {
                *self.faults.entry(fault).or_default() += 1;
                self.trace.push(format!("{now:>7} {fault:?} of frame {index} {} to {to:?}", frame.name()));
            }
            drawn
        };
        let [drop, duplicate, delay, truncate, reorder, flip] = Fault::ALL.map(&mut happens);
        if truncate {
            bytes.truncate(rng.below(bytes.len() as u64) as usize);
        }
        if flip && !bytes.is_empty() {
            let bit = rng.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let mut latency = rng.between(20, 400);
        latency += if delay { rng.between(2_000, 45_000) } else { 0 };
        latency += if reorder { rng.between(500, 4_000) } else { 0 };
        if duplicate {
            let later = now + latency + rng.between(0, 20_000);
            self.flights.push(Flight { due: later, order: index, to, bytes: bytes.clone() });
        }
        if !drop {
            self.flights.push(Flight { due: now + latency, order: index, to, bytes });
        }
    }

    /// What has arrived by now, in the order of arrival.
    pub(crate) fn due(&mut self, now: u64, to: Side) -> Vec<Vec<u8>> {
        let mut here: Vec<_> = self.flights.extract_if(.., |f| f.to == to && f.due <= now).collect();
        here.sort_by_key(|flight| (flight.due, flight.order));
        here.into_iter().map(|flight| flight.bytes).collect()
    }
}

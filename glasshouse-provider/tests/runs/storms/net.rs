//! What a hostile network does to whole HTTP messages, drawn from a seed, and what is seen on the way.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use glasshouse_provider::wire::AckRequest;

use super::check::whole_lines;
use crate::relay::{self, Request};

/// What happens to a message, be it a request or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Drop,
    Duplicate,
    Delay,
    Truncate,
    /// An earlier message of the same direction comes in its place, or after it.
    Reorder,
    Flip,
    /// Bytes are taken from the sender a few at a time.
    SlowReader,
    /// Bytes reach the receiver a few at a time.
    SlowWriter,
}

const FAULTS: [Fault; 8] = [
    Fault::Drop,
    Fault::Duplicate,
    Fault::Delay,
    Fault::Truncate,
    Fault::Reorder,
    Fault::Flip,
    Fault::SlowReader,
    Fault::SlowWriter,
];

/// A changed length can leave a peer waiting for the rest: then the connection ends.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pieces that a slow message comes in.
const PIECES: usize = 20;

/// The network of one run.
pub(super) struct Storm {
    rng: Rng,
    /// Of a thousand messages, how many suffer.
    rate: u64,
    /// The gate's memory, which has to know a record before it is acknowledged.
    store: PathBuf,
    earlier: Mutex<[Option<Vec<u8>>; 2]>,
    pub(super) messages: AtomicUsize,
    pub(super) faults: Mutex<BTreeMap<Fault, u64>>,
    /// Releases that left the owner.
    pub(super) releases: AtomicUsize,
    /// What the owner sent to prove or be proven something, by the last part of its path: others may send it again.
    pub(super) overheard: Mutex<Vec<(&'static str, Vec<u8>)>>,
    /// Records that the owner said were durable.
    pub(super) acknowledged: AtomicU64,
    pub(super) wrong: Mutex<Vec<String>>,
}

impl Storm {
    pub(super) fn new(seed: u64, store: PathBuf) -> Self {
        let rng = Rng::new(seed);
        let rate = [0, 30, 80, 150, 300][rng.below(5)];
        Self::with_rate(rng, rate, store)
    }

    /// Of a thousand messages, so many suffer.
    pub(super) fn with_rate(rng: Rng, rate: u64, store: PathBuf) -> Self {
        Self {
            rng,
            rate,
            store,
            earlier: Mutex::default(),
            messages: AtomicUsize::new(0),
            faults: Mutex::default(),
            releases: AtomicUsize::new(0),
            overheard: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            wrong: Mutex::default(),
        }
    }

    /// How long the network rests between two bites of what an owner sends: some networks are slow all the time.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis([0, 0, 0, 3][self.rng.below(4)])
    }

    /// Serves one request: `false` ends the connection.
    pub(super) fn serve(&self, agent: SocketAddr, request: &Request, client: &mut TcpStream) -> bool {
        self.messages.fetch_add(2, SeqCst);
        self.watch(request);
        let there = self.fault();
        let Ok(Some(answer)) = self.to_agent(agent, request, there) else { return false };
        let back = self.fault();
        self.to_owner(client, answer, back).unwrap_or(false)
    }

    /// What the owner does is looked at before anything happens to it.
    fn watch(&self, request: &Request) {
        let body = &request.bytes[relay::head_end(&request.bytes).unwrap()..];
        if request.line.ends_with("/challenge") {
            self.overheard.lock().unwrap().push(("challenge", body.to_vec()));
        }
        if request.line.ends_with("/release") {
            self.overheard.lock().unwrap().push(("release", body.to_vec()));
            self.releases.fetch_add(1, SeqCst);
        }
        if request.line.ends_with("/ack") {
            let AckRequest { through } = serde_json::from_slice(body).unwrap();
            let kept = whole_lines(&self.store).iter().filter(|line| line.contains(r#""entry":"kept""#)).count() as u64;
            if through >= kept {
                let wrong = format!("{} records were acknowledged when {kept} were durable", through + 1);
                self.wrong.lock().unwrap().push(wrong);
            }
            self.acknowledged.fetch_max(through + 1, SeqCst);
        }
    }

    fn fault(&self) -> Option<Fault> {
        let fault = (self.rng.below(1000) < self.rate as usize).then(|| FAULTS[self.rng.below(FAULTS.len())])?;
        *self.faults.lock().unwrap().entry(fault).or_default() += 1;
        Some(fault)
    }

    fn to_agent(&self, agent: SocketAddr, request: &Request, fault: Option<Fault>) -> io::Result<Option<Vec<u8>>> {
        let bytes = &request.bytes;
        let earlier = self.earlier.lock().unwrap()[0].replace(bytes.clone());
        match fault {
            None => exchange(agent, bytes, fault).map(Some),
            Some(Fault::Drop) => Ok(None),
            Some(Fault::Duplicate) => {
                let first = exchange(agent, bytes, None)?;
                let second = exchange(agent, bytes, None)?;
                Ok(Some(if self.rng.below(2) == 0 { first } else { second }))
            }
            Some(Fault::Delay) => {
                self.wait();
                exchange(agent, bytes, None).map(Some)
            }
            Some(Fault::Truncate) => {
                let mut stream = connect(agent)?;
                stream.write_all(&bytes[..self.rng.below(bytes.len())])?;
                Ok(None)
            }
            Some(Fault::Reorder) => {
                let answer = exchange(agent, bytes, None)?;
                // An old request comes after this one, and what it is answered goes nowhere.
                earlier.map(|earlier| exchange(agent, &earlier, None)).transpose().ok();
                Ok(Some(answer))
            }
            Some(Fault::Flip) => exchange(agent, &self.flipped(bytes), None).map(Some),
            Some(Fault::SlowReader | Fault::SlowWriter) => exchange(agent, bytes, fault).map(Some),
        }
    }

    fn to_owner(&self, client: &mut TcpStream, answer: Vec<u8>, fault: Option<Fault>) -> io::Result<bool> {
        let earlier = self.earlier.lock().unwrap()[1].replace(answer.clone());
        match fault {
            None | Some(Fault::SlowReader) => client.write_all(&answer)?,
            Some(Fault::Drop) => return Ok(false),
            Some(Fault::Duplicate) => {
                client.write_all(&answer)?;
                client.write_all(&answer)?;
            }
            Some(Fault::Delay) => {
                self.wait();
                client.write_all(&answer)?;
            }
            Some(Fault::Truncate) => {
                client.write_all(&answer[..self.rng.below(answer.len())])?;
                return Ok(false);
            }
            Some(Fault::Reorder) => client.write_all(&earlier.unwrap_or(answer))?,
            Some(Fault::Flip) => {
                client.write_all(&self.flipped(&answer))?;
                return Ok(false);
            }
            Some(Fault::SlowWriter) => slowly(client, &answer)?,
        }
        Ok(true)
    }

    fn wait(&self) {
        std::thread::sleep(Duration::from_millis(50 + self.rng.below(500) as u64));
    }

    fn flipped(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let at = self.rng.below(bytes.len());
        bytes[at] ^= 1 << self.rng.below(8);
        bytes
    }
}

fn connect(agent: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(agent)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A request to the agent on a connection of its own, and its answer.
fn exchange(agent: SocketAddr, request: &[u8], fault: Option<Fault>) -> io::Result<Vec<u8>> {
    let mut stream = connect(agent)?;
    match fault {
        Some(Fault::SlowWriter) => slowly(&mut stream, request)?,
        _ => stream.write_all(request)?,
    }
    let pause = if fault == Some(Fault::SlowReader) { Duration::from_millis(2) } else { Duration::ZERO };
    relay::message(&mut stream, pause)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn slowly(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(bytes.len() / PIECES + 1).try_for_each(|piece| {
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(piece)
    })
}

/// SplitMix64. Which message a number falls to depends on the machine: a seed is a kind of weather, not a film.
pub(super) struct Rng(AtomicU64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)))
    }

    pub(super) fn below(&self, limit: usize) -> usize {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }

    /// Whether something happens that so often happens, of a hundred times.
    pub(super) fn chance(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn millis(&self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.below(to - from)) as u64)
    }
}

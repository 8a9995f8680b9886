//! A hostile network around whole runs: connections that break after the request went through, proxies that speak for the
//! agent, acknowledgements that do not arrive.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use glasshouse_core::job::Budget;
use glasshouse_core::overhead::{Cleanup, Order};
use glasshouse_core::record::{self, RecordError, VerifiedRecord};
use glasshouse_provider::LocalProvider;
use glasshouse_provider::client::ClientError;
use glasshouse_provider::run::{OverheadRun, ProtectedRun, RunBuilder, RunError, RunReport};
use glasshouse_provider::wire::WireCode;
use rustix::process::Signal;

use crate::relay::{self, Request};
use crate::support::{Test, block_on, children_of, container, kill};
use crate::tapped::{Tap, Tapped};
use crate::whole::composed;

pub(crate) const TESTS: &[Test] = &[
    ("a_broken_connection_does_nothing_twice", a_broken_connection_does_nothing_twice),
    ("a_proxy_puts_no_refusal_into_the_record", a_proxy_puts_no_refusal_into_the_record),
    ("records_are_acknowledged_while_it_trains", records_are_acknowledged_while_it_trains),
    ("progress_waits_for_an_owner_who_is_away", progress_waits_for_an_owner_who_is_away),
    ("a_download_may_take_longer_than_the_linger_time", a_download_may_take_longer_than_the_linger_time),
    ("artifacts_beyond_the_limit_are_not_fetched", artifacts_beyond_the_limit_are_not_fetched),
    ("a_segment_has_its_share_of_the_record", a_segment_has_its_share_of_the_record),
];

fn through(tap: Tap, folder: &Path, trouble: &str) -> RunBuilder<ProtectedRun> {
    composed(ProtectedRun::builder(), folder, trouble).provider(Tapped::new(
        LocalProvider::new().container(container()),
        tap,
        || (),
    ))
}

fn verified(report: &RunReport) -> VerifiedRecord {
    record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap()
}

fn forward(agent: SocketAddr, request: &Request, client: &mut TcpStream) -> bool {
    relay::forward(agent, &request.bytes).is_ok_and(|answer| client.write_all(&answer).is_ok())
}

/// What the line of the request ends with whose connection breaks, once.
static BREAKS_AT: Mutex<&str> = Mutex::new("");
static SENT: AtomicUsize = AtomicUsize::new(0);

/// The request arrives whole, the segment takes its time, and nobody waits for the answer: the agent sees the connection
/// end while it works on it. The client asks again long before the segment goes on.
fn breaking(agent: SocketAddr, request: &Request, client: &mut TcpStream) -> bool {
    let at = *BREAKS_AT.lock().unwrap();
    if !request.line.starts_with("POST ") || !request.line.ends_with(at) || SENT.fetch_add(1, Ordering::SeqCst) > 0 {
        return forward(agent, request, client);
    }
    let segments: Vec<u32> = children_of(std::process::id()).into_iter().flat_map(children_of).collect();
    segments.iter().for_each(|pid| kill(*pid, Signal::STOP));
    let mut upstream = TcpStream::connect(agent).unwrap();
    upstream.write_all(&request.bytes).unwrap();
    std::thread::sleep(Duration::from_millis(if segments.is_empty() { 0 } else { 50 }));
    drop(upstream);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        segments.iter().for_each(|pid| kill(*pid, Signal::CONT));
    });
    false
}

fn a_broken_connection_does_nothing_twice() {
    for step in ["/v1/segments", "/challenge", "/release"] {
        let folder = tempfile::tempdir().unwrap();
        *BREAKS_AT.lock().unwrap() = step;
        SENT.store(0, Ordering::SeqCst);
        let run = through(breaking, folder.path(), "").budget(Budget::Units(20)).run();
        let report = block_on(run).unwrap_or_else(|failure| panic!("{step}: {failure}"));
        assert!(SENT.load(Ordering::SeqCst) >= 2, "{step}: it was not sent again");
        assert_eq!(verified(&report).sessions.len(), 1);
    }
}

static SAID: AtomicUsize = AtomicUsize::new(0);
/// How often a client asks.
const TRIES: usize = 4;

/// A proxy without the secret answers the challenge in the agent's words.
fn lying(agent: SocketAddr, request: &Request, client: &mut TcpStream) -> bool {
    if !request.line.ends_with("/challenge") {
        return forward(agent, request, client);
    }
    // First as a stranger is answered, and then with another code.
    let (status, code) =
        if SAID.fetch_add(1, Ordering::SeqCst) < TRIES { (401, "segment-refused") } else { (413, "machine") };
    let refusal = r#"{"code":"assurance-too-low","expected":"a TEE","seen":"none","advice":"\u001b[2Jpay more"}"#;
    let body = format!(r#"{{"code":"{code}","message":"\u001b[2J{}","refusal":{refusal}}}"#, "no\\n".repeat(1000));
    let head = format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all([head, body].concat().as_bytes()).is_ok()
}

fn a_proxy_puts_no_refusal_into_the_record() {
    for code in [WireCode::Unauthenticated, WireCode::TooLarge] {
        let folder = tempfile::tempdir().unwrap();
        let before = SAID.load(Ordering::SeqCst);
        let failure = block_on(through(lying, folder.path(), "").run()).unwrap_err();
        let RunError::Client(ClientError::Refused { step: "challenge", error }) = &failure.error else {
            panic!("{failure}")
        };
        assert_eq!((error.code, &error.refusal), (code, &None));
        let said = failure.to_string();
        assert!(
            said.len() < 600 && !said.contains(char::is_control) && said.contains("without the agent's MAC"),
            "{said}"
        );
        assert_eq!(SAID.load(Ordering::SeqCst) - before, TRIES, "hearsay is worth as many tries as silence");
        let verified = verified(&failure.report.unwrap());
        assert_eq!((verified.record.refused.len(), verified.sessions.len()), (0, 0));
    }
}

/// Above what a segment says to an owner who acknowledges nothing.
const UNACKNOWLEDGED: u64 = 256 + 40;

fn talkative(tap: Tap) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let run = through(tap, folder.path(), "talk").budget(Budget::Units(800)).progress_every(Duration::from_millis(1));
    let report = block_on(run.run()).unwrap();
    assert_eq!(report.artifacts.len(), 2);
    verified(&report).sessions[0].events.count
}

fn records_are_acknowledged_while_it_trains() {
    let events = talkative(forward);
    assert!(events > UNACKNOWLEDGED, "{events} events");
}

static FETCHED: AtomicBool = AtomicBool::new(false);

fn swallowing(agent: SocketAddr, request: &Request, client: &mut TcpStream) -> bool {
    if request.line.contains("/artifacts?") {
        FETCHED.store(true, Ordering::SeqCst);
    }
    (!request.line.ends_with("/ack") || FETCHED.load(Ordering::SeqCst)) && forward(agent, request, client)
}

fn progress_waits_for_an_owner_who_is_away() {
    let events = talkative(swallowing);
    assert!((256..=UNACKNOWLEDGED).contains(&events), "{events} events");
}

/// Nothing is acknowledged until it is all here, and each piece takes its time.
fn slowly(agent: SocketAddr, request: &Request, client: &mut TcpStream) -> bool {
    if request.line.contains("/artifacts?") {
        std::thread::sleep(Duration::from_millis(2500));
    }
    forward(agent, request, client)
}

fn a_download_may_take_longer_than_the_linger_time() {
    let folder = tempfile::tempdir().unwrap();
    let run = through(slowly, folder.path(), "").budget(Budget::Units(20)).linger(Duration::from_secs(4));
    let report = block_on(run.run()).unwrap();
    assert_eq!(report.artifacts.len(), 2);
}

fn artifacts_beyond_the_limit_are_not_fetched() {
    let folder = tempfile::tempdir().unwrap();
    // A signed size that this run does not take: not a byte of it is asked for.
    let run = through(forward, folder.path(), "").budget(Budget::Units(20)).artifact_limit(1_599_999);
    let failure = block_on(run.run()).unwrap_err();
    assert!(matches!(&failure.error, RunError::Artifact { name, .. } if name == "sum.bin"), "{failure}");
    assert!(failure.to_string().contains("1600000 bytes"), "{failure}");
    // What was announced before it, and is within the limit, may be here already.
    assert!(failure.report.unwrap().artifacts.iter().all(|artifact| artifact.name != "sum.bin"));
}

fn a_segment_has_its_share_of_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let run = |repeats| {
        let run = composed(OverheadRun::builder(), folder.path(), "hoard").order(Order::RawFirst).export(true);
        run.budget(Budget::Units(20)).repeats(repeats).run()
    };
    // More than a record holds is refused before anything is rented.
    let failure = block_on(run(193)).unwrap_err();
    assert!(matches!(failure.error, RunError::TooManySegments { segments: 386, most: 384 }), "{failure}");
    assert!(failure.report.is_none());
    // As many as it holds, and the first one announces artifacts without end.
    let failure = block_on(run(192)).unwrap_err();
    assert!(matches!(&failure.error, RunError::TooManyEvents { segment, .. } if segment == "raw-0"), "{failure}");
    let report = failure.report.unwrap();
    assert_eq!(report.cleanup.unwrap().outcome, Cleanup::Observed);
    // The chain has no end, and the record that says so is well signed.
    let error = record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).map(drop);
    assert!(matches!(error, Ok(()) | Err(RecordError::TerminalMissing { .. })), "{error:?}");
}

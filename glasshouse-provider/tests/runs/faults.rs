//! A hostile network between owner and agent, over real sockets: every fault ends in a typed error that names the step,
//! and none of them does a step twice.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use glasshouse_core::fixed::Digest48;
use glasshouse_core::traits::{AllocationId, Endpoint, LaunchSpec, Provider as _};
use glasshouse_core::transcript::sha384;
use glasshouse_provider::LocalProvider;
use glasshouse_provider::client::{AgentClient, ClientError};
use glasshouse_provider::wire::{SegmentId, WireCode};

use crate::local::{created, spec};
use crate::relay::{self, Request};
use crate::support::{Test, block_on};

pub(crate) const TESTS: &[Test] = &[
    ("an_answer_cut_short", an_answer_cut_short),
    ("an_answer_of_nonsense", an_answer_of_nonsense),
    ("an_answer_changed_on_the_way", an_answer_changed_on_the_way),
    ("one_bit_costs_one_try", one_bit_costs_one_try),
    ("an_answer_to_another_request", an_answer_to_another_request),
    ("a_connection_reset_in_the_middle", a_connection_reset_in_the_middle),
    ("a_slow_peer_is_waited_for_but_not_for_ever", a_slow_peer_is_waited_for_but_not_for_ever),
    ("a_request_sent_twice_counts_once", a_request_sent_twice_counts_once),
    ("a_fault_that_passes_is_survived", a_fault_that_passes_is_survived),
];

/// What happens to an answer: nothing is written when it gives `None`.
type Fault = fn(SocketAddr, &Request, usize) -> Option<Vec<u8>>;

struct Net {
    _provider: LocalProvider,
    launch: LaunchSpec,
    agent: SocketAddr,
    through: AgentClient,
    requests: Arc<AtomicUsize>,
}

/// An agent, and a client whose every exchange goes through `fault`, which is told how many there were before.
async fn net(fault: Fault) -> Net {
    let (provider, launch) = (LocalProvider::new(), spec(9));
    let id: AllocationId = created(&provider, &launch).await.id;
    let Endpoint::Direct(agent) = provider.observe(&id).await.unwrap().endpoints[0] else { panic!("no address") };
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let relay = relay::start(move |request: &Request, client: &mut TcpStream| {
        let answer = fault(agent, request, count.fetch_add(1, Ordering::SeqCst));
        answer.is_some_and(|answer| client.write_all(&answer).is_ok() && keeps_open(&answer))
    });
    let through = AgentClient::new(&Endpoint::Direct(relay), &launch.launch_secret).unwrap();
    Net { _provider: provider, launch, agent, through, requests }
}

/// An answer with a whole body leaves the connection usable; any other ends it.
fn keeps_open(answer: &[u8]) -> bool {
    let Some(body) = relay::head_end(answer) else { return false };
    let head = String::from_utf8_lossy(&answer[..body]).to_ascii_lowercase();
    head.contains(&format!("content-length: {}\r\n", answer.len() - body))
}

fn answer(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn an_answer_cut_short() {
    block_on(async {
        let net = net(|agent, request, _| {
            let mut answer = relay::forward(agent, &request.bytes).unwrap();
            answer.truncate(answer.len() - 5);
            Some(answer)
        });
        let net = net.await;
        let error = net.through.hello().await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { step: "hello", .. }), "{error}");
        // Worth other tries, but not endless ones.
        assert_eq!(net.requests.load(Ordering::SeqCst), 4);
    });
}

fn an_answer_of_nonsense() {
    block_on(async {
        let net = net(|_, _, _| Some(answer(b"\x00\xff<html>welcome to this hotel's network"))).await;
        let nobody = SegmentId::new("a").unwrap();
        let error = net.through.records(&nobody, None, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, ClientError::Nonsense { step: "records", .. }), "{error}");
        let error = net.through.challenge(&nobody, vec![1]).await.unwrap_err();
        assert!(matches!(error, ClientError::Nonsense { step: "challenge", .. }), "{error}");
        // Not HTTP at all.
        let net = self::net(|_, _, _| Some(b"220 mail.example ESMTP\r\n".to_vec())).await;
        let error = net.through.acknowledge(&nobody, 1).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { step: "acknowledge", .. }), "{error}");
    });
}

fn an_answer_changed_on_the_way() {
    block_on(async {
        let net = net(|agent, request, _| {
            let mut answer = relay::forward(agent, &request.bytes).unwrap();
            let last = answer.len() - 2;
            answer[last] ^= 1;
            Some(answer)
        });
        let net = net.await;
        let error = net.through.hello().await.unwrap_err();
        assert!(matches!(error, ClientError::Nonsense { step: "hello", .. }), "{error}");
        assert!(error.to_string().contains("without the agent's MAC"), "{error}");
        assert_eq!(net.requests.load(Ordering::SeqCst), 4);
    });
}

fn one_bit_costs_one_try() {
    block_on(async {
        // Every third exchange is whole; in the others a bit of the request or of the answer falls over, in the body, in
        // the head or in the length of it.
        let net = net(|agent, request, before| {
            let flipped = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                let at = (before * 37) % bytes.len();
                bytes[at] ^= 2;
                bytes
            };
            match before % 3 {
                0 => Some(flipped(&relay::forward(agent, &request.bytes).unwrap())),
                1 => answered_in_time(agent, &flipped(&request.bytes)),
                _ => relay::forward(agent, &request.bytes).ok(),
            }
        });
        let net = net.await;
        for _ in 0..6 {
            net.through.hello().await.unwrap();
        }
        // Not every bit matters: nobody reads an answer's date.
        let requests = net.requests.load(Ordering::SeqCst);
        assert!((10..=18).contains(&requests), "{requests}");
    });
}

/// A length that was changed leaves the agent waiting for what does not come.
fn answered_in_time(agent: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(agent).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    stream.write_all(request).unwrap();
    relay::message(&mut stream, Duration::ZERO).ok().flatten()
}

fn an_answer_to_another_request() {
    use std::sync::Mutex;
    static FIRST: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    block_on(async {
        let net = net(|agent, request, _| {
            let answer = relay::forward(agent, &request.bytes).unwrap();
            Some(FIRST.lock().unwrap().get_or_insert(answer).clone())
        });
        let net = net.await;
        net.through.hello().await.unwrap();
        // The same question again, answered with the genuine answer of before.
        let error = net.through.hello().await.unwrap_err();
        assert!(matches!(error, ClientError::Nonsense { step: "hello", .. }), "{error}");
    });
}

fn a_connection_reset_in_the_middle() {
    block_on(async {
        // In the answer: a head and some of the body, then nothing.
        let net = net(|agent, request, _| {
            let answer = relay::forward(agent, &request.bytes).unwrap();
            let end = relay::head_end(&answer).unwrap();
            Some(answer[..end + 1].to_vec())
        });
        let error = net.await.through.hello().await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { step: "hello", .. }), "{error}");
        // In the request: the agent gets half of a piece.
        let net = self::net(|agent, request, _| {
            if request.line.starts_with("PUT ") {
                let mut stream = TcpStream::connect(agent).unwrap();
                stream.write_all(&request.bytes[..request.bytes.len() / 2]).unwrap();
                return None;
            }
            relay::forward(agent, &request.bytes).ok()
        });
        let net = net.await;
        let bytes = vec![7; 100_000];
        let digest: Digest48 = sha384(&bytes);
        let mut source = std::io::Cursor::new(&bytes);
        let error = net.through.upload(&digest, 100_000, &mut source, |_| {}).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { step: "upload", .. }), "{error}");
        // Nothing of the halves counts: the upload begins again at 0 and is whole.
        let mut steps = Vec::new();
        let upload = net.through.upload(&digest, 100_000, &mut source, |done| steps.push(done));
        upload.await.unwrap_err();
        assert_eq!(steps, [0]);
    });
}

fn a_slow_peer_is_waited_for_but_not_for_ever() {
    block_on(async {
        let net = net(|agent, request, before| {
            // The first request goes up in two parts and its answer comes late; the second one is never answered.
            let late = if before == 0 { Duration::from_millis(300) } else { Duration::from_secs(3600) };
            let answer = relay::forward_with(agent, &request.bytes, || std::thread::sleep(Duration::from_millis(300)));
            std::thread::sleep(late);
            answer.ok()
        });
        let net = net.await;
        net.through.try_hello().await.unwrap();
        let began = Instant::now();
        let error = net.through.try_hello().await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { step: "hello", .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20) && error.to_string().contains("timed out"), "{error}");
    });
}

fn a_request_sent_twice_counts_once() {
    block_on(async {
        // The relay sends everything twice and gives the second answer.
        let net = net(|agent, request, _| {
            relay::forward(agent, &request.bytes).unwrap();
            relay::forward(agent, &request.bytes).ok()
        });
        let net = net.await;
        let error = net.through.hello().await.unwrap_err();
        let ClientError::Refused { step: "hello", error: refused } = &error else { panic!("{error}") };
        assert_eq!(refused.code, WireCode::Replayed);
        // A piece that was sent twice lies there once.
        let (bytes, digest) = (vec![7; 1000], sha384(vec![7; 1000]));
        let error = net.through.upload(&digest, 1000, &mut std::io::Cursor::new(&bytes), |_| {}).await.unwrap_err();
        assert!(error.to_string().starts_with("upload: replayed"), "{error}");
        let direct = AgentClient::new(&Endpoint::Direct(net.agent), &net.launch.launch_secret).unwrap();
        direct.upload(&digest, 1000, &mut std::io::Cursor::new(&bytes), |_| {}).await.unwrap();
    });
}

fn a_fault_that_passes_is_survived() {
    block_on(async {
        let net = net(|agent, request, before| {
            // The request arrived and was done; its answer is lost, twice.
            let answer = relay::forward(agent, &request.bytes).unwrap();
            (before % 3 == 2).then_some(answer)
        });
        let net = net.await;
        let (bytes, digest) = (vec![7; 1000], sha384(vec![7; 1000]));
        let mut steps = Vec::new();
        let mut source = std::io::Cursor::new(&bytes);
        net.through.upload(&digest, 1000, &mut source, |done| steps.push(done)).await.unwrap();
        assert_eq!(steps.last(), Some(&1000));
    });
}

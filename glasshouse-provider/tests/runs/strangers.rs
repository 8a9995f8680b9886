//! Whoever can reach an agent's port without its launch secret: many, slow, and with much to say. And whoever listened to an
//! agent that was here before.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::fixed::{Blob, Fixed};
use glasshouse_core::traits::{Endpoint, LaunchSpec, Provider as _};
use glasshouse_core::transcript::sha384;
use glasshouse_provider::LocalProvider;
use glasshouse_provider::client::AgentClient;
use glasshouse_provider::wire::{SegmentId, SegmentMode, StartSegment, WireCode};

use crate::agent::{agent, exchange};
use crate::local::{created, lingering, spec};
use crate::relay::{self, Request};
use crate::support::{Test, block_on, eventually, runs};

pub(crate) const TESTS: &[Test] = &[
    ("strangers_do_not_keep_the_owner_out", strangers_do_not_keep_the_owner_out),
    ("a_body_is_the_one_its_head_names", a_body_is_the_one_its_head_names),
    ("a_restarted_agent_takes_nothing_from_before", a_restarted_agent_takes_nothing_from_before),
    ("what_was_overheard_keeps_no_agent_alive", what_was_overheard_keeps_no_agent_alive),
];

/// The most memory that the process ever had, KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn strangers_do_not_keep_the_owner_out() {
    block_on(async {
        let (_provider, address, client) = agent().await;
        let pid = client.hello().await.unwrap().pid;
        let before = peak(pid);
        let connect = |say: String| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
            stream.write_all(say.as_bytes()).unwrap();
            stream
        };
        // Some say nothing, some half a head, and some have a body and headers of the right form.
        let forged = format!(
            "PUT /v1/packages/{0}?offset=0 HTTP/1.1\r\nhost: a\r\ngh-boot: {1}\r\ngh-counter: 9\r\ngh-body: {0}\r\ngh-mac: {0}\r\n\
             content-length: 8388608\r\n\r\n",
            "0a".repeat(48),
            "0b".repeat(32)
        );
        let mut crowd = Vec::new();
        for n in 0..360 {
            crowd.push(connect(
                [String::new(), "GET /v1/hello HTTP/1.1\r\nhost".to_owned(), forged.clone()][n % 3].clone(),
            ));
        }
        let piece = vec![7; 1 << 20];
        let mut pushed = 0;
        for stream in crowd.iter_mut().skip(2).step_by(3).take(40) {
            pushed += (0..8).map_while(|_| stream.write(&piece).ok()).sum::<usize>();
        }
        let began = Instant::now();
        let digest = sha384(&piece);
        client.upload(&digest, 1 << 20, &mut std::io::Cursor::new(&piece), |_| {}).await.unwrap();
        let fresh = AgentClient::new(&Endpoint::Direct(address), &spec(9).launch_secret).unwrap();
        fresh.hello().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let grown = peak(pid) - before;
        assert!(grown < 24 << 10, "{grown} KiB for strangers who pushed {pushed} bytes");
        // They were told on their heads alone, long before their bodies were there.
        let mut answer = [0; 12];
        let told = crowd.iter_mut().skip(2).step_by(3).filter_map(|stream| stream.read(&mut answer).ok());
        assert!(told.count() > 0);
        assert_eq!(&answer, b"HTTP/1.1 401");
    });
}

fn a_body_is_the_one_its_head_names() {
    static CHANGED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    block_on(async {
        let (_provider, address, client) = agent().await;
        let nobody = SegmentId::new("nobody").unwrap();
        // Said by the agent itself, with its MAC: the head was good. It does not read on after that, so the answer may be lost
        // with a connection that breaks under the rest of the body.
        let mut tries = 0;
        let error = loop {
            let error = client.challenge(&nobody, vec![0; 5 << 20]).await.unwrap_err();
            tries += 1;
            if error.refused().is_some() || tries == 20 {
                break error;
            }
        };
        let refused = error.refused().unwrap();
        assert_eq!(refused.code, WireCode::TooLarge);
        assert!(refused.message.starts_with("the body is larger"), "{refused}");
        let relay = relay::start(move |request: &Request, client: &mut TcpStream| {
            let mut bytes = request.bytes.clone();
            if request.line.ends_with("/command") {
                *bytes.last_mut().unwrap() ^= 1;
                CHANGED.lock().unwrap().push(request.line.clone());
            }
            relay::forward(address, &bytes).is_ok_and(|answer| client.write_all(&answer).is_ok())
        });
        let through = AgentClient::new(&Endpoint::Direct(relay), &spec(9).launch_secret).unwrap();
        let error = through.command(&nobody, b"command".to_vec()).await.unwrap_err();
        assert_eq!(error.refused().unwrap().code, WireCode::Unauthenticated);
        assert_eq!(CHANGED.lock().unwrap().len(), 4, "a body that was changed is sent again");
    });
}

fn a_restarted_agent_takes_nothing_from_before() {
    static OVERHEARD: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    block_on(async {
        static AGENT: Mutex<Option<SocketAddr>> = Mutex::new(None);
        let (provider, address, _) = agent().await;
        *AGENT.lock().unwrap() = Some(address);
        let relay = relay::start(move |request: &Request, client: &mut TcpStream| {
            OVERHEARD.lock().unwrap().push(request.bytes.clone());
            let agent = AGENT.lock().unwrap().unwrap();
            relay::forward(agent, &request.bytes).is_ok_and(|answer| client.write_all(&answer).is_ok())
        });
        let owner = AgentClient::new(&Endpoint::Direct(relay), &spec(9).launch_secret).unwrap();
        let bytes = b"a bundle".to_vec();
        owner.upload(&sha384(&bytes), 8, &mut std::io::Cursor::new(&bytes), |_| {}).await.unwrap();
        let start = StartSegment {
            id: SegmentId::new("raw-0").unwrap(),
            mode: SegmentMode::Raw,
            session: Fixed([5; 32]),
            attestor: EvidenceKind::Software,
            package: sha384(&bytes),
            job: Some(Blob(b"{}".to_vec())),
        };
        owner.start(&start).await.unwrap();
        owner.shutdown().await.unwrap();
        drop(provider);
        // Another process with the same secret, as after a restart of its container.
        let (provider, launch) = (LocalProvider::new(), spec(9));
        let id = created(&provider, &launch).await.id;
        let Endpoint::Direct(second) = provider.observe(&id).await.unwrap().endpoints[0] else { panic!("no address") };
        let overheard = std::mem::take(&mut *OVERHEARD.lock().unwrap());
        assert!(overheard.len() >= 5);
        for request in &overheard {
            let answer = replay(second, request);
            match request.starts_with(b"GET /v1/hello ") {
                // Good at any process, which it changes nothing of.
                true => assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"segments\":[]"), "{answer}"),
                false => assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("\"restarted\""), "{answer}"),
            }
        }
        // An owner who met the first one is told, with a MAC; one who comes now sees that nothing was done.
        let fresh = AgentClient::new(&Endpoint::Direct(second), &spec(9).launch_secret).unwrap();
        let hello = fresh.hello().await.unwrap();
        assert!(hello.segments.is_empty());
        assert_ne!(owner.boot(), fresh.boot());
        *AGENT.lock().unwrap() = Some(second);
        let error = owner.records(&start.id, None, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.refused().unwrap().code, WireCode::Restarted);
        assert!(!error.to_string().contains("without the agent's MAC"), "{error}");
        let status = fresh.records(&start.id, None, Duration::ZERO).await.unwrap_err();
        assert_eq!(status.refused().unwrap().code, WireCode::NoSuchSegment);
    });
}

fn what_was_overheard_keeps_no_agent_alive() {
    static OVERHEARD: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    let launch = LaunchSpec { linger: Duration::from_millis(600), ..spec(3) };
    let (mut child, address) = lingering(&launch, None);
    let relay = relay::start(move |request: &Request, client: &mut TcpStream| {
        OVERHEARD.lock().unwrap().push(request.bytes.clone());
        relay::forward(address, &request.bytes).is_ok_and(|answer| client.write_all(&answer).is_ok())
    });
    let owner = AgentClient::new(&Endpoint::Direct(relay), &launch.launch_secret).unwrap();
    let nobody = SegmentId::new("nobody").unwrap();
    block_on(owner.records(&nobody, None, Duration::ZERO)).unwrap_err();
    let overheard = std::mem::take(&mut *OVERHEARD.lock().unwrap());
    assert_eq!(overheard.len(), 2);
    let repeating = std::thread::spawn(move || {
        let repeat = |request: &Vec<u8>| relay::forward(address, request).is_ok();
        (0..)
            .take_while(|_| {
                std::thread::sleep(Duration::from_millis(20));
                overheard.iter().all(repeat)
            })
            .count()
    });
    eventually("it ends all the same", Duration::from_secs(5), || !runs(child.id()));
    assert!(child.wait().unwrap().success() && repeating.join().unwrap() > 3);
}

fn replay(agent: SocketAddr, request: &[u8]) -> String {
    let end = relay::head_end(request).unwrap();
    let mut bytes = request[..end - 2].to_vec();
    bytes.extend_from_slice(b"connection: close\r\n\r\n");
    bytes.extend_from_slice(&request[end..]);
    exchange(agent, &bytes)
}

//! The agent's door: only the owner's fresh requests come in, and only this agent's answers are believed.

use std::io::{Cursor, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Endpoint, Provider as _};
use glasshouse_core::transcript::sha384;
use glasshouse_provider::LocalProvider;
use glasshouse_provider::client::{AgentClient, ClientError};
use glasshouse_provider::wire::{SegmentId, WireCode};

use crate::local::{created, spec};
use crate::support::{Test, block_on};

pub(crate) const TESTS: &[Test] = &[
    ("strangers_and_repeaters_stay_out", strangers_and_repeaters_stay_out),
    ("an_upload_resumes_and_is_checked", an_upload_resumes_and_is_checked),
    ("nonsense_names_its_step", nonsense_names_its_step),
    ("nobody_there_names_its_step", nobody_there_names_its_step),
];

pub(crate) async fn agent() -> (LocalProvider, SocketAddr, AgentClient) {
    let provider = LocalProvider::new();
    let spec = spec(9);
    let allocation = created(&provider, &spec).await;
    let seen = provider.observe(&allocation.id).await.unwrap();
    let Endpoint::Direct(address) = seen.endpoints[0] else { panic!("no address") };
    let client = AgentClient::new(&seen.endpoints[0], &spec.launch_secret).unwrap();
    (provider, address, client)
}

pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn strangers_and_repeaters_stay_out() {
    block_on(async {
        let (_provider, address, client) = agent().await;
        client.hello().await.unwrap();
        let stranger = AgentClient::new(&Endpoint::Direct(address), &Secret::take(&mut [8; 32])).unwrap();
        let error = stranger.hello().await.unwrap_err();
        assert_eq!(error.refused().unwrap().code, WireCode::Unauthenticated);
        let answer = exchange(address, b"GET /v1/hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("\"unauthenticated\""), "{answer}");
        // A tap in the middle: what it overhears works no second time.
        let tap = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tapped = Endpoint::Direct(tap.local_addr().unwrap());
        let overheard = std::thread::spawn(move || {
            let (mut stream, _) = tap.accept().unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).unwrap();
            request.truncate(count);
            request
        });
        let victim = AgentClient::new(&tapped, &spec(9).launch_secret).unwrap();
        let _ = victim.try_hello().await;
        let request = String::from_utf8(overheard.join().unwrap()).unwrap();
        let request = request.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let first = exchange(address, request.as_bytes());
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        let second = exchange(address, request.as_bytes());
        assert!(second.starts_with("HTTP/1.1 401") && second.contains("\"replayed\""), "{second}");
        let changed = exchange(address, request.replace("/v1/hello", "/v1/other").as_bytes());
        assert!(changed.contains("\"unauthenticated\""), "{changed}");
        // The newest client is the owner now; one from before it has fallen out of the window.
        let error = client.hello().await.unwrap_err();
        assert_eq!(error.refused().unwrap().code, WireCode::Replayed);
        let client = AgentClient::new(&Endpoint::Direct(address), &spec(9).launch_secret).unwrap();
        let nobody = SegmentId::new("nobody").unwrap();
        let error = client.records(&nobody, None, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.refused().unwrap().code, WireCode::NoSuchSegment);
    });
}

fn an_upload_resumes_and_is_checked() {
    block_on(async {
        let (_provider, _, client) = agent().await;
        let bytes: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (digest, length) = (sha384(&bytes), bytes.len() as u64);
        // The first upload breaks off: its source ends early.
        let mut first = Cursor::new(&bytes[..9_000_000]);
        let error = client.upload(&digest, length, &mut first, |_| {}).await.unwrap_err();
        assert!(matches!(error, ClientError::File { .. }), "{error}");
        let mut steps = Vec::new();
        client.upload(&digest, length, &mut Cursor::new(&bytes), |done| steps.push(done)).await.unwrap();
        assert_eq!(steps, [8 << 20, 16 << 20, length]);
        // Complete: nothing goes up again.
        client.upload(&digest, length, &mut Cursor::new(&[]), |_| {}).await.unwrap();
        let mut other = bytes.clone();
        other[7] ^= 1;
        let error = client.upload(&sha384(b"other"), length, &mut Cursor::new(&other), |_| {}).await.unwrap_err();
        assert_eq!(error.refused().unwrap().code, WireCode::PackageDigestMismatch);
    });
}

fn nonsense_names_its_step() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = Endpoint::Direct(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let body = r#"{"service":"glasshouse-agent"}"#;
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    let client = AgentClient::new(&endpoint, &Secret::take(&mut [8; 32])).unwrap();
    let error = block_on(client.hello()).unwrap_err();
    assert!(matches!(error, ClientError::Nonsense { step: "hello", .. }), "{error}");
}

fn nobody_there_names_its_step() {
    // Nobody listens on port 1; one that was just let go of can be another program's a moment later.
    let endpoint = Endpoint::Direct((Ipv4Addr::LOCALHOST, 1).into());
    let client = AgentClient::new(&endpoint, &Secret::take(&mut [8; 32])).unwrap();
    let error = block_on(client.acknowledge(&SegmentId::new("a").unwrap(), 1)).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { step: "acknowledge", .. }), "{error}");
}

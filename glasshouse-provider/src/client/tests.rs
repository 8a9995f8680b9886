//! An agent that knows the launch secret and lies: what it says has its MAC, and still is not taken for more than it is.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use glasshouse_core::fixed::{Digest48, Fixed};
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::Endpoint;

use super::{AgentClient, ClientError};
use crate::wire::{ArtifactEntry, Hello, MAC_HEADER, MacKey, ResponseHead, SegmentId, WireCode, WireError};

fn secret() -> Secret<32> {
    Secret::take(&mut [9; 32])
}

/// Answers each request with what `say` makes of its line, under the MAC of the secret.
fn agent(say: fn(&str) -> (u16, Vec<u8>)) -> AgentClient {
    AgentClient::new(&Endpoint::Direct(agent_at(say)), &secret()).unwrap()
}

fn agent_at(say: fn(&str) -> (u16, Vec<u8>)) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || while answer(stream.as_ref().unwrap(), say).is_some() {});
        }
    });
    address
}

fn answer(mut stream: &TcpStream, say: fn(&str) -> (u16, Vec<u8>)) -> Option<()> {
    let head: Vec<String> =
        BufReader::with_capacity(1, stream).lines().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
    let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length: u64 = field("content-length").map_or(0, |length| length.parse().unwrap());
    std::io::copy(&mut stream.take(length), &mut std::io::sink()).ok()?;
    let request: Digest48 = Fixed::from_hex(field(MAC_HEADER)?)?;
    let (status, body) = say(head.first()?);
    let mac = MacKey::derive(&secret()).response(&ResponseHead { request: &request, status, body: &body });
    let head = format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\n{MAC_HEADER}: {mac}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).ok()
}

fn hello() -> (u16, Vec<u8>) {
    let hello = Hello {
        service: "glasshouse-agent".into(),
        version: "0".into(),
        name: "a".into(),
        boot: Fixed([1; 32]),
        pid: 1,
        boot_millis: 1,
        segments: Vec::new(),
    };
    (200, serde_json::to_vec(&hello).unwrap())
}

#[tokio::test]
async fn an_artifact_is_as_long_as_it_was_said_to_be() {
    let client = agent(|line| match line {
        _ if line.contains("/hello") => hello(),
        _ if line.contains("name=long") => (200, vec![7; 1000]),
        _ if line.contains("offset=0") => (200, vec![7; 400]),
        _ => (200, Vec::new()),
    });
    let id = SegmentId::new("a").unwrap();
    let fetch = async |name: &str, size| client.artifact(&id, &ArtifactEntry { name: name.into(), size }).await;
    assert_eq!(fetch("long", 1000).await.unwrap(), vec![7; 1000]);
    for (name, size) in [("long", 999), ("short", 401), ("long", u64::MAX), ("long", u64::MAX >> 1)] {
        let error = fetch(name, size).await.unwrap_err();
        assert!(matches!(error, ClientError::Nonsense { step: "artifact", .. }), "{name} {size}: {error}");
    }
}

#[tokio::test]
async fn what_an_agent_says_with_its_mac_keeps_its_code() {
    let client = agent(|line| match line {
        _ if line.contains("/hello") => hello(),
        _ => (410, serde_json::to_vec(&WireError::new(WireCode::SegmentEnded, "it is gone")).unwrap()),
    });
    let error = client.command(&SegmentId::new("a").unwrap(), vec![1]).await.unwrap_err();
    assert_eq!(error.refused().unwrap(), &WireError::new(WireCode::SegmentEnded, "it is gone"));
}

/// Set in the process whose environment has a proxy: where the agent is.
const BEHIND_A_PROXY: &str = "GLASSHOUSE_TEST_DIRECT_PORT";

/// A proxy in the environment is none of a direct address's business. The environment is read when a client is made, so
/// this takes a process of its own.
#[tokio::test]
async fn a_direct_address_is_reached_past_the_owners_proxy() {
    let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in proxy.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let agent = agent_at(|_| hello());
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "client::tests::behind_a_proxy", "--ignored", "--nocapture"]).env("http_proxy", proxy_url);
    child.env_remove("no_proxy").env_remove("NO_PROXY").env(BEHIND_A_PROXY, agent.port().to_string());
    let ended = child.output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"));
}

#[tokio::test]
#[ignore = "the process of the test above"]
async fn behind_a_proxy() {
    let Some(port) = std::env::var(BEHIND_A_PROXY).ok().and_then(|port| port.parse::<u16>().ok()) else { return };
    // This machine, by the one address of it that is none of loopback's.
    let endpoint = Endpoint::Direct((Ipv4Addr::UNSPECIFIED, port).into());
    assert_eq!(AgentClient::new(&endpoint, &secret()).unwrap().try_hello().await.unwrap().name, "a");
}

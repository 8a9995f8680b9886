//! Where the owner of a case stops between two messages, and what it acknowledged.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use glasshouse_provider::wire::AckRequest;

use crate::hooks::{folder, stop_at};
use crate::relay::{self, Request};

/// File with the last sequence number of each acknowledgement, one a line, before it leaves.
const ACKNOWLEDGED: &str = "acknowledged";
/// Whether the segment has said how it ended.
pub(crate) static REPORTED: AtomicBool = AtomicBool::new(false);

/// What a relay before the agent does with each request.
pub(crate) fn tap(upstream: SocketAddr, request: &Request, client: &mut TcpStream) -> bool {
    let line = request.line.as_str();
    let answer = match line {
        "GET /v1/hello" => {
            stop_at("hello");
            relay::forward(upstream, &request.bytes)
        }
        _ if line.starts_with("PUT /v1/packages/") => {
            relay::forward_with(upstream, &request.bytes, || stop_at("upload"))
        }
        _ if line.ends_with("/challenge") => {
            stop_at("await-challenge");
            let evidence = relay::forward(upstream, &request.bytes);
            stop_at("evidence-sent");
            evidence
        }
        _ if line.ends_with("/release") => {
            let released = relay::forward(upstream, &request.bytes);
            stop_at("release-sent");
            released
        }
        _ if line.ends_with("/ack") => {
            // The last one comes after the terminal event; those before it while the segment works.
            let last = REPORTED.load(Ordering::SeqCst);
            if last {
                stop_at("await-ack");
            }
            note_acknowledged(&request.bytes);
            let acknowledged = relay::forward(upstream, &request.bytes);
            if last {
                stop_at("acknowledged");
            }
            acknowledged
        }
        _ => relay::forward(upstream, &request.bytes),
    };
    answer.is_ok_and(|answer| client.write_all(&answer).is_ok())
}

fn note_acknowledged(request: &[u8]) {
    let body = &request[relay::head_end(request).unwrap()..];
    let AckRequest { through } = serde_json::from_slice(body).unwrap();
    let path = folder().unwrap().join(ACKNOWLEDGED);
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{through}\n").as_bytes()).unwrap();
}

/// How often something was acknowledged, and how many records in all.
pub(crate) fn acknowledged(folder: &Path) -> (usize, usize) {
    let text = std::fs::read_to_string(folder.join(ACKNOWLEDGED)).unwrap_or_default();
    let through: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    (through.len(), through.iter().max().map_or(0, |through| through + 1))
}

//! A relay on the loopback interface that sees each request and each answer whole, and does with them what it is told.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A request as it came.
pub(crate) struct Request {
    /// `POST /v1/segments`.
    pub(crate) line: String,
    /// Head and body.
    pub(crate) bytes: Vec<u8>,
}

/// Listens, and hands each request to `serve`, which answers on the stream or closes it by giving `false`.
#[allow(dead_code)] // not in every test that shares this file
pub(crate) fn start(serve: impl Fn(&Request, &mut TcpStream) -> bool + Clone + Send + 'static) -> SocketAddr {
    start_slow(Duration::ZERO, serve)
}

/// The same, with a pause after every few bytes that are read of a request.
pub(crate) fn start_slow(
    pause: Duration,
    serve: impl Fn(&Request, &mut TcpStream) -> bool + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), serve) = (stream, serve.clone()) else { return };
            std::thread::spawn(move || {
                while let Ok(Some(bytes)) = message(&mut stream, pause) {
                    let head = String::from_utf8_lossy(&bytes).into_owned();
                    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
                    if !serve(&Request { line, bytes }, &mut stream) {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Sends a request on and gives the answer, whole.
pub(crate) fn forward(upstream: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    forward_with(upstream, request, || {})
}

/// As [`forward`], with something in the middle of the request.
pub(crate) fn forward_with(upstream: SocketAddr, request: &[u8], middle: impl FnOnce()) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream)?;
    let (first, second) = request.split_at(request.len() / 2);
    stream.write_all(first)?;
    middle();
    stream.write_all(second)?;
    message(&mut stream, Duration::ZERO)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The next message of HTTP/1.1 with its body by `content-length`; nothing at the end of the stream. With a pause, a few
/// bytes at a time.
pub(crate) fn message(stream: &mut TcpStream, pause: Duration) -> io::Result<Option<Vec<u8>>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; if pause.is_zero() { 1 << 16 } else { 1 << 12 }]);
    let mut whole = None;
    while whole.is_none_or(|whole| bytes.len() < whole) {
        let count = stream.read(&mut buffer)?;
        std::thread::sleep(pause);
        match count {
            0 if bytes.is_empty() => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => bytes.extend_from_slice(&buffer[..count]),
        }
        if whole.is_none()
            && let Some(end) = head_end(&bytes)
        {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            whole = Some(end + length.map_or(0, |length| length.trim().parse().unwrap_or(0)));
        }
    }
    Ok(Some(bytes))
}

/// Where the body begins.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

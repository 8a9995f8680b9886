//! A fake of the vendors' services: one HTTP/1.1 server on the loopback, a thread of this process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use glasshouse_attest::collateral::Services;

/// Status, headers and body.
pub(crate) type Page = (u16, Vec<(&'static str, String)>, Vec<u8>);

pub(crate) struct FakeServices {
    pub(crate) address: SocketAddr,
    /// Every path that was asked for, in order.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl FakeServices {
    pub(crate) fn start(pages: BTreeMap<String, Page>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), &pages, &log);
            }
        });
        Self { address, asked }
    }

    pub(crate) fn services(&self) -> Services {
        let at = |path: &str| format!("http://{}{path}", self.address);
        Services {
            intel: at("/intel"),
            intel_root_crl: at("/root.crl"),
            amd: at("/amd"),
            nvidia_rims: at("/nvidia"),
            nvidia_crls: at("/crl"),
            nvidia_rim_crls: at("/crl-corim"),
            nvidia_ocsp: None,
            jwks: BTreeMap::from([(glasshouse_attest_gen::token::NRAS.to_owned(), at("/jwks.json"))]),
        }
    }
}

fn answer(mut stream: TcpStream, pages: &BTreeMap<String, Page>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent)?;
    if let Some(last) = sent.last() {
        // An OCSP request ends with the serial number that it is about.
        path += &format!("#{last:02x}");
    }
    let missing = (404, Vec::new(), b"nothing here".to_vec());
    let (status, headers, body) = pages.get(&path).unwrap_or(&missing);
    log.lock().unwrap().push(path);
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")?;
    stream.write_all(body)
}

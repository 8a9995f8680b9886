//! The sealed package: without a key, and with the key of the committed vectors.

use std::collections::BTreeMap;
use std::io;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use glasshouse_core::claims::Assurance;
use glasshouse_core::fixed::{Digest48, Fixed};
use glasshouse_core::manifest::{MANIFEST_FORMAT, Manifest};
use glasshouse_core::package::{EntrySink, OpenedPackage, PackageDigests, PackageError, inspect, open, open_into};
use glasshouse_core::secret::Secret;
use glasshouse_core::transcript::sha384;

use super::{line, mode};
use crate::check;

/// The good package of the committed vectors: four chunks of 4 KiB, the last one short.
pub const GOOD: &[u8] = include_bytes!("../../../glasshouse-core/tests/vectors/package/good.ghpkg");
const GOOD_DIGESTS: &str = include_str!("../../../glasshouse-core/tests/vectors/package/good.json");
/// Its chunks, with their tags.
const SEALED_CHUNK: usize = 4096 + 16;
const KEY: [u8; 32] = [0x42; 32];

/// `a`: a package. `b`: a manifest in a line of its own, and ciphertext. `c`: names in a line of their own and any
/// plaintext, sealed here, which must open as an independent reading of it says. `d`: edits of the good package.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', package)) => whole(package),
        Some((b'b', bytes)) => {
            let (manifest, ciphertext) = line(bytes);
            whole(&[&header(manifest), ciphertext].concat());
        }
        Some((b'c', bytes)) => {
            let (names, plaintext) = line(bytes);
            resealed(names, plaintext);
        }
        Some((b'd', edits)) => whole(&edited(edits)),
        _ => {}
    }
}

fn key() -> Secret<32> {
    Secret::take(&mut { KEY })
}

fn header(manifest: &[u8]) -> Vec<u8> {
    [b"GHPKG/1\n".as_slice(), &(manifest.len() as u32).to_be_bytes(), manifest].concat()
}

/// Only the good package opens as the good package; anything else is refused with a code.
fn whole(bytes: &[u8]) {
    let good: PackageDigests = serde_json::from_str(GOOD_DIGESTS).unwrap();
    match open(bytes, &key(), &good) {
        Ok(opened) => {
            assert!(bytes == GOOD, "two packages of one digest");
            entries_fit(&opened);
        }
        Err(error) => {
            assert!(bytes != GOOD);
            refused(&error);
        }
    }
    let seen = match inspect(bytes) {
        Ok(seen) => seen,
        Err(error) => return refused(&error),
    };
    assert_eq!(seen.bytes, bytes.len() as u64);
    assert_eq!(seen.digests == good, bytes == GOOD);
    assert_eq!(seen.digests.manifest, sha384(seen.manifest.to_bytes().expect("an accepted manifest")));
    // A forged chunk is looked for at every other place: keep that short.
    if seen.manifest.layout().expect("an accepted manifest").chunks() <= 64 {
        match open(bytes, &key(), &seen.digests) {
            Ok(opened) => entries_fit(&opened),
            Err(error) => refused(&error),
        }
    }
}

fn refused(error: &PackageError) {
    check::one_line(&error.to_string(), 1700);
    check::refusal(&error.refusal().expect("bytes in memory can only be refused"));
}

fn entries_fit(opened: &OpenedPackage) {
    let contents: usize = opened.entries.values().map(|entry| entry.len()).sum();
    let index: usize = opened.manifest.entries.iter().map(|name| 4 + name.len() + 8).sum();
    let plaintext = opened.manifest.layout().expect("an opened package").plaintext_bytes();
    assert_eq!((4 + 10 + 4 + index + contents) as u64, plaintext);
    let mut names = opened.manifest.entries.clone();
    names.sort();
    assert!(opened.entries.keys().eq(&names));
}

/// Behind good tags: the plaintext alone decides.
fn resealed(names: &[u8], plaintext: &[u8]) {
    let Ok(names) = std::str::from_utf8(names) else { return };
    let entries: Vec<String> = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if plaintext.is_empty() || plaintext.len() > 1 << 20 {
        return;
    }
    let manifest = Manifest {
        format: MANIFEST_FORMAT.into(),
        package_id: Fixed([1; 16]),
        workload: "mlp".into(),
        entries,
        public_inputs: Vec::new(),
        public_data: false,
        minimum_assurance: Assurance::SelfReported,
        chunk_bytes: 4096,
        nonce_prefix: Fixed([2; 7]),
        ciphertext_bytes: (plaintext.len() + 16 * plaintext.len().div_ceil(4096)) as u64,
    };
    let Ok(manifest_bytes) = manifest.to_bytes() else { return };
    let mut package = header(&manifest_bytes);
    package.extend(seal(&sha384(&manifest_bytes), plaintext));
    let seen = inspect(package.as_slice()).expect("a package");
    let expected = read_plainly(&manifest.entries, plaintext);
    let mut sink = Collect::default();
    let streamed = open_into(package.as_slice(), &key(), &seen.digests, &mut sink);
    match (open(package.as_slice(), &key(), &seen.digests), expected) {
        (Ok(opened), Some(expected)) => {
            entries_fit(&opened);
            let opened: BTreeMap<_, _> = opened.entries.iter().map(|(n, c)| (n.clone(), c.to_vec())).collect();
            assert_eq!(opened, expected);
            assert_eq!((streamed.is_ok(), sink.0), (true, expected));
        }
        (Err(error), None) => {
            assert!(matches!(error, PackageError::Index { .. }), "{error}");
            refused(&error);
            assert!(streamed.is_err());
        }
        (Ok(_), None) => panic!("an index was accepted that is none"),
        (Err(error), Some(_)) => panic!("a good package was refused: {error}"),
    }
}

fn seal(aad: &Digest48, plaintext: &[u8]) -> Vec<u8> {
    let cipher = Aes256Gcm::new_from_slice(&KEY).unwrap();
    let last = plaintext.len().div_ceil(4096) - 1;
    let chunks = plaintext.chunks(4096).enumerate().map(|(i, text)| {
        let mut nonce = [2; 12];
        nonce[7..11].copy_from_slice(&(i as u32).to_be_bytes());
        nonce[11] = u8::from(i == last);
        cipher.encrypt(&nonce.into(), Payload { msg: text, aad: aad.as_ref() }).unwrap()
    });
    chunks.collect::<Vec<_>>().concat()
}

/// The plaintext as the format's documentation reads, without a thought for speed or memory.
fn read_plainly(names: &[String], plaintext: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let u32_at = |at: usize| Some(u32::from_be_bytes(plaintext.get(at..at + 4)?.try_into().ok()?) as usize);
    let end = 4 + u32_at(0)?;
    let (mut at, mut lengths) = (18, Vec::new());
    if plaintext.get(4..14)? != b"gh/index/1" || u32_at(14)? != names.len() {
        return None;
    }
    for name in names {
        let length = u32_at(at)?;
        (plaintext.get(at + 4..at + 4 + length)? == name.as_bytes()).then_some(())?;
        at += 4 + length;
        lengths.push(u64::from_be_bytes(plaintext.get(at..at + 8)?.try_into().ok()?));
        at += 8;
    }
    (at == end).then_some(())?;
    let mut contents = BTreeMap::new();
    for (name, length) in names.iter().zip(lengths) {
        let next = at.checked_add(usize::try_from(length).ok()?)?;
        contents.insert(name.clone(), plaintext.get(at..next)?.to_vec());
        at = next;
    }
    (at == plaintext.len()).then_some(contents)
}

/// Applies edits of three bytes each to the good package's chunks.
fn edited(edits: &[u8]) -> Vec<u8> {
    let manifest_end = 12 + u32::from_be_bytes(GOOD[8..12].try_into().unwrap()) as usize;
    let mut chunks: Vec<Vec<u8>> = GOOD[manifest_end..].chunks(SEALED_CHUNK).map(<[u8]>::to_vec).collect();
    for edit in edits.chunks_exact(3).take(16) {
        let [what, i, j] = [edit[0], edit[1], edit[2]];
        let n = chunks.len();
        if n == 0 {
            break;
        }
        let (a, b) = (usize::from(i) % n, usize::from(j) % n);
        match what % 6 {
            0 => chunks.swap(a, b),
            1 => chunks[b] = chunks[a].clone(),
            2 => chunks.insert(b, chunks[a].clone()),
            3 => drop(chunks.remove(a)),
            4 => {
                let at = usize::from(j) * 16 % chunks[a].len().max(1);
                if let Some(byte) = chunks[a].get_mut(at) {
                    *byte ^= 1 << (j % 8);
                }
            }
            _ => chunks[a].truncate(usize::from(j) * 16),
        }
    }
    [&GOOD[..manifest_end], &chunks.concat()].concat()
}

/// Keeps what it is given.
#[derive(Default)]
struct Collect(BTreeMap<String, Vec<u8>>, String);

impl EntrySink for Collect {
    fn begin(&mut self, name: &str, _bytes: u64) -> io::Result<()> {
        name.clone_into(&mut self.1);
        assert!(self.0.insert(name.to_owned(), Vec::new()).is_none(), "an entry began twice");
        Ok(())
    }

    fn piece(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.0.get_mut(&self.1).expect("an entry began").extend_from_slice(plaintext);
        Ok(())
    }
}

//! Sealed packages through the public API: what was sealed opens, and nothing else does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, Read};

use glasshouse_core::claims::Assurance;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::manifest::{ManifestError, PublicInput};
use glasshouse_core::package::{
    EntrySink, Input, PackageBuilder, PackageDigests, PackageError, SealedPackage, Source, inspect, inspect_file, open,
    open_file, open_into,
};
use glasshouse_core::secret::{Secret, SecretBuffer};
use proptest::prelude::*;

const CHUNK: usize = 4096;
const SEALED_CHUNK: usize = CHUNK + 16;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn seal(entries: &[(&str, &[u8])]) -> (SealedPackage, Vec<u8>) {
    let builder = PackageBuilder::new("mlp").chunk_bytes(CHUNK as u32).minimum_assurance(Assurance::SelfReported);
    let mut bytes = Vec::new();
    let add = |b: PackageBuilder<'static>, (name, content): &(&str, &[u8])| {
        b.entry(*name, Source::Memory(SecretBuffer::new(content.to_vec())))
    };
    let sealed = entries.iter().fold(builder, add).seal_to(&mut bytes).unwrap();
    assert_eq!(sealed.bytes, bytes.len() as u64);
    (sealed, bytes)
}

/// A package of `chunks` full chunks and a short one, and where its ciphertext begins.
fn example(chunks: usize) -> (SealedPackage, Vec<u8>, usize) {
    let (sealed, bytes) = seal(&[("data.bin", &content(chunks * CHUNK))]);
    let start = bytes.len() - sealed.manifest.ciphertext_bytes as usize;
    (sealed, bytes, start)
}

fn refused(sealed: &SealedPackage, bytes: &[u8]) -> PackageError {
    open(bytes, &sealed.data_key, &sealed.digests).err().expect("a tampered package was opened")
}

fn code(sealed: &SealedPackage, bytes: &[u8]) -> String {
    refused(sealed, bytes).refusal().expect("a refusal").code.to_string()
}

#[test]
fn sizes_around_chunk_boundaries() {
    // The index of one entry named `d` takes 4 + 10 + 4 + 4 + 1 + 8 = 31 bytes before the content.
    for around in [0, CHUNK, 2 * CHUNK, 3 * CHUNK] {
        for length in (around.saturating_sub(34)..around + 3).chain([around + CHUNK / 2]) {
            let data = content(length);
            let (sealed, bytes) = seal(&[("d", &data)]);
            assert_eq!(sealed.manifest.layout().unwrap().chunks(), (length + 31).div_ceil(CHUNK) as u64);
            let opened = open(bytes.as_slice(), &sealed.data_key, &sealed.digests).unwrap();
            assert_eq!(*opened.entries["d"], *data, "{length}");
            let seen = inspect(bytes.as_slice()).unwrap();
            assert_eq!((seen.digests, seen.bytes), (sealed.digests, sealed.bytes));
        }
    }
}

#[test]
fn batches_are_put_together_in_order() {
    // A batch is 512 chunks: more than two batches, and entries across them.
    let (a, b, c) = (content(700 * CHUNK), content(0), content(400 * CHUNK + 5));
    let (sealed, bytes) = seal(&[("a", &a), ("b", &b), ("c", &c), ("d", b"")]);
    let opened = open(bytes.as_slice(), &sealed.data_key, &sealed.digests).unwrap();
    assert!(*opened.entries["a"] == *a && *opened.entries["b"] == *b && *opened.entries["c"] == *c);
    assert!(opened.entries["d"].is_empty());
    assert_eq!(inspect(bytes.as_slice()).unwrap().digests, sealed.digests);
    let read = open(Input::reader(bytes.as_slice()), &sealed.data_key, &sealed.digests).unwrap();
    assert!(read.entries.iter().all(|(name, content)| **content == *opened.entries[name]));
    assert_eq!(inspect(Input::reader(bytes.as_slice())).unwrap().digests, sealed.digests);
    let mut taken = Taken::default();
    open_into(bytes.as_slice(), &sealed.data_key, &sealed.digests, &mut taken).unwrap();
    let entries = taken.0.iter().map(|(name, bytes, pieces)| (name.as_str(), *bytes, pieces == &*opened.entries[name]));
    let lengths = [("a", a.len()), ("b", 0), ("c", c.len()), ("d", 0)];
    assert_eq!(entries.collect::<Vec<_>>(), lengths.map(|(name, bytes)| (name, bytes as u64, true)));

    let start = bytes.len() - sealed.manifest.ciphertext_bytes as usize;
    let place = |i: usize| start + i * SEALED_CHUNK..start + (i + 1) * SEALED_CHUNK;
    let mut far = bytes.clone();
    let (early, late) = (bytes[place(5)].to_vec(), bytes[place(1_050)].to_vec());
    far[place(5)].copy_from_slice(&late);
    assert!(matches!(refused(&sealed, &far), PackageError::ChunkReordered { chunk: 5, belongs: 1_050 }));
    far[place(1_050)].copy_from_slice(&early);
    assert!(matches!(refused(&sealed, &far), PackageError::ChunkSwapped { chunk: 5, with: 1_050 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_sealed_opens(lengths in prop::collection::vec(0usize..9000, 0..6)) {
        let entries: Vec<_> = lengths.iter().enumerate().map(|(i, n)| (format!("entry {i}"), content(*n))).collect();
        let named: Vec<_> = entries.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
        let (sealed, bytes) = seal(&named);
        let opened = open(bytes.as_slice(), &sealed.data_key, &sealed.digests).unwrap();
        prop_assert_eq!(&opened.manifest, &sealed.manifest);
        prop_assert_eq!(opened.entries.len(), entries.len());
        for (name, data) in &entries {
            prop_assert_eq!(&*opened.entries[name], data.as_slice());
        }
    }

    #[test]
    fn every_flipped_bit_is_refused(at: prop::sample::Index, bit in 0u8..8) {
        let (sealed, mut bytes, start) = example(2);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let code = code(&sealed, &bytes);
        let allowed: &[&str] = if at < 12 {
            &["package-malformed", "package-truncated", "manifest-malformed", "manifest-hash-mismatch"]
        } else if at < start {
            &["manifest-hash-mismatch"]
        } else {
            &["package-chunk-forged"]
        };
        prop_assert!(allowed.contains(&code.as_str()), "{code} at {at}");
        if let Ok(seen) = inspect(bytes.as_slice()) {
            prop_assert_ne!(seen.digests.package, sealed.digests.package);
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, start in prop::bool::ANY) {
        let (sealed, good, _) = example(0);
        let bytes = if start { [&good[..12], &bytes].concat() } else { bytes };
        prop_assert!(open(bytes.as_slice(), &sealed.data_key, &sealed.digests).is_err());
        prop_assert!(inspect(bytes.as_slice()).is_err());
    }
}

#[test]
fn every_truncation_is_refused() {
    let (sealed, bytes, start) = example(1);
    for length in (0..bytes.len()).filter(|n| *n < start + 20 || n % 7 == 0 || bytes.len() - n < 40) {
        let expected = if length < 12 { "package-malformed" } else { "package-truncated" };
        assert_eq!(code(&sealed, &bytes[..length]), expected, "{length}");
        assert!(inspect(&bytes[..length]).is_err());
    }
}

#[test]
fn each_tamper_has_its_own_code() {
    let (sealed, bytes, start) = example(4);
    let place = |i: usize| start + i * SEALED_CHUNK..start + (i + 1) * SEALED_CHUNK;
    let with = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut tampered = bytes.clone();
        f(&mut tampered);
        code(&sealed, &tampered)
    };
    let (_, other, _) = example(4);

    assert_eq!(with(&|b| b.truncate(place(3).start)), "package-truncated");
    assert_eq!(with(&|b| b.truncate(b.len() - 1)), "package-truncated");
    assert_eq!(with(&|b| b.push(0)), "package-extended");
    assert_eq!(with(&|b| b.extend_from_within(place(1))), "package-extended");
    assert_eq!(with(&|b| b[place(1)].swap_with_slice(&mut bytes[place(2)].to_vec())), "package-chunk-reordered");
    assert_eq!(
        with(&|b| {
            b.copy_within(place(2), place(1).start);
            b[place(2)].copy_from_slice(&bytes[place(1)]);
        }),
        "package-chunk-swapped"
    );
    assert_eq!(with(&|b| b[place(0).start..place(3).end].rotate_left(SEALED_CHUNK)), "package-chunk-reordered");
    assert_eq!(with(&|b| b.copy_within(place(1), place(3).start)), "package-chunk-repeated");
    assert_eq!(with(&|b| b[place(1)].copy_from_slice(&other[place(1)])), "package-chunk-forged");
    assert_eq!(with(&|b| b[place(0)].copy_from_slice(&other[place(0)])), "package-chunk-forged");
    assert_eq!(with(&|b| b[start..].copy_from_slice(&other[start..])), "package-unopenable");
    assert_eq!(with(&|b| b.copy_from_slice(&other)), "manifest-hash-mismatch");
    assert_eq!(with(&|b| b[0] = b'X'), "package-malformed");

    let text = String::from_utf8_lossy(&bytes[12..start]).replace("SelfReported", "selfReported");
    assert_eq!(with(&|b| b[12..start].copy_from_slice(text.as_bytes())), "manifest-hash-mismatch");
    let mut edited = bytes.clone();
    edited[12..start].copy_from_slice(text.as_bytes());
    assert_eq!(inspect(edited.as_slice()).unwrap_err().refusal().unwrap().code.as_str(), "manifest-malformed");
}

#[test]
fn a_wrong_key_and_another_digest_are_refused() {
    let (sealed, bytes, _) = example(3);
    let other_key = Secret::random().unwrap();
    let refusal = open(bytes.as_slice(), &other_key, &sealed.digests).err().unwrap().refusal().unwrap();
    assert_eq!(refusal.code.as_str(), "package-unopenable");

    let other = PackageDigests { package: Fixed([0; 48]), ..sealed.digests };
    let refusal = open(bytes.as_slice(), &sealed.data_key, &other).err().unwrap().refusal().unwrap();
    assert_eq!(refusal.code.as_str(), "package-digest-mismatch");
}

#[test]
fn an_edited_manifest_that_its_reader_expects_still_opens_nothing() {
    let (sealed, bytes, start) = example(1);
    let text = String::from_utf8_lossy(&bytes[12..start]).replace("\"public_data\":false", "\"public_data\":true");
    let length = (text.len() as u32).to_be_bytes();
    let edited = [&bytes[..8], &length, text.as_bytes(), &bytes[start..]].concat();
    let digests = inspect(edited.as_slice()).unwrap().digests;
    let error = open(edited.as_slice(), &sealed.data_key, &digests).err().unwrap();
    assert!(matches!(error, PackageError::Unopenable), "{error}");
}

#[test]
fn from_files_and_readers_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (input, package) = (folder.path().join("in"), folder.path().join("out.ghpkg"));
    let data = content(3 * CHUNK + 17);
    std::fs::write(&input, &data).unwrap();
    std::fs::write(&package, "an older package").unwrap();
    let pinned = PublicInput { name: "base".into(), sha256: Fixed([9; 32]), bytes: 4, source: "hf://a/b@c".into() };
    let sealed = PackageBuilder::new("mlp")
        .entry("file", Source::File(input.clone()))
        .entry("slice", Source::Slice(&data))
        .entry("reader", Source::Reader { read: Box::new(data.as_slice()), bytes: data.len() as u64 })
        .public_input(pinned.clone())
        .data_is_public()
        .seal_to_file(&package)
        .unwrap();
    assert_eq!(sealed.manifest.minimum_assurance, Assurance::CpuTeeGpuCc, "the default must be the strictest");
    let opened = open_file(&package, &sealed.data_key, &sealed.digests).unwrap();
    assert_eq!((&opened.manifest.public_inputs, opened.manifest.public_data), (&vec![pinned], true));
    for name in ["file", "slice", "reader"] {
        assert_eq!(*opened.entries[name], *data);
    }
    assert_eq!(inspect_file(&package).unwrap().digests, sealed.digests);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "a scratch file was left behind");
}

#[test]
fn nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("out.ghpkg");
    let data = content(5 * CHUNK);
    let reader = |bytes: u64| Source::Reader { read: Box::new(data.as_slice()), bytes };
    for wrong in [0, data.len() as u64 - 1, data.len() as u64 + 1] {
        let builder = PackageBuilder::new("mlp").entry("a", reader(wrong));
        let error = builder.seal_to_file(&package).err().unwrap();
        assert!(matches!(error, PackageError::SourceChanged { .. }), "{error}");
    }
    let missing = PackageBuilder::new("mlp").entry("a", Source::File(folder.path().join("missing")));
    assert!(matches!(missing.seal_to_file(&package), Err(PackageError::File { .. })));
    let directory = PackageBuilder::new("mlp").entry("a", Source::File(folder.path().to_owned()));
    assert!(matches!(directory.seal_to_file(&package), Err(PackageError::File { .. })));
    let nowhere = PackageBuilder::new("mlp").seal_to_file(folder.path().join("no/such/folder"));
    assert!(matches!(nowhere, Err(PackageError::File { .. })));
    let name = PackageBuilder::new("mlp").entry("../a", Source::Slice(b"")).seal_to_file(&package);
    assert!(matches!(name, Err(PackageError::Manifest(ManifestError::Name { .. }))));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "a failed seal left a file behind");
}

/// A sink that keeps each entry's name, its length as it was told, and its pieces.
#[derive(Default)]
struct Taken(Vec<(String, u64, Vec<u8>)>);

impl EntrySink for Taken {
    fn begin(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.0.push((name.to_owned(), bytes, Vec::new()));
        Ok(())
    }
    fn piece(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.0.last_mut().expect("an entry that began").2.extend_from_slice(plaintext);
        Ok(())
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the disk is gone"))
    }
}

impl EntrySink for Broken {
    fn begin(&mut self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn piece(&mut self, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other("the sink is full"))
    }
}

/// Every other read is interrupted by a signal, and the others give one byte.
struct Stutters<'a>(&'a [u8], bool);

impl Read for Stutters<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        let one = to.len().min(1);
        if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut to[..one]) }
    }
}

#[test]
fn a_read_that_a_signal_interrupts_goes_on() {
    let (sealed, bytes, _) = example(1);
    let opened = open(Input::reader(Stutters(&bytes, false)), &sealed.data_key, &sealed.digests).unwrap();
    assert_eq!(*opened.entries["data.bin"], *content(CHUNK));
}

#[test]
fn failures_of_others_are_said_and_are_no_refusals() {
    let source = PackageBuilder::new("mlp").entry("a", Source::Reader { read: Box::new(Broken), bytes: 5 });
    let error = source.seal_to(io::sink()).err().unwrap();
    assert_eq!(error.to_string(), "entry a cannot be read: the disk is gone");
    assert!(error.refusal().is_none());

    let (sealed, bytes, _) = example(1);
    let error = open_into(bytes.as_slice(), &sealed.data_key, &sealed.digests, &mut Broken).unwrap_err();
    assert_eq!(error.to_string(), "entry data.bin was not taken: the sink is full");
    let error = inspect(Input::reader(&bytes[..bytes.len() - 1])).unwrap_err();
    assert!(matches!(error, PackageError::Truncated { what: "ciphertext", .. }), "{error}");
    let error = open(Input::reader(Broken), &sealed.data_key, &sealed.digests).err().unwrap();
    assert_eq!(error.to_string(), "the package cannot be read: the disk is gone");
}

//! Committed vectors, named by defect. They fix the format: bytes that an earlier version sealed must open for ever.
//!
//! `GLASSHOUSE_WRITE_VECTORS=1 cargo test -p glasshouse-core --lib package::vectors` writes them; without the variable
//! the test compares. `tests/vectors/package/README.md` describes the files.

use std::path::PathBuf;

use super::seal::Fresh;
use super::{PackageBuilder, PackageDigests, SealedPackage, Source, inspect, open};
use crate::claims::Assurance;
use crate::fixed::Fixed;
use crate::manifest::PublicInput;
use crate::secret::Secret;

const KEY: [u8; 32] = [0x42; 32];
const CHUNK: usize = 4096 + 16;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/package").join(name)
}

/// Four chunks, the last one short.
fn good() -> (SealedPackage, Vec<u8>) {
    let data: Vec<u8> = (0..3 * 4096 + 100).map(|i: u32| (i % 251) as u8).collect();
    let public =
        PublicInput { name: "base.safetensors".into(), sha256: Fixed([7; 32]), bytes: 12, source: "hf://a/b@c".into() };
    let fresh = Fresh {
        data_key: Secret::take(&mut { KEY }),
        package_id: Fixed(*b"vector package 1"),
        nonce_prefix: Fixed(*b"prefix7"),
    };
    let mut bytes = Vec::new();
    let sealed = PackageBuilder::new("mlp")
        .entry("config.json", Source::Slice(b"{\"seed\":1}"))
        .entry("empty", Source::Slice(b""))
        .entry("data.bin", Source::Slice(&data))
        .public_input(public)
        .minimum_assurance(Assurance::CpuTee)
        .chunk_bytes(4096)
        .seal_with(fresh, &mut bytes)
        .unwrap();
    (sealed, bytes)
}

/// Every bad vector with the code that it must be refused with.
fn bad(good: &[u8], ciphertext: usize) -> Vec<(&'static str, Vec<u8>)> {
    let start = good.len() - ciphertext;
    let place = |i: usize| start + i * CHUNK..start + (i + 1) * CHUNK;
    let edit = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        f(&mut bytes);
        bytes
    };
    vec![
        ("package-malformed", edit(&|b| b[6] = b'2')),
        ("manifest-hash-mismatch", edit(&|b| b[start - 2] ^= 1)),
        ("package-truncated", edit(&|b| b.truncate(place(3).start))),
        ("package-extended", edit(&|b| b.extend_from_within(place(3).start..))),
        ("package-chunk-forged", edit(&|b| b[place(1).start] ^= 1)),
        ("package-unopenable", edit(&|b| (0..4).for_each(|i| b[place(i).start] ^= 1))),
        (
            "package-chunk-swapped",
            edit(&|b| {
                b[place(0)].copy_from_slice(&good[place(2)]);
                b[place(2)].copy_from_slice(&good[place(0)]);
            }),
        ),
        ("package-chunk-reordered", edit(&|b| b[place(0).start..place(2).end].rotate_right(CHUNK))),
        ("package-chunk-repeated", edit(&|b| b.copy_within(place(0), place(2).start))),
    ]
}

#[test]
fn vectors() {
    let (sealed, bytes) = good();
    let ciphertext = usize::try_from(sealed.manifest.ciphertext_bytes).unwrap();
    let digests = serde_json::to_string_pretty(&sealed.digests).unwrap() + "\n";
    let mut files = vec![("good.ghpkg".to_owned(), bytes.clone()), ("good.json".to_owned(), digests.into_bytes())];
    files.extend(bad(&bytes, ciphertext).into_iter().map(|(code, bytes)| (format!("{code}.ghpkg"), bytes)));
    let write = std::env::var_os("GLASSHOUSE_WRITE_VECTORS").is_some();
    for (name, bytes) in &files {
        if write {
            std::fs::write(file(name), bytes).unwrap();
        }
        let committed = std::fs::read(file(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(committed == *bytes, "{name} is not what this version writes; the format changed");
    }

    // From here on only what is committed counts.
    let digests: PackageDigests = serde_json::from_slice(&std::fs::read(file("good.json")).unwrap()).unwrap();
    let key = Secret::take(&mut { KEY });
    let good = std::fs::read(file("good.ghpkg")).unwrap();
    let opened = open(good.as_slice(), &key, &digests).unwrap();
    assert_eq!(&*opened.entries["config.json"], b"{\"seed\":1}");
    assert_eq!(inspect(good.as_slice()).unwrap().digests, digests);
    for entry in std::fs::read_dir(file("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(code) = name.strip_suffix(".ghpkg").filter(|name| *name != "good") else { continue };
        let refusal = open(std::fs::read(&path).unwrap().as_slice(), &key, &digests).err().unwrap().refusal().unwrap();
        assert_eq!(refusal.code.as_str(), code);
    }
}

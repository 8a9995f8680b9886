//! Every changed bit and every cut of accepted evidence is refused, or changes nothing of the claims.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use glasshouse_attest::nvidia::{NvidiaRoots, VerifiedRim, verify_rim};
use glasshouse_core::clock::UnixMillis;
use proptest::prelude::*;

use crate::common::tried;
use crate::corpus::{Case, cases, corpus, device_cases, read, time};

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

fn accepted() -> Vec<Case> {
    device_cases().into_iter().filter(|case| case.accept).collect()
}

#[test]
fn changes_of_a_report() {
    if corpus().is_none() {
        return;
    }
    for case in accepted() {
        case.verify().unwrap();
        for bit in tried(case.report.len() * 8, 60) {
            let refusal = case.verify_parts(&flipped(&case.report, bit), &case.chain).expect_err(&case.id);
            assert_eq!(refusal.code.as_str(), "signature", "{} bit {bit}", case.id);
        }
        for length in tried(case.report.len(), 30) {
            let refusal = case.verify_parts(&case.report[..length], &case.chain).expect_err(&case.id);
            assert_eq!(refusal.code.as_str(), "signature", "{} cut to {length}", case.id);
        }
    }
}

#[test]
fn changes_of_a_chain() {
    if corpus().is_none() {
        return;
    }
    for case in accepted() {
        let chain = certificates(&case.chain);
        assert!(case.verify_parts(&case.report, &pem(&chain)).is_ok());
        for (i, certificate) in chain.iter().enumerate() {
            let refused = |changed: Vec<u8>, told: String| {
                let mut chain = chain.clone();
                chain[i] = changed;
                let refusal = case.verify_parts(&case.report, &pem(&chain)).expect_err(&told);
                assert!(["chain", "signature"].contains(&refusal.code.as_str()), "{told}: {refusal}");
            };
            for bit in tried(certificate.len() * 8, 15) {
                refused(flipped(certificate, bit), format!("{} certificate {i} bit {bit}", case.id));
            }
            for length in tried(certificate.len(), 5) {
                refused(certificate[..length].to_vec(), format!("{} certificate {i} cut to {length}", case.id));
            }
        }
    }
}

/// Nothing in a manifest is without meaning but white space between the signature's parts and inside its base64, and
/// no single bit leads from one white space to another.
#[test]
fn changes_of_a_manifest() {
    if corpus().is_none() {
        return;
    }
    for (name, at) in manifests() {
        let (document, at) = (read(&name), time(&at));
        let claims = verify(&document, at).unwrap();
        for bit in tried(document.len() * 8, 60) {
            assert_eq!(verify(&flipped(&document, bit), at), None, "{name} bit {bit}");
        }
        for length in tried(document.len(), 40) {
            let rest = document[length..].trim_ascii();
            let expected = rest.is_empty().then_some(&claims);
            assert_eq!(verify(&document[..length], at).as_ref(), expected, "{name} cut to {length}");
        }
    }
}

/// Every manifest of a case that is accepted, with that case's time.
fn manifests() -> BTreeMap<String, String> {
    let all = cases();
    let accepted = all.iter().filter(|case| case["expect"] == "accept");
    let of = |case: &serde_json::Value| {
        let names = [case["rims"].as_array().cloned().unwrap_or_default(), vec![case["rim"].clone()]].concat();
        let at = case["at"].as_str().unwrap().to_owned();
        names.into_iter().filter_map(move |name| Some((name.as_str()?.to_owned(), at.clone()))).collect::<Vec<_>>()
    };
    accepted.flat_map(of).collect()
}

fn verify(document: &[u8], at: UnixMillis) -> Option<VerifiedRim> {
    verify_rim(document, &NvidiaRoots::nvidia().rim, at).ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Pieces of a manifest moved, doubled or dropped: refused, or the same claims.
    #[test]
    fn pieces_of_a_manifest(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..400, 0u8..3, any::<prop::sample::Index>()), 1..4)) {
        if corpus().is_none() {
            return Ok(());
        }
        let (name, at) = ("nvidia/h100_full/driver_rim_545.00.swidtag", "2024-01-01T00:00:00Z");
        let document = read(name);
        let mut edited = document.clone();
        for (from, length, kind, to) in edits {
            let start = from.index(edited.len());
            let end = (start + length).min(edited.len());
            let piece: Vec<u8> = if kind == 0 { edited[start..end].to_vec() } else { edited.drain(start..end).collect() };
            if kind < 2 {
                let at = to.index(edited.len());
                edited.splice(at..at, piece);
            }
        }
        if let Some(rim) = verify(&edited, time(at)) {
            prop_assert_eq!(Some(rim), verify(&document, time(at)));
        }
    }

    #[test]
    fn random_bytes_never_panic(report: Vec<u8>, chain: Vec<u8>, rim: Vec<u8>) {
        if corpus().is_none() {
            return Ok(());
        }
        let mut case = accepted().swap_remove(0);
        prop_assert!(case.verify_parts(&report, &case.chain).is_err());
        prop_assert!(case.verify_parts(&case.report, &chain).is_err());
        case.rims.push(rim);
        prop_assert!(case.verify().is_err());
    }
}

fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(pem).unwrap();
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let body = |block: &str| block.split("-----END").next().unwrap().split_whitespace().collect::<String>();
    blocks.map(|block| STANDARD.decode(body(block)).unwrap()).collect()
}

fn pem(chain: &[Vec<u8>]) -> Vec<u8> {
    let block =
        |der: &Vec<u8>| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    chain.iter().map(block).collect::<String>().into_bytes()
}

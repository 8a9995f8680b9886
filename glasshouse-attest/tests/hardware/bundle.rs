//! Bundles of collateral: signed, versioned, never older than the newest seen.

use std::fs;
use std::io::Write as _;

use glasshouse_attest::collateral::{Bundle, CollateralError, CollateralStore};
use glasshouse_attest_gen::{AUDIT_TIME, Platform, bundle};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::secret::Secret;
use proptest::prelude::*;

use crate::session::Session;

pub(crate) fn key() -> SigningSecret {
    SigningSecret::from_seed(Secret::take(&mut [7; 32]))
}

fn signed(version: u64) -> Vec<u8> {
    bundle(version).sign(&key())
}

fn open(folder: &std::path::Path) -> CollateralStore {
    CollateralStore::open(folder, key().public()).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T, CollateralError>, code: &str) {
    match result {
        Err(CollateralError::Refused(refusal)) => {
            assert_eq!(refusal.code.as_str(), code, "{refusal}");
            assert!(refusal.advice.is_some());
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_bundle_carries_all_that_an_appraisal_needs() {
    let folder = tempfile::tempdir().unwrap();
    let collateral = open(folder.path()).accept(&signed(1), AUDIT_TIME).unwrap();
    let mut session = Session::new(Platform::tdx(1));
    session.collateral = collateral;
    session.appraise(&session.make()).unwrap();
}

#[test]
fn older_versions_are_refused_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(store.newest(), None);
    assert!(store.cached(AUDIT_TIME).unwrap().is_none());
    store.accept(&signed(5), AUDIT_TIME).unwrap();
    store.accept(&signed(5), AUDIT_TIME).unwrap();
    refused(store.accept(&signed(4), AUDIT_TIME), "collateral-rollback");
    let mut other = bundle(5);
    other.nvidia.crls.clear();
    other.not_after = UnixMillis(other.not_after.0 + 1);
    refused(store.accept(&other.sign(&key()), AUDIT_TIME), "collateral-fork");
    store.accept(&signed(9), AUDIT_TIME).unwrap();
    drop(store);

    let store = open(folder.path());
    assert_eq!(store.newest(), Some(9));
    refused(store.accept(&signed(5), AUDIT_TIME), "collateral-rollback");
    assert!(store.cached(AUDIT_TIME).unwrap().is_some());
    // An old file put back into the cache is no way around it.
    fs::write(folder.path().join("bundle.json"), signed(5)).unwrap();
    refused(store.cached(AUDIT_TIME), "collateral-rollback");
}

/// The envelope is nobody's word: whoever has the file can write the same bundle in another spelling, and that is neither
/// another bundle nor a way to call the store's word into doubt.
#[test]
fn the_same_bundle_in_another_envelope() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let file = signed(5);
    store.accept(&file, AUDIT_TIME).unwrap();
    let envelope: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let spaced = serde_json::to_vec_pretty(&envelope).unwrap();
    let turned = format!("{{\"signature\":{},\"payload\":{}}}", envelope["signature"], envelope["payload"]);
    for other in [spaced.as_slice(), turned.as_bytes()] {
        assert_ne!(other, file);
        store.accept(other, AUDIT_TIME).unwrap();
    }
    assert_eq!(fs::read_to_string(folder.path().join("seen.jsonl")).unwrap().lines().count(), 1);
}

/// A version that was seen and whose bytes did not come to be kept: the same bundle is kept when it comes again.
#[test]
fn bytes_that_were_not_kept_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.accept(&signed(5), AUDIT_TIME).unwrap();
    fs::remove_file(folder.path().join("bundle.json")).unwrap();
    assert!(store.cached(AUDIT_TIME).unwrap().is_none());
    store.accept(&signed(5), AUDIT_TIME).unwrap();
    assert!(store.cached(AUDIT_TIME).unwrap().is_some());
}

#[test]
fn another_key_has_versions_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).accept(&signed(5), AUDIT_TIME).unwrap();
    let other = SigningSecret::from_seed(Secret::take(&mut [8; 32]));
    let store = CollateralStore::open(folder.path(), other.public()).unwrap();
    refused(store.accept(&signed(6), AUDIT_TIME), "bundle-signature");
    store.accept(&bundle(1).sign(&other), AUDIT_TIME).unwrap();
    drop(store);
    assert_eq!(open(folder.path()).newest(), Some(5));
}

#[test]
fn times() {
    let file = signed(1);
    let open = |at| Bundle::open(&file, &key().public(), at).map_err(|refusal| refusal.code.to_string());
    let Bundle { issued_at, not_after, .. } = bundle(1);
    assert!(open(issued_at).is_ok() && open(not_after).is_ok());
    assert_eq!(open(UnixMillis(issued_at.0 - 1)), Err("bundle-expired".to_owned()));
    assert_eq!(open(UnixMillis(not_after.0 + 1)), Err("bundle-expired".to_owned()));
}

#[test]
fn what_a_crash_or_a_hand_did_to_the_store() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).accept(&signed(5), AUDIT_TIME).unwrap();
    let path = folder.path().join("seen.jsonl");
    let append = |bytes: &[u8]| fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
    append(b"{\"key\":\"");
    let store = open(folder.path());
    assert_eq!(store.newest(), Some(5));
    assert!(matches!(CollateralStore::open(folder.path(), key().public()), Err(CollateralError::InUse { .. })));
    store.accept(&signed(6), AUDIT_TIME).unwrap();
    drop(store);
    assert_eq!(open(folder.path()).newest(), Some(6));
    let whole = fs::read(&path).unwrap();
    for damage in [&b"{}\n"[..], b"nonsense\n", whole.split_inclusive(|b| *b == b'\n').next().unwrap()] {
        fs::write(&path, &whole).unwrap();
        append(damage);
        let told = CollateralStore::open(folder.path(), key().public()).unwrap_err().to_string();
        assert!(told.contains("seen.jsonl cannot be read"), "{told}");
    }
}

/// No bit of the file is without meaning, and no cut of it is a bundle.
#[test]
fn changes_of_a_bundle() {
    let (file, public) = (Bundle::new(3, UnixMillis(0), AUDIT_TIME).sign(&key()), key().public());
    let open = |bytes: &[u8]| Bundle::open(bytes, &public, AUDIT_TIME);
    let good = open(&file).unwrap();
    assert_eq!(good.version, 3);
    for bit in 0..file.len() * 8 {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&changed).is_err(), "bit {bit}");
    }
    for length in 0..file.len() {
        assert!(open(&file[..length]).is_err(), "cut to {length}");
    }
    assert!(Bundle::open(&file, &PublicKey32::from([0; 32]), AUDIT_TIME).is_err());
}

#[test]
fn contents_that_are_none() {
    let mut broken = bundle(1);
    broken.intel[0].0.truncate(10);
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    refused(store.accept(&broken.sign(&key()), AUDIT_TIME), "collateral-malformed");
    let mut broken = bundle(1);
    broken.jwks.insert("x".into(), glasshouse_core::fixed::Blob(b"{}".to_vec()));
    refused(store.accept(&broken.sign(&key()), AUDIT_TIME), "jwks-malformed");
    let mut broken = bundle(1);
    broken.schema = "glasshouse-collateral/2".into();
    refused(store.accept(&broken.sign(&key()), AUDIT_TIME), "bundle-malformed");
    assert_eq!(store.newest(), None, "what is not taken is not remembered");
}

proptest! {
    #[test]
    fn never_panics(bytes: Vec<u8>) {
        prop_assert!(Bundle::open(&bytes, &key().public(), AUDIT_TIME).is_err());
    }
}

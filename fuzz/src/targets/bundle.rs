//! Signed bundles of collateral.

use std::sync::LazyLock;

use glasshouse_attest::collateral::{Bundle, codes};
use glasshouse_attest::{tdx, tokens};
use glasshouse_attest_gen::nvidia::{CrlDraft, OcspDraft};
use glasshouse_attest_gen::tdx::CollateralDraft;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Blob;
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::transcript::Transcript;
use serde_json::{Value, json};

use super::mode;
use crate::check;
use crate::keys::{AT, GATE, OTHER};

/// A small bundle: lists, an OCSP answer, Intel's collateral, key sets.
pub static GOOD: LazyLock<Bundle> = LazyLock::new(|| {
    let day = 86_400_000;
    let mut bundle = Bundle::new(7, UnixMillis(AT.0 - day), UnixMillis(AT.0 + day));
    bundle.intel = vec![Blob(CollateralDraft::default().json())];
    bundle.nvidia.crls = vec![Blob(CrlDraft::new("family").der())];
    bundle.nvidia.ocsp = vec![Blob(OcspDraft::good("family", 3).der())];
    bundle.nvidia.rims.insert("NV_GPU_DRIVER_GH100_580.95.05".to_owned(), Blob(b"<a/>".to_vec()));
    bundle.jwks.insert("https://issuer.example".to_owned(), Blob(super::tokens::key_set_json()));
    bundle
});

/// Its payload.
pub fn payload() -> Vec<u8> {
    serde_json::to_vec(&*GOOD).unwrap()
}

/// An envelope around any payload, signed here.
pub fn sealed(payload: &[u8]) -> Vec<u8> {
    let signature = GATE.sign(&Transcript::new("gh/collateral/1").lp(payload).into_bytes());
    serde_json::to_vec(&json!({"payload": Blob(payload.to_vec()), "signature": signature})).unwrap()
}

/// `a`: a whole file. `b`: a payload, signed here.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', file)) => {
            if let Some(bundle) = open(file) {
                assert_eq!(bundle, *GOOD, "a bundle that nobody signed");
            }
        }
        Some((b'b', payload)) => {
            let file = sealed(payload);
            let Some(bundle) = open(&file) else { return };
            kept(&serde_json::from_slice(payload).unwrap(), &serde_json::to_value(&bundle).unwrap());
            assert!(bundle.issued_at <= AT && AT <= bundle.not_after);
            assert!(Bundle::open(&file, &OTHER.public(), AT).is_err(), "under another key");
            let over = UnixMillis(bundle.not_after.0.saturating_add(1));
            assert!(over == bundle.not_after || Bundle::open(&file, &GATE.public(), over).is_err(), "over");
            assert_eq!(open(&bundle.sign(&GATE)), Some(bundle.clone()));
            match bundle.collateral() {
                Ok(collateral) => {
                    assert_eq!(collateral.intel.len(), bundle.intel.len());
                    assert_eq!(collateral.jwks.len(), bundle.jwks.len());
                    assert_eq!(collateral.nvidia.ocsp.len(), bundle.nvidia.ocsp.len());
                }
                Err(refusal) => known(&refusal, &[tdx::codes::ALL, tokens::codes::ALL].concat()),
            }
        }
        _ => {}
    }
}

/// Whatever stood there was read; what is left out has its default, which is empty.
fn kept(read: &Value, said: &Value) {
    match (read, said) {
        (Value::Object(a), Value::Object(b)) => a.iter().for_each(|(name, value)| kept(value, &b[name])),
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| kept(a, b));
        }
        // As in `check::faithful`: a struct out of a list of its fields.
        (Value::Array(a), Value::Object(b)) => assert!(a.len() <= b.len()),
        _ => assert_eq!(read, said, "something was read and changed"),
    }
}

fn open(file: &[u8]) -> Option<Bundle> {
    match Bundle::open(file, &GATE.public(), AT) {
        Ok(bundle) => Some(bundle),
        Err(refusal) => {
            known(&refusal, codes::ALL);
            None
        }
    }
}

fn known(refusal: &Refusal, codes: &[Code]) {
    check::refusal_of(refusal, codes);
}

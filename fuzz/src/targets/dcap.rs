//! TDX quotes with their collateral: this workspace's own checks around `dcap-qvl`, and its decision behind them.

use std::sync::LazyLock;

use glasshouse_attest::ReportData;
use glasshouse_attest::tdx::{Body, Collateral, DcapClaims, DcapVerifier, TcbStatus, codes, quote_fmspc};
use glasshouse_attest_gen::tdx::{Authority, CollateralDraft, PckDraft, QuoteDraft, policy, root};
use glasshouse_core::fixed::{Digest64, Fixed};
use glasshouse_core::transcript::sha256;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::Value;

use super::mode;
use crate::check;
use crate::keys::{AT, pem, tlv};

const REPORT_DATA: Digest64 = Fixed([7; 64]);
/// Where the parts of the good quote end: header and TD report, their signature, the attestation key, the quoting
/// enclave's report and its signature, the quoting enclave's data with its length.
const ENDS: [usize; 6] = [632, 700, 764, 1154, 1218, 1252];

/// A quote that is good.
pub static QUOTE: LazyLock<Vec<u8>> = LazyLock::new(|| QuoteDraft::default().make(&REPORT_DATA));
/// The collateral that it is good with, JSON.
pub static COLLATERAL: LazyLock<Vec<u8>> = LazyLock::new(|| CollateralDraft::default().json());
static MADE: LazyLock<Collateral> = LazyLock::new(|| Collateral::parse(&COLLATERAL).unwrap());
static CLAIMS: LazyLock<DcapClaims> = LazyLock::new(|| verify(&QUOTE, &MADE).expect("a good quote"));
static VERIFIER: LazyLock<DcapVerifier> = LazyLock::new(|| DcapVerifier::new(policy(), root()));

fn verify(quote: &[u8], collateral: &Collateral) -> Option<DcapClaims> {
    match VERIFIER.verify_tdx(quote, collateral, ReportData::Full(&REPORT_DATA), AT) {
        Ok(claims) => {
            check::labelled(&claims.labelled());
            Some(claims)
        }
        Err(refusal) => {
            check::refusal_of(&refusal, codes::ALL);
            None
        }
    }
}

/// `a`: a quote. `b`: header and TD report, signed here. `c`: the quoting enclave's report, signed here. `d`: the
/// platform's chain in a good quote. `e`: collateral. `f`: TCB information, `g`: the quoting enclave's identity, signed
/// here. `h`: the platform's certificate, `i`: its authority's revocation list, signed here.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', quote)) => whole(quote),
        Some((b'b', signed)) => signed_here(signed),
        Some((b'c', report)) => enclave(report),
        Some((b'd', chain)) => {
            if let Some(claims) = verify(&with_chain(chain), &MADE) {
                assert_eq!(claims, *CLAIMS);
            }
        }
        Some((b'e', json)) => {
            if let Some(claims) = with_collateral(json) {
                assert_eq!(claims, *CLAIMS);
            }
        }
        Some((b'f', json)) => tcb_info(json),
        Some((b'g', json)) => {
            document("qe_identity", json);
        }
        Some((b'h', tbs)) => {
            let der = certified(tbs);
            let chain = [der, Authority::PlatformCa.certificate(), Authority::Root.certificate()];
            if let Some(claims) = verify(&with_chain(&pem(&chain)), &MADE) {
                assert_eq!(claims, *CLAIMS, "another platform's key, TCB or FMSPC");
            }
        }
        Some((b'i', tbs)) => revoked(tbs),
        _ => {}
    }
}

/// Accepted is what the platform signed: but for the other signature that ECDSA has, white space in PEM, and zeros behind.
fn whole(quote: &[u8]) {
    let platform = quote_fmspc(quote);
    let Some(claims) = verify(quote, &MADE) else { return };
    assert_eq!((platform, &claims), (Some(CLAIMS.fmspc), &*CLAIMS));
    for part in [0..ENDS[0], ENDS[1]..ENDS[3], ENDS[4]..ENDS[5]] {
        // The two lengths inside depend on the chain's white space.
        let lengths = |at: usize| (766..770).contains(&at);
        assert!(part.clone().all(|at| quote[at] == QUOTE[at] || lengths(at)), "{part:?}");
    }
}

fn signer(label: &str) -> SigningKey {
    SigningKey::from_slice(sha256(label).as_bytes()).unwrap()
}

fn signed_here(signed: &[u8]) {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| signer("Generated TDX attestation key"));
    let signature: Signature = KEY.sign(signed);
    let quote = [signed, &QUOTE[ENDS[0]..ENDS[0] + 4], &signature.to_bytes(), &QUOTE[ENDS[1]..]].concat();
    let Some(claims) = verify(&quote, &MADE) else { return };
    let Body::Td(td) = &claims.body else { panic!("a TD became an enclave") };
    let start = match signed[0] {
        4 => 48,
        5 => 54,
        version => panic!("version {version}"),
    };
    let at = |offset: usize, length: usize| &signed[start + offset..start + offset + length];
    assert_eq!((at(520, 64), at(136, 48)), (&[7; 64][..], td.mrtd.as_bytes().as_slice()));
    assert_eq!((at(120, 8), at(0, 16)), (&td.attributes.0[..], &td.tee_tcb_svn.0[..]));
    for (i, register) in td.rtmr.iter().enumerate() {
        assert_eq!(at(328 + 48 * i, 48), register.as_bytes());
    }
    assert_eq!(td.attributes.0[0], 0, "a TD that can be debugged");
    let Body::Td(good) = &CLAIMS.body else { unreachable!() };
    assert_eq!((td.mrtd, td.rtmr), (good.mrtd, good.rtmr));
    assert!(claims.measured && claims.tcb_status == TcbStatus::UpToDate);
}

/// The quoting enclave that is accepted is Intel's by its identity, and reported this attestation key.
fn enclave(report: &[u8]) {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| signer("Generated SGX PCK Certificate"));
    let signature: Signature = KEY.sign(report);
    let quote = [&QUOTE[..770], report, &signature.to_bytes(), &QUOTE[ENDS[4]..]].concat();
    let Some(claims) = verify(&quote, &MADE) else { return };
    assert_eq!(claims, *CLAIMS);
    let good = &QUOTE[770..ENDS[3]];
    // MRSIGNER, ISVPRODID, REPORTDATA.
    for part in [128..160, 256..258, 320..384] {
        assert_eq!(report[part.clone()], good[part.clone()], "{part:?}");
    }
    assert_eq!(report[48] & 2, 0, "a quoting enclave that can be debugged");
}

/// The good quote with another chain in it, lengths put right.
fn with_chain(chain: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let inside = [&QUOTE[770..ENDS[5]], &[5, 0], &length(chain.len()), chain].concat();
    let auth = [&QUOTE[636..ENDS[2]], &[6, 0], &length(inside.len()), &inside].concat();
    [&QUOTE[..ENDS[0]], &length(auth.len()), &auth].concat()
}

fn with_collateral(json: &[u8]) -> Option<DcapClaims> {
    match Collateral::parse(json) {
        Ok(collateral) => verify(&QUOTE, &collateral),
        Err(refusal) => {
            check::refusal_of(&refusal, codes::ALL);
            None
        }
    }
}

/// The good collateral with a document that Intel's signer signed for it.
fn document(name: &str, json: &[u8]) -> Option<DcapClaims> {
    let text = std::str::from_utf8(json).ok()?;
    let mut collateral: Value = serde_json::from_slice(&COLLATERAL).unwrap();
    collateral[name] = text.into();
    collateral[format!("{name}_signature")] = hex::encode(Authority::TcbSigner.sign(json)).into();
    let claims = with_collateral(&serde_json::to_vec(&collateral).unwrap())?;
    let good = &*CLAIMS;
    assert_eq!((&claims.body, claims.tcb_status), (&good.body, good.tcb_status));
    assert_eq!((claims.fmspc, claims.measured), (good.fmspc, good.measured));
    Some(claims)
}

/// TCB information that is accepted is of this platform and of this time.
fn tcb_info(json: &[u8]) {
    let Some(claims) = document("tcb_info", json) else { return };
    let read: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(read["fmspc"].as_str().unwrap().to_lowercase(), claims.fmspc.to_string());
    assert_eq!(read["id"], "TDX");
    let number = read["tcbEvaluationDataNumber"].as_u64().unwrap();
    assert!(u64::from(claims.evaluation_data_number) <= number);
}

/// A certificate or list of ECDSA P-256 that the platforms' authority signed.
fn certified(tbs: &[u8]) -> Vec<u8> {
    const ECDSA_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let signature = Signature::from_slice(&Authority::PlatformCa.sign(tbs)).unwrap().to_der();
    tlv(0x30, &[tbs, ECDSA_SHA256, &tlv(3, &[&[0], signature.as_bytes()])])
}

/// A list that names the platform's certificate refuses it, whatever else the list says.
fn revoked(tbs: &[u8]) {
    use x509_cert::crl::CertificateList;
    use x509_cert::der::Decode as _;
    let der = certified(tbs);
    let mut collateral: Value = serde_json::from_slice(&COLLATERAL).unwrap();
    collateral["pck_crl"] = hex::encode(&der).into();
    let Some(claims) = with_collateral(&serde_json::to_vec(&collateral).unwrap()) else { return };
    assert_eq!(claims, *CLAIMS);
    let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der).unwrap().tbs_cert_list;
    let serial = PckDraft::default().serial;
    let named = list.revoked_certificates.iter().flatten().any(|entry| entry.serial_number.as_bytes() == [serial]);
    assert!(!named, "revoked, and accepted");
}

//! OCSP answers that were kept: believed when the issuer, or whom it named for that, signed them for this time.

use glasshouse_attest::nvidia::{DeviceClaims, NvidiaCollateral, NvidiaVerifier, codes};
use glasshouse_attest::x509::{OcspAnswer, X509Error};
use glasshouse_attest_gen::nvidia::{
    CrlDraft, Draft, Machine, Manifest, OcspDraft, extension, names_list, names_responder, ocsp_answer, purpose, roots,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::GpuEvidence;
use glasshouse_core::fixed::{Fixed, Nonce32};
use glasshouse_core::refusal::{Code, Refusal};
use proptest::prelude::*;
use serde_json::json;

use crate::corpus::time;

const NONCE: Nonce32 = Fixed([6; 32]);

fn now() -> UnixMillis {
    time("2026-11-23T00:00:00Z")
}

fn verify(answers: &[Vec<u8>], crls: &[Vec<u8>], strict: bool) -> Result<Vec<DeviceClaims>, Refusal> {
    let evidence = GpuEvidence([1, 2].map(|number| Machine::gpu(number).evidence(&NONCE)).to_vec());
    let rims = [Manifest::driver().document(), Manifest::vbios().document()];
    let rims: Vec<_> = rims.iter().map(String::as_bytes).collect();
    let [ocsp, crls] = [answers, crls].map(|all| all.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let policy = serde_json::from_value(json!({"require_crls": strict})).unwrap();
    let collateral = NvidiaCollateral { rims: &rims, crls: &crls, ocsp: &ocsp };
    NvidiaVerifier::new(policy, roots()).verify_all(&evidence, collateral, &NONCE, now())
}

#[track_caller]
fn refused(answer: &OcspDraft, code: Code) {
    let refusal = verify(&[answer.der()], &[], false).expect_err("should be refused");
    assert_eq!(refusal.code, code, "{refusal}");
    assert!(refusal.advice.is_some(), "{refusal}");
}

/// About the chip family's authority, and about the provisioner.
fn upper() -> [OcspDraft; 2] {
    [OcspDraft::good("device root", 2), OcspDraft::good("family", 3)]
}

/// About whoever signed the manifests, from the leaf up.
fn signers() -> [OcspDraft; 3] {
    [OcspDraft::good("RIM L3", 9), OcspDraft::good("RIM CA", 8), OcspDraft::good("RIM root", 7)]
}

#[test]
fn an_answer_stands_for_a_list() {
    let [family, provisioner] = upper().map(|draft| draft.der());
    let strict = |answers: &[&Vec<u8>], crls: &[Vec<u8>]| {
        let signers = signers().map(|draft| draft.der());
        verify(&answers.iter().copied().chain(&signers).cloned().collect::<Vec<_>>(), crls, true)
    };
    assert!(strict(&[&family, &provisioner], &[]).is_ok());
    assert!(strict(&[&family], &[CrlDraft::new("family").der()]).is_ok());
    for missing in [strict(&[&family], &[]), strict(&[&provisioner], &[]), strict(&[], &[])] {
        assert_eq!(missing.unwrap_err().code, codes::CRL);
    }
    // Of another certificate of the same issuer, or of another issuer's with the same number: about nobody here.
    for other in [OcspDraft::revoked("device root", 9), OcspDraft::revoked("stranger", 2)] {
        assert!(verify(&[other.der()], &[], false).is_ok());
    }
}

/// Blackwell's boot-ROM certificates name a responder, Hopper's do not: what can be asked must have been asked.
#[test]
fn a_boot_rom_certificate_that_names_a_responder() {
    let rims = [Manifest::driver().document(), Manifest::vbios().document()];
    let rims: Vec<_> = rims.iter().map(String::as_bytes).collect();
    let verify = |tells: Option<Vec<u8>>, more: Option<OcspDraft>, strict: bool| {
        let mut machine = Machine::gpu(2);
        machine.chain[1].extensions.extend(tells);
        let evidence = GpuEvidence(vec![machine.evidence(&NONCE)]);
        let answers: Vec<_> = upper().into_iter().chain(signers()).chain(more).map(|draft| draft.der()).collect();
        let ocsp: Vec<_> = answers.iter().map(Vec::as_slice).collect();
        let policy = serde_json::from_value(json!({"require_crls": strict})).unwrap();
        let collateral = NvidiaCollateral { rims: &rims, crls: &[], ocsp: &ocsp };
        let verified = NvidiaVerifier::new(policy, roots()).verify_all(&evidence, collateral, &NONCE, now());
        verified.map(|_| ()).map_err(|refusal| refusal.code)
    };
    assert_eq!(verify(None, None, true), Ok(()), "Hopper");
    for tells in [names_responder("http://ocsp.example"), names_list("http://crl.example/l4.crl")] {
        assert_eq!(verify(Some(tells.clone()), None, true), Err(codes::CRL));
        assert_eq!(verify(Some(tells.clone()), None, false), Ok(()));
        assert_eq!(verify(Some(tells.clone()), Some(OcspDraft::good("provisioner", 2)), true), Ok(()));
        assert_eq!(verify(Some(tells), Some(OcspDraft::revoked("provisioner", 2)), true), Err(codes::REVOKED));
    }
}

#[test]
fn every_signer_of_a_manifest_is_asked_about() {
    let devices = upper().map(|draft| draft.der());
    for missing in 0..signers().len() {
        let others = signers().into_iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, draft)| draft.der());
        let answers: Vec<_> = devices.iter().cloned().chain(others).collect();
        let refusal = verify(&answers, &[], true).unwrap_err();
        let issuer = &signers()[missing].issuer;
        assert!(refusal.code == codes::CRL && refusal.seen.contains(issuer.as_str()), "{refusal}");
        assert!(verify(&answers, &[], false).is_ok(), "asked for only where the policy says so");
        // The issuer's list does as well.
        let list = CrlDraft::new(["RIM L3", "RIM CA", "RIM root"][missing]).der();
        assert!(verify(&answers, &[list], true).is_ok());
    }
    for (revoked, at) in signers().iter().zip(0..) {
        let mut answers: Vec<_> = devices.iter().cloned().chain(signers().map(|draft| draft.der())).collect();
        assert!(verify(&answers, &[], true).is_ok());
        answers[devices.len() + at] = OcspDraft::revoked(&revoked.issuer, revoked.serial).der();
        assert_eq!(verify(&answers, &[], true).unwrap_err().code, codes::RIM_REVOKED);
    }
}

#[test]
fn revoked_by_an_answer() {
    for (issuer, serial) in [("device root", 2), ("family", 3), ("provisioner", 2), ("GH100 A01 GSP BROM 1", 1)] {
        refused(&OcspDraft::revoked(issuer, serial), codes::REVOKED);
    }
    refused(&OcspDraft::revoked("RIM L3", 9), codes::RIM_REVOKED);
    // A list that says otherwise does not outweigh it.
    let both = verify(&[OcspDraft::revoked("family", 3).der()], &[CrlDraft::new("family").der()], true);
    assert_eq!(both.unwrap_err().code, codes::REVOKED);
    let two = [OcspDraft::good("family", 3).der(), OcspDraft::revoked("family", 3).der()];
    assert_eq!(verify(&two, &[], false).unwrap_err().code, codes::REVOKED);
}

#[test]
fn answers_that_cannot_be_used() {
    let good = OcspDraft::good("family", 3);
    assert!(verify(&[good.der()], &[], false).is_ok());
    refused(&OcspDraft { status: vec![0x82, 0], ..good.clone() }, codes::OCSP);
    refused(&OcspDraft { until: Some("20261122120000Z"), ..good.clone() }, codes::OCSP);
    refused(&OcspDraft { from: "20261123000001Z", ..good.clone() }, codes::OCSP);
    refused(&OcspDraft { until: None, ..good.clone() }, codes::OCSP);
    refused(&OcspDraft { status: vec![0x83, 0], ..good.clone() }, codes::OCSP);
    let critical = extension(&[6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 9], true, &[5, 0]);
    refused(&OcspDraft { extensions: vec![critical], ..good.clone() }, codes::OCSP);
    let nonce = extension(&[6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2], false, &[4, 1, 7]);
    assert!(verify(&[OcspDraft { extensions: vec![nonce], ..good.clone() }.der()], &[], false).is_ok());
    // try-later, without an answer
    let later = verify(&[vec![0x30, 3, 10, 1, 3]], &[], false).unwrap_err();
    assert!(later.code == codes::OCSP && later.seen.contains("an error instead of an answer"), "{later}");
    let refusal = verify(&[good.der()[..90].to_vec()], &[], false).unwrap_err();
    assert_eq!(refusal.code, codes::OCSP);
}

#[test]
fn who_may_answer() {
    let good = OcspDraft::good("family", 3);
    let responder = |change: &dyn Fn(&mut Draft)| {
        let mut draft = good.clone();
        change(draft.responder.as_mut().unwrap());
        draft
    };
    // Signed by a key that the certificate beside it does not hold, by nobody's, by another authority's responder.
    refused(&responder(&|one| one.key = "stranger".to_owned()), codes::OCSP);
    refused(&OcspDraft { responder: None, ..good.clone() }, codes::OCSP);
    refused(&responder(&|one| one.issuer = "device root".to_owned()), codes::OCSP);
    refused(&responder(&|one| one.signer = "stranger".to_owned()), codes::OCSP);
    // Not given out for answers, or for more than answers.
    refused(&responder(&|one| one.extensions.clear()), codes::OCSP);
    refused(&responder(&|one| one.extensions = vec![purpose(3)]), codes::OCSP);
    refused(&responder(&|one| one.ca = Some(true)), codes::OCSP);
    refused(&responder(&|one| one.usage = 0x04), codes::OCSP);
    refused(&responder(&|one| one.until = "20261101000000Z"), codes::OCSP);
    // Revoked itself.
    let list = CrlDraft { serials: vec![0x70], ..CrlDraft::new("family") };
    assert_eq!(verify(&[good.der()], &[list.der()], false).unwrap_err().code, codes::REVOKED);
    // An authority signs answers itself only where its certificate says that it signs more than certificates and lists.
    refused(&OcspDraft { signer: "family".to_owned(), responder: None, ..good.clone() }, codes::OCSP);
    let mut machine = Machine::gpu(1);
    machine.chain[3].usage = 0x86;
    let evidence = GpuEvidence(vec![machine.evidence(&NONCE)]);
    let rims = [Manifest::driver().document(), Manifest::vbios().document()];
    let rims: Vec<_> = rims.iter().map(String::as_bytes).collect();
    let verify = |answer: &OcspDraft| {
        let ocsp = answer.der();
        let collateral = NvidiaCollateral { rims: &rims, crls: &[], ocsp: &[&ocsp] };
        let verifier = NvidiaVerifier::new(serde_json::from_str("{}").unwrap(), roots());
        verifier.verify_all(&evidence, collateral, &NONCE, now()).map_err(|refusal| refusal.code)
    };
    let own = OcspDraft { signer: "family".to_owned(), responder: None, ..good };
    assert!(verify(&own).is_ok());
    let revoked = OcspDraft { status: OcspDraft::revoked("family", 3).status, ..own };
    assert_eq!(verify(&revoked).unwrap_err(), codes::REVOKED);
}

#[test]
fn no_other_bytes() {
    let draft = OcspDraft::good("family", 3);
    let der = draft.der();
    assert!(OcspAnswer::from_der(&der).is_ok());
    for length in 0..der.len() {
        assert!(OcspAnswer::from_der(&der[..length]).is_err(), "{length}");
    }
    assert!(OcspAnswer::from_der(&[der.as_slice(), &[0]].concat()).is_err());
    // Names by a digest that is not computed here name nobody: refused, so that what is said is not passed over in silence.
    let tbs = draft.tbs();
    let sha384 = [6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
    let at = tbs.windows(sha384.len()).position(|window| window == sha384).unwrap();
    let mut other = tbs.clone();
    other[at + 10] = 3;
    let error = OcspAnswer::from_der(&ocsp_answer(&other, "responder", draft.responder.as_ref())).unwrap_err();
    assert!(matches!(error, X509Error::OcspMalformed { part } if part.contains("another digest")), "{error}");
}

proptest! {
    #[test]
    fn never_panics(bytes: Vec<u8>, at in any::<prop::sample::Index>(), value: u8) {
        let _ = OcspAnswer::from_der(&bytes);
        let draft = OcspDraft::good("family", 3);
        let mut tbs = draft.tbs();
        let at = at.index(tbs.len());
        tbs[at] = value;
        let _ = OcspAnswer::from_der(&ocsp_answer(&tbs, "responder", draft.responder.as_ref()));
    }
}

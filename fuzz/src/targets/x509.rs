//! Certificates, chains and revocation lists of ECDSA P-384.

use std::sync::LazyLock;

use glasshouse_attest::x509::{
    Certificate, Crl, OcspAnswer, Revocation, VerifiedLinks, X509Error, certificates_from_pem, check_revocation,
    check_validity, verify_chain,
};
use glasshouse_attest_gen::nvidia::{Draft, Machine, Manifest, OcspDraft as GoodAnswer, ocsp_answer, roots};
use glasshouse_core::fixed::Digest32;
use glasshouse_core::transcript::sha256;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use super::mode;
use crate::check;
use crate::keys::{AT, certified, pem};

/// A GPU's chain, leaf first.
pub static CHAIN: LazyLock<Vec<Draft>> = LazyLock::new(|| Machine::gpu(1).chain);
static PARSED: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    CHAIN.iter().enumerate().map(|(i, draft)| Certificate::from_der(&draft.der(), i).unwrap()).collect()
});
static ROOTS: LazyLock<Vec<Digest32>> = LazyLock::new(|| {
    let roots = roots();
    [roots.device, roots.rim].concat()
});

/// `a`: a certificate, DER. `b`: a chain, PEM. `c`: a digit, then a certificate of that place to be signed here. `d`: a
/// revocation list. `e`: a revocation list to be signed here by the chip family's authority. `f`: an OCSP answer. `g`: what
/// an OCSP answer says, to be signed here by the chip family's responder.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', der)) => drop(one(der)),
        Some((b'b', text)) => chain(text),
        Some((b'c', bytes)) => issued(bytes),
        Some((b'd', der)) => {
            if let Some(crl) = list(der) {
                // Nobody signed one: it is another issuer's, or refused.
                let name =
                    CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der).unwrap().tbs_cert_list.issuer;
                let ours = CHAIN.iter().any(|draft| name.to_string() == format!("CN={}", draft.subject));
                let result = check_revocation(
                    &PARSED,
                    &Revocation { lists: vec![crl], ..Revocation::default() },
                    usize::MAX,
                    AT,
                    &mut VerifiedLinks::default(),
                );
                assert!(!ours || result.is_err() || good_list(der), "a list that nobody signed");
            }
        }
        Some((b'e', tbs)) => revoked(tbs),
        Some((b'f', der)) => {
            let good = good_answer().tbs();
            assert!(!answered(der) || der.windows(good.len()).any(|part| part == good), "an answer that nobody signed");
        }
        Some((b'g', tbs)) => {
            let GoodAnswer { signer, responder, .. } = good_answer();
            assert!(!answered(&ocsp_answer(tbs, &signer, responder.as_ref())) || says_good(tbs), "not good, or over");
        }
        _ => {}
    }
}

/// That the provisioner is good.
fn good_answer() -> GoodAnswer {
    GoodAnswer::good("family", 3)
}

/// Whether an answer, and nothing else, says that the provisioner is not revoked.
fn answered(der: &[u8]) -> bool {
    let Some(answer) = known(OcspAnswer::from_der(der)) else { return false };
    let (longer, shorter) = ([der, &[0]].concat(), &der[..der.len() - 1]);
    assert!(OcspAnswer::from_der(&longer).is_err() && OcspAnswer::from_der(shorter).is_err());
    let revocation = Revocation { answers: vec![answer], ..Revocation::default() };
    known(check_revocation(&PARSED[2..4], &revocation, 1, AT, &mut VerifiedLinks::default())).is_some()
}

/// Whether it stands there, by the bytes of the generator's own answer: the certificate's name in the terms of its issuer,
/// good, from, until.
fn says_good(tbs: &[u8]) -> bool {
    const AT_TEXT: &[u8] = b"20261123000000Z";
    let made = good_answer().tbs();
    let serial = made.windows(4).position(|part| part == [2, 2, 0x50, 3]).unwrap();
    let id = &made[serial - 100..serial + 4];
    tbs.windows(id.len() + 38).any(|part| {
        let (name, said) = part.split_at(id.len());
        let (from, until) = (&said[4..19], &said[23..38]);
        name == id
            && said[..4] == [0x80, 0, 0x18, 15]
            && said[19..23] == [0xa0, 17, 0x18, 15]
            && from <= AT_TEXT
            && until >= AT_TEXT
    })
}

/// What is parsed is all of the bytes, and is the same when it comes as PEM.
fn one(der: &[u8]) -> Option<Certificate> {
    let parsed = known(Certificate::from_der(der, 0))?;
    assert_eq!(parsed.sha256(), sha256(der));
    assert!(parsed.serial().first() != Some(&0));
    let (from, to) = parsed.validity();
    let _ = (format!("{from} {to}"), parsed.subject());
    assert!(Certificate::from_der(&[der, &[0]].concat(), 0).is_err(), "a byte behind it");
    assert!(Certificate::from_der(&der[..der.len() - 1], 0).is_err(), "a byte less");
    let again = certificates_from_pem(&pem(&[der.to_vec()])).unwrap();
    assert_eq!(again.iter().map(Certificate::sha256).collect::<Vec<_>>(), [parsed.sha256()]);
    assert!(!parsed.signed(der, &[1; 96]));
    Some(parsed)
}

/// A chain that leads to one of the roots is one of those that its authorities made.
fn chain(text: &[u8]) {
    let Some(chain) = known(certificates_from_pem(text)) else { return };
    assert!(chain.len() <= 8);
    if known(verify_chain(&chain, &ROOTS, &mut VerifiedLinks::default())).is_none() {
        return;
    }
    let subjects: Vec<_> = chain.iter().map(Certificate::subject).collect();
    let made = [CHAIN.clone(), Manifest::driver().chain].map(|c| c.into_iter().map(|d| d.subject).collect::<Vec<_>>());
    assert!(made.contains(&subjects), "{subjects:?}");
    assert_eq!(known(check_validity(&chain, AT)), Some(()));
}

/// A certificate that its issuer signed has a place only where its own extensions and its issuer's allow it.
fn issued(bytes: &[u8]) {
    let Some((place @ b'0'..=b'3', tbs)) = mode(bytes) else { return };
    let place = usize::from(place - b'0');
    let der = certified(tbs, &CHAIN[place].signer);
    let Some(certificate) = one(&der) else { return };
    let mut chain = PARSED.clone();
    chain[place] = certificate;
    if known(verify_chain(&chain, &ROOTS, &mut VerifiedLinks::default())).is_none() {
        return;
    }
    let read = x509_cert::Certificate::from_der(&der).unwrap();
    let read = read.tbs_certificate();
    let issuer = x509_cert::Certificate::from_der(&CHAIN[place + 1].der()).unwrap();
    assert_eq!(read.issuer().to_der().unwrap(), issuer.tbs_certificate().subject().to_der().unwrap());
    let basic = read.get_extension::<BasicConstraints>().unwrap().map(|(_, basic)| basic);
    let usage = read.get_extension::<KeyUsage>().unwrap().map(|(_, usage)| usage);
    let authority = basic.as_ref().is_some_and(|basic| basic.ca);
    assert_eq!(authority, place > 0);
    if authority {
        assert!(usage.is_some_and(|usage| usage.key_cert_sign()));
        let below = u8::try_from(place - 1).unwrap();
        assert!(basic.unwrap().path_len_constraint.is_none_or(|most| most >= below));
    } else {
        assert!(usage.is_none_or(|usage| usage.digital_signature()));
    }
    for extension in read.extensions().unwrap() {
        assert!(!extension.critical || ["2.5.29.19", "2.5.29.15"].contains(&extension.extn_id.to_string().as_str()));
    }
}

fn list(der: &[u8]) -> Option<Crl> {
    let list = known(Crl::from_der(der))?;
    assert!(Crl::from_der(&[der, &[0]].concat()).is_err() && Crl::from_der(&der[..der.len() - 1]).is_err());
    Some(list)
}

/// Whether what was signed of a list is what the generator signs.
fn good_list(der: &[u8]) -> bool {
    let made = ["family", "device root"].map(|issuer| glasshouse_attest_gen::nvidia::CrlDraft::new(issuer).der());
    made.iter().any(|made| crate::keys::to_be_signed(made) == crate::keys::to_be_signed(der))
}

/// Behind a good signature: the provisioner passes only while no list of its issuer names it.
fn revoked(tbs: &[u8]) {
    let der = certified(tbs, "family");
    let Some(crl) = list(&der) else { return };
    let read = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der).unwrap().tbs_cert_list;
    let ours = read.issuer.to_string() == "CN=family";
    let millis = |time: x509_cert::time::Time| time.to_unix_duration().as_millis();
    let at = u128::from(AT.0);
    let in_time = millis(read.this_update) <= at && at <= millis(read.next_update.unwrap());
    let named = read.revoked_certificates.iter().flatten().any(|entry| {
        let serial = entry.serial_number.as_bytes();
        serial.iter().skip_while(|byte| **byte == 0).eq(&[0x50, 3])
    });
    match check_revocation(
        &PARSED,
        &Revocation { lists: vec![crl], ..Revocation::default() },
        usize::MAX,
        AT,
        &mut VerifiedLinks::default(),
    ) {
        Ok(()) => assert!(!ours || (in_time && !named), "revoked or out of time, and passed"),
        Err(X509Error::Revoked { .. }) => assert!(ours && in_time && named),
        Err(error) => {
            known::<()>(Err(error));
            assert!(!in_time || !ours);
        }
    }
}

/// What is refused is told in a line.
fn known<T>(result: Result<T, X509Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            check::one_line(&error.to_string(), 600);
            None
        }
    }
}

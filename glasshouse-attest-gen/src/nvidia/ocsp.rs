//! Answers of an OCSP responder (RFC 6960).

use glasshouse_core::transcript::sha384;

use super::certificate::{Draft, ECDSA_SHA384, SHA384_OID, extension, name, public_key, sign};
use crate::der::{oid, tlv};

/// An answer to be: tests change fields before it is signed.
#[derive(Clone)]
pub struct OcspDraft {
    /// Common name of the certificate's issuer, which is the label of its key too.
    pub issuer: String,
    /// Last byte of the certificate's serial number.
    pub serial: u8,
    /// `certStatus`, whole.
    pub status: Vec<u8>,
    /// `thisUpdate`, GeneralizedTime.
    pub from: &'static str,
    /// `nextUpdate`, GeneralizedTime, where there is one.
    pub until: Option<&'static str>,
    /// The key that signs, by label.
    pub signer: String,
    /// The responder's certificate, where the issuer does not sign itself.
    pub responder: Option<Draft>,
    /// Extensions of the answer, whole.
    pub extensions: Vec<Vec<u8>>,
}

impl OcspDraft {
    /// That this certificate of this issuer is good, signed by a responder whom the issuer named.
    pub fn good(issuer: &str, serial: u8) -> Self {
        let mut responder = Draft::new("responder", issuer, 0x70, false);
        responder.extensions.push(purpose(9));
        Self {
            issuer: issuer.to_owned(),
            serial,
            status: vec![0x80, 0],
            from: "20261122000000Z",
            until: Some("20261124000000Z"),
            signer: "responder".to_owned(),
            responder: Some(responder),
            extensions: Vec::new(),
        }
    }

    /// That it is revoked.
    pub fn revoked(issuer: &str, serial: u8) -> Self {
        let status = tlv(0xa1, &[&time("20261101000000Z")]);
        Self { status, ..Self::good(issuer, serial) }
    }

    /// `ResponseData`, which is what is signed.
    pub fn tbs(&self) -> Vec<u8> {
        let digest = |bytes: &[u8]| tlv(4, &[sha384(bytes).as_bytes()]);
        let algorithm = tlv(0x30, &[SHA384_OID, &[5, 0]]);
        let (names, key) = (digest(&name(&self.issuer)), digest(&public_key(&self.issuer)));
        let id = tlv(0x30, &[&algorithm, &names, &key, &[2, 2, 0x50, self.serial]]);
        let until = self.until.map_or(Vec::new(), |until| tlv(0xa0, &[&time(until)]));
        let single = tlv(0x30, &[&id, &self.status, &time(self.from), &until]);
        let responder = tlv(0xa1, &[&name(&self.signer)]);
        let extensions = match self.extensions.is_empty() {
            true => Vec::new(),
            false => tlv(0xa1, &[&tlv(0x30, &[&self.extensions.concat()])]),
        };
        tlv(0x30, &[&responder, &time(self.from), &tlv(0x30, &[&single]), &extensions])
    }

    /// The answer, signed.
    pub fn der(&self) -> Vec<u8> {
        ocsp_answer(&self.tbs(), &self.signer, self.responder.as_ref())
    }
}

/// An answer around `ResponseData`, signed by the key of this label.
pub fn ocsp_answer(tbs: &[u8], signer: &str, responder: Option<&Draft>) -> Vec<u8> {
    let signature = tlv(3, &[&[0], sign(signer, tbs).to_der().as_bytes()]);
    let certificates = responder.map_or(Vec::new(), |one| tlv(0xa0, &[&tlv(0x30, &[&one.der()])]));
    let basic = tlv(0x30, &[tbs, ECDSA_SHA384, &signature, &certificates]);
    let kind = oid(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 1]);
    let bytes = tlv(0x30, &[&kind, &tlv(4, &[&basic])]);
    tlv(0x30, &[&[10, 1, 0], &tlv(0xa0, &[&bytes])])
}

/// The extended key usage of one purpose of RFC 5280 section 4.2.1.12: 9 signs OCSP answers.
pub fn purpose(number: u32) -> Vec<u8> {
    let purpose = oid(&[1, 3, 6, 1, 5, 5, 7, 3, number]);
    extension(&oid(&[2, 5, 0x1d, 0x25]), true, &tlv(0x30, &[&purpose]))
}

/// The extension that names a responder (RFC 5280 section 4.2.2.1).
pub fn names_responder(url: &str) -> Vec<u8> {
    let access = tlv(0x30, &[&oid(&[1, 3, 6, 1, 5, 5, 7, 48, 1]), &tlv(0x86, &[url.as_bytes()])]);
    extension(&oid(&[1, 3, 6, 1, 5, 5, 7, 1, 1]), false, &tlv(0x30, &[&access]))
}

/// The extension that names a revocation list (RFC 5280 section 4.2.1.13).
pub fn names_list(url: &str) -> Vec<u8> {
    let point = tlv(0x30, &[&tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x86, &[url.as_bytes()])])])]);
    extension(&oid(&[2, 5, 0x1d, 0x1f]), false, &tlv(0x30, &[&point]))
}

fn time(text: &str) -> Vec<u8> {
    tlv(0x18, &[text.as_bytes()])
}

//! Certificates and revocation lists of ECDSA P-384, as NVIDIA's chains use them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use glasshouse_core::fixed::Digest48;
use glasshouse_core::transcript::sha384;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};

use crate::der::tlv;

pub(super) const ECDSA_SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const SPKI_ALGORITHM: &[u8] = &[0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];
const COMMON_NAME: &[u8] = &[6, 3, 0x55, 4, 3];
const BASIC_CONSTRAINTS: &[u8] = &[6, 3, 0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[6, 3, 0x55, 0x1d, 0x0f];
const COMPOSITE_DEVICE_ID: &[u8] = &[6, 6, 0x67, 0x81, 5, 5, 4, 1];
const TCB_INFO: &[u8] = &[6, 7, 0x67, 0x81, 5, 5, 4, 1, 1];
pub(super) const SHA384_OID: &[u8] = &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];

/// A certificate to be: tests change fields before it is signed.
#[derive(Clone)]
pub struct Draft {
    /// Common name.
    pub subject: String,
    /// Common name of the issuer.
    pub issuer: String,
    /// Last byte of the serial number, `0x50` before it.
    pub serial: u8,
    /// The subject's key, by label.
    pub key: String,
    /// The issuer's key, by label.
    pub signer: String,
    /// `notAfter`, GeneralizedTime.
    pub until: &'static str,
    /// `cA` of the basic constraints, where there are any.
    pub ca: Option<bool>,
    /// `pathLenConstraint`.
    pub path: Option<u8>,
    /// First byte of the key usage: 0x80 digitalSignature, 0x04 keyCertSign, 0x02 cRLSign.
    pub usage: u8,
    /// Further extensions, whole.
    pub extensions: Vec<Vec<u8>>,
}

impl Draft {
    pub(super) fn new(subject: &str, issuer: &str, serial: u8, ca: bool) -> Self {
        Self {
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            serial,
            key: subject.to_owned(),
            signer: issuer.to_owned(),
            until: "20391231235959Z",
            ca: ca.then_some(true),
            path: None,
            usage: if ca { 0x06 } else { 0x80 },
            extensions: Vec::new(),
        }
    }

    /// The certificate, signed.
    pub fn der(&self) -> Vec<u8> {
        let validity = tlv(0x30, &[&tlv(0x17, &[b"240101000000Z"]), &tlv(0x18, &[self.until.as_bytes()])]);
        let point = public_key(&self.key);
        let spki = tlv(0x30, &[SPKI_ALGORITHM, &tlv(0x03, &[&[0], &point])]);
        let mut extensions = vec![extension(KEY_USAGE, true, &[3, 2, self.usage.trailing_zeros() as u8, self.usage])];
        if let Some(ca) = self.ca {
            let flag: &[u8] = if ca { &[1, 1, 0xff] } else { &[] };
            let path = self.path.map_or(Vec::new(), |n| vec![2, 1, n]);
            extensions.push(extension(BASIC_CONSTRAINTS, true, &tlv(0x30, &[flag, &path])));
        }
        extensions.extend(self.extensions.clone());
        let extensions = tlv(0xa3, &[&tlv(0x30, &[&extensions.concat()])]);
        let serial = [2, 2, 0x50, self.serial];
        let parts: [&[u8]; 8] = [
            &[0xa0, 3, 2, 1, 2],
            &serial,
            ECDSA_SHA384,
            &name(&self.issuer),
            &validity,
            &name(&self.subject),
            &spki,
            &extensions,
        ];
        let tbs = tlv(0x30, &parts);
        let signature = sign(&self.signer, &tbs).to_der();
        tlv(0x30, &[&tbs, ECDSA_SHA384, &tlv(0x03, &[&[0], signature.as_bytes()])])
    }
}

/// An extension of a certificate or list, whole.
pub fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv(0x30, &[oid, critical, &tlv(0x04, &[value])])
}

fn fwid_der(fwid: Digest48) -> Vec<u8> {
    tlv(0x30, &[SHA384_OID, &tlv(0x04, &[fwid.as_bytes()])])
}

pub(super) fn name(name: &str) -> Vec<u8> {
    tlv(0x30, &[&tlv(0x31, &[&tlv(0x30, &[COMMON_NAME, &tlv(0x0c, &[name.as_bytes()])])])])
}

/// A revocation list to be.
#[derive(Clone)]
pub struct CrlDraft {
    /// Common name of the issuer.
    pub issuer: &'static str,
    /// The key that signs, by label.
    pub signer: String,
    /// `thisUpdate`, UTCTime.
    pub from: &'static str,
    /// `nextUpdate`, UTCTime.
    pub until: &'static str,
    /// Last bytes of the revoked serial numbers.
    pub serials: Vec<u8>,
    /// Extensions, whole.
    pub extensions: Vec<Vec<u8>>,
}

impl CrlDraft {
    /// An empty list of this issuer.
    pub fn new(issuer: &'static str) -> Self {
        let number = extension(&[6, 3, 0x55, 0x1d, 0x14], false, &[2, 1, 1]);
        let (from, until) = ("261101000000Z", "270101000000Z");
        Self { issuer, signer: issuer.to_owned(), from, until, serials: Vec::new(), extensions: vec![number] }
    }

    /// The list, signed.
    pub fn der(&self) -> Vec<u8> {
        let time = |text: &str| tlv(0x17, &[text.as_bytes()]);
        let entry = |serial: &u8| tlv(0x30, &[&[2, 2, 0x50, *serial], &time("261102000000Z")]);
        let mut revoked: Vec<u8> = self.serials.iter().flat_map(entry).collect();
        if !revoked.is_empty() {
            revoked = tlv(0x30, &[&revoked]);
        }
        let extensions = tlv(0xa0, &[&tlv(0x30, &[&self.extensions.concat()])]);
        let (issuer, from, until) = (name(self.issuer), time(self.from), time(self.until));
        let tbs = tlv(0x30, &[&[2, 1, 1], ECDSA_SHA384, &issuer, &from, &until, &revoked, &extensions]);
        let signature = sign(&self.signer, &tbs).to_der();
        tlv(0x30, &[&tbs, ECDSA_SHA384, &tlv(0x03, &[&[0], signature.as_bytes()])])
    }
}

/// Hopper's extension.
pub fn composite_device_id(fwid: Digest48) -> Vec<u8> {
    extension(COMPOSITE_DEVICE_ID, false, &tlv(0x30, &[&[2, 1, 1], &tlv(0x30, &[]), &fwid_der(fwid)]))
}

/// Blackwell's extension.
pub fn tcb_info(fwid: Digest48) -> Vec<u8> {
    let other = fwid_der(Digest48::from([0; 48]));
    extension(TCB_INFO, false, &tlv(0x30, &[&[0x83, 1, 1], &tlv(0xa6, &[&fwid_der(fwid), &other])]))
}

/// A key by its label.
fn key(label: &str) -> SigningKey {
    SigningKey::from_slice(sha384(label).as_bytes()).unwrap()
}

/// Signs, and remembers: the tests make the same evidence many times over.
pub fn sign(key: &str, message: &[u8]) -> Signature {
    static MADE: Mutex<BTreeMap<(String, Digest48), Signature>> = Mutex::new(BTreeMap::new());
    let task = (key.to_owned(), sha384(message));
    if let Some(signature) = MADE.lock().unwrap().get(&task) {
        return *signature;
    }
    let signature = self::key(key).sign(message);
    MADE.lock().unwrap().insert(task, signature);
    signature
}

pub(super) fn public_key(label: &str) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    made.entry(label.to_owned()).or_insert_with(|| VerifyingKey::from(&key(label)).to_sec1_bytes().into_vec()).clone()
}

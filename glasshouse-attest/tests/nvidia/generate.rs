//! Makes evidence of devices that do not exist, under roots of its own: certificates, reports and manifests that are
//! right in every respect but the one that a test changes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use glasshouse_attest::nvidia::NvidiaRoots;
use glasshouse_core::evidence::{DeviceEvidence, DeviceKind};
use glasshouse_core::fixed::{Blob, Digest32, Digest48, Nonce32};
use glasshouse_core::transcript::{sha256, sha384};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};

/// A key by its label.
fn key(label: &str) -> SigningKey {
    SigningKey::from_slice(sha384(label).as_bytes()).unwrap()
}

/// Signs, and remembers: the tests make the same evidence many times over.
pub(crate) fn sign(key: &str, message: &[u8]) -> Signature {
    static MADE: Mutex<BTreeMap<(String, Digest48), Signature>> = Mutex::new(BTreeMap::new());
    let task = (key.to_owned(), sha384(message));
    if let Some(signature) = MADE.lock().unwrap().get(&task) {
        return *signature;
    }
    let signature = self::key(key).sign(message);
    MADE.lock().unwrap().insert(task, signature);
    signature
}

fn public_key(label: &str) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    made.entry(label.to_owned()).or_insert_with(|| VerifyingKey::from(&key(label)).to_sec1_bytes().into_vec()).clone()
}

/// DER: tag, length, content.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let mut der = match length {
        0..128 => vec![tag, low],
        128..256 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    der.extend(content);
    der
}

const ECDSA_SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const SPKI_ALGORITHM: &[u8] = &[0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];
const COMMON_NAME: &[u8] = &[6, 3, 0x55, 4, 3];
const BASIC_CONSTRAINTS: &[u8] = &[6, 3, 0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[6, 3, 0x55, 0x1d, 0x0f];
const COMPOSITE_DEVICE_ID: &[u8] = &[6, 6, 0x67, 0x81, 5, 5, 4, 1];
const TCB_INFO: &[u8] = &[6, 7, 0x67, 0x81, 5, 5, 4, 1, 1];
const SHA384_OID: &[u8] = &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];

/// A certificate to be: tests change fields before it is signed.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) serial: u8,
    /// The subject's key, by label.
    pub(crate) key: String,
    /// The issuer's key, by label.
    pub(crate) signer: String,
    pub(crate) until: &'static str,
    pub(crate) ca: Option<bool>,
    pub(crate) path: Option<u8>,
    /// First byte of the key usage: 0x80 digitalSignature, 0x04 keyCertSign.
    pub(crate) usage: u8,
    /// Further extensions, whole.
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Draft {
    fn new(subject: &str, issuer: &str, serial: u8, ca: bool) -> Self {
        Self {
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            serial,
            key: subject.to_owned(),
            signer: issuer.to_owned(),
            until: "20391231235959Z",
            ca: ca.then_some(true),
            path: None,
            usage: if ca { 0x04 } else { 0x80 },
            extensions: Vec::new(),
        }
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let name = |name: &str| tlv(0x30, &[&tlv(0x31, &[&tlv(0x30, &[COMMON_NAME, &tlv(0x0c, &[name.as_bytes()])])])]);
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

pub(crate) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv(0x30, &[oid, critical, &tlv(0x04, &[value])])
}

fn fwid_der(fwid: Digest48) -> Vec<u8> {
    tlv(0x30, &[SHA384_OID, &tlv(0x04, &[fwid.as_bytes()])])
}

/// Hopper's extension.
pub(crate) fn composite_device_id(fwid: Digest48) -> Vec<u8> {
    extension(COMPOSITE_DEVICE_ID, false, &tlv(0x30, &[&[2, 1, 1], &tlv(0x30, &[]), &fwid_der(fwid)]))
}

/// Blackwell's extension.
pub(crate) fn tcb_info(fwid: Digest48) -> Vec<u8> {
    let other = fwid_der(Digest48::from([0; 48]));
    extension(TCB_INFO, false, &tlv(0x30, &[&[0x83, 1, 1], &tlv(0xa6, &[&fwid_der(fwid), &other])]))
}

/// A device: its chain, the fields of its report and its measurements.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) kind: DeviceKind,
    pub(crate) chain: Vec<Draft>,
    pub(crate) opaque: Vec<(u16, Vec<u8>)>,
    pub(crate) measurements: Vec<Digest48>,
    pub(crate) request: [u8; 4],
}

pub(crate) const FWID: &str = "firmware";

impl Machine {
    pub(crate) fn gpu(number: u8) -> Self {
        let opaque = vec![
            (3, b"580.95.05\0".to_vec()),
            (6, vec![0, 0x9f, 0, 0x96, 1, 0, 0, 0]),
            (11, vec![0x55]),
            (15, b"885\0\0".to_vec()),
            (17, b"G520\0".to_vec()),
            (18, b"0200\0".to_vec()),
            (20, sha384(FWID).as_bytes().to_vec()),
            (36, vec![0, 0]),
        ];
        Self::new(DeviceKind::NvidiaGpu, "GH100", number, opaque)
    }

    pub(crate) fn switch(number: u8) -> Self {
        let opaque = vec![(6, b"96.10.5C.00.01".to_vec()), (20, sha384(FWID).as_bytes().to_vec())];
        Self::new(DeviceKind::NvidiaSwitch, "LS_10", number, opaque)
    }

    fn new(kind: DeviceKind, chip: &str, number: u8, opaque: Vec<(u16, Vec<u8>)>) -> Self {
        let (leaf, own) = (format!("{chip} A01 GSP FMC LF {number}"), format!("{chip} A01 GSP BROM {number}"));
        let mut chain = vec![
            Draft::new(&leaf, &own, number, false),
            Draft::new(&own, "provisioner", number, true),
            Draft::new("provisioner", "family", 3, true),
            Draft::new("family", "device root", 2, true),
            Draft::new("device root", "device root", 1, true),
        ];
        chain[0].extensions.push(composite_device_id(sha384(FWID)));
        let measurements = (0u8..40).map(|i| sha384([i])).collect();
        Self { kind, chain, opaque, measurements, request: [0x11, 0xe0, 1, 0xff] }
    }

    pub(crate) fn set(&mut self, field: u16, value: &[u8]) {
        self.opaque.retain(|(f, _)| *f != field);
        self.opaque.push((field, value.to_vec()));
    }

    pub(crate) fn report(&self, nonce: &Nonce32) -> Vec<u8> {
        let mut record = Vec::new();
        for (i, value) in (1u8..).zip(&self.measurements) {
            record.extend([i, 1, 51, 0, 1, 48, 0]);
            record.extend(value.as_bytes());
        }
        let field = |(field, value): &(u16, Vec<u8>)| {
            let length = u16::try_from(value.len()).unwrap();
            [&field.to_le_bytes()[..], &length.to_le_bytes(), value].concat()
        };
        let opaque: Vec<u8> = self.opaque.iter().flat_map(field).collect();
        let mut report = self.request.to_vec();
        report.extend(nonce.as_bytes());
        report.extend([0, 0x11, 0x60, 0, 0, u8::try_from(self.measurements.len()).unwrap()]);
        report.extend(&u32::try_from(record.len()).unwrap().to_le_bytes()[..3]);
        report.extend(record);
        report.extend([9; 32]);
        report.extend(u16::try_from(opaque.len()).unwrap().to_le_bytes());
        report.extend(opaque);
        let signature = sign(&self.chain[0].key, &report);
        report.extend(signature.to_bytes());
        report
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        let block = |draft: &Draft| {
            let base64 = STANDARD.encode(draft.der());
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
        };
        self.chain.iter().map(block).collect::<String>().into_bytes()
    }

    pub(crate) fn evidence(&self, nonce: &Nonce32) -> DeviceEvidence {
        DeviceEvidence {
            kind: self.kind,
            serial: Blob(vec![0x50, self.chain[0].serial]),
            report: Blob(self.report(nonce)),
            chain: Blob(self.pem()),
        }
    }
}

/// A reference manifest to be.
#[derive(Clone)]
pub(crate) struct Manifest {
    pub(crate) edition: &'static str,
    pub(crate) product: &'static str,
    pub(crate) version: &'static str,
    pub(crate) tag: String,
    /// What `Payload` holds.
    pub(crate) resources: String,
    pub(crate) chain: Vec<Draft>,
    /// What the signature says it did.
    pub(crate) signed_info: fn(&str) -> String,
}

impl Manifest {
    pub(crate) fn driver() -> Self {
        Self::new("GPU", "GH100", "580.95.05", [1, 2, 35])
    }

    pub(crate) fn vbios() -> Self {
        Self::new("GPU", "GH100", "96.00.9F.00.01", [0, 7, 9])
    }

    pub(crate) fn switch() -> Self {
        Self::new("SWITCH", "LS10", "96.10.5C.00.01", [0, 1, 2])
    }

    fn new(edition: &'static str, product: &'static str, version: &'static str, active: [u8; 3]) -> Self {
        let chain = vec![
            Draft::new("RIM L4", "RIM L3", 9, false),
            Draft { path: Some(0), ..Draft::new("RIM L3", "RIM CA", 8, true) },
            Draft::new("RIM CA", "RIM root", 7, true),
            Draft::new("RIM root", "RIM root", 6, true),
        ];
        // Index 35 of the driver is wrong on purpose: with NVDEC0 disabled nobody compares it.
        let value = |i: u8| if i == 35 { sha384("other") } else { sha384([i]) };
        let resources = active.into_iter().map(|i| resource(i, true, &[value(i)])).collect();
        let board = if version.starts_with("96.") { "PG520_SKU0200_" } else { "" };
        let tag = sha384(format!("{product}_{board}{version}")).to_string();
        Self { edition, product, version, tag, resources, chain, signed_info }
    }

    /// The document without its signature, in canonical form already.
    pub(crate) fn content(&self) -> String {
        let Self { edition, product, version, tag, resources, .. } = self;
        format!(
            "<SoftwareIdentity xmlns=\"{SWID}\" xmlns:ns0=\"{SWID}\" xmlns:ns2=\"{HASH}\" name=\"{product}\" \
             tagId=\"{tag}\">\n<ns0:Meta colloquialVersion=\"{version}\" edition=\"{edition}\" product=\"{product}\">\
             </ns0:Meta>\n<ns0:Payload>{resources}</ns0:Payload>\n</SoftwareIdentity>"
        )
    }

    pub(crate) fn signature(&self) -> String {
        let digest = STANDARD.encode(sha384(self.content()).as_bytes());
        let signed_info = (self.signed_info)(&digest);
        // Inclusive canonical form: the namespaces around it are part of what is signed.
        let around =
            format!("<ds:SignedInfo xmlns=\"{SWID}\" xmlns:ds=\"{DSIG}\" xmlns:ns0=\"{SWID}\" xmlns:ns2=\"{HASH}\">");
        let canonical = signed_info.replacen("<ds:SignedInfo>", &around, 1);
        let signature = STANDARD.encode(sign(&self.chain[0].key, canonical.as_bytes()).to_bytes());
        let certificates: String = self
            .chain
            .iter()
            .map(|draft| format!("<ds:X509Certificate>{}</ds:X509Certificate>", STANDARD.encode(draft.der())))
            .collect();
        format!(
            "<ds:Signature xmlns:ds=\"{DSIG}\">{signed_info}<ds:SignatureValue>{signature}</ds:SignatureValue>\
             <ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        )
    }

    pub(crate) fn document(&self) -> String {
        self.content().replace("</SoftwareIdentity>", &(self.signature() + "</SoftwareIdentity>"))
    }
}

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";

pub(crate) fn resource(index: u8, active: bool, values: &[Digest48]) -> String {
    let active = if active { "True" } else { "False" };
    let hashes: String = (0..).zip(values).map(|(i, v): (u8, _)| format!(" ns2:Hash{i}=\"{v}\"")).collect();
    format!(
        "<ns0:Resource active=\"{active}\" alternatives=\"{}\" index=\"{index}\" name=\"M\" size=\"48\" \
         type=\"Measurement\"{hashes}></ns0:Resource>",
        values.len()
    )
}

/// `SignedInfo` in canonical form but for its inherited namespaces.
pub(crate) fn signed_info(digest: &str) -> String {
    let element = |name: &str, algorithm: &str| format!("<ds:{name} Algorithm=\"{algorithm}\"></ds:{name}>");
    let c14n = "http://www.w3.org/2006/12/xml-c14n11";
    [
        "<ds:SignedInfo>",
        &element("CanonicalizationMethod", c14n),
        &element("SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"),
        "<ds:Reference URI=\"\"><ds:Transforms>",
        &element("Transform", "http://www.w3.org/2000/09/xmldsig#enveloped-signature"),
        &element("Transform", c14n),
        "</ds:Transforms>",
        &element("DigestMethod", "http://www.w3.org/2001/04/xmldsig-more#sha384"),
        "<ds:DigestValue>",
        digest,
        "</ds:DigestValue></ds:Reference></ds:SignedInfo>",
    ]
    .concat()
}

/// The roots of everything that is made here.
pub(crate) fn roots() -> NvidiaRoots {
    let of = |draft: &Draft| -> Vec<Digest32> { vec![sha256(draft.der())] };
    NvidiaRoots { device: of(&Machine::gpu(0).chain[4]), rim: of(&Manifest::driver().chain[3]) }
}

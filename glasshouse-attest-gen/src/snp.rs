//! Makes reports of processors that do not exist, under a root of its own: right in every respect but the one that a test
//! changes.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use glasshouse_attest::ReportData;
use glasshouse_attest::snp::{Product, SnpClaims, SnpEvidence, SnpPolicy, SnpRoots, SnpVerifier};
use glasshouse_core::fixed::{Digest48, Digest64};
use glasshouse_core::refusal::Refusal;
use glasshouse_core::transcript::sha384;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use rsa::signature::{RandomizedSigner as _, SignatureEncoding as _};
use rsa::traits::PublicKeyParts as _;
use rsa::{BoxedUint, RsaPrivateKey};
use sha2::Sha384;

use crate::AUDIT_TIME;
use crate::der::{extension, name, oid, tlv};
use crate::rsa_keys::KEYS;

const PSS: &str = "303906092a864886f70d01010a302ca00f300d06096086480165030402020500a11c301a06092a864886f70d010108\
                   300d06096086480165030402020500a203020130";

fn pss() -> Vec<u8> {
    let parameters = hex::decode(&PSS[PSS.find("a00f").unwrap()..]).unwrap();
    tlv(0x30, &[&oid(&[1, 2, 840, 113549, 1, 1, 10]), &tlv(0x30, &[&parameters])])
}

/// One of two RSA-4096 keys: the root's, and the intermediate's.
pub fn rsa_key(which: usize) -> &'static RsaPrivateKey {
    static MADE: [OnceLock<RsaPrivateKey>; 2] = [OnceLock::new(), OnceLock::new()];
    let number = |text: &str| BoxedUint::from_be_slice_vartime(&hex::decode(text).unwrap());
    let make = |[p, q]: [&str; 2]| RsaPrivateKey::from_p_q(number(p), number(q), BoxedUint::from(65537u64)).unwrap();
    MADE[which].get_or_init(|| make(KEYS[which]))
}

/// Signs, and remembers: RSA-4096 is slow, and the tests make the same certificates many times over.
fn sign_pss(which: usize, message: &[u8]) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<(usize, Digest48), Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let task = (which, sha384(message));
    made.entry(task)
        .or_insert_with(|| {
            let key = rsa::pss::SigningKey::<Sha384>::new(rsa_key(which).clone());
            key.sign_with_rng(&mut Zeros, message).to_vec()
        })
        .clone()
}

/// A salt need not be random for a test.
struct Zeros;

impl rsa::rand_core::TryRng for Zeros {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(1)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(1)
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(1);
        Ok(())
    }
}
impl rsa::rand_core::TryCryptoRng for Zeros {}

fn certificate(subject: &str, issuer: (&str, usize), until: &str, spki: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let validity = tlv(0x30, &[&tlv(0x18, &[b"20230101000000Z"]), &tlv(0x18, &[until.as_bytes()])]);
    let extensions = tlv(0xa3, &[&tlv(0x30, &[&extensions.concat()])]);
    let (version, serial) = ([0xa0, 3, 2, 1, 2], [2, 1, 7]);
    let tbs = tlv(0x30, &[&version, &serial, &pss(), &name(issuer.0), &validity, &name(subject), spki, &extensions]);
    let signature = sign_pss(issuer.1, &tbs);
    tlv(0x30, &[&tbs, &pss(), &tlv(3, &[&[0], &signature])])
}

fn authority(subject: &str, which: usize, issuer: (&str, usize)) -> Vec<u8> {
    let constraints = extension(&[2, 5, 29, 19], true, &tlv(0x30, &[&[1, 1, 0xff]]));
    let usage = extension(&[2, 5, 29, 15], true, &[3, 2, 2, 4]);
    certificate(subject, issuer, "20491231235959Z", &rsa_spki(which), &[constraints, usage])
}

fn rsa_spki(which: usize) -> Vec<u8> {
    let modulus = rsa_key(which).n().to_be_bytes_trimmed_vartime();
    let numbers = tlv(0x30, &[&tlv(2, &[&[0], &modulus]), &[2, 3, 1, 0, 1]]);
    let algorithm = tlv(0x30, &[&oid(&[1, 2, 840, 113549, 1, 1, 1]), &[5, 0]]);
    tlv(0x30, &[&algorithm, &tlv(3, &[&[0], &numbers])])
}

/// A report and its certificates to be: tests change fields before they are made.
#[derive(Clone)]
pub struct Draft {
    /// The line of processors.
    pub product: Product,
    /// Signed by a VLEK instead of a VCEK.
    pub vlek: bool,
    /// The report's 0x2a0 signed bytes.
    pub report: Vec<u8>,
    /// Security versions in the certificate: fmc, boot loader, tee, snp, microcode.
    pub spl: [u8; 5],
    /// The chip, in the certificate.
    pub hardware_id: Vec<u8>,
    /// The product's name, in the certificate.
    pub product_name: String,
    /// `notAfter` of the VCEK or VLEK, GeneralizedTime.
    pub vek_until: &'static str,
    /// Which test key signs the VCEK, the intermediate's own being 1.
    pub vek_signer: usize,
}

impl Draft {
    /// Right in every respect.
    pub fn new(product: Product) -> Self {
        let chip: Vec<u8> = (1..=if product == Product::Turin { 8 } else { 64 }).collect();
        let (tcb, cpuid) = match product {
            Product::Milan => ([2, 3, 0, 0, 0, 0, 4, 5], [0x19, 1, 1]),
            Product::Genoa => ([2, 3, 0, 0, 0, 0, 4, 5], [0x19, 0x11, 1]),
            Product::Turin => ([1, 2, 3, 4, 0, 0, 0, 5], [0x1a, 2, 1]),
        };
        let fmc = if product == Product::Turin { 1 } else { 0 };
        let mut draft = Self {
            product,
            vlek: false,
            report: vec![0; 0x2a0],
            spl: [fmc, 2, 3, 4, 5],
            hardware_id: chip.clone(),
            product_name: product.as_str().to_owned(),
            vek_until: "20301231235959Z",
            vek_signer: 1,
        };
        draft.put(0, &[3]);
        draft.put(0x0a, &[0b0000_0010]); // bit 17 of the guest policy
        draft.put(0x34, &[1]);
        draft.put(0x50, &[7; 64]);
        draft.put(0x90, &[9; 48]);
        draft.put(0x188, &cpuid);
        draft.put(0x1a0, &chip);
        for at in [0x38, 0x180, 0x1e0, 0x1f0] {
            draft.put(at, &tcb);
        }
        draft
    }

    /// Overwrites bytes of the report.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.report[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The same, signed by a VLEK.
    #[must_use]
    pub fn vlek(mut self) -> Self {
        self.vlek = true;
        self.put(0x48, &[1 << 2]);
        self
    }

    /// The whole report, the VCEK or VLEK, and the chain.
    pub fn make(&self) -> (Vec<u8>, Vec<u8>, [Vec<u8>; 2]) {
        let key = SigningKey::from_slice(sha384("report key").as_bytes()).unwrap();
        let signature: Signature = key.sign(&self.report);
        let mut report = self.report.clone();
        let (r, s) = signature.split_bytes();
        for number in [r, s] {
            report.extend(number.iter().rev());
            report.extend([0; 24]);
        }
        report.resize(0x4a0, 0);
        (report, self.vek(&key), self.chain())
    }

    fn names(&self) -> (String, String) {
        let kind = if self.vlek { "SEV-VLEK-" } else { "SEV-" };
        (format!("{kind}{}", self.product), format!("ARK-{}", self.product))
    }

    fn chain(&self) -> [Vec<u8>; 2] {
        let (issuer, root) = self.names();
        [authority(&issuer, 1, (&root, 0)), authority(&root, 0, (&root, 0))]
    }

    fn vek(&self, key: &SigningKey) -> Vec<u8> {
        let (issuer, _) = self.names();
        let point = VerifyingKey::from(key).to_sec1_bytes();
        let algorithm = tlv(0x30, &[&oid(&[1, 2, 840, 10045, 2, 1]), &oid(&[1, 3, 132, 0, 34])]);
        let spki = tlv(0x30, &[&algorithm, &tlv(3, &[&[0], &point])]);
        let amd = |last: &[u32], value: &[u8]| extension(&[&[1, 3, 6, 1, 4, 1, 3704, 1], last].concat(), false, value);
        let integer = |value: u8| if value < 128 { vec![2, 1, value] } else { vec![2, 2, 0, value] };
        let [fmc, bootloader, tee, snp, microcode] = self.spl;
        let mut extensions = vec![
            amd(&[2], &tlv(0x16, &[self.product_name.as_bytes()])),
            amd(&[3, 1], &integer(bootloader)),
            amd(&[3, 2], &integer(tee)),
            amd(&[3, 3], &integer(snp)),
            amd(&[3, 8], &integer(microcode)),
        ];
        if self.product == Product::Turin {
            extensions.push(amd(&[3, 9], &integer(fmc)));
        }
        if self.vlek {
            extensions.push(amd(&[5], &tlv(0x16, &[b"example"])));
        } else {
            extensions.push(amd(&[4], &self.hardware_id));
        }
        let subject = if self.vlek { "SEV-VLEK" } else { "SEV-VCEK" };
        certificate(subject, (&issuer, self.vek_signer), self.vek_until, &spki, &extensions)
    }

    /// Verifies it under the generator's roots, over the draft's own report data.
    pub fn verify(&self, policy: SnpPolicy) -> Result<SnpClaims, Refusal> {
        self.verify_under(roots(), policy)
    }

    /// The same under other roots.
    pub fn verify_under(&self, roots: SnpRoots, policy: SnpPolicy) -> Result<SnpClaims, Refusal> {
        let (report, vek, [issuer, root]) = self.make();
        let evidence = SnpEvidence { report: &report, vek: &vek, chain: &[&issuer, &root] };
        let report_data = Digest64::from([7; 64]);
        SnpVerifier::new(policy, roots).verify(evidence, ReportData::Full(&report_data), AUDIT_TIME)
    }
}

/// A table of certificates as a host gives it beside a report: VCEK, ASK, ARK.
pub fn certificate_table(vek: &[u8], issuers: &[&[u8]]) -> Vec<u8> {
    const GUIDS: [&str; 3] =
        ["63da758de6644564adc5f4b93be8accd", "4ab7b379bbac4fe4a02f05aef327c782", "c0b406a4a803495297433fb6014cd0ae"];
    let all: Vec<&[u8]> = [vek].into_iter().chain(issuers.iter().copied()).collect();
    let (mut table, mut offset) = (Vec::new(), 24 * (all.len() + 1));
    for (guid, der) in GUIDS.iter().zip(&all) {
        table.extend(hex::decode(guid).unwrap());
        table.extend((offset as u32).to_le_bytes());
        table.extend((der.len() as u32).to_le_bytes());
        offset += der.len();
    }
    table.extend([0; 24]);
    table.extend(all.concat());
    table
}

/// A revocation list of the root of a product: the intermediate when `revoked`, and nothing otherwise.
pub fn crl(product: Product, revoked: bool) -> Vec<u8> {
    let time = |text: &str| tlv(0x18, &[text.as_bytes()]);
    // Every certificate here has the serial number 7.
    let entries = tlv(0x30, &[&tlv(0x30, &[&[2, 1, 7], &time("20260101000000Z")])]);
    let entries = if revoked { entries } else { Vec::new() };
    let issuer = name(&format!("ARK-{product}"));
    let times = [time("20260101000000Z"), time("20361231235959Z")].concat();
    let tbs = tlv(0x30, &[&[2, 1, 1], &pss(), &issuer, &times, &entries]);
    let signature = sign_pss(0, &tbs);
    tlv(0x30, &[&tbs, &pss(), &tlv(3, &[&[0], &signature])])
}

/// The generator's root, for every product.
pub fn roots() -> SnpRoots {
    let digest = sha384(rsa_spki(0));
    SnpRoots::others([Product::Milan, Product::Genoa, Product::Turin].map(|product| (product, digest)))
}

/// Asks for the generated guest.
pub fn policy() -> SnpPolicy {
    SnpPolicy { measurements: vec![[9; 48].into()], ..SnpPolicy::default() }
}

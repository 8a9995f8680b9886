//! SEV-SNP reports and the certificates with them.

use std::sync::LazyLock;

use glasshouse_attest::ReportData;
use glasshouse_attest::snp::{Product, Report, SnpClaims, SnpEvidence, SnpVerifier, codes};
use glasshouse_attest_gen::snp::{Draft, crl, policy, roots};
use glasshouse_core::fixed::{Digest64, Fixed};
use glasshouse_core::transcript::sha384;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use super::mode;
use crate::check;
use crate::keys::{AT, to_be_signed};

const REPORT_DATA: Digest64 = Fixed([7; 64]);
const SIGNED: usize = 0x2a0;

/// A report that is good, with its certificates, and what is established from it.
pub struct Good {
    /// The report.
    pub report: Vec<u8>,
    /// VCEK or VLEK.
    pub vek: Vec<u8>,
    /// Its issuer and the root.
    pub chain: [Vec<u8>; 2],
    claims: SnpClaims,
}

/// One of each product; Genoa's is signed by a VLEK.
pub static GOOD: LazyLock<[Good; 3]> = LazyLock::new(|| {
    let drafts = [Draft::new(Product::Milan), Draft::new(Product::Genoa).vlek(), Draft::new(Product::Turin)];
    drafts.map(|draft| {
        let (report, vek, chain) = draft.make();
        let claims = verify(&report, &vek, &chain).expect("a good report");
        Good { report, vek, chain, claims }
    })
});

static VERIFIER: LazyLock<SnpVerifier> = LazyLock::new(|| SnpVerifier::new(policy(), roots()));

fn verify(report: &[u8], vek: &[u8], [issuer, root]: &[Vec<u8>; 2]) -> Option<SnpClaims> {
    let evidence = SnpEvidence { report, vek, chain: &[issuer, root] };
    match VERIFIER.verify(evidence, ReportData::Full(&REPORT_DATA), AT) {
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

/// Makes what every input needs: dozens of RSA-4096 signatures, which the first input must not be blamed for.
pub fn init() {
    for good in GOOD.iter() {
        let _ = crl(good.claims.product, false);
    }
}

/// After a digit that chooses the product, `a`: a report with its signature. `b`: what is signed of one, signed here.
/// `c`: a VCEK or VLEK. `d`: its issuer's certificate. `e`: a revocation list.
pub fn run(data: &[u8]) {
    let Some((digit @ b'0'..=b'2', data)) = mode(data) else { return };
    let good = &GOOD[usize::from(digit - b'0')];
    match mode(data) {
        Some((b'a', report)) => {
            if let Some(claims) = verify(report, &good.vek, &good.chain) {
                // ECDSA has two signatures for each; everything else has one spelling.
                assert_eq!((report.len(), &report[..SIGNED]), (good.report.len(), &good.report[..SIGNED]));
                assert_eq!(claims, good.claims);
            }
        }
        Some((b'b', signed)) => signed_here(good, signed),
        Some((b'c', vek)) => {
            if let Some(claims) = verify(&good.report, vek, &good.chain) {
                assert_eq!(vek, good.vek, "another spelling of a certificate");
                assert_eq!(claims, good.claims);
            }
        }
        Some((b'd', issuer)) => {
            if let Some(claims) = verify(&good.report, &good.vek, &[issuer.to_vec(), good.chain[1].clone()]) {
                assert_eq!(issuer, good.chain[0], "another spelling of a certificate");
                assert_eq!(claims, good.claims);
            }
        }
        Some((b'e', list)) => unrevoked(good, list),
        _ => {}
    }
}

/// A list that is accepted is one that the root signed, or another issuer's.
fn unrevoked(good: &Good, list: &[u8]) {
    let [issuer, root] = &good.chain;
    let evidence = SnpEvidence { report: &good.report, vek: &good.vek, chain: &[issuer, root] };
    match VERIFIER.verify_unrevoked(evidence, &[list], ReportData::Full(&REPORT_DATA), AT) {
        Ok(claims) => {
            assert_eq!(claims, good.claims);
            let read = CertificateList::<Rfc5280>::from_der(list).unwrap().tbs_cert_list;
            let ours = read.issuer.to_string() == format!("CN=ARK-{}", claims.product);
            assert!(!ours || to_be_signed(list) == to_be_signed(&crl(claims.product, false)), "nobody signed this");
        }
        Err(refusal) => check::refusal_of(&refusal, codes::ALL),
    }
}

/// Behind a good signature: what is parsed is well formed by an independent reading, and what is accepted is the guest,
/// the chip and the TCB of the certificate.
fn signed_here(good: &Good, signed: &[u8]) {
    let parsed = Report::parse(signed);
    assert_eq!(parsed.is_ok(), well_formed(signed), "{parsed:?}");
    let Ok(parsed) = parsed else { return };
    same_fields(&parsed, signed);

    static KEY: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::from_slice(sha384("report key").as_bytes()).unwrap());
    let signature: Signature = KEY.sign(signed);
    let (r, s) = signature.split_bytes();
    let mut report = signed.to_vec();
    for number in [r, s] {
        report.extend(number.iter().rev());
        report.extend([0; 24]);
    }
    report.resize(0x4a0, 0);
    let Some(claims) = verify(&report, &good.vek, &good.chain) else { return };
    assert_eq!(claims.report, parsed);
    let was = &good.claims;
    assert_eq!((claims.product, claims.tcb, claims.measured), (was.product, was.tcb, true));
    assert_eq!(signed[0x50..0x90], [7; 64]);
    assert_eq!(signed[0x90..0xc0], [9; 48]);
    assert_eq!(signed[0x30..0x34], [0; 4], "privilege level");
    assert_eq!(signed[0x0a] & 0b1100, 0, "debugging or migration");
    assert_eq!(parsed.signing_key, was.report.signing_key);
    assert_eq!(parsed.reported_tcb, was.report.reported_tcb);
    if good.vek != GOOD[1].vek {
        assert_eq!(parsed.chip_id, was.report.chip_id);
    }
}

/// AMD 56860 section 7.3, by offset.
fn well_formed(b: &[u8]) -> bool {
    let version = |b: &[u8]| u32::from_le_bytes(b[..4].try_into().unwrap());
    let zero = |from: usize, to: usize| b[from..to].iter().all(|byte| *byte == 0);
    b.len() == SIGNED
        && (2..=5).contains(&version(b))
        && b[0x0a] & 2 != 0
        && b[0x0b] & !3 == 0
        && zero(0x0c, 0x10)
        && b[0x34..0x38] == [1, 0, 0, 0]
        && zero(0x41, 0x48)
        && [0, 2].contains(&(b[0x48] >> 1))
        && zero(0x49, 0x50)
        && zero(if version(b) == 2 { 0x188 } else { 0x18b }, 0x1a0)
        && zero(0x1eb, 0x1ec)
        && zero(0x1ef, 0x1f0)
        && zero(if version(b) == 5 { 0x208 } else { 0x1f8 }, SIGNED)
}

fn same_fields(report: &Report, b: &[u8]) {
    let fields: [(usize, &[u8]); 17] = [
        (0x00, &report.version.to_le_bytes()),
        (0x04, &report.guest_svn.to_le_bytes()),
        (0x08, &report.policy.0.to_le_bytes()),
        (0x10, report.family_id.as_bytes()),
        (0x20, report.image_id.as_bytes()),
        (0x30, &report.vmpl.to_le_bytes()),
        (0x38, &report.current_tcb.0),
        (0x40, &report.platform_info.to_le_bytes()),
        (0x50, report.report_data.as_bytes()),
        (0x90, report.measurement.as_bytes()),
        (0xc0, report.host_data.as_bytes()),
        (0xe0, report.id_key_digest.as_bytes()),
        (0x110, report.author_key_digest.as_bytes()),
        (0x180, &report.reported_tcb.0),
        (0x1a0, report.chip_id.as_bytes()),
        (0x1e0, &report.committed_tcb.0),
        (0x1f0, &report.launch_tcb.0),
    ];
    for (at, value) in fields {
        assert_eq!(&b[at..at + value.len()], value, "at {at:#x}");
    }
    assert_eq!(report.cpuid, (report.version >= 3).then_some((b[0x188], b[0x189])));
}

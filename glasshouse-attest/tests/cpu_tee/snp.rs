//! SEV-SNP: real reports with every change of them, and generated ones for what the corpus cannot show.

use std::collections::BTreeMap;

use glasshouse_attest::ReportData;
use glasshouse_attest::snp::{
    Product, Report, SigningKey, SnpClaims, SnpEvidence, SnpPolicy, SnpRoots, SnpVerifier, Tcb,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::refusal::Refusal;
use proptest::prelude::*;

use crate::files::{corpus, flipped, read, time, tried};
use glasshouse_attest_gen::snp::{Draft, policy, roots};

/// A real report with its VCEK, as accepted.
struct Real {
    report: Vec<u8>,
    vek: Vec<u8>,
}

impl Real {
    fn all() -> Vec<Self> {
        let milan = hex::decode(String::from_utf8(read("snp/milan_v2/report.hex")).unwrap().trim()).unwrap();
        vec![
            Self { report: milan, vek: read("snp/milan_v2/vcek.der") },
            Self { report: read("snp/genoa_v5/report.bin"), vek: read("snp/genoa_v5/vcek.der") },
        ]
    }

    fn verify(&self, report: &[u8], vek: &[u8], chain: &[&[u8]]) -> Result<SnpClaims, Refusal> {
        let policy =
            SnpPolicy { dangerous_no_measurements: true, dangerous_no_report_data: true, ..SnpPolicy::default() };
        let evidence = SnpEvidence { report, vek, chain };
        SnpVerifier::new(policy, SnpRoots::amd()).verify(evidence, ReportData::Unknown, at())
    }
}

fn at() -> UnixMillis {
    time("2026-06-01T00:00:00Z")
}

#[test]
fn what_real_reports_establish() {
    if corpus().is_none() {
        return;
    }
    let [milan, genoa] = &Real::all()[..] else { panic!() };
    let claims = milan.verify(&milan.report, &milan.vek, &[]).unwrap();
    assert_eq!((claims.product, claims.report.version, claims.measured), (Product::Milan, 2, false));
    assert_eq!(claims.tcb, Tcb { fmc: 0, bootloader: 3, tee: 0, snp: 8, microcode: 0x73 });
    let claims = genoa.verify(&genoa.report, &genoa.vek, &[]).unwrap();
    assert_eq!((claims.product, claims.report.version), (Product::Genoa, 5));
    assert_eq!(claims.report.signing_key, SigningKey::Vcek);
    assert!(claims.report_data().as_bytes().starts_with(b"hello-attestation"));
    assert!(claims.labelled().iter().any(|c| c.name == "sev-snp-measurement" && c.value.starts_with("d9912ba3")));
}

#[test]
fn changes_of_a_report() {
    if corpus().is_none() {
        return;
    }
    for real in Real::all() {
        let refused = |report: &[u8]| real.verify(report, &real.vek, &[]).unwrap_err().code;
        for bit in tried(real.report.len() * 8, 200) {
            assert_eq!(refused(&flipped(&real.report, bit)).as_str(), "signature", "bit {bit}");
        }
        for length in tried(real.report.len(), 100) {
            assert_eq!(refused(&real.report[..length]).as_str(), "signature", "cut to {length}");
        }
        assert_eq!(refused(&[&real.report[..], &[0]].concat()).as_str(), "signature");
    }
}

/// No bit of a certificate is without meaning.
#[test]
fn changes_of_a_certificate() {
    if corpus().is_none() {
        return;
    }
    for real in Real::all() {
        let refused = |vek: &[u8]| real.verify(&real.report, vek, &[]).unwrap_err().code.to_string();
        for bit in tried(real.vek.len() * 8, 200) {
            let code = refused(&flipped(&real.vek, bit));
            assert!(["certificate-malformed", "signature", "chain"].contains(&code.as_str()), "bit {bit}: {code}");
        }
        for length in tried(real.vek.len(), 50) {
            assert_eq!(refused(&real.vek[..length]), "certificate-malformed", "cut to {length}");
        }
    }
}

/// The table of known keys is what AMD's certificates say, up to the pinned roots.
#[test]
fn known_keys_are_those_under_the_pinned_roots() {
    if corpus().is_none() {
        return;
    }
    let certificates = |product: &str| {
        let pem = String::from_utf8(read(&format!("snp/roots/{product}_ask_ark_asvk.pem"))).unwrap();
        let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
        let der = |block: &str| {
            use base64::Engine as _;
            let body = block.split("-----END").next().unwrap().split_whitespace().collect::<String>();
            base64::engine::general_purpose::STANDARD.decode(body).unwrap()
        };
        blocks.map(der).collect::<Vec<_>>()
    };
    let [milan, genoa] = &Real::all()[..] else { panic!() };
    for (real, product, other) in [(milan, "milan", "genoa"), (genoa, "genoa", "turin")] {
        let chain = certificates(product);
        let chain: Vec<_> = chain.iter().map(Vec::as_slice).collect();
        let with = real.verify(&real.report, &real.vek, &chain).unwrap();
        assert_eq!(with, real.verify(&real.report, &real.vek, &[]).unwrap());
        let foreign = certificates(other);
        let foreign: Vec<_> = foreign.iter().map(Vec::as_slice).collect();
        // Another product's chain leads nowhere by name, and one that cannot be read nowhere at all: the known key does.
        assert_eq!(real.verify(&real.report, &real.vek, &foreign).unwrap(), with);
        assert_eq!(real.verify(&real.report, &real.vek, &[b"none"]).unwrap(), with);
        let mixed = [foreign.as_slice(), &[b"none"], &chain].concat();
        assert_eq!(real.verify(&real.report, &real.vek, &mixed).unwrap(), with);
        let mut changed = chain[1].to_vec();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        assert_eq!(real.verify(&real.report, &real.vek, &[chain[0], &changed]).unwrap_err().code.as_str(), "chain");
    }
    for product in ["milan", "genoa", "turin"] {
        let [ask, ark, asvk] = &certificates(product)[..] else { panic!() };
        for issuer in [ask, asvk] {
            SnpRoots::amd().check_known(issuer, ark).unwrap();
        }
    }
    assert!(SnpRoots::amd().check_known(&certificates("milan")[0], &certificates("genoa")[1]).is_err());
}

/// Lists of another product's root are passed over where the report's chain was not passed; one of its own root needs it.
#[test]
fn lists_beside_a_report_without_chain() {
    if corpus().is_none() {
        return;
    }
    let real = Real::all().remove(0);
    let lax = || SnpPolicy { dangerous_no_measurements: true, dangerous_no_report_data: true, ..SnpPolicy::default() };
    let with = |list: &[u8], policy: SnpPolicy| {
        let evidence = SnpEvidence { report: &real.report, vek: &real.vek, chain: &[] };
        let verifier = SnpVerifier::new(policy, SnpRoots::amd());
        verifier
            .verify_unrevoked(evidence, &[list], ReportData::Unknown, at())
            .map_err(|refusal| refusal.code.to_string())
    };
    let [milan, genoa] =
        [Product::Milan, Product::Genoa].map(|product| glasshouse_attest_gen::snp::crl(product, false));
    assert!(with(&genoa, lax()).is_ok());
    for list in [milan.as_slice(), b"no list"] {
        assert_eq!(with(list, lax()).unwrap_err(), "crl");
    }
    assert_eq!(with(&genoa, SnpPolicy { require_crl: true, ..lax() }).unwrap_err(), "crl");
}

#[test]
fn every_product_and_both_keys() {
    for product in [Product::Milan, Product::Genoa, Product::Turin] {
        for draft in [Draft::new(product), Draft::new(product).vlek()] {
            let claims = draft.verify(policy()).unwrap();
            assert!(claims.measured && claims.product == product);
            assert_eq!(claims.report.signing_key == SigningKey::Vlek, draft.vlek);
            assert_eq!(draft.verify_under(SnpRoots::amd(), policy()).unwrap_err().code.as_str(), "chain");
        }
    }
    for version in 2..=5 {
        let mut draft = Draft::new(Product::Milan);
        draft.put(0, &[version]);
        if version == 2 {
            draft.put(0x188, &[0; 3]);
        }
        assert_eq!(draft.verify(policy()).unwrap().report.version, u32::from(version));
    }
}

/// One change each, with everything signed anew.
#[test]
fn what_is_signed_and_still_refused() {
    type Change = (&'static str, fn(&mut Draft));
    let changes: [Change; 32] = [
        ("report-malformed", |d| d.put(0, &[1])),
        ("report-malformed", |d| d.put(0, &[6])),
        ("report-malformed", |d| d.put(0x0a, &[0])),
        ("report-malformed", |d| d.put(0x0c, &[1])),
        ("report-malformed", |d| d.put(0x34, &[2])),
        ("report-malformed", |d| d.put(0x42, &[1])),
        ("report-malformed", |d| d.put(0x40, &[1 << 6])),
        ("report-malformed", |d| d.put(0x48, &[1 << 1])),
        ("report-malformed", |d| d.put(0x48, &[7 << 2])),
        ("report-malformed", |d| d.put(0x49, &[1])),
        ("report-malformed", |d| d.put(0x4c, &[1])),
        ("report-malformed", |d| d.put(0x18b, &[1])),
        ("report-malformed", |d| d.put(0x1eb, &[1])),
        ("report-malformed", |d| d.put(0x1ef, &[1])),
        ("report-malformed", |d| d.put(0x1f8, &[1])),
        ("report-malformed", |d| {
            d.put(0, &[5]);
            d.put(0x208, &[1]);
        }),
        ("report-malformed", |d| d.put(0x29f, &[1])),
        ("report-malformed", |d| d.put(0, &[2])), // has the processor's family where version 2 has zeros
        ("chain", |d| d.vek_signer = 0),
        ("chain", |d| d.put(0x48, &[1 << 2])), // says VLEK, came with a VCEK
        ("certificate-validity", |d| d.vek_until = "20260531235959Z"),
        ("product", |d| d.put(0x188, &[0x1a, 2])),
        ("product", |d| d.product_name = "Turin".to_owned()),
        ("report-data", |d| d.put(0x8f, &[8])),
        ("chip-id", |d| d.put(0x1df, &[0])),
        ("chip-id", |d| d.put(0x1a0, &[0; 64])),
        ("vmpl", |d| d.put(0x30, &[1])),
        ("measurement", |d| d.put(0xbf, &[8])),
        ("tcb", |d| d.spl[4] = 4),
        ("tcb", |d| d.put(0x38, &[1])), // runs older firmware than it reports
        ("debug", |d| d.put(0x0a, &[0b1010])),
        ("migration", |d| d.put(0x0a, &[0b0110])),
    ];
    for (code, change) in changes {
        let mut draft = Draft::new(Product::Genoa);
        change(&mut draft);
        let refusal = draft.verify(policy()).unwrap_err();
        assert_eq!(refusal.code.as_str(), code, "{refusal}");
        assert!(refusal.advice.is_some());
    }
}

#[test]
fn policies() {
    let refused =
        |policy: SnpPolicy| Draft::new(Product::Turin).verify(policy).map_err(|refusal| refusal.code.to_string());
    let floor = |tcb| BTreeMap::from([(Product::Turin, tcb)]);
    let reached = Tcb { fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 5 };
    assert!(refused(SnpPolicy { minimum_tcb: floor(reached), ..policy() }).is_ok());
    let over = floor(Tcb { snp: 5, ..reached });
    assert_eq!(refused(SnpPolicy { minimum_tcb: over, ..policy() }), Err("tcb".to_owned()));
    let of_another = BTreeMap::from([(Product::Genoa, Tcb::default())]);
    assert_eq!(refused(SnpPolicy { minimum_tcb: of_another, ..policy() }), Err("tcb".to_owned()));
    assert_eq!(refused(SnpPolicy::default()), Err("measurement".to_owned()));
    assert!(!refused(SnpPolicy { dangerous_no_measurements: true, ..SnpPolicy::default() }).unwrap().measured);
    assert_eq!(refused(SnpPolicy { host_data: Some([1; 32].into()), ..policy() }), Err("measurement".to_owned()));
    assert_eq!(refused(SnpPolicy { id_keys: vec![[1; 48].into()], ..policy() }), Err("measurement".to_owned()));
    assert_eq!(refused(SnpPolicy { vmpl: 1, ..policy() }), Err("vmpl".to_owned()));
    assert_eq!(refused(SnpPolicy { minimum_guest_svn: 1, ..policy() }), Err("guest-policy".to_owned()));
    assert_eq!(refused(SnpPolicy { require_single_socket: true, ..policy() }), Err("guest-policy".to_owned()));
    assert_eq!(refused(SnpPolicy { require_ciphertext_hiding: true, ..policy() }), Err("guest-policy".to_owned()));
    assert!(refused(SnpPolicy { require_no_smt: true, ..policy() }).is_ok());

    let mut draft = Draft::new(Product::Turin);
    draft.put(0x0a, &[0b1111]);
    draft.put(0x1a0, &[0; 8]);
    let lax = SnpPolicy { allow_masked_chip_id: true, allow_migration: true, dangerous_allow_debug: true, ..policy() };
    assert!(draft.verify(lax).is_ok());
    // The platform was newer at launch than it says it was allowed to be.
    let mut draft = Draft::new(Product::Turin);
    draft.put(0x1f0, &[0]);
    let refusal = draft.verify(SnpPolicy { minimum_tcb: floor(reached), ..policy() }).unwrap_err();
    assert_eq!(refusal.code.as_str(), "tcb");
    assert!(refusal.seen.ends_with("at launch"), "{refusal}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_panic(report: Vec<u8>, vek: Vec<u8>, chain: Vec<u8>) {
        let verifier = SnpVerifier::new(policy(), roots());
        let (good_report, good_vek, _) = Draft::new(Product::Milan).make();
        for evidence in [
            SnpEvidence { report: &report, vek: &vek, chain: &[] },
            SnpEvidence { report: &report, vek: &good_vek, chain: &[] },
            SnpEvidence { report: &good_report, vek: &good_vek, chain: &[&chain] },
        ] {
            prop_assert!(verifier.verify(evidence, ReportData::Unknown, at()).is_err());
        }
    }

    #[test]
    fn signed_bytes_never_panic(report in prop::collection::vec(any::<u8>(), 0x2a0), version in 0u8..8) {
        let mut report = report;
        report[..4].copy_from_slice(&[version, 0, 0, 0]);
        let _ = Report::parse(&report);
        let _ = Report::parse(&report[..usize::from(report[9]) * 2]);
    }
}

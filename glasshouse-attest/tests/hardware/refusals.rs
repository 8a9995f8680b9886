//! What lies between the parts: binding, numbers, names, tokens, collateral, revocation.

use glasshouse_attest::hardware::{CpuPolicy, HardwareRoots, HardwareVerifier, MinimumAssurance, codes, vek_key};
use glasshouse_attest::snp::Product;
use glasshouse_attest::tokens::NrasPolicy;
use glasshouse_attest_gen::nvidia::{CrlDraft, Machine, Manifest};
use glasshouse_attest_gen::tdx::{Authority, CollateralDraft};
use glasshouse_attest_gen::token::{NRAS, TokenDraft, jwks};
use glasshouse_attest_gen::{Cpu, Platform, snp};
use glasshouse_core::claims::Assurance;
use glasshouse_core::evidence::{CpuEvidence, DeviceEvidence, GpuEvidence};
use glasshouse_core::fixed::Blob;
use glasshouse_core::refusal::Refusal;
use glasshouse_core::traits::Appraisal;

use crate::session::{Made, Session};

#[track_caller]
fn refused(result: Result<Appraisal, Refusal>, code: &str) {
    let refusal = result.expect_err("should be refused");
    assert_eq!(refusal.code.as_str(), code, "{refusal}");
    assert!(refusal.advice.is_some(), "{refusal}");
}

#[test]
fn refused_under_the_vendors_roots() {
    for platform in [Platform::tdx(1), Platform::snp(1)] {
        let session = Session::new(platform);
        let made = session.make();
        session.appraise(&made).unwrap();
        let real = HardwareVerifier::new(session.policy.clone(), HardwareRoots::vendors(), Platform::collateral());
        refused(session.appraise_by(&real.unwrap(), &made), "chain");
    }
    // The CPU's root alone is no way past NVIDIA's.
    let session = Session::new(Platform::tdx(1));
    let roots = HardwareRoots { nvidia: HardwareRoots::vendors().nvidia, ..Platform::roots() };
    let mixed = HardwareVerifier::new(session.policy.clone(), roots, Platform::collateral()).unwrap();
    refused(session.appraise_by(&mixed, &session.make()), "chain");
}

#[test]
fn the_cpus_quote_binds_the_devices() {
    let session = Session::new(Platform::tdx(1));
    let Made { gpus, .. } = session.make();
    let without = session.platform.quote(&session.report_data(&GpuEvidence::default()));
    refused(session.appraise(&Made { cpu: without, gpus: gpus.clone() }), "report-data");
    // A genuine GPU of another machine over the same nonce, put in on the way.
    let other = GpuEvidence(vec![Machine::gpu(9).evidence(&session.nonce())]);
    refused(session.appraise(&Made { cpu: session.make().cpu, gpus: other }), "report-data");
    // Another session's report, relayed by the guest itself.
    let stale = session.make_with(|gpus| gpus.0 = vec![Machine::gpu(1).evidence(&[7; 32].into())]);
    refused(session.appraise(&stale), "nonce");
    let twice = session.make_with(|gpus| gpus.0.push(gpus.0[0].clone()));
    refused(session.appraise(&twice), "duplicate-device");
    let renamed = session.make_with(|gpus| gpus.0[0].serial = Blob(vec![9]));
    refused(session.appraise(&renamed), "device-serial");
}

#[test]
fn numbers_and_names_of_devices() {
    let mut session = Session::new(Platform::tdx(2));
    session.policy.gpu.gpus = Some(2);
    session.policy.gpu.switches = Some(0);
    let made = session.make();
    let appraisal = session.appraise(&made).unwrap();
    let serials = appraisal.claims.iter().filter(|claim| claim.name.ends_with("-device-serial"));
    let serials: Vec<_> = serials.map(|claim| claim.value.clone()).collect();
    assert_eq!(serials.len(), 2);
    session.policy.gpu.serials = serials.clone();
    session.appraise(&made).unwrap();
    session.policy.gpu.serials = vec![serials[0].clone()];
    refused(session.appraise(&made), "device-not-listed");
    session.policy.gpu.serials = Vec::new();
    session.policy.gpu.gpus = Some(3);
    refused(session.appraise(&made), "device-count");
    session.policy.gpu.gpus = None;
    session.policy.gpu.switches = Some(1);
    refused(session.appraise(&made), "device-count");

    let mut none = Session::new(Platform::tdx(0));
    assert_eq!(none.appraise(&none.make()).unwrap().assurance, Assurance::CpuTee);
    none.policy.minimum_assurance = MinimumAssurance::CpuTeeGpuCc;
    refused(none.appraise(&none.make()), "gpu-missing");
    none.platform.devices = vec![Machine::switch(1)];
    refused(none.appraise(&none.make()), "gpu-missing");
}

#[test]
fn gpus_that_are_not_compared_do_not_count() {
    let mut session = Session::new(Platform::tdx(1));
    session.policy.minimum_assurance = MinimumAssurance::CpuTee;
    session.policy.gpu.devices.dangerous_no_measurements = true;
    let appraisal = session.appraise(&session.make()).unwrap();
    assert_eq!(appraisal.assurance, Assurance::CpuTee);
    assert_eq!(appraisal.relaxations, ["gpu.devices.dangerous_no_measurements"]);

    // Nor one whose driver or VBIOS was not: all of each GPU, or it stays a CPU TEE.
    for (relaxed, lacking) in [(0, "NV_GPU_DRIVER"), (1, "NV_GPU_VBIOS")] {
        let mut session = Session::new(Platform::tdx(2));
        session.policy.minimum_assurance = MinimumAssurance::CpuTee;
        let devices = &mut session.policy.gpu.devices;
        *[&mut devices.allow_missing_driver_rim, &mut devices.allow_missing_vbios_rim][relaxed] = true;
        assert_eq!(session.appraise(&session.make()).unwrap().assurance, Assurance::CpuTeeGpuCc, "all were there");
        session.collateral.nvidia.rims.retain(|name, _| !name.starts_with(lacking));
        assert_eq!(session.appraise(&session.make()).unwrap().assurance, Assurance::CpuTee);
    }
}

#[test]
fn measurements_and_debugging() {
    let mut session = Session::new(Platform::tdx(0));
    let Cpu::Tdx(quote) = &mut session.platform.cpu else { panic!() };
    quote.rtmr[1][0] ^= 1;
    refused(session.appraise(&session.make()), "measurement");
    let mut session = Session::new(Platform::tdx(0));
    let Cpu::Tdx(quote) = &mut session.platform.cpu else { panic!() };
    quote.attributes[0] = 1;
    refused(session.appraise(&session.make()), "debug");
    // One reference that covers the launch is there, another that covers the firmware only fits: that is no CPU TEE.
    let mut session = Session::new(Platform::tdx(0));
    let CpuPolicy::Tdx(policy) = &mut session.policy.cpu else { panic!() };
    let mut firmware = policy.measurements[0].clone();
    (firmware.rtmr1, policy.measurements[0].rtmr1) = (None, Some([9; 48].into()));
    policy.measurements.push(firmware);
    refused(session.appraise(&session.make()), "not-measured");
}

#[test]
fn collateral_of_another_platform_or_none() {
    let mut session = Session::new(Platform::tdx(1));
    let made = session.make();
    session.collateral.intel = vec![CollateralDraft { fmspc: [9; 6], ..CollateralDraft::default() }.make()];
    refused(session.appraise(&made), "collateral-missing");
    session.collateral.intel.push(CollateralDraft::default().make());
    session.appraise(&made).unwrap();
    let out_of_date = CollateralDraft { status: "OutOfDate", ..CollateralDraft::default() };
    session.collateral.intel = vec![out_of_date.make()];
    refused(session.appraise(&made), "tcb");
    session.collateral.intel =
        vec![CollateralDraft { next_update: "2026-10-01T00:00:00Z", ..CollateralDraft::default() }.make()];
    refused(session.appraise(&made), "collateral-expired");
    session.collateral.intel.clear();
    refused(session.appraise(&made), "collateral-missing");
}

#[test]
fn manifests_are_found_by_their_names() {
    let mut session = Session::new(Platform::tdx(1));
    let made = session.make();
    // Manifests of other devices in the bundle are no stray ones.
    session.collateral.nvidia.rims.insert("NV_GPU_DRIVER_GH100_1.0".into(), b"not even XML".to_vec());
    session.appraise(&made).unwrap();
    let driver = "NV_GPU_DRIVER_GH100_580.95.05";
    let other = Manifest { version: "580.95.06", ..Manifest::driver() };
    session.collateral.nvidia.rims.insert(driver.into(), other.document().into_bytes());
    refused(session.appraise(&made), "rim-version");
    session.collateral.nvidia.rims.remove(driver);
    refused(session.appraise(&made), "rim-missing");
}

#[test]
fn revoked() {
    let mut session = Session::new(Platform::tdx(1));
    let made = session.make();
    let revoking = CollateralDraft { revoked_platforms: vec![9], ..CollateralDraft::default() };
    session.collateral.intel = vec![revoking.make()];
    refused(session.appraise(&made), "revoked");
    let serial = Authority::PlatformCa.serial();
    let revoking = CollateralDraft { revoked_authorities: vec![serial], ..CollateralDraft::default() };
    session.collateral.intel = vec![revoking.make()];
    refused(session.appraise(&made), "revoked");

    let mut session = Session::new(Platform::tdx(1));
    session.collateral.nvidia.crls = vec![CrlDraft::new("device root").der()];
    session.appraise(&session.make()).unwrap();
    session.collateral.nvidia.crls = vec![CrlDraft { serials: vec![2], ..CrlDraft::new("device root") }.der()];
    refused(session.appraise(&session.make()), "revoked");

    let mut session = Session::new(Platform::snp(0));
    session.collateral.amd.crls = vec![snp::crl(Product::Milan, true), snp::crl(Product::Genoa, false)];
    session.appraise(&session.make()).unwrap();
    session.collateral.amd.crls = vec![snp::crl(Product::Genoa, true)];
    refused(session.appraise(&session.make()), "revoked");
    let mut forged = snp::crl(Product::Genoa, false);
    *forged.last_mut().unwrap() ^= 1;
    session.collateral.amd.crls = vec![forged];
    refused(session.appraise(&session.make()), "crl");
    session.collateral.amd.crls = vec![snp::crl(Product::Milan, false)];
    let CpuPolicy::SevSnp(policy) = &mut session.policy.cpu else { panic!() };
    policy.require_crl = true;
    refused(session.appraise(&session.make()), "crl");
}

/// Without a table beside the report, the VCEK is the bundle's, by chip and TCB.
#[test]
fn sev_snp_without_a_table() {
    let mut session = Session::new(Platform::snp(0));
    let Made { mut cpu, gpus } = session.make();
    let CpuEvidence::SevSnp { report, certificates } = &mut cpu else { panic!() };
    *certificates = None;
    let report = report.0.clone();
    let made = Made { cpu, gpus };
    refused(session.appraise(&made), "collateral-missing");
    let (_, vek, chain) = snp::Draft::new(Product::Genoa).make();
    session.collateral.amd.veks.insert(vek_key(&report).unwrap(), vek);
    refused(session.appraise(&made), "chain");
    session.collateral.amd.chains = chain.into();
    session.appraise(&made).unwrap();
    let CpuEvidence::SevSnp { certificates, .. } = &made.cpu else { panic!() };
    assert!(certificates.is_none());
    let broken = CpuEvidence::SevSnp { report: Blob(report), certificates: Some(Blob(vec![1; 24])) };
    refused(session.appraise(&Made { cpu: broken, gpus: GpuEvidence::default() }), "certificate-table");
    assert_eq!(vek_key(&[0; 10]), None);
}

/// A token of the service for these devices.
fn token(session: &Session, devices: u32, issuer: &str) -> DeviceEvidence {
    TokenDraft { issuer: issuer.to_owned(), ..TokenDraft::new(session.nonce(), devices) }.evidence()
}

#[test]
fn tokens_beside_reports() {
    let mut session = Session::new(Platform::tdx(1));
    session.collateral.jwks.insert(NRAS.into(), jwks());
    let with = |session: &Session, more: &[DeviceEvidence]| {
        session.appraise(&session.make_with(|gpus| gpus.0.extend_from_slice(more)))
    };
    let good = token(&session, 1, NRAS);
    refused(with(&session, std::slice::from_ref(&good)), "token-kind");
    session.policy.gpu.tokens = Some(NrasPolicy::default());
    let appraisal = with(&session, std::slice::from_ref(&good)).unwrap();
    assert!(appraisal.claims.iter().any(|claim| claim.name == "nras-issuer" && claim.value == NRAS));
    with(&session, &[]).unwrap();
    session.policy.gpu.require_token = true;
    refused(with(&session, &[]), "token-missing");
    refused(with(&session, &[good.clone(), good.clone()]), "token-kind");
    let chained = DeviceEvidence { chain: Blob(vec![1]), ..good.clone() };
    refused(with(&session, &[chained]), "token-kind");
    refused(with(&session, &[token(&session, 2, NRAS)]), "device-count");
    refused(with(&session, &[token(&session, 1, "https://elsewhere.example")]), "issuer");
    session.collateral.jwks.clear();
    refused(with(&session, std::slice::from_ref(&good)), "collateral-missing");
    // A token never stands for a report.
    session.platform.devices.clear();
    session.policy.gpu = glasshouse_attest::hardware::GpuPolicy {
        tokens: Some(NrasPolicy::default()),
        ..glasshouse_attest::hardware::GpuPolicy::default()
    };
    session.collateral.jwks.insert(NRAS.into(), jwks());
    refused(with(&session, &[token(&session, 1, NRAS)]), "device-count");
}

/// Keys vouch for their own issuer, and what is told is why that issuer's token is refused.
#[test]
fn keys_of_another_issuer() {
    const OTHER: &str = "https://other.example";
    let mut session = Session::new(Platform::tdx(1));
    let issuers = vec![OTHER.to_owned(), NRAS.to_owned()];
    session.policy.gpu.tokens = Some(NrasPolicy { issuers, ..NrasPolicy::default() });
    session.collateral.jwks.insert(OTHER.into(), jwks());
    let with = |session: &Session, token: &TokenDraft| {
        session.appraise(&session.make_with(|gpus| gpus.0.push(token.evidence())))
    };
    let mut token = TokenDraft::new(session.nonce(), 1);
    refused(with(&session, &token), "issuer");
    session.collateral.jwks.insert(NRAS.into(), jwks());
    let appraisal = with(&session, &token).unwrap();
    assert_eq!(appraisal.relaxations, [format!("gpu.tokens.issuers {OTHER}")]);
    token.debug = "enabled";
    refused(with(&session, &token), "debug");
}

/// The links of the platform's chain come before its windows.
#[test]
fn a_platform_certificate_that_is_over_and_was_changed() {
    use base64::Engine as _;
    let mut draft = glasshouse_attest_gen::tdx::QuoteDraft::default();
    draft.pck.until = "20250101000000Z";
    let data = glasshouse_core::fixed::Digest64::from([7; 64]);
    let quote = draft.make(&data);
    let verifier = glasshouse_attest::tdx::DcapVerifier::new(
        glasshouse_attest_gen::tdx::policy(),
        glasshouse_attest_gen::tdx::root(),
    );
    let collateral = CollateralDraft::default().make();
    let verify = |quote: &[u8]| {
        let data = glasshouse_attest::ReportData::Full(&data);
        verifier.verify_tdx(quote, &collateral, data, glasshouse_attest_gen::AUDIT_TIME).unwrap_err().code.to_string()
    };
    assert_eq!(verify(&quote), "certificate-validity");
    let last_line = |der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        text.as_bytes().chunks(64).next_back().unwrap().to_vec()
    };
    let mut leaf = draft.pck.certificate();
    let before = last_line(&leaf);
    *leaf.last_mut().unwrap() ^= 1;
    let (after, mut changed) = (last_line(&leaf), quote.clone());
    let at = changed.windows(before.len()).position(|part| part == before).unwrap();
    changed[at..at + after.len()].copy_from_slice(&after);
    assert_ne!(changed, quote);
    assert_eq!(verify(&changed), "chain");
}

/// A bundle's chains are of every product: what is of no use beside the report's own refuses nothing.
#[test]
fn chains_of_another_product_in_the_bundle() {
    let mut session = Session::new(Platform::snp(0));
    let (_, _, [issuer, root]) = glasshouse_attest_gen::snp::Draft::new(glasshouse_attest::snp::Product::Milan).make();
    session.collateral.amd.chains = vec![b"no certificate".to_vec(), issuer, root];
    session.appraise(&session.make()).unwrap();
}

#[test]
fn codes_are_distinct_and_advised() {
    for code in codes::ALL {
        assert!(codes::advice(code).is_some(), "{code}");
        assert_eq!(codes::ALL.iter().filter(|other| *other == code).count(), 1);
    }
}

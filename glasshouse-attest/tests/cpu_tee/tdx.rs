//! Intel's quotes: real ones with every change of quote and collateral, and every policy that they can show.

use glasshouse_attest::ReportData;
use glasshouse_attest::tdx::{
    Body, Collateral, DcapClaims, DcapPolicy, DcapVerifier, EnclaveMeasurements, IntelRoot, TcbFloor, TcbStatus,
    TdMeasurements,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Digest64, Fixed};
use glasshouse_core::refusal::Refusal;
use proptest::prelude::*;

use crate::files::{corpus, flipped, read, time, tried};

/// Bytes of the up-to-date quote that belong to its structure; zeros follow.
const STRUCTURE: usize = 4936;

fn lax() -> DcapPolicy {
    DcapPolicy { dangerous_no_measurements: true, dangerous_no_report_data: true, ..DcapPolicy::default() }
}

fn at() -> UnixMillis {
    time("2025-06-20T08:26:40Z")
}

fn verify(quote: &[u8], collateral: &[u8], policy: DcapPolicy, at: UnixMillis) -> Result<DcapClaims, Refusal> {
    let collateral = Collateral::parse(collateral)?;
    let verifier = DcapVerifier::new(policy, IntelRoot::intel());
    match quote.get(4) {
        Some(0) => verifier.verify_sgx(quote, &collateral, ReportData::Unknown, at),
        _ => verifier.verify_tdx(quote, &collateral, ReportData::Unknown, at),
    }
}

fn tdx() -> (Vec<u8>, Vec<u8>) {
    (read("tdx/uptodate/quote.bin"), read("tdx/uptodate/collateral.json"))
}

fn sgx() -> (Vec<u8>, Vec<u8>) {
    (read("sgx/quote.bin"), read("sgx/collateral.json"))
}

fn sgx_policy() -> DcapPolicy {
    DcapPolicy {
        allow_tcb_statuses: [TcbStatus::ConfigurationAndSwHardeningNeeded].into(),
        allow_advisories: ["INTEL-SA-00289", "INTEL-SA-00615"].map(str::to_owned).into(),
        ..lax()
    }
}

fn code<T>(result: Result<T, Refusal>) -> String {
    result.map_or_else(|refusal| refusal.code.to_string(), |_| "accepted".to_owned())
}

#[test]
fn changes_of_a_quote() {
    if corpus().is_none() {
        return;
    }
    for ((quote, collateral), policy, structure) in [(tdx(), lax(), STRUCTURE), (sgx(), sgx_policy(), 4600)] {
        let claims = verify(&quote, &collateral, policy.clone(), at()).unwrap();
        for bit in tried(quote.len() * 8, 60) {
            let changed = verify(&flipped(&quote, bit), &collateral, policy.clone(), at());
            // White space between lines of the chain's PEM, and the zero that ends it, carry no meaning.
            if let Ok(changed) = changed {
                let ends = bit / 8 == structure - 1 && quote[bit / 8] == 0;
                assert!(ends || quote[bit / 8].is_ascii_whitespace(), "bit {bit} of {}", quote.len());
                assert_eq!(changed, claims);
            }
        }
        for length in tried(structure, 40) {
            let cut = code(verify(&quote[..length], &collateral, policy.clone(), at()));
            assert!(["signature", "chain"].contains(&cut.as_str()), "cut to {length}: {cut}");
        }
        assert_eq!(verify(&quote[..structure], &collateral, policy.clone(), at()), Ok(claims.clone()));
        let padded = |byte: u8| [&quote[..structure], &[0, byte]].concat();
        assert_eq!(verify(&padded(0), &collateral, policy.clone(), at()), Ok(claims));
        assert_eq!(code(verify(&padded(1), &collateral, policy, at())), "signature");
    }
}

#[test]
fn changes_of_collateral() {
    if corpus().is_none() {
        return;
    }
    let (quote, collateral) = tdx();
    let claims = verify(&quote, &collateral, lax(), at()).unwrap();
    for bit in tried(collateral.len() * 8, 80) {
        if let Ok(changed) = verify(&quote, &flipped(&collateral, bit), lax(), at()) {
            assert_eq!(changed, claims, "bit {bit}");
        }
    }
    for length in tried(collateral.trim_ascii_end().len(), 30) {
        assert_eq!(code(Collateral::parse(&collateral[..length])), "collateral-malformed");
    }
    // Another platform's, another TEE's, and parts of two.
    assert_eq!(code(verify(&quote, &read("sgx/collateral.json"), lax(), at())), "collateral");
    let mut mixed: serde_json::Value = serde_json::from_slice(&collateral).unwrap();
    let other: serde_json::Value = serde_json::from_slice(&read("sgx/collateral.json")).unwrap();
    for member in ["tcb_info", "tcb_info_signature", "qe_identity"] {
        let kept = mixed[member].take();
        mixed[member] = other[member].clone();
        assert_eq!(code(verify(&quote, mixed.to_string().as_bytes(), lax(), at())), "collateral", "{member}");
        mixed[member] = kept;
    }
}

#[test]
fn times() {
    if corpus().is_none() {
        return;
    }
    let (quote, collateral) = tdx();
    let at = |text| code(verify(&quote, &collateral, lax(), time(text)));
    assert_eq!(at("2025-06-20T08:26:40Z"), "accepted");
    assert_eq!(at("2025-08-19T00:00:00Z"), "collateral-expired");
    assert_eq!(at("2025-06-18T00:00:00Z"), "collateral-not-yet-valid");
    assert_eq!(at("2015-06-18T00:00:00Z"), "certificate-validity");
    assert_eq!(at("2099-06-18T00:00:00Z"), "certificate-validity");
}

#[test]
fn tdx_policies() {
    if corpus().is_none() {
        return;
    }
    let (quote, collateral) = tdx();
    let run = |policy: DcapPolicy| verify(&quote, &collateral, policy, at());
    let claims = run(lax()).unwrap();
    let Body::Td(td) = &claims.body else { panic!() };
    assert_eq!((claims.tcb_status, claims.measured, claims.evaluation_data_number), (TcbStatus::UpToDate, false, 17));
    assert_eq!(claims.fmspc.to_string(), "b0c06f000000");
    assert!(claims.labelled().iter().any(|c| c.name == "tdx-mrtd" && c.value == td.mrtd.to_string()));

    let [rtmr0, rtmr1, rtmr2, rtmr3] = td.rtmr.map(Some);
    let reference = TdMeasurements {
        mrtd: td.mrtd,
        rtmr0,
        rtmr1,
        rtmr2,
        rtmr3,
        mr_config_id: Some(td.mr_config_id),
        mr_owner: Some(td.mr_owner),
    };
    let with = |reference: TdMeasurements| {
        run(DcapPolicy { measurements: vec![reference], dangerous_no_report_data: true, ..DcapPolicy::default() })
    };
    assert!(with(reference.clone()).unwrap().measured);
    let firmware_only = TdMeasurements { rtmr1: None, ..reference.clone() };
    assert!(!with(firmware_only).unwrap().measured, "the kernel is not covered");
    let kernel = TdMeasurements { rtmr0: None, ..reference.clone() };
    assert!(!with(kernel.clone()).unwrap().measured, "the firmware's configuration is not covered");
    let relaxed = DcapPolicy {
        measurements: vec![kernel],
        allow_unmeasured_firmware_configuration: true,
        dangerous_no_report_data: true,
        ..DcapPolicy::default()
    };
    assert!(run(relaxed).unwrap().measured);
    assert_eq!(code(with(TdMeasurements { rtmr2: Some([0; 48].into()), ..reference.clone() })), "measurement");
    assert_eq!(code(with(TdMeasurements { mrtd: [0; 48].into(), ..reference })), "measurement");
    assert_eq!(code(run(DcapPolicy { dangerous_no_measurements: false, ..lax() })), "measurement");
    assert_eq!(code(run(DcapPolicy { dangerous_no_report_data: false, ..lax() })), "report-data");

    let floor = |minimum_tcb: TcbFloor| code(run(DcapPolicy { minimum_tcb, ..lax() }));
    let number = |evaluation_data_number| TcbFloor { evaluation_data_number, ..TcbFloor::default() };
    assert_eq!((floor(number(17)), floor(number(18))), ("accepted".to_owned(), "tcb".to_owned()));
    let svn = |tee_tcb_svn| TcbFloor { tee_tcb_svn: Some(tee_tcb_svn), ..TcbFloor::default() };
    let mut above = td.tee_tcb_svn.0;
    above[0] += 1;
    assert_eq!((floor(svn(td.tee_tcb_svn)), floor(svn(Fixed(above)))), ("accepted".to_owned(), "tcb".to_owned()));

    let verifier = DcapVerifier::new(lax(), IntelRoot::intel());
    let collateral = Collateral::parse(&collateral).unwrap();
    let bound = |data| code(verifier.verify_tdx(&quote, &collateral, data, at()));
    assert_eq!(bound(ReportData::Full(&td.report_data)), "accepted");
    assert_eq!(bound(ReportData::Prefix(&td.report_data.0[..5])), "accepted");
    assert_eq!(bound(ReportData::Prefix(&[])), "report-data");
    assert_eq!(bound(ReportData::Full(&Digest64::from([0; 64]))), "report-data");
    assert_eq!(code(verifier.verify_sgx(&quote, &collateral, ReportData::Unknown, at())), "tee-type");
    let stranger = DcapVerifier::new(lax(), IntelRoot::other(vec![0x30, 0]));
    assert_eq!(code(stranger.verify_tdx(&quote, &collateral, ReportData::Unknown, at())), "chain");
}

#[test]
fn what_comes_before_the_tcb_is_told_before_it() {
    if corpus().is_none() {
        return;
    }
    let (quote, collateral) = (read("tdx/no_matching_tcb/quote.bin"), read("tdx/no_matching_tcb/collateral.json"));
    let run = |policy| code(verify(&quote, &collateral, policy, time("2026-02-19T11:20:00Z")));
    assert_eq!(run(lax()), "tcb");
    assert_eq!(run(DcapPolicy { dangerous_no_measurements: false, ..lax() }), "measurement");
    assert_eq!(run(DcapPolicy { dangerous_no_report_data: false, ..lax() }), "report-data");
}

#[test]
fn sgx_policies() {
    if corpus().is_none() {
        return;
    }
    let (quote, collateral) = sgx();
    let run = |policy: DcapPolicy| verify(&quote, &collateral, policy, at());
    let claims = run(sgx_policy()).unwrap();
    assert_eq!(claims.tcb_status, TcbStatus::ConfigurationAndSwHardeningNeeded);
    assert_eq!(code(run(lax())), "tcb");
    let one_less = DcapPolicy { allow_advisories: ["INTEL-SA-00289".to_owned()].into(), ..sgx_policy() };
    assert_eq!(code(run(one_less)), "tcb");
    let Body::Enclave(enclave) = &claims.body else { panic!() };
    let reference = EnclaveMeasurements {
        mr_enclave: Some(enclave.mr_enclave),
        mr_signer: enclave.mr_signer,
        isv_prod_id: enclave.isv_prod_id,
        minimum_isv_svn: enclave.isv_svn,
    };
    let with = |reference: EnclaveMeasurements| {
        run(DcapPolicy { enclaves: vec![reference], dangerous_no_measurements: false, ..sgx_policy() })
    };
    assert!(with(reference.clone()).unwrap().measured);
    assert!(!with(EnclaveMeasurements { mr_enclave: None, ..reference.clone() }).unwrap().measured);
    let newer = EnclaveMeasurements { minimum_isv_svn: enclave.isv_svn + 1, ..reference };
    assert_eq!(code(with(newer)), "measurement");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, at in 0usize..600, collateral: Vec<u8>) {
        if corpus().is_none() {
            return Ok(());
        }
        let (mut quote, good) = tdx();
        prop_assert!(verify(&bytes, &good, lax(), UnixMillis(0)).is_err());
        prop_assert!(verify(&quote, &collateral, lax(), UnixMillis(0)).is_err());
        // Random bytes where lengths and types stand.
        let start = (at * 8).min(quote.len() - bytes.len().min(quote.len()));
        for (to, from) in quote[start..].iter_mut().zip(&bytes) {
            *to = *from;
        }
        let _ = verify(&quote, &good, lax(), UnixMillis(1_750_407_999_000));
    }
}

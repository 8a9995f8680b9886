//! The fetcher against fakes of the vendors' services: what it brings home is accepted at appraisal.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use glasshouse_attest::collateral::{Bundle, FetchError, Fetcher, Services};
use glasshouse_attest::snp::Product;
use glasshouse_attest_gen::nvidia::{CrlDraft, Manifest, OcspDraft, names_list, names_responder};
use glasshouse_attest_gen::tdx::CollateralDraft;
use glasshouse_attest_gen::{AUDIT_TIME, Platform, snp, token};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::CpuEvidence;
use serde_json::{Value, json};

use crate::service::{FakeServices, Page};
use crate::session::{Made, Session};

fn page(body: impl Into<Vec<u8>>) -> Page {
    (200, Vec::new(), body.into())
}

/// Percent-encoded as Intel does it: everything but letters and digits.
fn encoded(chain: &Value) -> String {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    chain.as_str().unwrap().bytes().map(byte).collect()
}

fn pages() -> BTreeMap<String, Page> {
    let intel: Value = serde_json::from_slice(&CollateralDraft::default().json()).unwrap();
    let text = |member: &str| intel[member].as_str().unwrap().to_owned();
    let hex = |member: &str| hex::decode(text(member)).unwrap();
    let signed = |name: &str, document: &str, header: &'static str| {
        // White space and order as they were signed.
        let body =
            format!("{{\"{name}\":{},\"signature\":\"{}\"}}", text(document), text(&format!("{document}_signature")));
        (200, vec![(header, encoded(&intel[format!("{document}_issuer_chain")]))], body.into_bytes())
    };
    let pck = vec![("SGX-PCK-CRL-Issuer-Chain", encoded(&intel["pck_crl_issuer_chain"]))];
    let mut pages = BTreeMap::from([
        ("/root.crl".to_owned(), page(hex("root_ca_crl"))),
        ("/intel/sgx/certification/v4/pckcrl?ca=platform&encoding=der".to_owned(), (200, pck, hex("pck_crl"))),
        (
            "/intel/tdx/certification/v4/tcb?fmspc=6e0000000001".to_owned(),
            signed("tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain"),
        ),
        (
            "/intel/tdx/certification/v4/qe/identity".to_owned(),
            signed("enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain"),
        ),
        ("/jwks.json".to_owned(), page(token::jwks_json())),
    ]);
    for (name, rim) in Platform::collateral().nvidia.rims {
        let body = json!({"id": name, "rim": STANDARD.encode(rim), "sha256": "", "request_id": "x"});
        pages.insert(format!("/nvidia/v1/rim/{name}"), page(body.to_string()));
    }
    let (report, vcek, chain) = snp::Draft::new(Product::Genoa).make();
    let pem: String = chain
        .iter()
        .map(|der| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der)))
        .collect();
    let chip = hex::encode(&report[0x1a0..0x1e0]);
    let levels = "blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=05";
    pages.insert(format!("/amd/vcek/v1/Genoa/{chip}?{levels}"), page(vcek));
    pages.insert("/amd/vcek/v1/Genoa/cert_chain".to_owned(), page(pem));
    pages.insert("/amd/vcek/v1/Genoa/crl".to_owned(), page(snp::crl(Product::Genoa, false)));
    pages
}

fn fetch(services: Services, made: &Made) -> Result<Bundle, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fetcher = Fetcher::new(services)?;
    let until = glasshouse_core::clock::UnixMillis(AUDIT_TIME.0 + 86_400_000);
    runtime.block_on(fetcher.bundle((&made.cpu, &made.gpus), 1, (AUDIT_TIME, until)))
}

/// Evidence as it comes without the host's table of certificates.
fn bare(session: &Session) -> Made {
    let mut made = session.make();
    if let CpuEvidence::SevSnp { certificates, .. } = &mut made.cpu {
        *certificates = None;
    }
    made
}

#[test]
fn what_is_fetched_is_accepted() {
    for platform in [Platform::tdx(2), Platform::snp(1)] {
        let fake = FakeServices::start(pages());
        let mut session = Session::new(platform);
        let made = bare(&session);
        let bundle = fetch(fake.services(), &made).unwrap();
        session.collateral = bundle.collateral().unwrap();
        session.appraise(&made).unwrap();
        let asked = fake.asked.lock().unwrap().clone();
        let manifests = asked.iter().filter(|path| path.contains("/rim/")).count();
        assert_eq!(manifests, 2, "each manifest once, however many GPUs: {asked:?}");
        assert_eq!(bundle.jwks.len(), 1);
    }
}

/// A machine and manifests whose certificates say where revocation is told: of devices as NVIDIA's Hopper has it, of signers
/// as NVIDIA's manifests have it.
fn telling() -> (Platform, BTreeMap<String, Page>) {
    let ask = || names_responder("http://elsewhere.example");
    let mut platform = Platform::tdx(2);
    for device in &mut platform.devices {
        device.chain[2].extensions.extend([ask(), names_list("http://elsewhere.example/crl/l2-family.crl")]);
        device.chain[3].extensions.extend([ask(), names_list("http://elsewhere.example/crl/l1-root.crl")]);
    }
    let mut pages = pages();
    for (name, mut manifest) in
        [("DRIVER_GH100_580.95.05", Manifest::driver()), ("VBIOS_G520_0200_885_96009F0001", Manifest::vbios())]
    {
        manifest.chain[..3].iter_mut().for_each(|signer| signer.extensions.push(ask()));
        manifest.chain[2].extensions.push(names_list("http://elsewhere.example/crl-corim/l1-corim"));
        let body = json!({"rim": STANDARD.encode(manifest.document())});
        pages.insert(format!("/nvidia/v1/rim/NV_GPU_{name}"), page(body.to_string()));
    }
    let lists =
        [("/crl/l1-root.crl", "device root"), ("/crl/l2-family.crl", "family"), ("/crl-corim/l1-corim", "RIM root")];
    pages.extend(lists.map(|(path, issuer)| (path.to_owned(), page(CrlDraft::new(issuer).der()))));
    (platform, pages)
}

#[test]
fn revocation_is_fetched_for_devices_and_for_signers_of_manifests() {
    let (platform, pages) = telling();
    let answers = [("family", 3), ("device root", 2), ("RIM L3", 9), ("RIM CA", 8), ("RIM root", 7)];
    let mut session = Session::new(platform);
    session.policy.gpu.devices.require_crls = true;
    let made = session.make();
    let with = |ocsp: bool, changed: Option<(u8, Vec<u8>)>| {
        let mut pages = pages.clone();
        for (issuer, serial) in answers {
            let answer = changed.as_ref().filter(|(at, _)| *at == serial).map(|(_, body)| body.clone());
            let answer = answer.unwrap_or_else(|| OcspDraft::good(issuer, serial).der());
            pages.insert(format!("/ocsp#{serial:02x}"), page(answer));
        }
        let fake = FakeServices::start(pages);
        let url = ocsp.then(|| format!("http://{}/ocsp", fake.address));
        fetch(Services { nvidia_ocsp: url, ..fake.services() }, &made)
    };
    let bundle = with(true, None).unwrap();
    assert_eq!(bundle.nvidia.ocsp.len(), 5, "one for each certificate, however many GPUs and manifests");
    assert_eq!(bundle.nvidia.crls.len(), 3, "one for each issuer that publishes one");
    session.collateral = bundle.collateral().unwrap();
    session.appraise(&made).unwrap();
    // Either alone is not enough for signers, of whom only the root publishes a list; answers alone are.
    session.collateral.nvidia.crls.clear();
    session.appraise(&made).unwrap();
    session.collateral = with(false, None).unwrap().collateral().unwrap();
    assert!(session.collateral.nvidia.ocsp.is_empty());
    let refusal = session.appraise(&made).unwrap_err();
    assert!(refusal.code.as_str() == "crl" && refusal.seen.contains("RIM L3"), "{refusal}");
    for (issuer, serial, code) in [("device root", 2, "revoked"), ("RIM CA", 8, "rim-revoked")] {
        let revoked = with(true, Some((serial, OcspDraft::revoked(issuer, serial).der()))).unwrap();
        session.collateral = revoked.collateral().unwrap();
        assert_eq!(session.appraise(&made).unwrap_err().code.as_str(), code);
    }
    // It counts as long as all of it does: one answer that ends sooner ends the bundle, not the machine.
    assert_eq!(bundle.not_after, UnixMillis(AUDIT_TIME.0 + 86_400_000));
    let sooner = OcspDraft { until: Some("20261123060000Z"), ..OcspDraft::good("device root", 2) };
    assert_eq!(with(true, Some((2, sooner.der()))).unwrap().not_after, UnixMillis(AUDIT_TIME.0 + 6 * 3_600_000));
    let later = with(true, Some((2, vec![0x30, 3, 10, 1, 3]))).unwrap_err();
    assert!(matches!(later, FetchError::Unexpected { what: "an OCSP answer that can be kept", .. }), "{later}");
}

/// A page that says 200 and is no list is not kept, where it would refuse every device; and nothing is asked twice.
#[test]
fn what_is_no_list_is_not_kept() {
    let (platform, mut pages) = telling();
    let made = Session::new(platform).make();
    let fake = FakeServices::start(pages.clone());
    fetch(fake.services(), &made).unwrap();
    let asked = fake.asked.lock().unwrap().iter().filter(|path| path.starts_with("/crl")).count();
    assert_eq!(asked, 3, "each list once, however many GPUs and manifests");
    pages.insert("/crl/l1-root.crl".to_owned(), page("<html>maintenance</html>"));
    let error = fetch(FakeServices::start(pages).services(), &made).unwrap_err();
    assert!(matches!(error, FetchError::Unexpected { what: "a revocation list in DER", .. }), "{error}");
    let mut pages = self::pages();
    pages.insert("/amd/vcek/v1/Genoa/crl".to_owned(), page("<html>maintenance</html>"));
    let made = bare(&Session::new(Platform::snp(0)));
    let error = fetch(FakeServices::start(pages).services(), &made).unwrap_err();
    assert!(matches!(error, FetchError::Unexpected { what: "a revocation list in DER", .. }), "{error}");
}

#[test]
fn offline_it_says_so() {
    let session = Session::new(Platform::tdx(0));
    let made = session.make();
    // A port that nobody listens on any more.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let services = Services { intel: format!("http://{address}"), ..Services::default() };
    let error = fetch(services, &made).unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }));
    let told = error.to_string();
    assert!(told.contains(&address.to_string()) && told.contains("a bundle that you have"), "{told}");
}

#[test]
fn what_services_answer_wrongly() {
    let session = Session::new(Platform::tdx(1));
    let made = session.make();
    let with = |path: &str, page: Option<Page>| {
        let mut pages = pages();
        match page {
            Some(page) => pages.insert(path.to_owned(), page),
            None => pages.remove(path),
        };
        fetch(FakeServices::start(pages).services(), &made).unwrap_err()
    };
    let tcb = "/intel/tdx/certification/v4/tcb?fmspc=6e0000000001";
    assert!(matches!(with(tcb, None), FetchError::Status { status: 404, .. }));
    assert!(matches!(with(tcb, Some((503, vec![], vec![]))), FetchError::Status { status: 503, .. }));
    assert!(matches!(with(tcb, Some(page("{}"))), FetchError::Unexpected { what: "a document and its signature", .. }));
    let headless = page("{\"tcbInfo\":{},\"signature\":\"\"}");
    assert!(matches!(with(tcb, Some(headless)), FetchError::Unexpected { what: "TCB-Info-Issuer-Chain", .. }));
    let rim = "/nvidia/v1/rim/NV_GPU_DRIVER_GH100_580.95.05";
    assert!(matches!(with(rim, Some(page("{\"rim\":\"!\"}"))), FetchError::Unexpected { .. }));
    let huge = page(vec![b' '; 9 * 1024 * 1024]);
    assert!(matches!(
        with("/jwks.json", Some(huge)),
        FetchError::Unexpected { what: "a document of at most 8 MiB", .. }
    ));
}

#[test]
fn evidence_that_names_nothing() {
    let fake = FakeServices::start(pages());
    let session = Session::new(Platform::tdx(0));
    let mut made = session.make();
    let CpuEvidence::Tdx { quote } = &mut made.cpu else { panic!() };
    quote.0.truncate(100);
    assert!(matches!(fetch(fake.services(), &made), Err(FetchError::Unnamed("its platform"))));
}

//! What the corpus cannot show: one change at a time to evidence whose keys are ours.

use glasshouse_attest::nvidia::{
    DeviceClaims, Feature, NvidiaCollateral, NvidiaPolicy, NvidiaRoots, NvidiaVerifier, VerifiedRim, codes, verify_rim,
};
use glasshouse_attest::x509::{Certificate, VerifiedLinks, verify_chain};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::GpuEvidence;
use glasshouse_core::fixed::{Digest48, Fixed, Nonce32};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::transcript::sha384;
use serde_json::json;

use crate::corpus::time;
use glasshouse_attest_gen::nvidia::{
    CrlDraft, FWID, Machine, Manifest, composite_device_id, extension, resource, roots, sign, signed_info, tcb_info,
};

const NONCE: Nonce32 = Fixed([5; 32]);

const NONE: NvidiaCollateral<'_> = NvidiaCollateral { rims: &[], crls: &[], ocsp: &[] };

fn now() -> UnixMillis {
    time("2026-11-23T00:00:00Z")
}

fn manifests() -> Vec<String> {
    vec![Manifest::driver().document(), Manifest::vbios().document()]
}

fn verify_with(machines: &[Machine], rims: &[String], policy: serde_json::Value) -> Result<Vec<DeviceClaims>, Refusal> {
    let evidence = GpuEvidence(machines.iter().map(|machine| machine.evidence(&NONCE)).collect());
    let rims: Vec<_> = rims.iter().map(String::as_bytes).collect();
    let policy: NvidiaPolicy = serde_json::from_value(policy).unwrap();
    NvidiaVerifier::new(policy, roots()).verify_all(
        &evidence,
        NvidiaCollateral { rims: &rims, crls: &[], ocsp: &[] },
        &NONCE,
        now(),
    )
}

fn verify(machines: &[Machine]) -> Result<Vec<DeviceClaims>, Refusal> {
    verify_with(machines, &manifests(), json!({}))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>, code: Code) {
    let refusal = result.expect_err("should be refused");
    assert_eq!(refusal.code, code, "{refusal}");
    assert!(refusal.advice.is_some(), "{refusal}");
}

#[test]
fn accepted_under_its_roots_and_refused_under_the_real_ones() {
    let claims = verify(&[Machine::gpu(1), Machine::gpu(2)]).unwrap();
    assert_eq!(claims.len(), 2);
    assert_eq!((claims[0].matched.as_slice(), claims[0].skipped.as_slice()), (&[0, 1, 2, 7, 9][..], &[35][..]));
    assert_eq!(claims[0].feature, Some(Feature::Spt));
    assert_eq!(claims[0].rims.iter().map(|rim| rim.names_board).collect::<Vec<_>>(), [false, true]);

    let evidence = GpuEvidence(vec![Machine::gpu(1).evidence(&NONCE)]);
    let real = NvidiaVerifier::new(NvidiaPolicy::default(), NvidiaRoots::nvidia());
    refused(real.verify_all(&evidence, NONE, &NONCE, now()), codes::CHAIN);
    refused(verify_rim(manifests()[0].as_bytes(), &NvidiaRoots::nvidia().rim, now()), codes::RIM_CHAIN);
    // A signer of manifests is no device, and the other way round.
    refused(verify_rim(manifests()[0].as_bytes(), &roots().device, now()), codes::RIM_CHAIN);
    assert!(verify(&[]).is_err(), "manifests for no device");
    assert_eq!(verify_with(&[], &[], json!({})), Ok(vec![]));
}

#[test]
fn devices_together() {
    refused(verify(&[Machine::gpu(1), Machine::gpu(1)]), codes::DUPLICATE_DEVICE);
    // The same boot ROM under two leaves.
    let mut twin = Machine::gpu(2);
    twin.chain[0].issuer = Machine::gpu(1).chain[1].subject.clone();
    twin.chain[0].signer = Machine::gpu(1).chain[1].key.clone();
    twin.chain[1] = Machine::gpu(1).chain[1].clone();
    refused(verify(&[Machine::gpu(1), twin]), codes::DUPLICATE_DEVICE);

    let mut evidence = GpuEvidence(vec![Machine::gpu(1).evidence(&NONCE)]);
    evidence.0[0].serial.0[1] ^= 1;
    let verifier = NvidiaVerifier::new(NvidiaPolicy::default(), roots());
    refused(verifier.verify_all(&evidence, NONE, &NONCE, now()), codes::DEVICE_SERIAL);
    let swapped = GpuEvidence(vec![Machine::gpu(1).evidence(&Fixed([6; 32]))]);
    refused(verifier.verify_all(&swapped, NONE, &NONCE, now()), codes::NONCE);
}

#[test]
fn modes() {
    let mode = |number, mode: u8| {
        let mut machine = Machine::gpu(number);
        machine.set(36, &[mode, 0]);
        machine
    };
    refused(verify(&[mode(1, 0), mode(2, 1)]), codes::FEATURE);
    refused(verify(&[mode(1, 3)]), codes::FEATURE);
    refused(verify_with(&[mode(1, 0)], &manifests(), json!({"features": ["mpt"]})), codes::FEATURE);
    assert!(verify_with(&[mode(1, 1)], &manifests(), json!({"features": ["mpt"]})).is_ok());

    refused(verify(&[mode(1, 2)]), codes::SWITCH_MISSING);
    assert!(verify_with(&[mode(1, 2)], &manifests(), json!({"allow_ppcie_without_switches": true})).is_ok());
    let all = [manifests(), vec![Manifest::switch().document()]].concat();
    let claims = verify_with(&[mode(1, 2), Machine::switch(9)], &all, json!({})).unwrap();
    assert_eq!((claims[1].chip.as_str(), claims[1].driver_version.as_deref()), ("LS10", None));
    refused(verify(&[mode(1, 2), Machine::switch(9)]), codes::RIM_MISSING);
}

/// Check by check over all devices and manifests: which stands first decides nothing.
#[test]
fn the_first_check_decides_and_not_the_first_device() {
    let mut no_fwid = Machine::gpu(1);
    no_fwid.opaque.retain(|(field, _)| *field != 20);
    let mut short = Machine::gpu(2);
    short.chain.remove(3);
    let mut old = Machine::gpu(3);
    old.chain[1].until = "20250101000000Z";
    let mut drifted = Machine::gpu(4);
    drifted.measurements[0] = Digest48::from([0; 48]);
    let mut other_driver = Machine::gpu(5);
    other_driver.set(3, b"570.00.01\0");
    let mut feature = Machine::gpu(6);
    feature.set(36, &[3, 0]);
    for (machines, code) in [
        ([&no_fwid, &short], codes::CHAIN),
        ([&no_fwid, &old], codes::CERTIFICATE_VALIDITY),
        ([&old, &short], codes::CHAIN),
        ([&drifted, &no_fwid], codes::FWID),
        ([&drifted, &other_driver], codes::RIM_MISSING),
        ([&feature, &drifted], codes::MEASUREMENT),
    ] {
        refused(verify(&machines.map(Machine::clone)), code.clone());
        let [first, second] = machines.map(Machine::clone);
        refused(verify(&[second, first]), code);
    }
    let verifier = NvidiaVerifier::new(NvidiaPolicy::default(), roots());
    let with = |broken: &Machine, first: &Machine, crls: &[&[u8]]| {
        let mut evidence = GpuEvidence(vec![first.evidence(&NONCE), broken.evidence(&NONCE)]);
        *evidence.0[1].report.0.last_mut().unwrap() ^= 1;
        verifier.verify_all(&evidence, NvidiaCollateral { crls, ..NONE }, &NONCE, now())
    };
    refused(with(&Machine::gpu(9), &no_fwid, &[]), codes::SIGNATURE);
    // A list that cannot be read, and a chain of another length, come after the signature.
    refused(with(&Machine::gpu(9), &no_fwid, &[b"no list"]), codes::SIGNATURE);
    refused(with(&short, &Machine::gpu(1), &[]), codes::SIGNATURE);
    let evidence = GpuEvidence(vec![old.evidence(&NONCE)]);
    let unreadable = NvidiaCollateral { crls: &[b"no list"], ..NONE };
    refused(verifier.verify_all(&evidence, unreadable, &NONCE, now()), codes::CERTIFICATE_VALIDITY);

    let mut no_certificate = Manifest::driver();
    no_certificate.chain[0].signer = "stranger".to_owned();
    let edited = Manifest::vbios().document().replace("96.00.9F", "96.00.9E");
    refused(verify_with(&[Machine::gpu(1)], &[no_certificate.document(), edited], json!({})), codes::RIM_DIGEST);
}

/// A switch has no driver of its own, whatever its report says.
#[test]
fn a_switch_that_names_a_driver() {
    let mut switch = Machine::switch(9);
    switch.set(3, b"580.95.05\0");
    let claims = verify_with(&[switch], &[Manifest::switch().document()], json!({})).unwrap();
    assert_eq!((claims[0].driver_version.as_deref(), claims[0].is_measured()), (None, true));
}

#[test]
fn a_kind_that_is_not_the_chips() {
    let mut machine = Machine::switch(1);
    machine.kind = glasshouse_core::evidence::DeviceKind::NvidiaGpu;
    refused(verify(&[machine]), codes::DEVICE_KIND);
}

#[test]
fn firmware_id() {
    let mut machine = Machine::gpu(1);
    machine.chain[0].extensions = vec![tcb_info(sha384(FWID))];
    assert!(verify(&[machine.clone()]).is_ok(), "Blackwell's form");
    machine.chain[0].extensions = vec![tcb_info(sha384("older firmware"))];
    refused(verify(&[machine.clone()]), codes::FWID);
    machine.chain[0].extensions.clear();
    refused(verify_with(&[machine], &manifests(), json!({"allow_missing_fwid": true})), codes::FWID);

    let mut machine = Machine::gpu(1);
    machine.opaque.retain(|(field, _)| *field != 20);
    refused(verify(&[machine.clone()]), codes::FWID);
    let claims = verify_with(&[machine.clone()], &manifests(), json!({"allow_missing_fwid": true})).unwrap();
    assert_eq!(claims[0].fwid, None);
    machine.set(20, &[7; 47]);
    refused(verify_with(&[machine], &manifests(), json!({"allow_missing_fwid": true})), codes::FWID);
}

#[test]
fn chains() {
    let with = |change: fn(&mut Machine)| {
        let mut machine = Machine::gpu(1);
        change(&mut machine);
        verify(&[machine])
    };
    refused(with(|m| drop(m.chain.remove(3))), codes::CHAIN);
    refused(with(|m| m.chain.swap(2, 3)), codes::CHAIN);
    refused(with(|m| m.chain[2].ca = None), codes::CHAIN);
    refused(with(|m| m.chain[2].ca = Some(false)), codes::CHAIN);
    refused(with(|m| m.chain[2].usage = 0x80), codes::CHAIN);
    refused(with(|m| m.chain[3].path = Some(1)), codes::CHAIN);
    assert!(with(|m| m.chain[3].path = Some(2)).is_ok());
    refused(with(|m| m.chain[0].ca = Some(true)), codes::CHAIN);
    refused(with(|m| m.chain[0].usage = 0x04), codes::CHAIN);
    refused(with(|m| m.chain[1].signer = "stranger".to_owned()), codes::CHAIN);
    refused(with(|m| m.chain[1].issuer = "stranger".to_owned()), codes::CHAIN);
    refused(with(|m| m.chain[4].until = "20391231235958Z"), codes::CHAIN);
    refused(with(|m| m.chain[1].until = "20250101000000Z"), codes::CERTIFICATE_VALIDITY);
    refused(with(|m| m.chain[1].extensions.push(extension(&[6, 3, 0x55, 0x1d, 0x1e], true, &[5, 0]))), codes::CHAIN);
    assert!(with(|m| m.chain[1].extensions.push(extension(&[6, 3, 0x55, 0x1d, 0x1e], false, &[5, 0]))).is_ok());
    refused(with(|m| m.chain[0].extensions.push(composite_device_id(sha384(FWID)))), codes::CHAIN);
}

#[test]
fn revocation() {
    let (machine, manifests) = (Machine::gpu(1), manifests());
    let evidence = GpuEvidence(vec![machine.evidence(&NONCE)]);
    let rims: Vec<_> = manifests.iter().map(String::as_bytes).collect();
    let with = |crls: &[CrlDraft], policy| {
        let crls: Vec<_> = crls.iter().map(CrlDraft::der).collect();
        let crls: Vec<_> = crls.iter().map(Vec::as_slice).collect();
        let verifier = NvidiaVerifier::new(serde_json::from_value(policy).unwrap(), roots());
        verifier.verify_all(&evidence, NvidiaCollateral { rims: &rims, crls: &crls, ocsp: &[] }, &NONCE, now())
    };
    let (root, family) = (CrlDraft::new("device root"), CrlDraft::new("family"));
    let strict = || json!({"require_crls": true});
    // Every issuer that publishes one, in the device's chain and in the chain of who signed its manifests.
    let every = ["device root", "family", "RIM root", "RIM CA", "RIM L3"].map(CrlDraft::new);
    assert!(with(&[every.as_slice(), &[CrlDraft::new("stranger")]].concat(), strict()).is_ok());
    for missing in 0..every.len() {
        let mut others = every.to_vec();
        let issuer = others.remove(missing).issuer;
        let refusal = with(&others, strict()).unwrap_err();
        assert!(refusal.code == codes::CRL && refusal.seen.contains(issuer), "{refusal}");
        assert!(with(&others, json!({})).is_ok());
    }

    let revokes = |issuer, serial| CrlDraft { serials: vec![0x77, serial], ..CrlDraft::new(issuer) };
    refused(with(&[revokes("device root", 2)], json!({})), codes::REVOKED);
    refused(with(&[revokes("family", 3)], json!({})), codes::REVOKED);
    refused(with(&[revokes("GH100 A01 GSP BROM 1", 1)], json!({})), codes::REVOKED);
    refused(with(&[revokes("RIM L3", 9)], json!({})), codes::RIM_REVOKED);
    assert!(with(&[revokes("family", 4)], json!({})).is_ok());

    refused(with(&[CrlDraft { until: "260101000000Z", ..family.clone() }], json!({})), codes::CRL);
    refused(with(&[CrlDraft { from: "261201000000Z", ..family.clone() }], json!({})), codes::CRL);
    refused(with(&[CrlDraft { signer: "stranger".to_owned(), ..family.clone() }], json!({})), codes::CRL);
    let partitioned = extension(&[6, 3, 0x55, 0x1d, 0x1c], true, &[0x30, 0]);
    refused(with(&[CrlDraft { extensions: vec![partitioned], ..family }], json!({})), codes::CRL);
    let mut no_lists = machine.clone();
    no_lists.chain[3].usage = 0x04;
    let other = GpuEvidence(vec![no_lists.evidence(&NONCE)]);
    let (verifier, list) = (NvidiaVerifier::new(NvidiaPolicy::default(), roots()), CrlDraft::new("family").der());
    let collateral = NvidiaCollateral { rims: &rims, crls: &[&list], ocsp: &[] };
    assert!(verifier.verify_all(&evidence, collateral, &NONCE, now()).is_ok());
    refused(verifier.verify_all(&other, collateral, &NONCE, now()), codes::CRL);
    let cut = &root.der()[..50];
    refused(
        verifier.verify_all(&evidence, NvidiaCollateral { rims: &rims, crls: &[cut], ocsp: &[] }, &NONCE, now()),
        codes::CRL,
    );
}

#[test]
fn signed_reports_that_are_not_understood() {
    for request in [[0x12, 0xe0, 1, 0xff], [0x11, 0xe0, 0, 0xff], [0x11, 0xe0, 1, 1]] {
        refused(verify(&[Machine { request, ..Machine::gpu(1) }]), codes::REPORT_MALFORMED);
    }
    for (field, value) in [(3, &b"\0"[..]), (3, b"580\n"), (6, b"1234567"), (6, &[0, 0, 0, 0, 0, 1, 0, 0]), (35, b"\0")]
    {
        let mut machine = Machine::gpu(1);
        machine.set(field, value);
        refused(verify(&[machine]), codes::REPORT_MALFORMED);
    }
}

#[test]
fn floors() {
    let with = |policy| verify_with(&[Machine::gpu(1)], &manifests(), policy);
    assert!(with(json!({"minimum_driver": "580.95", "minimum_vbios": {"GH100": "96.00.9F"}})).is_ok());
    assert!(with(json!({"minimum_vbios": {"GB100": "97.00.00", "GH100": "96.00.9F"}})).is_ok());
    refused(with(json!({"minimum_vbios": {"GB100": "97.00.00"}})), codes::TCB);
    refused(with(json!({"minimum_driver": "580.105"})), codes::TCB);
    refused(with(json!({"minimum_vbios": {"GH100": "96.00.A0"}})), codes::TCB);
}

#[test]
fn manifests_and_measurements() {
    let gpu = || [Machine::gpu(1)];
    let with =
        |driver: Manifest, vbios: Manifest| verify_with(&gpu(), &[driver.document(), vbios.document()], json!({}));
    refused(verify_with(&gpu(), &manifests()[..1], json!({})), codes::RIM_MISSING);
    refused(verify_with(&gpu(), &manifests()[1..], json!({})), codes::RIM_MISSING);
    for (rims, relaxed) in
        [(&manifests()[..1], "allow_missing_vbios_rim"), (&manifests()[1..], "allow_missing_driver_rim")]
    {
        assert!(!verify_with(&gpu(), rims, json!({ relaxed: true })).unwrap()[0].is_measured());
        assert!(verify_with(&gpu(), &manifests(), json!({ relaxed: true })).unwrap()[0].is_measured());
    }

    for stray in [
        Manifest { version: "580.95.06", ..Manifest::driver() },
        Manifest { product: "GB100", ..Manifest::driver() },
        Manifest { edition: "SWITCH", ..Manifest::driver() },
    ] {
        refused(with(stray.clone(), Manifest::vbios()), codes::RIM_VERSION);
        // Beside both that are needed it is refused all the same, first or last, and before one that lacks.
        let beside = [vec![stray.document()], manifests()].concat();
        refused(verify_with(&gpu(), &beside, json!({})), codes::RIM_VERSION);
        refused(verify_with(&gpu(), &[manifests(), vec![stray.document()]].concat(), json!({})), codes::RIM_VERSION);
        refused(verify_with(&gpu(), &beside[..2], json!({})), codes::RIM_VERSION);
        refused(verify_with(&gpu(), &beside[..2], json!({"allow_missing_vbios_rim": true})), codes::RIM_VERSION);
        let unsigned = stray.document().replace("580.95", "580.96");
        let unsigned = if unsigned == stray.document() { stray.document().replace("GPU", "GPV") } else { unsigned };
        refused(verify_with(&gpu(), &[manifests(), vec![unsigned]].concat(), json!({})), codes::RIM_DIGEST);
        let foreign = Manifest {
            chain: {
                let mut c = stray.chain.clone();
                c[0].signer = "stranger".to_owned();
                c
            },
            ..stray
        };
        refused(verify_with(&gpu(), &[manifests(), vec![foreign.document()]].concat(), json!({})), codes::RIM_CHAIN);
    }

    let vbios = |resources: String| with(Manifest::driver(), Manifest { resources, ..Manifest::vbios() });
    let (right, wrong) = (sha384([7u8]), Digest48::from([0; 48]));
    assert!(vbios(resource(7, true, &[wrong, right])).is_ok(), "alternatives");
    assert!(vbios(resource(7, true, &[right]) + &resource(8, false, &[wrong])).is_ok(), "inactive");
    refused(vbios(resource(7, true, &[wrong])), codes::MEASUREMENT);
    refused(vbios(resource(40, true, &[wrong])), codes::MEASUREMENT);
    refused(vbios(resource(255, true, &[wrong])), codes::MEASUREMENT);
    refused(vbios(resource(7, false, &[wrong])), codes::RIM_FORMAT);
    refused(vbios(String::new()), codes::RIM_FORMAT);
    refused(vbios(resource(7, true, &[right]).repeat(2)), codes::RIM_FORMAT);
    refused(vbios(resource(7, true, &[right]).replace("alternatives=\"1\"", "alternatives=\"2\"")), codes::RIM_FORMAT);
    refused(vbios(resource(7, true, &[right]).replace("True", "true")), codes::RIM_FORMAT);

    // With NVDEC0 enabled its wrong reference value counts.
    let mut machine = Machine::gpu(1);
    machine.set(11, &[0xaa]);
    refused(verify(&[machine.clone()]), codes::MEASUREMENT);
    assert!(verify_with(&[machine], &[], json!({"dangerous_no_measurements": true})).is_ok());
}

#[test]
fn boards() {
    let other = Manifest { tag: sha384("GH100_PG520_SKU0201_96.00.9F.00.01").to_string(), ..Manifest::vbios() };
    let with = |rim: Manifest, policy| {
        verify_with(&[Machine::gpu(1)], &[Manifest::driver().document(), rim.document()], policy)
    };
    assert!(!with(other.clone(), json!({})).unwrap()[0].rims[1].names_board);
    refused(with(other, json!({"require_rim_for_board": true})), codes::RIM_VERSION);
    assert!(with(Manifest::vbios(), json!({"require_rim_for_board": true})).is_ok());
}

fn rim(document: &str) -> Result<VerifiedRim, Refusal> {
    verify_rim(document.as_bytes(), &roots().rim, now())
}

#[test]
fn signers_of_manifests() {
    let with = |change: fn(&mut Manifest)| {
        let mut manifest = Manifest::driver();
        change(&mut manifest);
        rim(&manifest.document())
    };
    assert!(with(|_| {}).is_ok());
    refused(with(|m| m.chain[0].until = "20250101000000Z"), codes::RIM_VALIDITY);
    refused(with(|m| m.chain[0].signer = "stranger".to_owned()), codes::RIM_CHAIN);
    refused(with(|m| drop(m.chain.pop())), codes::RIM_CHAIN);
    refused(with(|m| m.chain[2].path = Some(0)), codes::RIM_CHAIN);
    // A signer who issued itself a signer.
    refused(with(|m| m.chain.insert(1, m.chain[0].clone())), codes::RIM_CHAIN);
}

/// Every way of signing something else than the whole document by exactly the expected steps.
#[test]
fn signatures_over_something_else() {
    let with = |signed_info: fn(&str) -> String| rim(&Manifest { signed_info, ..Manifest::driver() }.document());
    refused(with(|d| signed_info(d).replace("URI=\"\"", "URI=\"#x\"")), codes::RIM_SIGNATURE);
    refused(with(|d| signed_info(d).replace(" URI=\"\"", "")), codes::RIM_SIGNATURE);
    refused(with(|d| signed_info(d).replace("URI=\"\"", "Type=\"t\" URI=\"\"")), codes::RIM_SIGNATURE);
    refused(with(|d| signed_info(d).replace("#enveloped-signature", "#base64")), codes::RIM_SIGNATURE);
    refused(with(|d| signed_info(d).replace("ecdsa-sha384", "ecdsa-sha256")), codes::RIM_SIGNATURE);
    refused(with(|d| signed_info(d).replace("more#sha384", "more#sha224")), codes::RIM_SIGNATURE);
    refused(with(|d| signed_info(d).replace("xml-c14n11", "xml-c14n11#WithComments")), codes::RIM_SIGNATURE);
    refused(with(|d| signed_info(d).replace("<ds:SignedInfo>", "<ds:SignedInfo Id=\"x\">")), codes::RIM_SIGNATURE);
    refused(
        with(|d| {
            let reference = signed_info(d);
            let reference =
                &reference[reference.find("<ds:Reference").unwrap()..reference.find("</ds:SignedInfo").unwrap()];
            signed_info(d).replace("</ds:SignedInfo>", &format!("{reference}</ds:SignedInfo>"))
        }),
        codes::RIM_SIGNATURE,
    );
}

#[test]
fn wrapped_signatures() {
    let manifest = Manifest::driver();
    let (content, signature, document) = (manifest.content(), manifest.signature(), manifest.document());
    let forged = content.replace(&sha384([1u8]).to_string(), &Digest48::from([0; 48]).to_string());
    let inside = |outer: &str, inner: &str| {
        format!("{}{inner}</SoftwareIdentity>", outer.strip_suffix("</SoftwareIdentity>").unwrap())
    };
    // The signed document inside of a forged one, with the signature at every level.
    refused(rim(&inside(&forged, &document)), codes::RIM_SIGNATURE);
    refused(rim(&inside(&inside(&forged, &content), &signature)), codes::RIM_DIGEST);
    let object = format!("<ds:Object>{content}</ds:Object></ds:Signature>");
    refused(rim(&inside(&forged, &signature.replace("</ds:Signature>", &object))), codes::RIM_SIGNATURE);
    // Two signatures, a nested one, one elsewhere, none.
    refused(rim(&inside(&document, &signature)), codes::RIM_SIGNATURE);
    refused(
        rim(&inside(&content, &signature.replace("<ds:KeyInfo>", &format!("{signature}<ds:KeyInfo>")))),
        codes::RIM_SIGNATURE,
    );
    refused(rim(&content.replace("</ns0:Payload>", &format!("{signature}</ns0:Payload>"))), codes::RIM_SIGNATURE);
    refused(rim(&content), codes::RIM_SIGNATURE);
    refused(rim(&signature), codes::RIM_SIGNATURE);
    refused(rim(&inside(&forged, &signature)), codes::RIM_DIGEST);
}

/// What an XML processor would smooth over is either the same content or refused; none gives other claims.
#[test]
fn spellings() {
    let document = Manifest::driver().document();
    let claims = rim(&document).unwrap();
    for same in [
        document.replace("></ns0:Meta>", "/>"),
        document.replace(" edition=\"GPU\" product=\"GH100\"", "\n product = 'GH100'  edition='GPU' "),
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{document}\n\n"),
        document.replace("<ds:SignatureValue>", "<ds:SignatureValue>\n"),
        document.replace(
            "<ns0:Meta",
            &format!("<ns0:Meta xmlns:ns0=\"{}\"", "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"),
        ),
    ] {
        assert_eq!(rim(&same).as_ref(), Ok(&claims), "{same}");
    }
    for other in [
        document.replace("\n<ns0:Meta", "<ns0:Meta"),
        document.replace("<ns0:Meta", "<ns0:Meta xmlns:new=\"n\""),
        document.replace("ns0:Meta", "ns2:Meta"),
    ] {
        assert!(matches!(rim(&other), Err(refusal) if refusal.code == codes::RIM_DIGEST), "{other}");
    }
    for refused in [
        document.replace("<ns0:Meta", "<!-- --><ns0:Meta"),
        document.replace("580.95.05", "580.95.0&#53;"),
        format!("<!DOCTYPE SoftwareIdentity>{document}"),
        document.replace('\n', "\r\n"),
    ] {
        assert!(matches!(rim(&refused), Err(refusal) if refusal.code == codes::RIM_SIGNATURE), "{refused}");
    }
}

#[test]
fn the_signature_of_another_key_over_the_same_report() {
    let machine = Machine::gpu(1);
    let mut evidence = machine.evidence(&NONCE);
    let length = evidence.report.0.len() - 96;
    evidence.report.0.truncate(length);
    let foreign = sign("stranger", &evidence.report.0).to_bytes();
    evidence.report.0.extend(foreign);
    let verifier = NvidiaVerifier::new(NvidiaPolicy::default(), roots());
    refused(verifier.verify_all(&GpuEvidence(vec![evidence]), NONE, &NONCE, now()), codes::SIGNATURE);
}

#[test]
fn a_subject_cannot_write_to_the_terminal() {
    let mut draft = Machine::gpu(1).chain.remove(0);
    draft.subject = format!("\u{1b}[2J\u{202e}\n{}", "x".repeat(400));
    draft.usage = 0x04;
    let parse = |draft: &glasshouse_attest_gen::nvidia::Draft| Certificate::from_der(&draft.der(), 0).unwrap();
    let chain = [parse(&draft), parse(&Machine::gpu(1).chain[1])];
    let refused = verify_chain(&chain, &[chain[1].sha256()], &mut VerifiedLinks::default()).unwrap_err();
    for told in [chain[0].subject(), refused.to_string()] {
        assert!(told.chars().count() < 400 && !told.contains(['\u{1b}', '\u{202e}', '\n']), "{told}");
    }
}

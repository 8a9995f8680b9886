//! Every changed bit and every cut of anything that an accepted session was given is refused, or is one of the listed
//! places that carry no signed meaning and leaves the whole appraisal as it was.
//!
//! Changes are sampled; all of them: `GLASSHOUSE_EXHAUSTIVE=1 cargo test --release -p glasshouse-attest --test hardware
//! changes`. Real evidence is held to the same in the tests `nvidia` and `cpu_tee`.

use glasshouse_attest::snp::Product;
use glasshouse_attest::tdx::Collateral;
use glasshouse_attest::tokens::{Jwks, NrasPolicy};
use glasshouse_attest_gen::nvidia::{CrlDraft, OcspDraft};
use glasshouse_attest_gen::tdx::CollateralDraft;
use glasshouse_attest_gen::token::{NRAS, TokenDraft, jwks_json};
use glasshouse_attest_gen::{Platform, snp};
use glasshouse_core::evidence::{CpuEvidence, DeviceEvidence};
use glasshouse_core::fixed::Blob;

use crate::common::tried;
use crate::session::{Made, Session};

/// Changes one input bit by bit and cuts it everywhere. `put` gives the changed input to a copy of the session;
/// `meaningless` says which bytes may differ without a refusal, and then only without another outcome.
fn hold(
    (session, made): (&Session, &Made),
    input: &[u8],
    meaningless: impl Fn(usize) -> bool,
    put: impl Fn(&[u8], &mut Session, &mut Made) -> Option<()>,
    some: usize,
) {
    let good = session.appraise(made).unwrap();
    let outcome = |bytes: &[u8]| {
        let (mut session, mut made) = (session.copy(), made.copy());
        // What cannot even be read is refused before any evidence comes.
        put(bytes, &mut session, &mut made)?;
        session.appraise(&made).ok()
    };
    assert_eq!(outcome(input).as_ref(), Some(&good), "unchanged");
    for bit in tried(input.len() * 8, some) {
        let mut changed = input.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Some(appraisal) = outcome(&changed) {
            assert!(
                meaningless(bit / 8),
                "bit {bit} of {} is accepted, in {:?}",
                input.len(),
                String::from_utf8_lossy(&changed[(bit / 8).saturating_sub(40)..(bit / 8 + 40).min(input.len())])
            );
            assert_eq!(appraisal, good, "bit {bit} changes what is claimed");
        }
    }
    for length in tried(input.len(), some / 4) {
        if let Some(appraisal) = outcome(&input[..length]) {
            assert!(meaningless(length) && appraisal == good, "cut to {length} of {}", input.len());
        }
    }
}

const NOWHERE: fn(usize) -> bool = |_| false;

/// Changes a device's entry and has the guest's CPU vouch for the change: what refuses it is not the quote's digest.
fn put_device(
    entry: usize,
    field: impl Fn(&mut DeviceEvidence) -> &mut Blob,
) -> impl Fn(&[u8], &mut Session, &mut Made) -> Option<()> {
    move |bytes, session, made| {
        field(&mut made.gpus.0[entry]).0 = bytes.to_vec();
        made.cpu = session.platform.quote(&session.report_data(&made.gpus));
        Some(())
    }
}

#[test]
fn a_quote() {
    let session = Session::new(Platform::tdx(0));
    let made = session.make();
    let CpuEvidence::Tdx { quote } = made.cpu.clone() else { panic!() };
    let bytes = quote.0.clone();
    // White space between the lines of the platform's chain in PEM, and the one behind it.
    let space = |at: usize| quote.0[at].is_ascii_whitespace();
    let put = |bytes: &[u8], _: &mut Session, made: &mut Made| {
        let CpuEvidence::Tdx { quote } = &mut made.cpu else { panic!() };
        quote.0 = bytes.to_vec();
        Some(())
    };
    hold((&session, &made), &bytes, space, put, 300);
}

#[test]
fn intels_collateral() {
    let session = Session::new(Platform::tdx(0));
    let made = session.make();
    let json = CollateralDraft::default().json();
    // The signer's chain of the platforms' revocation list: the list is verified under the platform's own chain. Line
    // ends in the others' PEM, `\n` in JSON. And upper case for lower case in hex.
    let member = |name: &str| {
        let start = format!("\"{name}\":\"");
        let start = json.windows(start.len()).position(|window| window == start.as_bytes()).unwrap() + start.len();
        start..start + json[start..].iter().position(|byte| *byte == b'"').unwrap()
    };
    let unused = member("pck_crl_issuer_chain");
    let hex = ["root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"].map(member);
    let escaped = |at: usize| json[at] == b'\\' || at > 0 && json[at - 1] == b'\\' || json.get(at + 1) == Some(&b'\\');
    let letter = |at: usize| json[at].is_ascii_alphabetic() && hex.iter().any(|member| member.contains(&at));
    let unsigned = |at: usize| unused.contains(&at) || escaped(at) || letter(at);
    let put = |bytes: &[u8], session: &mut Session, _: &mut Made| {
        session.collateral.intel = vec![Collateral::parse(bytes).ok()?];
        Some(())
    };
    hold((&session, &made), &json, unsigned, put, 300);
}

#[test]
fn an_snp_report_its_table_and_its_list() {
    let mut session = Session::new(Platform::snp(0));
    let list = snp::crl(Product::Genoa, false);
    session.collateral.amd.crls = vec![list.clone()];
    let made = session.make();
    let CpuEvidence::SevSnp { report, certificates: Some(table) } = made.cpu.clone() else { panic!() };
    let put_report = |bytes: &[u8], _: &mut Session, made: &mut Made| {
        let CpuEvidence::SevSnp { report, .. } = &mut made.cpu else { panic!() };
        report.0 = bytes.to_vec();
        Some(())
    };
    hold((&session, &made), &report.0, NOWHERE, put_report, 200);
    let put_table = |bytes: &[u8], _: &mut Session, made: &mut Made| {
        let CpuEvidence::SevSnp { certificates, .. } = &mut made.cpu else { panic!() };
        certificates.as_mut().unwrap().0 = bytes.to_vec();
        Some(())
    };
    // Offset and length of the entry of zeros that ends the table.
    hold((&session, &made), &table.0, |at| (3 * 24 + 16..4 * 24).contains(&at), put_table, 200);
    let put_list = |bytes: &[u8], session: &mut Session, _: &mut Made| {
        session.collateral.amd.crls = vec![bytes.to_vec()];
        Some(())
    };
    // The issuer's name: a list of another root is passed over. Policies that need the root's own ask for it.
    let name = list.windows(9).position(|window| window == b"ARK-Genoa").unwrap();
    hold((&session, &made), &list, |at| (name - 18..name + 9).contains(&at), put_list, 200);
}

#[test]
fn a_device_its_manifests_and_lists() {
    let mut session = Session::new(Platform::tdx(1));
    let list = CrlDraft::new("device root").der();
    session.collateral.nvidia.crls = vec![list.clone()];
    let made = session.make();
    let device = made.gpus.0[0].clone();
    // The CPU's quote carries the digest of report and chain, so that nobody on the way changes a byte of either; here the
    // quote is made over the change, and NVIDIA's own checks must refuse it.
    hold((&session, &made), &device.report.0, NOWHERE, put_device(0, |one| &mut one.report), 100);
    // White space between the lines of the chain in PEM.
    let space = |at: usize| device.chain.0[at].is_ascii_whitespace();
    hold((&session, &made), &device.chain.0, space, put_device(0, |one| &mut one.chain), 100);
    // Changed on the way, every bit of either is the quote's to refuse.
    let fields: [fn(&mut DeviceEvidence) -> &mut Blob; 2] = [|one| &mut one.report, |one| &mut one.chain];
    for field in fields {
        let mut relayed = made.copy();
        field(&mut relayed.gpus.0[0]).0[9] ^= 1;
        assert_eq!(session.appraise(&relayed).unwrap_err().code.as_str(), "report-data");
    }
    for name in session.collateral.nvidia.rims.keys().filter(|name| name.contains("GPU")).cloned().collect::<Vec<_>>() {
        let document = session.collateral.nvidia.rims[&name].clone();
        let put = |bytes: &[u8], session: &mut Session, _: &mut Made| {
            session.collateral.nvidia.rims.insert(name.clone(), bytes.to_vec());
            Some(())
        };
        hold((&session, &made), &document, NOWHERE, put, 100);
    }
    let put_list = |bytes: &[u8], session: &mut Session, _: &mut Made| {
        session.collateral.nvidia.crls = vec![bytes.to_vec()];
        Some(())
    };
    // As above: the issuer's name.
    let name = list.windows(11).position(|window| window == b"device root").unwrap();
    hold((&session, &made), &list, |at| (name - 18..name + 11).contains(&at), put_list, 100);
}

#[test]
fn an_ocsp_answer() {
    let mut session = Session::new(Platform::tdx(1));
    session.policy.gpu.devices.require_crls = true;
    let [family, provisioner] = [OcspDraft::good("device root", 2), OcspDraft::good("family", 3)].map(|one| one.der());
    let signers = [OcspDraft::good("RIM L3", 9), OcspDraft::good("RIM CA", 8), OcspDraft::good("RIM root", 7)];
    let others = [vec![family], signers.map(|one| one.der()).to_vec()].concat();
    session.collateral.nvidia.ocsp = [vec![provisioner.clone()], others.clone()].concat();
    let made = session.make();
    let put = |bytes: &[u8], session: &mut Session, _: &mut Made| {
        session.collateral.nvidia.ocsp = [vec![bytes.to_vec()], others.clone()].concat();
        Some(())
    };
    // It is needed, so that one which is about another certificate does not help either.
    hold((&session, &made), &provisioner, NOWHERE, put, 200);
}

#[test]
fn a_token_and_its_keys() {
    let mut session = Session::new(Platform::tdx(1));
    session.policy.gpu.tokens = Some(NrasPolicy::default());
    let keys = jwks_json();
    session.collateral.jwks.insert(NRAS.into(), Jwks::parse(keys.as_bytes()).unwrap());
    let token = TokenDraft::new(session.nonce(), 1).evidence();
    let made = session.make_with(|gpus| gpus.0.push(token.clone()));
    hold((&session, &made), &token.report.0, NOWHERE, put_device(1, |one| &mut one.report), 100);
    let put_keys = |bytes: &[u8], session: &mut Session, _: &mut Made| {
        session.collateral.jwks.insert(NRAS.into(), Jwks::parse(bytes).ok()?);
        Some(())
    };
    // A key set is not signed itself: where it still holds the key under its id, the token verifies.
    hold((&session, &made), keys.as_bytes(), NOWHERE, put_keys, 100);
}

//! Seeds of the targets for hardware's evidence, all from the generator.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use glasshouse_attest::snp::Product;
use glasshouse_attest_gen::nvidia::{CrlDraft, Machine, Manifest, OcspDraft, resource, signed_info, tcb_info};
use glasshouse_attest_gen::snp::crl;
use glasshouse_attest_gen::tdx::{Authority, PckDraft};
use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::fixed::Digest48;
use glasshouse_core::transcript::sha384;
use glasshouse_fuzz::keys::{GATE, pem, to_be_signed};
use glasshouse_fuzz::targets::nvidia::{GPU, NONCE, SWITCH, opaque_length};
use glasshouse_fuzz::targets::{appraisal, bundle, dcap, session, snp, tokens, x509};
use serde_json::{Value, json};

use crate::Seeds;

/// All of them.
pub(crate) fn all(seeds: &mut Seeds) {
    devices(seeds);
    manifests(seeds);
    certificates(seeds);
    answers(seeds);
    reports(seeds);
    quotes(seeds);
    services(seeds);
    machines(seeds);
}

fn devices(seeds: &mut Seeds) {
    seeds.mode("nvidia", 'a', "gpu", &GPU.report);
    seeds.mode("nvidia", 'b', "gpu", GPU.signed());
    seeds.mode("nvidia", 'c', "switch", SWITCH.signed());
    let opaque = |signed: &[u8]| signed[signed.len() - opaque_length(signed)..].to_vec();
    seeds.mode("nvidia", 'd', "opaque", opaque(GPU.signed()));
    let mut older = Machine::gpu(1);
    older.opaque.retain(|(field, _)| *field != 36);
    older.set(21, &[0xaa]);
    older.set(35, b"GH100\0");
    older.set(12, &[1, 0, 0, 0]);
    let report = older.report(&NONCE);
    seeds.mode("nvidia", 'd', "opaque-ppcie", opaque(&report[..report.len() - 96]));
    seeds.mode("nvidia", 'e', "chain", &GPU.chain);
    for (place, draft) in GPU.machine.chain.iter().take(4).enumerate() {
        seeds.mode("nvidia", format!("f{place}"), "certificate", to_be_signed(&draft.der()));
    }
    let mut blackwell = GPU.machine.chain[0].clone();
    blackwell.extensions = vec![tcb_info(sha384("firmware"))];
    seeds.mode("nvidia", "f0", "tcb-info", to_be_signed(&blackwell.der()));
    let entry = |report: &[u8], chain: &[u8]| json!({"arch": "HOPPER", "evidence": STANDARD.encode(report), "certificate": STANDARD.encode(chain), "nonce": NONCE});
    let mut switch = entry(&SWITCH.report, &SWITCH.chain);
    switch["arch"] = json!("LS10");
    seeds.json("nvidia", 'g', "list", &json!([entry(&GPU.report, &GPU.chain), switch]));
    let mut hex = entry(hex::encode(&GPU.report).as_bytes(), &GPU.chain);
    hex["certificate"] = json!(String::from_utf8_lossy(&GPU.chain));
    seeds.json("nvidia", 'g', "request", &json!({"nonce": NONCE, "arch": "HOPPER", "evidence_list": [hex]}));
}

fn manifests(seeds: &mut Seeds) {
    for (name, manifest) in
        [("driver", Manifest::driver()), ("vbios", Manifest::vbios()), ("switch", Manifest::switch())]
    {
        seeds.mode("rim", 'a', name, manifest.document());
        seeds.mode("rim", 'b', name, manifest.content());
    }
    let document = Manifest::driver().document();
    let spelled = document
        .replace("></ns0:Meta>", "/>")
        .replace(" edition=\"GPU\" product=\"GH100\"", "\n product = 'GH100'  edition='GPU' ");
    seeds.mode("rim", 'a', "spelled", format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{spelled}\n"));
    let (one, other) = (sha384([7u8]), Digest48::from([0; 48]));
    let resources = resource(7, true, &[other, one]) + &resource(8, false, &[other]);
    seeds.mode("rim", 'b', "alternatives", Manifest { resources, ..Manifest::vbios() }.content());
    let digest = STANDARD.encode(sha384(Manifest::driver().content()).as_bytes());
    seeds.mode("rim", 'c', "signed-info", signed_info(&digest));
}

fn certificates(seeds: &mut Seeds) {
    let chain: Vec<_> = x509::CHAIN.iter().map(|draft| draft.der()).collect();
    seeds.mode("x509", 'a', "leaf", &chain[0]);
    seeds.mode("x509", 'a', "root", &chain[4]);
    seeds.mode("x509", 'b', "device", pem(&chain));
    let rim: Vec<_> = Manifest::driver().chain.iter().map(|draft| draft.der()).collect();
    seeds.mode("x509", 'b', "rim", pem(&rim));
    for (place, der) in chain.iter().take(4).enumerate() {
        seeds.mode("x509", format!("c{place}"), "certificate", to_be_signed(der));
    }
    let (good, revokes) = (CrlDraft::new("family"), CrlDraft { serials: vec![0x77, 3], ..CrlDraft::new("family") });
    seeds.mode("x509", 'd', "list", good.der());
    seeds.mode("x509", 'd', "stranger", CrlDraft::new("stranger").der());
    seeds.mode("x509", 'e', "list", to_be_signed(&good.der()));
    seeds.mode("x509", 'e', "revokes", to_be_signed(&revokes.der()));
    seeds.mode("x509", 'e', "others", to_be_signed(&CrlDraft { serials: vec![4, 5], ..CrlDraft::new("family") }.der()));
}

fn answers(seeds: &mut Seeds) {
    let (good, revoked) = (OcspDraft::good("family", 3), OcspDraft::revoked("family", 3));
    let unknown = OcspDraft { status: vec![0x82, 0], ..good.clone() };
    for (name, draft) in [("good", good), ("revoked", revoked), ("unknown", unknown)] {
        seeds.mode("x509", 'f', &format!("answer-{name}"), draft.der());
        seeds.mode("x509", 'g', &format!("answer-{name}"), draft.tbs());
    }
    seeds.mode("bundle", 'a', "file", bundle::GOOD.sign(&GATE));
    seeds.mode("bundle", 'b', "payload", bundle::payload());
    let mut empty = bundle::GOOD.clone();
    empty.intel.clear();
    empty.jwks.clear();
    seeds.json("bundle", 'b', "small", &empty);
}

fn reports(seeds: &mut Seeds) {
    for (product, good) in snp::GOOD.iter().enumerate() {
        seeds.mode("snp", format!("{product}a"), "report", &good.report);
        seeds.mode("snp", format!("{product}b"), "signed", &good.report[..0x2a0]);
        seeds.mode("snp", format!("{product}c"), "vek", &good.vek);
        seeds.mode("snp", format!("{product}d"), "issuer", &good.chain[0]);
    }
    for (product, name) in [(Product::Milan, "0e"), (Product::Genoa, "1e"), (Product::Turin, "2e")] {
        seeds.mode("snp", name, "list", crl(product, false));
        seeds.mode("snp", name, "revokes", crl(product, true));
    }
    for version in [2, 5] {
        let mut signed = snp::GOOD[0].report[..0x2a0].to_vec();
        signed[0] = version;
        if version == 2 {
            signed[0x188..0x18b].fill(0);
        }
        seeds.mode("snp", "0b", &format!("version-{version}"), signed);
    }
}

fn quotes(seeds: &mut Seeds) {
    let quote = &*dcap::QUOTE;
    seeds.mode("dcap", 'a', "quote", quote);
    seeds.mode("dcap", 'a', "padded", [quote.as_slice(), &[0; 64]].concat());
    seeds.mode("dcap", 'b', "signed", &quote[..632]);
    seeds.mode("dcap", 'c', "enclave", &quote[770..1154]);
    seeds.mode("dcap", 'd', "chain", &quote[1258..]);
    seeds.mode("dcap", 'e', "collateral", &*dcap::COLLATERAL);
    let collateral: Value = serde_json::from_slice(&dcap::COLLATERAL).unwrap();
    seeds.mode("dcap", 'f', "tcb-info", collateral["tcb_info"].as_str().unwrap());
    seeds.mode("dcap", 'g', "identity", collateral["qe_identity"].as_str().unwrap());
    seeds.mode("dcap", 'h', "pck", to_be_signed(&PckDraft::default().certificate()));
    seeds.mode("dcap", 'i', "list", to_be_signed(&Authority::PlatformCa.crl(&[8])));
    seeds.mode("dcap", 'i', "revoked", to_be_signed(&Authority::PlatformCa.crl(&[9])));
}

fn services(seeds: &mut Seeds) {
    let [overall, device] = tokens::nras_payloads();
    seeds.mode("tokens", 'a', "bundle", &*tokens::BUNDLE);
    seeds.mode("tokens", 'b', "payloads", format!("{overall}\n{device}"));
    seeds.mode("tokens", 'c', "space", tokens::rs256(tokens::space_payload().as_bytes()));
    seeds.mode("tokens", 'd', "payload", tokens::space_payload());
    seeds.mode("tokens", 'e', "keys", tokens::key_set_json());
}

fn machines(seeds: &mut Seeds) {
    for letters in ["1", "1t2", "ps", "mM", "c"] {
        seeds.json("appraisal", 'a', letters, &appraisal::evidence_of(letters.as_bytes()));
    }
    for recipe in ["312", "7ps", "311", "31n", "3mM", "31m", "3p", "31x", "1s", "0", "7t", "3i", "4k"] {
        seeds.mode("appraisal", 'b', recipe, recipe);
    }
    for (mode, kind) in [('a', EvidenceKind::Tdx), ('b', EvidenceKind::SevSnp)] {
        seeds.json("session", mode, "good", &session::good(kind));
    }
    for recipe in ["T1", "T1t", "Tps", "TmM", "U1", "U2", "D1", "M1", "L1", "S1", "Tk", "Ts", "T", "T1n"] {
        seeds.mode("session", 'c', recipe, recipe);
    }
    seeds.mode("session", 'd', "table", session::table());
}

//! The runner of corpora: the shared one is as expected, and what a case says wrongly is never taken for a refusal.

use std::path::Path;

use base64::Engine as _;
use glasshouse_attest::corpus::{Corpus, CorpusReport, Outcome};
use serde_json::{Value, json};

use crate::files::{corpus, read};

#[test]
fn the_shared_corpus_is_as_expected() {
    let Some(folder) = corpus() else { return };
    let report = Corpus::read(&folder.join("cases.json")).unwrap().run();
    println!("{report}");
    assert!(report.cases.len() >= 32);
    assert!(report.all_as_expected());
    let last = report.to_string().lines().last().unwrap().to_owned();
    assert_eq!(last, format!("{0} cases, {0} as expected", report.cases.len()));
}

/// Writes a corpus of these cases beside copies of nothing: paths are absolute.
fn run(cases: &Value) -> Result<CorpusReport, String> {
    let folder = std::env::temp_dir().join(format!("glasshouse-corpus-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.json", glasshouse_core::transcript::sha256(cases.to_string())));
    std::fs::write(&path, json!({"note": "a test", "cases": cases}).to_string()).unwrap();
    let report = Corpus::read(&path).map(|corpus| corpus.run()).map_err(|e| e.to_string());
    std::fs::remove_file(&path).unwrap();
    report
}

fn snp() -> Value {
    let folder = corpus().unwrap();
    let path = |name: &str| folder.join(name).canonicalize().unwrap().display().to_string();
    json!({
        "id": "a", "kind": "sev-snp", "report": path("snp/milan_v2/report.hex"), "vek": path("snp/milan_v2/vcek.der"),
        "at": "2026-06-01T00:00:00Z", "expect": "accept",
        "policy": {"dangerous_no_report_data": true, "dangerous_no_measurements": true},
    })
}

#[test]
fn what_a_case_says_wrongly_breaks_it() {
    if corpus().is_none() {
        return;
    }
    assert!(run(&json!([snp()])).unwrap().all_as_expected());
    for (member, value) in [
        ("kind", json!("sev-es")),
        ("policy", json!({"allow_everything": true})),
        ("policy", json!({"minimum_tcb": {"rome": {}}})),
        ("report", json!("not-there.bin")),
        ("vek", json!(7)),
        ("report_data", json!("0")),
        ("report_data", json!("00".repeat(65))),
        ("policy", json!([])),
        ("policy", json!({"dangerous_allow_everything": true})),
        ("fails_at", json!(["signature"])),
        ("at", json!("yesterday")),
        ("report_data_prefix", json!("")),
        ("vmpl", json!(-1)),
    ] {
        for expect in ["accept", "reject"] {
            let mut case = snp();
            case[member] = value.clone();
            case["expect"] = json!(expect);
            let report = run(&json!([case])).unwrap();
            assert!(matches!(report.cases[0].outcome, Outcome::Broken(_)), "{member}: {report}");
            assert!(!report.all_as_expected());
            assert!(report.to_string().ends_with("1 cases, 0 as expected"));
        }
    }
    assert!(run(&json!([])).is_err());
    assert!(run(&json!({})).is_err());
    assert!(Corpus::read(Path::new("/not/there.json")).is_err());
}

/// One bad case is one bad line: the others run and count.
#[test]
fn a_bad_case_breaks_no_other() {
    if corpus().is_none() {
        return;
    }
    let without = |member: &str| {
        let mut case = snp();
        case["id"] = json!(format!("without {member}"));
        case.as_object_mut().unwrap().remove(member);
        case
    };
    let mut maybe = snp();
    maybe["id"] = json!("maybe");
    maybe["expect"] = json!("maybe");
    let bad = ["id", "kind", "at", "expect", "report", "vek"].map(without);
    let bad = [bad.to_vec(), vec![maybe, json!(7), snp()]].concat();
    let report = run(&json!([vec![snp()], bad.clone()].concat())).unwrap();
    assert!(report.cases[0].is_as_expected(), "{report}");
    assert!(report.cases[1..].iter().all(|case| matches!(case.outcome, Outcome::Broken(_))), "{report}");
    assert_eq!(report.summary(), format!("{} cases, 1 as expected", bad.len() + 1));
    assert_eq!((report.cases[1].id.as_str(), report.cases[8].id.as_str()), ("case 2", "case 9"));
}

/// What others may write beside the members that are known, and the forms that they may write those in.
#[test]
fn odd_cases_that_run() {
    if corpus().is_none() {
        return;
    }
    for (member, value) in [
        ("at", json!("2026-06-01T02:00:00+02:00")),
        ("at", json!(1_780_272_000)),
        ("note", json!({"more": [1]})),
        ("comment", json!("with a note")),
        ("rims", json!([])),
        ("report_data", json!(null)),
        ("chain", json!(null)),
        ("fails_at", json!(null)),
    ] {
        let mut case = snp();
        case["note"] = json!("a note");
        case[member] = value.clone();
        assert!(run(&json!([case])).unwrap().all_as_expected(), "{member} {value}");
    }
    let mut case = snp();
    case["policy"]["allow_missing_fwid"] = json!(true);
    assert!(run(&json!([case])).unwrap().all_as_expected());
    let mut case = snp();
    (case["policy"], case["expect"], case["fails_at"]) = (json!(null), json!("reject"), json!("report-data"));
    assert!(run(&json!([case])).unwrap().all_as_expected());
}

/// A nonce or an audience that the case does not name is answered by nothing, and refused where it is checked.
#[test]
fn a_nonce_that_nobody_names() {
    let Some(folder) = corpus() else { return };
    let all: Value = serde_json::from_slice(&read("cases.json")).unwrap();
    let mut cases = Vec::new();
    for (id, member, value, code) in [
        ("nvidia-h100-complete", "nonce", json!(null), "nonce"),
        ("nvidia-h100-complete", "nonce", json!("4cff"), "nonce"),
        ("nvidia-h100-foreign-chain", "nonce", json!(null), "signature"),
        ("nvidia-h100-missing-fwid", "nonce", json!(null), "nonce"),
        ("nvidia-h100-complete", "chain", json!(null), "chain"),
        ("nvidia-ls10-switch", "nonce", json!(null), "nonce"),
        ("nras-h100", "nonce", json!(null), "nonce"),
        ("nras-h100-expired", "nonce", json!(null), "expired"),
        ("gcp-debug-allowed", "nonce", json!(null), "nonce"),
        ("gcp-debug-allowed", "audience", json!(null), "audience"),
        ("gcp-expired", "audience", json!(null), "expired"),
    ] {
        let mut case = all["cases"].as_array().unwrap().iter().find(|case| case["id"] == id).unwrap().clone();
        for file in ["report", "chain", "token", "jwks"] {
            if let Some(name) = case[file].as_str() {
                case[file] = json!(folder.join(name).canonicalize().unwrap());
            }
        }
        if let Some(rims) = case["rims"].as_array_mut() {
            rims.iter_mut().for_each(|rim| *rim = json!(folder.join(rim.as_str().unwrap()).canonicalize().unwrap()));
        }
        (case["id"], case["expect"], case["fails_at"]) =
            (json!(format!("{id} {member} {}", cases.len())), json!("reject"), json!(code));
        case[member] = value;
        cases.push(case);
    }
    let report = run(&Value::Array(cases)).unwrap();
    assert!(report.all_as_expected(), "{report}");
}

/// A list brings its own chain: the case's is that one, or the case is malformed. What never ends costs its case only.
#[test]
fn a_chain_beside_a_list() {
    let Some(folder) = corpus() else { return };
    let all: Value = serde_json::from_slice(&read("cases.json")).unwrap();
    let whole = all["cases"].as_array().unwrap().iter().find(|case| case["id"] == "nvidia-h100-complete").unwrap();
    let path = |name: &Value| json!(folder.join(name.as_str().unwrap()).canonicalize().unwrap());
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let text = |name: &str| read(whole[name].as_str().unwrap());
    let report = hex::decode(String::from_utf8(text("report")).unwrap().trim()).unwrap();
    let nonce = format!("0x{}", whole["nonce"].as_str().unwrap());
    let entry = json!({"evidence": base64(&report), "certificate": base64(&text("chain")), "nonce": nonce});
    let files = tempfile::tempdir().unwrap();
    let list = files.path().join("list.json");
    std::fs::write(&list, entry.to_string()).unwrap();
    let case = |id: &str, chain: Value| {
        let mut case = whole.clone();
        (case["id"], case["report"], case["chain"]) = (json!(id), json!(list), chain);
        case["rims"].as_array_mut().unwrap().iter_mut().for_each(|rim| *rim = path(rim));
        case
    };
    let own = [case("none", json!(null)), case("own", path(&whole["chain"])), case("the list", json!(list))];
    let report = run(&json!(own)).unwrap();
    assert!(report.all_as_expected(), "{report}");
    let others = [case("other", path(&json!("nvidia/h100_550/chain.pem"))), case("endless", json!("/dev/zero"))];
    let report = run(&json!(others)).unwrap();
    assert!(report.cases.iter().all(|case| matches!(case.outcome, Outcome::Broken(_))), "{report}");
    assert!(Corpus::read(Path::new("/dev/zero")).unwrap_err().to_string().contains("no regular file"));
}

/// Report data of fewer than 64 bytes is followed by zeros.
#[test]
fn short_report_data() {
    if corpus().is_none() {
        return;
    }
    let folder = corpus().unwrap();
    let path = |name: &str| folder.join(name).canonicalize().unwrap();
    let case = |id: &str, data: &str| {
        json!({
            "id": id, "kind": "sev-snp", "report": path("snp/genoa_v5/report.bin"),
            "vek": path("snp/genoa_v5/vcek.der"), "at": "2026-06-01T00:00:00Z", "report_data": data,
            "policy": {"dangerous_no_measurements": true}, "expect": "accept",
        })
    };
    let whole = hex::encode("hello-attestation");
    let mut cut = case("cut", &whole[..20]);
    (cut["expect"], cut["fails_at"]) = (json!("reject"), json!("report-data"));
    let report = run(&json!([case("whole", &whole), cut])).unwrap();
    assert!(report.all_as_expected(), "{report}");
}

#[test]
fn another_time_decides_otherwise() {
    let Some(folder) = corpus() else { return };
    let report = Corpus::read(&folder.join("cases.json")).unwrap().at(crate::files::time("2099-01-01T00:00:00Z")).run();
    assert!(!report.all_as_expected());
    // A chain without end of validity aside, nothing of today is accepted then.
    let accepted = report.cases.iter().filter(|case| matches!(case.outcome, Outcome::Accepted(_)));
    let kinds: Vec<_> = accepted.map(|case| case.kind.as_str()).collect();
    assert!(kinds.iter().all(|kind| kind.starts_with("nvidia-")), "{kinds:?}");
}

#[test]
fn outcomes_other_than_the_expected_fail() {
    if corpus().is_none() {
        return;
    }
    let with = |changes: Value| {
        let mut case = snp();
        case.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        run(&json!([case])).unwrap().all_as_expected()
    };
    assert!(!with(json!({"expect": "reject"})));
    assert!(!with(json!({"policy": {}})));
    assert!(with(json!({"policy": {}, "expect": "reject"})));
    assert!(with(json!({"policy": {}, "expect": "reject", "fails_at": "report-data"})));
    assert!(!with(json!({"policy": {}, "expect": "reject", "fails_at": "measurement"})));
    assert!(with(json!({"vmpl": 1, "expect": "reject", "fails_at": "vmpl"})));
}

/// Lists as NVIDIA's tools write them bring their own chain and nonce; one device twice is refused.
#[test]
fn lists_of_several_devices() {
    let Some(folder) = corpus() else { return };
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let nonce = "4cff7f5380ead8fad8ec2c531c110aca4302a88f603792801a8ca29ee151af2e";
    let report = hex::decode(String::from_utf8(read("nvidia/h100_full/report.hex")).unwrap().trim()).unwrap();
    let entry = json!({
        "arch": "HOPPER", "evidence": base64(&report), "certificate": base64(&read("nvidia/h100_full/chain.pem")),
        "nonce": nonce,
    });
    let path = |name: &str| folder.join(name).canonicalize().unwrap().display().to_string();
    let rims = ["driver_rim_545.00.swidtag", "vbios_rim_96.00.5E.00.01.swidtag"];
    let rims = rims.map(|name| path(&format!("nvidia/h100_full/{name}")));
    let run_list = |list: Value, more: Value| {
        let file = std::env::temp_dir().join(format!(
            "glasshouse-list-{}-{}.json",
            std::process::id(),
            glasshouse_core::transcript::sha256(list.to_string())
        ));
        std::fs::write(&file, list.to_string()).unwrap();
        let mut case = json!({
            "id": "list", "kind": "nvidia-gpu", "report": file.display().to_string(), "rims": rims,
            "at": "2024-01-01T00:00:00Z", "policy": {"allow_missing_fwid": true},
        });
        case.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let report = run(&json!([case])).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(report.all_as_expected(), "{report}");
    };
    let refused = |code: &str| json!({"expect": "reject", "fails_at": code});
    run_list(json!([entry]), json!({"expect": "accept"}));
    run_list(json!({"evidences": [entry], "result_code": 0}), json!({"expect": "accept"}));
    run_list(json!([entry, entry]), refused("duplicate-device"));
    let mut other = refused("nonce");
    other["nonce"] = json!("00".repeat(32));
    run_list(json!([entry]), other.clone());
    // What an entry says of its nonce must be true as well, but what is checked before comes first.
    let with = |member: &str, value: Value| {
        let mut entry = entry.clone();
        entry[member] = value;
        entry
    };
    let liar = with("nonce", other["nonce"].clone());
    for list in [json!([liar]), json!([entry, liar]), json!([liar, entry])] {
        run_list(list.clone(), refused("nonce"));
    }
    run_list(
        json!([with("certificate", json!(base64(&read("nvidia/h100_550/chain.pem")))), liar]),
        refused("signature"),
    );
    run_list(json!([with("arch", json!("LS10"))]), json!({"expect": "accept"}));
    run_list(json!([entry, with("arch", json!("LS10"))]), refused("device-kind"));
    // Evidence that cannot be understood is refused; it does not break the case.
    for broken in
        [json!([]), json!({"evidences": []}), json!([with("evidence", json!("!"))]), json!([{"arch": "HOPPER"}])]
    {
        run_list(broken, refused("report-malformed"));
    }
}

/// What a form is called, and how bytes are written in it.
type Form = (&'static str, fn(&[u8]) -> Vec<u8>);

/// Every file of every case in other forms: the decision, and the check that decides, stay the same.
#[test]
fn every_case_in_every_form() {
    let Some(folder) = corpus() else { return };
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let all: Value = serde_json::from_slice(&read("cases.json")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut written = 0;
    let mut write = |bytes: &[u8]| {
        written += 1;
        let path = scratch.path().join(written.to_string());
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let forms: [Form; 3] = [
        ("hex", |bytes| format!("0x{}\n", hex::encode_upper(bytes)).into_bytes()),
        ("base64", |bytes| base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes()),
        ("base64url", |bytes| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).into_bytes()),
    ];
    let mut cases = Vec::new();
    for case in all["cases"].as_array().unwrap() {
        for (form, encode) in forms {
            let mut case = case.clone();
            case["id"] = json!(format!("{} in {form}", case["id"].as_str().unwrap()));
            for member in ["report", "quote", "vek", "rim", "token", "jwks", "collateral"] {
                let Some(name) = case[member].as_str() else { continue };
                let file = read(name);
                let bytes = glasshouse_attest::corpus::binary(&file);
                let bytes = if ["report", "quote", "vek"].contains(&member) { bytes } else { file };
                case[member] = json!(write(&encode(&bytes)));
            }
            if let Some(rims) = case["rims"].as_array().cloned() {
                let written = rims.iter().map(|name| write(&encode(&read(name.as_str().unwrap()))));
                case["rims"] = written.collect::<Vec<_>>().into();
            }
            if let Some(name) = case["chain"].as_str() {
                let certificates = glasshouse_attest::corpus::certificates(&read(name));
                case["chain"] = match form {
                    "hex" => json!(write(&certificates.concat())),
                    "base64" => json!(write(base64(&read(name)).as_bytes())),
                    _ => certificates.iter().map(|der| write(der)).collect::<Vec<_>>().into(),
                };
            }
            cases.push(case);
        }
    }
    assert!(folder.is_dir() && cases.len() >= 3 * 32);
    let report = run(&Value::Array(cases)).unwrap();
    assert!(report.all_as_expected(), "{report}");
}

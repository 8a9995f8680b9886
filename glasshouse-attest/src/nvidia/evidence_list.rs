use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use glasshouse_core::evidence::{DeviceEvidence, DeviceKind};
use glasshouse_core::fixed::{Blob, Nonce32};
use serde::Deserialize;

use super::device::Device;
use crate::x509::certificates_from_pem;

/// Eight GPUs and four switches make some 100 KiB.
const MAX_JSON: usize = 4 * 1024 * 1024;
const MAX_ENTRIES: usize = 64;

/// One entry of the list that NVIDIA's tools write: `[{"arch", "evidence", "certificate", "nonce"}, …]`, or the request
/// of its remote service, `{"nonce", "arch", "evidence_list": […]}`, or a collector's whole answer, `{"evidences": […]}`,
/// or one entry alone.
/// Decoded, nothing verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEvidence {
    /// From `arch`: `LS10` is a switch, everything else a GPU.
    pub kind: DeviceKind,
    /// The nonce that the list says was asked for; the report itself says which one was answered.
    pub nonce: Option<Nonce32>,
    /// The report.
    pub report: Vec<u8>,
    /// The chain in PEM.
    pub chain: Vec<u8>,
}

/// Why a list was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// Not the JSON that the tools write.
    #[error(
        "the evidence is not a JSON list of objects with arch, evidence and certificate; pass the tool's output whole"
    )]
    Json,
    /// An entry's field is not in the encoding that the tools use.
    #[error("entry {entry} of the evidence list: {field} is not {encoding}")]
    Field {
        /// Zero-based.
        entry: usize,
        /// The field's name.
        field: &'static str,
        /// What it should be.
        encoding: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    List(Vec<Entry>),
    Request {
        nonce: Option<String>,
        arch: Option<String>,
        #[serde(alias = "evidences")]
        evidence_list: Vec<Entry>,
    },
    Single(Entry),
}

/// Tools write further fields, and newer ones more.
#[derive(Deserialize)]
struct Entry {
    arch: Option<String>,
    evidence: String,
    certificate: String,
    nonce: Option<String>,
}

impl ListedEvidence {
    /// Reads a list. `evidence` is base64 of the report or of its hex digits; `certificate` is PEM or base64 of it. Base64 is
    /// of either alphabet, padded or not; nonces are hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn parse(json: &[u8]) -> Result<Vec<Self>, ListError> {
        if json.len() > MAX_JSON {
            return Err(ListError::Json);
        }
        let (nonce, arch, entries) = match serde_json::from_slice(json).map_err(|_| ListError::Json)? {
            Document::List(entries) => (None, None, entries),
            Document::Request { nonce, arch, evidence_list } => (nonce, arch, evidence_list),
            Document::Single(entry) => (None, None, vec![entry]),
        };
        if entries.len() > MAX_ENTRIES {
            return Err(ListError::Json);
        }
        let decode = |(i, entry): (usize, Entry)| {
            let nonce = entry.nonce.as_ref().or(nonce.as_ref());
            let arch = entry.arch.as_ref().or(arch.as_ref()).map_or("", String::as_str);
            Self::decode(i, arch, nonce, &entry)
        };
        entries.into_iter().enumerate().map(decode).collect()
    }

    /// The same for the verifier.
    pub fn device(&self) -> Device<'_> {
        Device { kind: self.kind, report: &self.report, chain: &self.chain }
    }

    /// The same as it crosses the wire: for an attestor that adds to its own evidence what NVIDIA's tools collected.
    pub fn evidence(&self) -> DeviceEvidence {
        // The serial is the verifier's to compare; a chain that cannot be read has none, and is refused before.
        let chain = certificates_from_pem(&self.chain).unwrap_or_default();
        let serial = Blob(chain.first().map(|leaf| leaf.serial().to_vec()).unwrap_or_default());
        DeviceEvidence { kind: self.kind, serial, report: Blob(self.report.clone()), chain: Blob(self.chain.clone()) }
    }

    fn decode(i: usize, arch: &str, nonce: Option<&String>, entry: &Entry) -> Result<Self, ListError> {
        let bad = |field, encoding| ListError::Field { entry: i, field, encoding };
        let nonce = nonce.map(|text| text.trim().to_ascii_lowercase());
        let nonce = nonce.map(|text| Nonce32::from_hex(text.strip_prefix("0x").unwrap_or(&text)));
        let report = decode(&entry.evidence).ok_or(bad("evidence", "base64"))?;
        let chain = match entry.certificate.trim_start().starts_with("-----BEGIN") {
            true => entry.certificate.clone().into_bytes(),
            false => decode(&entry.certificate).ok_or(bad("certificate", "base64 or PEM"))?,
        };
        let switch = ["LS10", "LS_10", "SWITCH"].iter().any(|name| name.eq_ignore_ascii_case(arch));
        Ok(Self {
            kind: if switch { DeviceKind::NvidiaSwitch } else { DeviceKind::NvidiaGpu },
            nonce: nonce.map(|nonce| nonce.ok_or(bad("nonce", "64 hexadecimal digits"))).transpose()?,
            // Older tools encoded the hex text. A report begins with 0x11, which no hex digit is.
            report: hex::decode(&report).unwrap_or(report),
            chain,
        })
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let compact: String = text.split_ascii_whitespace().collect();
    let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    engines.iter().find_map(|engine| engine.decode(&compact).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(value: &serde_json::Value) -> Result<Vec<ListedEvidence>, ListError> {
        ListedEvidence::parse(value.to_string().as_bytes())
    }

    #[test]
    fn the_forms_that_tools_write() {
        let nonce = "0A".repeat(32);
        let pem = "-----BEGIN CERTIFICATE-----";
        let listed = ListedEvidence {
            kind: DeviceKind::NvidiaGpu,
            nonce: Some(Nonce32::from([10; 32])),
            report: vec![0x11, 0xe0],
            chain: pem.into(),
        };
        let entry = json!({"arch": "HOPPER", "evidence": "EeA=", "certificate": STANDARD.encode(pem), "nonce": nonce, "version": "1.0"});
        assert_eq!(parse(&json!([entry])), Ok(vec![listed.clone()]));
        assert_eq!(parse(&entry), Ok(vec![listed.clone()]), "one alone");
        for (evidence, nonce) in
            [("EeA", nonce.clone()), ("EeA=", format!("0x{nonce}")), ("EeA", format!("0X{nonce}\n"))]
        {
            let entry = json!({"evidence": evidence, "certificate": pem, "nonce": nonce});
            assert_eq!(parse(&json!([entry])), Ok(vec![listed.clone()]), "{evidence} {nonce}");
        }
        let either = |text: &str| parse(&json!({"evidence": text, "certificate": pem})).unwrap()[0].report.clone();
        assert_eq!(either("+/8="), either("-_8"));
        let entry = json!({"evidence": STANDARD.encode("11e0"), "certificate": pem});
        let request = json!({"nonce": nonce, "arch": "LS10", "evidence_list": [entry]});
        let switch = vec![ListedEvidence { kind: DeviceKind::NvidiaSwitch, ..listed }];
        assert_eq!(parse(&request), Ok(switch.clone()));
        let answer = json!({"evidences": [{"arch": "LS10", "nonce": nonce, "evidence": "EeA=", "certificate": pem}], "result_code": 0});
        assert_eq!(parse(&answer), Ok(switch.clone()));
        let sent = switch[0].evidence();
        assert_eq!((sent.kind, sent.report.0, sent.serial.0), (DeviceKind::NvidiaSwitch, vec![0x11, 0xe0], vec![]));
        assert_eq!(parse(&json!([])), Ok(vec![]));
    }

    #[test]
    fn what_is_not_understood() {
        let entry = |evidence: &str, certificate: &str, nonce: &str| {
            parse(&json!([{"evidence": evidence, "certificate": certificate, "nonce": nonce}])).unwrap_err()
        };
        let nonce = "00".repeat(32);
        assert!(matches!(entry("!", "AAAA", &nonce), ListError::Field { field: "evidence", entry: 0, .. }));
        assert!(matches!(entry("AAAA", "!", &nonce), ListError::Field { field: "certificate", .. }));
        assert!(matches!(entry("AAAA", "AAAA", "00"), ListError::Field { field: "nonce", .. }));
        for bad in [json!({}), json!(7), json!([{"evidence": "AAAA"}])] {
            assert_eq!(parse(&bad), Err(ListError::Json), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, text: String) {
            let _ = ListedEvidence::parse(&bytes);
            let _ = parse(&json!([{"evidence": text, "certificate": text, "nonce": text}]));
        }
    }
}

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::x509::der_from_pem;

/// A file's bytes, whatever it is written in: hex (with or without `0x`, with or without colons), base64 in either
/// alphabet, of the bytes or of their hex, one PEM block, or the bytes themselves. Binary evidence is never text
/// throughout, so that none is taken for another.
pub fn binary(file: &[u8]) -> Vec<u8> {
    let Some(text) = as_text(file) else { return file.to_vec() };
    if text.contains(BEGIN) {
        return pem_blocks(text).into_iter().next().unwrap_or_else(|| file.to_vec());
    }
    if let Some(bytes) = from_hex(text) {
        return bytes;
    }
    let compact: String = text.split_ascii_whitespace().collect();
    let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    let decoded = engines.iter().find_map(|engine| engine.decode(&compact).ok());
    let bytes = decoded.unwrap_or_else(|| file.to_vec());
    as_text(&bytes).and_then(from_hex).unwrap_or(bytes)
}

/// A document of text - JSON, XML or a compact token - as it is, or written in hex, base64 or as one JSON string. A byte
/// order mark is left out.
pub fn document(file: &[u8]) -> Vec<u8> {
    let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    if is_json_or_xml(file) {
        return file.to_vec();
    }
    if let Ok(text) = serde_json::from_slice::<String>(file) {
        return text.into_bytes();
    }
    let bytes = binary(file);
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let is_document = is_json_or_xml(bytes) || bytes.trim_ascii_start().starts_with(b"ey");
    if is_document { bytes.to_vec() } else { file.to_vec() }
}

/// A reference manifest: XML, or the answer of NVIDIA's service with it (`{"rim": base64}`). Lines end as every reader of
/// XML ends them before it looks further (XML 1.0 section 2.11).
pub fn manifest(file: &[u8]) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Answer {
        rim: String,
    }
    let file = document(file);
    let xml = match serde_json::from_slice::<Answer>(&file) {
        Ok(answer) => document(answer.rim.as_bytes()),
        Err(_) => file,
    };
    match std::str::from_utf8(&xml) {
        Ok(text) if text.contains("\r\n") => text.replace("\r\n", "\n").into_bytes(),
        _ => xml,
    }
}

/// Certificates as DER, of a file in PEM, in DER (one after the other), or in hex or base64 of either. What is none of
/// these is returned as one certificate, for the verifier to refuse.
pub fn certificates(file: &[u8]) -> Vec<Vec<u8>> {
    let decoded = |bytes: &[u8]| der_from_pem(&pem(bytes)?).ok().filter(|chain| !chain.is_empty());
    if let Some(chain) = decoded(file) {
        return chain;
    }
    let bytes = unwrapped(file);
    decoded(&bytes).or_else(|| sequences(&bytes)).unwrap_or_else(|| vec![bytes])
}

/// A chain as PEM: block by block as it is where it is PEM already, so that a verifier sees what was written; what `openssl
/// x509 -text` writes around the blocks (RFC 7468 section 5.2) is left out.
pub fn pem_chain(file: &[u8]) -> Vec<u8> {
    let block =
        |der: Vec<u8>| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    let encoded = || certificates(file).into_iter().map(block).collect::<String>().into_bytes();
    pem(file).or_else(|| pem(&unwrapped(file))).unwrap_or_else(encoded)
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Of hex or base64, the bytes; of PEM and everything else the file.
fn unwrapped(file: &[u8]) -> Vec<u8> {
    match pem(file) {
        Some(_) => file.to_vec(),
        None => binary(file),
    }
}

/// The blocks of a PEM file and nothing around them.
fn pem(file: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file)).ok()?;
    if !text.contains(BEGIN) {
        return None;
    }
    let mut inside = false;
    let mut blocks = String::new();
    for line in text.lines() {
        inside |= line.trim_start().starts_with(BEGIN);
        if inside {
            blocks.extend([line, "\n"]);
        }
        inside &= !line.trim_start().starts_with(END);
    }
    Some(blocks.into_bytes())
}

/// The contents of PEM blocks of any label.
fn pem_blocks(text: &str) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        block = match block {
            None => line.starts_with(BEGIN).then(String::new),
            Some(base64) if line.starts_with(END) => {
                blocks.extend(STANDARD.decode(base64));
                None
            }
            Some(base64) => Some(base64 + line),
        };
    }
    blocks
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace() && *c != ':').collect();
    hex::decode(digits.strip_prefix("0x").unwrap_or(&digits)).ok().filter(|bytes| !bytes.is_empty())
}

fn is_json_or_xml(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[' | b'<'))
}

/// The text of a file that is nothing else, without white space around it.
fn as_text(file: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file)).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    plain.then_some(text.trim())
}

/// Splits DER sequences that follow each other.
fn sequences(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (0x30, length) = (*bytes.first()?, *bytes.get(1)?) else { return None };
        let (header, content) = match length {
            0..=0x7f => (2, usize::from(length)),
            0x81 => (3, usize::from(*bytes.get(2)?)),
            0x82 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
            _ => return None,
        };
        let (certificate, rest) = bytes.split_at_checked(content.checked_add(header)?)?;
        all.push(certificate.to_vec());
        bytes = rest;
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DER: [u8; 4] = [0x30, 2, 5, 0];

    #[test]
    fn one_value_in_every_form() {
        let bytes = [0, 1, 0xff, 0x7f, 0x80];
        for file in [
            "0001ff7f80",
            "0x0001FF7F80\n",
            "00:01:FF:7f:80\n",
            "00 01 ff\n7f 80",
            "MDAwMWZmN2Y4MA==",
            "AAH/f4A=",
            "AAH_f4A\n",
            "AAH/\nf4A=",
        ] {
            assert_eq!(binary(file.as_bytes()), bytes, "{file}");
        }
        assert_eq!(binary(&bytes), bytes);
        assert_eq!(binary(b"not; any of these"), b"not; any of these");
    }

    #[test]
    fn documents_in_every_form() {
        for text in ["{\"a\": 1}", " [1]", "<?xml version=\"1.0\"?><a/>", "eyJ.e30.AA", "eyJ.e30.AA\n"] {
            let marked = format!("\u{feff}{text}");
            let forms =
                [text.to_owned(), marked, hex::encode(text), STANDARD.encode(text), URL_SAFE_NO_PAD.encode(text)];
            let quoted = serde_json::to_string(text).unwrap();
            for file in forms.into_iter().chain([quoted]) {
                assert_eq!(document(file.as_bytes()), text.as_bytes(), "{file}");
            }
        }
        // What is none is left as it is, for its reader to refuse.
        for other in [&b""[..], b"0001", b"\xff\xfe", b"AAAA"] {
            assert_eq!(document(other), other);
        }
    }

    #[test]
    fn manifests_in_every_form() {
        let xml = "<?xml version=\"1.0\"?>\n<a>\n</a>\n";
        let crlf = xml.replace('\n', "\r\n");
        let answer = |text: &str| serde_json::json!({"id": "a", "rim": STANDARD.encode(text)}).to_string();
        for file in [xml.to_owned(), crlf.clone(), format!("\u{feff}{crlf}"), answer(xml), answer(&crlf)] {
            assert_eq!(manifest(file.as_bytes()), xml.as_bytes(), "{file}");
        }
        for other in [&b"{\"rim\": 7}"[..], b"<a>\r</a>", b"\xff\r\n", b""] {
            assert_eq!(manifest(other), other);
        }
    }

    #[test]
    fn chains_in_every_form() {
        let two = [DER, DER].concat();
        let pem = pem_chain(&two);
        let expected = vec![DER.to_vec(), DER.to_vec()];
        for file in [
            two.clone(),
            pem.clone(),
            hex::encode(&two).into_bytes(),
            STANDARD.encode(&two).into_bytes(),
            STANDARD.encode(&pem).into_bytes(),
        ] {
            assert_eq!(certificates(&file), expected);
            assert_eq!(pem_chain(&file), pem);
        }
        let told = format!("Certificate:\r\n    Data: é\n{}", String::from_utf8(pem.clone()).unwrap());
        let told = told.replace("-----BEGIN", "subject=a\n-----BEGIN");
        assert_eq!(certificates(told.as_bytes()), expected);
        assert_eq!(pem_chain(told.as_bytes()), pem);
        assert_eq!(certificates(&[0x30, 9, 0]), [vec![0x30, 9, 0]]);
        assert_eq!(binary(&pem), DER);
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert_eq!(pem_chain(broken), broken);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, text in "[0-9A-Fa-fx+/=_ \\n-]{0,64}") {
            for file in [bytes.as_slice(), text.as_bytes()] {
                let _ = (binary(file), document(file), certificates(file), pem_chain(file), manifest(file));
            }
        }

        #[test]
        fn hex_and_base64_come_back(bytes in prop::collection::vec(any::<u8>(), 33..80)) {
            prop_assert_eq!(binary(hex::encode(&bytes).as_bytes()), bytes.clone());
            // Base64 that is hex digits throughout is read as hex; of a byte above 0xbf none is likely.
            let encoded = STANDARD.encode(&bytes);
            prop_assume!(hex::decode(&encoded).is_err());
            prop_assert_eq!(binary(encoded.as_bytes()), bytes);
        }
    }
}

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::x509::der_from_pem;

/// A file's bytes, whatever it is written in: hex (with or without `0x`), base64 in either alphabet, one PEM block, or the
/// bytes themselves. Binary evidence is never text throughout, so that none is taken for another.
pub fn binary(file: &[u8]) -> Vec<u8> {
    let Some(text) = as_text(file) else { return file.to_vec() };
    if text.starts_with("-----BEGIN") {
        let blocks = der_from_pem(file).unwrap_or_default();
        return blocks.into_iter().next().unwrap_or_else(|| file.to_vec());
    }
    let compact: String = text.split_ascii_whitespace().collect();
    let digits = compact.strip_prefix("0x").unwrap_or(&compact);
    if let Ok(bytes) = hex::decode(digits) {
        return bytes;
    }
    let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    engines.iter().find_map(|engine| engine.decode(&compact).ok()).unwrap_or_else(|| file.to_vec())
}

/// A document of text - JSON, XML or a compact token - as it is, or written in hex or base64.
pub fn document(file: &[u8]) -> Vec<u8> {
    let is_document = |bytes: &[u8]| {
        let text = bytes.trim_ascii_start();
        matches!(text.first(), Some(b'{' | b'[' | b'<')) || text.starts_with(b"ey")
    };
    if matches!(file.trim_ascii_start().first(), Some(b'{' | b'[' | b'<')) {
        return file.to_vec();
    }
    let bytes = binary(file);
    if is_document(&bytes) { bytes } else { file.to_vec() }
}

/// Certificates as DER, of a file in PEM, in DER (one after the other), or in hex or base64 of either. What is none of
/// these is returned as one certificate, for the verifier to refuse.
pub fn certificates(file: &[u8]) -> Vec<Vec<u8>> {
    if let Some(chain) = pem(file) {
        return chain;
    }
    let bytes = binary(file);
    pem(&bytes).or_else(|| sequences(&bytes)).unwrap_or_else(|| vec![bytes])
}

/// A chain as PEM: as it is where it is PEM already, so that a verifier sees what was written.
pub fn pem_chain(file: &[u8]) -> Vec<u8> {
    let is_pem = |bytes: &[u8]| as_text(bytes).is_some_and(|text| text.starts_with("-----BEGIN"));
    if is_pem(file) {
        return file.to_vec();
    }
    let bytes = binary(file);
    if is_pem(&bytes) {
        return bytes;
    }
    let block =
        |der: Vec<u8>| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    certificates(file).into_iter().map(block).collect::<String>().into_bytes()
}

fn pem(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = as_text(bytes)?;
    let blocks = text.starts_with("-----BEGIN").then(|| der_from_pem(bytes).ok())??;
    (!blocks.is_empty()).then_some(blocks)
}

/// The text of a file that is nothing else, without white space around it.
fn as_text(file: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(file).ok()?;
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
        for file in ["0001ff7f80", "0x0001FF7F80\n", "00 01 ff\n7f 80", "AAH/f4A=", "AAH_f4A\n", "AAH/\nf4A="] {
            assert_eq!(binary(file.as_bytes()), bytes, "{file}");
        }
        assert_eq!(binary(&bytes), bytes);
        assert_eq!(binary(b"not; any of these"), b"not; any of these");
    }

    #[test]
    fn documents_in_every_form() {
        for text in ["{\"a\": 1}", " [1]", "<?xml version=\"1.0\"?><a/>", "eyJ.e30.AA", "eyJ.e30.AA\n"] {
            for file in [text.to_owned(), hex::encode(text), STANDARD.encode(text), URL_SAFE_NO_PAD.encode(text)] {
                assert_eq!(document(file.as_bytes()), text.as_bytes(), "{file}");
            }
        }
        // What is none is left as it is, for its reader to refuse.
        for other in [&b""[..], b"0001", b"\xff\xfe", b"AAAA"] {
            assert_eq!(document(other), other);
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
        assert_eq!(certificates(&[0x30, 9, 0]), [vec![0x30, 9, 0]]);
        assert_eq!(binary(&pem), DER);
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert_eq!(pem_chain(broken), broken);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, text in "[0-9A-Fa-fx+/=_ \\n-]{0,64}") {
            for file in [bytes.as_slice(), text.as_bytes()] {
                let _ = (binary(file), document(file), certificates(file), pem_chain(file));
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

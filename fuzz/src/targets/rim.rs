//! NVIDIA's reference manifests: XML, canonical form, signature.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use glasshouse_attest::nvidia::{VerifiedRim, codes, verify_rim};
use glasshouse_attest_gen::nvidia::{Manifest, roots, sign, signed_info};
use glasshouse_core::transcript::sha384;

use super::mode;
use crate::check;
use crate::keys::AT;

static GOOD: LazyLock<Vec<VerifiedRim>> = LazyLock::new(|| {
    let all = [Manifest::driver(), Manifest::vbios(), Manifest::switch()];
    all.iter().map(|manifest| verify(manifest.document().as_bytes()).expect("a good manifest")).collect()
});

fn verify(document: &[u8]) -> Option<VerifiedRim> {
    match verify_rim(document, &roots().rim, AT) {
        Ok(rim) => Some(rim),
        Err(refusal) => {
            check::refusal_of(&refusal, codes::ALL);
            None
        }
    }
}

/// `a`: a whole document. `b`: what is signed of one, signed here. `c`: a `SignedInfo`, signed here.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', document)) => {
            if let Some(rim) = verify(document) {
                assert!(GOOD.contains(&rim), "nobody signed {rim:?}");
            }
        }
        Some((b'b', content)) => {
            if let Ok(content) = std::str::from_utf8(content) {
                signed_here(content);
            }
        }
        Some((b'c', text)) => {
            if let Ok(text) = std::str::from_utf8(text)
                && let Some(rim) = signed(&Manifest::driver().content(), text)
            {
                // Whatever else was signed for it: the document is the good one.
                assert_eq!(&rim, &GOOD[0]);
            }
        }
        _ => {}
    }
}

/// Content whose digest was signed is in canonical form, so that what is read from it stands there letter by letter.
fn signed_here(content: &str) {
    let digest = STANDARD.encode(sha384(content).as_bytes());
    let Some(rim) = signed(content, &signed_info(&digest)) else { return };
    assert_eq!(rim.content(), sha384(content));
    let stands = |text: &str| assert!(content.contains(text), "{text} does not stand in {content}");
    for (name, value) in [("product", rim.product()), ("colloquialVersion", rim.version())] {
        stands(&format!("{name}=\"{}\"", escaped(value)));
    }
    assert!(!rim.measurements().is_empty());
    for (index, values) in rim.measurements() {
        assert!(!values.is_empty());
        // Leading zeros and a plus sign are numbers too.
        assert!(content.split("index=\"").skip(1).any(|rest| rest.split('"').next().unwrap().parse() == Ok(*index)));
        for value in values {
            assert!(content.to_ascii_lowercase().contains(&value.to_string()));
        }
    }
}

/// As an attribute's value in canonical form (C14N 1.1, section 2.3).
fn escaped(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// The content with a signature over `signed_info` put in at its end, by a good signer.
fn signed(content: &str, signed_info: &str) -> Option<VerifiedRim> {
    static SIGNATURE: LazyLock<String> = LazyLock::new(|| Manifest::driver().signature());
    const AROUND: &str = "<ds:SignedInfo xmlns=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\" \
                          xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\" \
                          xmlns:ns0=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\" \
                          xmlns:ns2=\"http://www.w3.org/2001/04/xmlenc#sha384\">";
    let canonical = signed_info.replacen("<ds:SignedInfo>", AROUND, 1);
    let value = STANDARD.encode(sign("RIM L4", canonical.as_bytes()).to_bytes());
    let (start, rest) = SIGNATURE.split_once("<ds:SignedInfo>").unwrap();
    let (_, rest) = rest.split_once("<ds:SignatureValue>").unwrap();
    let (_, end) = rest.split_once("</ds:SignatureValue>").unwrap();
    let place = content.rfind("</SoftwareIdentity>")?;
    let (content, close) = content.split_at(place);
    let signature = format!("{start}{signed_info}<ds:SignatureValue>{value}</ds:SignatureValue>{end}");
    verify(format!("{content}{signature}{close}").as_bytes())
}

//! Properties that several targets assert.

use std::fmt::Debug;

use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::LabelledClaim;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Most characters of what a refusal quotes.
const QUOTED: usize = 300;

/// Text that may go to a terminal: at most so many characters, none of them a control character or one that turns
/// the direction of what follows.
pub fn one_line(text: &str, limit: usize) {
    assert!(text.chars().count() <= limit, "{} characters: {:.400}", text.chars().count(), text);
    assert!(!text.contains('\n'), "several lines: {text:.400}");
    lines(text);
}

/// As [`one_line`], of several lines and any length.
pub fn lines(text: &str) {
    let bad = text.chars().find(|c| *c != '\n' && !printable(*c));
    assert_eq!(bad, None, "in {text:.400}");
}

fn printable(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

/// A refusal has a code of the core's, quotes no more than its limit, and is fit for a terminal.
pub fn refusal(refusal: &Refusal) {
    refusal_of(refusal, Code::ALL);
}

/// As [`refusal`], of a verifier whose codes are these.
pub fn refusal_of(refusal: &Refusal, known: &[Code]) {
    assert!(known.contains(&refusal.code), "{refusal}");
    assert!(refusal.advice.is_some(), "{refusal}");
    one_line(&refusal.expected, QUOTED);
    one_line(&refusal.seen, QUOTED);
    one_line(&refusal.to_string(), 1000);
}

/// Claims are fit for a terminal, and short but for a list of advisories.
pub fn labelled(claims: &[LabelledClaim]) {
    for claim in claims {
        one_line(&claim.name, QUOTED);
        one_line(&claim.value, if claim.name == "intel-tcb-advisories" { usize::MAX } else { QUOTED });
    }
}

/// What was read says all that stood there, writes itself, and reads back as the same.
///
/// # Panics
/// When it does not.
pub fn faithful<T: Serialize + DeserializeOwned + Debug>(message: &T, bytes: &[u8]) {
    let read: Value = serde_json::from_slice(bytes).expect("what was accepted is JSON");
    let written = serde_json::to_vec(message).expect("what was accepted can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    let said = serde_json::to_value(&again).expect("what was read twice can be written");
    same(&read, &said);
    // One document, whoever reads it: no key stands twice, at any depth.
    let limits = glasshouse_attest::json::Limits { bytes: usize::MAX, depth: 32 };
    assert_eq!(glasshouse_attest::json::check(bytes, limits), Ok(()));
}

/// Equal, but for members that are null on one side and absent on the other, and the last digits of floats: serde_json
/// reads those to the nearest but one.
fn same(read: &Value, said: &Value) {
    match (read, said) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                same(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| same(a, b));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (x, y) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            assert!(a == b || (x - y).abs() <= x.abs() * 1e-12 + 1e-300, "{a} became {b}");
        }
        // serde's derive reads a struct out of a list of its fields, and a bare variant out of an object with its name.
        // Nothing hangs on it: digests and signatures are over the bytes, and what must have one spelling is compared.
        (Value::Array(a), Value::Object(b)) => assert!(a.len() <= b.len()),
        (Value::Object(a), Value::String(b)) => assert!(a.len() == 1 && a.get(b) == Some(&Value::Null)),
        _ => assert_eq!(read, said, "something was read and left out, or changed"),
    }
}

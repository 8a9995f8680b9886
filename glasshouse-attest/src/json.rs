//! A strict look at JSON before anything is read out of it: one document, no duplicate keys, bounded depth and size.
//!
//! RFC 8259 leaves duplicate names to the reader, so that two readers can see two documents in one string. Every token
//! goes through [`check`] first; only then is it deserialized.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How much of a JSON document is looked at before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes.
    pub bytes: usize,
    /// Deepest nesting of objects and arrays; a scalar has depth 0.
    pub depth: usize,
}

/// Why a document is not looked at any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// It is larger than the limit.
    #[error("{bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It is not one strict JSON document within the depth.
    #[error("{0}")]
    NotStrict(String),
}

/// Accepts exactly one JSON document in UTF-8 within the limits and without duplicate keys, and reads nothing out of it.
///
/// # Errors
/// [`JsonError`], with the position where the document stopped being acceptable.
pub fn check(bytes: &[u8], limits: Limits) -> Result<(), JsonError> {
    if bytes.len() > limits.bytes {
        return Err(JsonError::TooLarge { bytes: bytes.len(), limit: limits.bytes });
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Value { depth_left: limits.depth }
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| JsonError::NotStrict(error.to_string()))
}

/// Visits a value and throws it away.
#[derive(Clone, Copy)]
struct Value {
    depth_left: usize,
}

impl Value {
    fn inside<E: Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("duplicate key"));
            }
            members.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { bytes: 4096, depth: 3 };

    #[test]
    fn strictness() {
        for good in ["{}", "[]", "1", "\"a\"", "null", " {\"a\":[{\"b\":1e3}],\"b\":-1}\n", "[[[]]]"] {
            assert_eq!(check(good.as_bytes(), LIMITS), Ok(()), "{good}");
        }
        for bad in [
            "",
            "{",
            "{}{}",
            "{} x",
            "[1,]",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"x\":{\"a\":1,\"a\":2}}",
            "[[[[]]]]",
            "\"\u{1}\"",
            "NaN",
            "01",
        ] {
            assert!(check(bad.as_bytes(), LIMITS).is_err(), "{bad}");
        }
        assert!(check(b"\"\xff\"", LIMITS).is_err());
        let large = format!("\"{}\"", "a".repeat(4096));
        assert_eq!(check(large.as_bytes(), LIMITS), Err(JsonError::TooLarge { bytes: 4098, limit: 4096 }));
    }

    #[test]
    fn any_depth_is_refused_without_overflowing_the_stack() {
        let deep = "[".repeat(1_000_000);
        assert!(check(deep.as_bytes(), Limits { bytes: usize::MAX, depth: usize::MAX }).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = check(&bytes, LIMITS);
        }

        #[test]
        fn never_panics_on_json_like_text(text in r#"[\[\]{}",:a1e\\u0-9 ]{0,64}"#) {
            if check(text.as_bytes(), LIMITS).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }
    }
}

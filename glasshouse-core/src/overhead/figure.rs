//! Numbers and words that may stand in a row: finite, bounded, with one spelling each.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A finite number with twelve significant digits, between -1e15 and 1e15; below 1e-9 it is zero.
///
/// Twelve digits are more than any clock here gives, and few enough that JSON gives back the same number on every
/// parser: a signed record depends on that.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Figure(f64);

impl Figure {
    /// Rounds to twelve significant digits; nothing for what is not finite or too large.
    pub fn new(value: f64) -> Option<Self> {
        if !value.is_finite() || value.abs() >= 1e15 {
            return None;
        }
        if value.abs() < 1e-9 {
            return Some(Self(0.0));
        }
        format!("{value:.11e}").parse().ok().filter(|v: &f64| v.abs() < 1e15).map(Self)
    }

    /// The number.
    pub const fn value(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Self::new(value).ok_or_else(|| de::Error::custom("expected a finite number below 1e15"))
    }
}

/// A short name on one line: 1 to 120 printable characters. It is printed to terminals and into SVG, so it holds no
/// control characters and no invisible direction marks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Label(String);

/// The most characters of a [`Label`].
const LABEL_CHARS: usize = 120;

impl Label {
    /// The text as it is, when it may be a label.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.chars().count() <= LABEL_CHARS && text.chars().all(printable);
        fits.then(|| Self(text.to_owned()))
    }

    /// The text with what may not stand in a label replaced by `?`, cut to length; `?` when there is nothing.
    pub fn lossy(text: &str) -> Self {
        let clean: String = text.chars().map(|c| if printable(c) { c } else { '?' }).take(LABEL_CHARS).collect();
        Self(if clean.is_empty() { "?".to_owned() } else { clean })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| de::Error::custom("expected 1 to 120 printable characters"))
    }
}

fn printable(c: char) -> bool {
    let invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    // XML 1.0 has no U+FFFE and U+FFFF, not even escaped.
    !c.is_control() && !invisible && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn json_gives_back_the_same_figure(value in prop_oneof![any::<f64>(), -1e6..1e6f64, 0.0..1e-6f64]) {
            let Some(figure) = Figure::new(value) else { return Ok(()) };
            let text = serde_json::to_string(&figure).unwrap();
            let back: Figure = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back, figure);
            prop_assert_eq!(serde_json::to_string(&back).unwrap(), text);
            prop_assert!((figure.value() - value).abs() <= value.abs() * 1e-11 + 1e-9);
        }

        #[test]
        fn lossy_labels_are_labels(text: String) {
            let label = Label::lossy(&text);
            prop_assert_eq!(Label::new(label.as_str()), Some(label));
        }
    }

    #[test]
    fn what_is_no_number_is_no_figure() {
        for bad in [f64::NAN, f64::INFINITY, -1e15, 1e300] {
            assert_eq!(Figure::new(bad), None, "{bad}");
        }
        for bad in ["1e999", "1e15", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Figure>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Figure::new(-0.0)).unwrap(), "0.0");
    }

    #[test]
    fn labels_are_one_line() {
        for bad in ["", "a\nb", "\u{1b}[31m", "a\u{202e}b"] {
            assert_eq!(Label::new(bad), None, "{bad:?}");
        }
        assert_eq!(Label::lossy("a\u{1b}b").as_str(), "a?b");
    }
}

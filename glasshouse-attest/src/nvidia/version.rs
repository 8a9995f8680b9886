use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A dotted version whose parts compare as numbers: decimal for drivers (`550.90.07`), hexadecimal for VBIOS
/// (`96.00.5E.00.01`). Missing parts count as zero.
#[derive(Clone, Debug)]
pub struct Version<const RADIX: u32> {
    text: String,
    parts: Vec<u32>,
}

/// A driver's version.
pub type DriverVersion = Version<10>;
/// A VBIOS version.
pub type VbiosVersion = Version<16>;

impl<const RADIX: u32> Version<RADIX> {
    /// Reads one to eight parts of one to eight digits each.
    pub fn parse(text: &str) -> Option<Self> {
        let part = |part: &str| {
            let digits = (1..=8).contains(&part.len()) && part.chars().all(|c| c.is_digit(RADIX));
            digits.then(|| u32::from_str_radix(part, RADIX).ok()).flatten()
        };
        let mut parts = text.split('.').map(part).collect::<Option<Vec<_>>>()?;
        if parts.len() > 8 {
            return None;
        }
        while parts.last() == Some(&0) {
            parts.pop();
        }
        Some(Self { text: text.to_ascii_uppercase(), parts })
    }

    /// The text, in upper case.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<const RADIX: u32> PartialEq for Version<RADIX> {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl<const RADIX: u32> Eq for Version<RADIX> {}

impl<const RADIX: u32> PartialOrd for Version<RADIX> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<const RADIX: u32> Ord for Version<RADIX> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts.cmp(&other.parts)
    }
}

impl<const RADIX: u32> fmt::Display for Version<RADIX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<const RADIX: u32> Serialize for Version<RADIX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, const RADIX: u32> Deserialize<'de> for Version<RADIX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format_args!("\"{text}\" is not a dotted version")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_compare_as_numbers() {
        let driver = |text| DriverVersion::parse(text).unwrap();
        assert!(driver("550.90.07") < driver("550.144.03"));
        assert!(driver("580.0") == driver("580.00"));
        assert!(driver("580") < driver("580.1"));
        let vbios = |text| VbiosVersion::parse(text).unwrap();
        assert!(vbios("96.00.5E.00.01") < vbios("96.00.9F.00.01"));
        assert!(vbios("96.00.9f.00.01") == vbios("96.00.9F.00.01"));
        for bad in ["", ".", "1.", "1..2", "-1", "+1", "1.x", "123456789", "1.2.3.4.5.6.7.8.9"] {
            assert!(DriverVersion::parse(bad).is_none(), "{bad}");
        }
        assert!(DriverVersion::parse("5E").is_none());
    }
}

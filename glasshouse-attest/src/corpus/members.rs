use glasshouse_core::fixed::{Digest64, Nonce32};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::transcript::sha256;
use serde::Deserialize;

use crate::report_data::ReportData;

/// One file, or several that follow each other.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Files {
    One(String),
    Several(Vec<String>),
}

impl Files {
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
        .iter()
    }
}

/// The nonce that was asked for.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    For(Nonce32),
    /// The case does not say, or names what is no nonce: nothing answers it.
    Unknown,
}

impl Asked {
    pub(super) fn nonce(text: &str) -> Result<Self, String> {
        let bytes = bytes_of(text.trim()).ok_or("the nonce is not hexadecimal digits")?;
        Ok(Nonce32::try_from(bytes.as_slice()).map_or(Self::Unknown, Self::For))
    }

    /// Where it is unknown, a nonce that nothing answers, so that a verifier refuses where it checks it.
    pub(super) fn get(self) -> Nonce32 {
        match self {
            Self::For(nonce) => nonce,
            Self::Unknown => sha256("glasshouse: a nonce that nobody asked for"),
        }
    }

    /// What was decided, in words that fit; an unknown nonce is never answered.
    pub(super) fn told<T>(self, decided: Result<T, Refusal>, code: &Code) -> Result<T, Refusal> {
        let expected = "a nonce of 32 bytes that the case names".to_owned();
        match (self, decided) {
            (Self::Unknown, Ok(_)) => Err(Refusal::new(code.clone(), expected, "none")),
            (Self::Unknown, Err(refusal)) if refusal.code == *code => Err(Refusal { expected, ..refusal }),
            (_, decided) => decided,
        }
    }
}

/// A case's report data.
pub(super) enum Expected {
    Full(Digest64),
    Prefix(Vec<u8>),
    Unknown,
}

impl Expected {
    pub(super) fn new(full: Option<String>, prefix: Option<String>) -> Result<Self, String> {
        match (full, prefix) {
            (None, None) => Ok(Self::Unknown),
            (Some(full), None) => match bytes_of(&full) {
                Some(mut bytes) if (1..=64).contains(&bytes.len()) => {
                    bytes.resize(64, 0);
                    Digest64::try_from(bytes.as_slice()).map(Self::Full).map_err(|_| "report_data".to_owned())
                }
                _ => Err("report_data is not 2 to 128 hexadecimal digits".to_owned()),
            },
            (None, Some(prefix)) => match bytes_of(&prefix) {
                Some(bytes) if (1..=64).contains(&bytes.len()) => Ok(Self::Prefix(bytes)),
                _ => Err("report_data_prefix is not 2 to 128 hexadecimal digits".to_owned()),
            },
            (Some(_), Some(_)) => Err("it has both report_data and report_data_prefix".to_owned()),
        }
    }

    pub(super) fn get(&self) -> ReportData<'_> {
        match self {
            Self::Full(all) => ReportData::Full(all),
            Self::Prefix(start) => ReportData::Prefix(start),
            Self::Unknown => ReportData::Unknown,
        }
    }
}

/// Hexadecimal digits of either case, with or without `0x`.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok()
}

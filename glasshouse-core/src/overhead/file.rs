//! `overhead.json`: rows, read strictly.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde::{Deserialize, Serialize};

use super::row::Row;

/// What a file of this version says in `schema`.
pub const SCHEMA: &str = "glasshouse/overhead/1";
/// The largest file that is read.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// The most rows of one file.
pub const MAX_ROWS: usize = 256;

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OverheadFile {
    /// Every row, counted or not.
    pub rows: Vec<Row>,
}

/// Why a file was not read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverheadFileError {
    /// Too large.
    #[error("overhead.json has {bytes} bytes, more than {MAX_FILE_BYTES}; it is not a file of this tool")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or not of this shape: unknown or repeated fields, numbers that are none, fields that disagree.
    #[error("overhead.json, line {line}, column {column}: {why}; write it again with this tool and do not edit it")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        why: String,
    },
    /// Written by another version.
    #[error("overhead.json says schema {seen:?}; this version reads {SCHEMA:?}")]
    Schema {
        /// What it says.
        seen: String,
    },
    /// Too many rows.
    #[error("overhead.json has {rows} rows, more than {MAX_ROWS}; split it")]
    TooManyRows {
        /// How many.
        rows: usize,
    },
}

#[derive(Serialize)]
struct FileOut<'a> {
    schema: &'static str,
    rows: &'a [Row],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIn {
    schema: String,
    rows: Vec<Row>,
}

impl OverheadFile {
    /// Reads a file. Unknown and repeated fields, fields that disagree, and whatever follows the JSON are refused.
    ///
    /// # Errors
    /// [`OverheadFileError`] says what is wrong and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, OverheadFileError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(OverheadFileError::TooLarge { bytes: bytes.len() });
        }
        let file: FileIn = serde_json::from_slice(bytes).map_err(|e| malformed(&e))?;
        if file.schema != SCHEMA {
            return Err(OverheadFileError::Schema { seen: file.schema.chars().take(80).collect() });
        }
        if file.rows.len() > MAX_ROWS {
            return Err(OverheadFileError::TooManyRows { rows: file.rows.len() });
        }
        Ok(Self { rows: file.rows })
    }

    /// The file's text, indented, with a newline at the end. Equal rows give equal text.
    ///
    /// # Errors
    /// [`OverheadFileError::TooManyRows`] when it could not be read back.
    pub fn to_json(&self) -> Result<String, OverheadFileError> {
        if self.rows.len() > MAX_ROWS {
            return Err(OverheadFileError::TooManyRows { rows: self.rows.len() });
        }
        let mut text =
            serde_json::to_string_pretty(&FileOut { schema: SCHEMA, rows: &self.rows }).map_err(|e| malformed(&e))?;
        text.push('\n');
        Ok(text)
    }
}

fn malformed(error: &serde_json::Error) -> OverheadFileError {
    // The message repeats input; control characters of it do not go to a terminal.
    let why = error.to_string();
    let why = why.split(" at line ").next().unwrap_or_default();
    let why = why.chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect();
    OverheadFileError::Malformed { line: error.line(), column: error.column(), why }
}

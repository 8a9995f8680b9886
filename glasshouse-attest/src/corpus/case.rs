use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use glasshouse_core::clock::UnixMillis;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::kinds;
use super::report::{CaseReport, CorpusReport};
use crate::json::{self, Limits};

const LIMITS: Limits = Limits { bytes: 16 * 1024 * 1024, depth: 32 };

/// A corpus, read and not yet run.
#[derive(Clone, Debug)]
pub struct Corpus {
    folder: PathBuf,
    cases: Vec<Case>,
}

/// Why a file is no corpus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}; pass the path of a cases.json")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not the JSON of a corpus.
    #[error("{path} is not a corpus: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

impl Corpus {
    /// Reads a corpus's cases; the files that they name are read when a case runs.
    ///
    /// # Errors
    /// [`CorpusError`], also for two cases with one id and for none at all.
    pub fn read(path: &Path) -> Result<Self, CorpusError> {
        let bytes = std::fs::read(path).map_err(|source| CorpusError::Read { path: path.to_owned(), source })?;
        let form = |reason: String| CorpusError::Form { path: path.to_owned(), reason };
        json::check(&bytes, LIMITS).map_err(|e| form(e.to_string()))?;
        let file: File = serde_json::from_slice(&bytes).map_err(|e| form(e.to_string()))?;
        let mut ids = std::collections::BTreeSet::new();
        if let Some(twice) = file.cases.iter().find(|case| !ids.insert(&case.id)) {
            return Err(form(format!("two cases have the id {:?}", twice.id)));
        }
        if file.cases.is_empty() {
            return Err(form("it has no cases".to_owned()));
        }
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { folder, cases: file.cases })
    }

    /// The cases.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// The same cases, all at this time instead of their own.
    #[must_use]
    pub fn at(mut self, at: UnixMillis) -> Self {
        self.cases.iter_mut().for_each(|case| case.at = at);
        self
    }

    /// Runs one of its cases.
    pub fn run_case(&self, case: &Case) -> CaseReport {
        let outcome = kinds::run(case, &self.folder);
        CaseReport { id: case.id.clone(), kind: case.kind.clone(), expected: case.expected(), outcome }
    }

    /// Runs all cases.
    pub fn run(&self) -> CorpusReport {
        CorpusReport { cases: self.cases.iter().map(|case| self.run_case(case)).collect() }
    }
}

/// What a case expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// That the evidence is accepted.
    Accept,
    /// That it is refused, with this code where one is given.
    Reject(Option<String>),
}

/// One case: what all kinds have, and the kind's own members.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// Which verifier.
    pub kind: String,
    #[serde(deserialize_with = "time")]
    pub(super) at: UnixMillis,
    expect: Expect,
    fails_at: Option<String>,
    #[serde(default)]
    pub(super) policy: Map<String, Value>,
    /// For people.
    #[serde(rename = "note", alias = "comment", alias = "description", default)]
    _note: Option<String>,
    #[serde(flatten)]
    pub(super) members: Map<String, Value>,
}

impl Case {
    fn expected(&self) -> Expectation {
        match self.expect {
            Expect::Accept => Expectation::Accept,
            Expect::Reject => Expectation::Reject(self.fails_at.clone()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "note", default)]
    _note: Value,
    cases: Vec<Case>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Accept,
    Reject,
}

/// RFC 3339, UTC.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixMillis, D::Error> {
    let text = String::deserialize(deserializer)?;
    let error = || serde::de::Error::custom(format!("{text:?} is not a time as 2026-01-01T00:00:00Z"));
    let since =
        humantime::parse_rfc3339(&text).map_err(|_| error())?.duration_since(UNIX_EPOCH).map_err(|_| error())?;
    u64::try_from(since.as_millis()).map(UnixMillis).map_err(|_| error())
}

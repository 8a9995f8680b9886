use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use glasshouse_core::clock::UnixMillis;
use serde_json::{Map, Value};

use super::report::{CaseReport, CorpusReport, Outcome};
use super::time::time;
use super::{files, kinds};
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
    /// It is no strict JSON, or has no list of cases.
    #[error("{path} is not a corpus: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

impl Corpus {
    /// Reads a corpus's cases; the files that they name are read when a case runs. What is wrong with one case is that
    /// case's, told when it runs; members that are not known are passed over.
    ///
    /// # Errors
    /// [`CorpusError`], also for no case at all.
    pub fn read(path: &Path) -> Result<Self, CorpusError> {
        let bytes = files::read(path).map_err(|source| CorpusError::Read { path: path.to_owned(), source })?;
        let form = |reason: &str| CorpusError::Form { path: path.to_owned(), reason: reason.to_owned() };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        json::check(bytes, LIMITS).map_err(|e| form(&e.to_string()))?;
        let file: Value = serde_json::from_slice(bytes).map_err(|e| form(&e.to_string()))?;
        let cases = file.get("cases").and_then(Value::as_array).ok_or_else(|| form("it has no list of cases"))?;
        if cases.is_empty() {
            return Err(form("it has no cases"));
        }
        let mut ids = BTreeSet::new();
        let mut read = |(number, case): (usize, &Value)| {
            let mut case = Case::read(number, case);
            if !ids.insert(case.id.clone()) {
                case.broken = Some(format!("another case has the id {:?} already", case.id));
            }
            case
        };
        let cases = (1..).zip(cases).map(&mut read).collect();
        Ok(Self { folder: path.parent().unwrap_or(Path::new("")).to_owned(), cases })
    }

    /// The cases.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// The same cases, all at this time instead of their own.
    #[must_use]
    pub fn at(mut self, at: UnixMillis) -> Self {
        self.cases.iter_mut().for_each(|case| case.at = Ok(at));
        self
    }

    /// Runs one of its cases. A panic, which no verifier of this crate raises and one of what it depends on might, breaks
    /// that case and no other.
    pub fn run_case(&self, case: &Case) -> CaseReport {
        let run = || match (&case.broken, &case.at) {
            (Some(reason), _) | (None, Err(reason)) => Outcome::Broken(reason.clone()),
            (None, Ok(at)) => kinds::run(case, *at, &self.folder),
        };
        let (id, kind, expected) = (case.id.clone(), case.kind.clone(), case.expected.clone());
        CaseReport { id, kind, expected, outcome: caught(run) }
    }

    /// Runs all cases.
    pub fn run(&self) -> CorpusReport {
        CorpusReport { cases: self.cases.iter().map(|case| self.run_case(case)).collect() }
    }
}

fn caught(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Outcome::Broken("the verifier panicked; its message is on the terminal".to_owned()))
}

/// What a case expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// That the evidence is accepted.
    Accept,
    /// That it is refused, with this code where one is given.
    Reject(Option<String>),
    /// It does not say: nothing is as expected.
    Unknown,
}

/// One case: what all kinds have, and the kind's own members.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name; `case 3` where it has none.
    pub id: String,
    /// Which verifier.
    pub kind: String,
    at: Result<UnixMillis, String>,
    expected: Expectation,
    /// Why it cannot run.
    broken: Option<String>,
    pub(super) policy: Map<String, Value>,
    pub(super) members: Map<String, Value>,
}

impl Case {
    /// Reads one case, by its number from 1.
    fn read(number: usize, case: &Value) -> Self {
        let members = case.as_object().cloned().unwrap_or_default();
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        let fails_at = members.get("fails_at").filter(|code| !code.is_null());
        let expected = match text("expect").as_deref() {
            Some("accept") => Expectation::Accept,
            Some("reject") => Expectation::Reject(text("fails_at")),
            _ => Expectation::Unknown,
        };
        let policy = match members.get("policy") {
            None | Some(Value::Null) => Some(Map::new()),
            Some(policy) => policy.as_object().cloned(),
        };
        let reasons = [
            (!case.is_object(), "it is no JSON object"),
            (text("id").is_none(), "it has no id"),
            (text("kind").is_none(), "it has no kind"),
            (expected == Expectation::Unknown, "its expect is neither accept nor reject"),
            (fails_at.is_some_and(|code| !code.is_string()), "its fails_at is no text"),
            (policy.is_none(), "its policy is no JSON object"),
        ];
        Self {
            id: text("id").unwrap_or_else(|| format!("case {number}")),
            kind: text("kind").unwrap_or_else(|| "no kind".to_owned()),
            at: members.get("at").ok_or_else(|| "it has no at".to_owned()).and_then(time),
            expected,
            broken: reasons.into_iter().find(|(wrong, _)| *wrong).map(|(_, reason)| reason.to_owned()),
            policy: policy.unwrap_or_default(),
            members,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_bad_line() {
        assert_eq!(caught(|| Outcome::Accepted(Vec::new())), Outcome::Accepted(Vec::new()));
        assert!(matches!(caught(|| panic!("of a dependency")), Outcome::Broken(_)));
    }
}

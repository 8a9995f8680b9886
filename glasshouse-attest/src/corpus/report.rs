use std::fmt;

use glasshouse_core::refusal::{Refusal, one_line};

use super::case::Expectation;

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The evidence was accepted, with these relaxations of the policy in force.
    Accepted(Vec<String>),
    /// The evidence was refused.
    Refused(Refusal),
    /// The case could not be run: what it lacks, an unknown kind or policy key, or a file that is not there.
    Broken(String),
}

/// One case with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseReport {
    /// The case.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// What it expects.
    pub expected: Expectation,
    /// What came of it.
    pub outcome: Outcome,
}

impl CaseReport {
    /// Whether the outcome is the expected one.
    pub fn is_as_expected(&self) -> bool {
        match (&self.expected, &self.outcome) {
            (Expectation::Accept, Outcome::Accepted(_)) | (Expectation::Reject(None), Outcome::Refused(_)) => true,
            (Expectation::Reject(Some(code)), Outcome::Refused(refusal)) => refusal.code.as_str() == code,
            _ => false,
        }
    }
}

impl fmt::Display for CaseReport {
    /// `ok    id (kind): expected reject at nonce, got reject at nonce: what was expected and seen`. One line that is fit
    /// for a terminal, whatever the corpus calls its cases and files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_as_expected() { "ok  " } else { "FAIL" };
        write!(f, "{verdict}  {} ({}): expected ", one_line(&self.id), one_line(&self.kind))?;
        match &self.expected {
            Expectation::Accept => f.write_str("accept")?,
            Expectation::Reject(None) => f.write_str("reject")?,
            Expectation::Reject(Some(code)) => write!(f, "reject at {}", one_line(code))?,
            Expectation::Unknown => f.write_str("nothing")?,
        }
        match &self.outcome {
            Outcome::Accepted(relaxations) if relaxations.is_empty() => f.write_str(", got accept: every check holds"),
            Outcome::Accepted(relaxations) => {
                write!(f, ", got accept: every check holds, with {}", relaxations.join(", "))
            }
            Outcome::Refused(Refusal { code, expected, seen, .. }) => {
                write!(f, ", got reject at {code}: expected {expected}, saw {seen}")
            }
            Outcome::Broken(reason) => write!(f, ", could not run: {}", one_line(reason)),
        }
    }
}

/// All cases of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusReport {
    /// In the corpus's order.
    pub cases: Vec<CaseReport>,
}

impl CorpusReport {
    /// `N cases, N as expected`.
    pub fn summary(&self) -> String {
        let expected = self.cases.iter().filter(|case| case.is_as_expected()).count();
        format!("{} cases, {expected} as expected", self.cases.len())
    }

    /// Whether every case is as expected.
    pub fn all_as_expected(&self) -> bool {
        self.cases.iter().all(CaseReport::is_as_expected)
    }
}

impl fmt::Display for CorpusReport {
    /// One line for each case; the last is `N cases, N as expected`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            writeln!(f, "{case}")?;
        }
        f.write_str(&self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_whatever_the_case_is_called() {
        let odd = "a\n2 cases, 2 as expected\u{1b}[2J\u{202e}".to_owned();
        let expected = Expectation::Reject(Some(odd.clone()));
        let case = CaseReport { id: odd.clone(), kind: odd.clone(), expected, outcome: Outcome::Broken(odd) };
        let told = case.to_string();
        assert_eq!(told.lines().count(), 1);
        assert!(!told.contains(['\u{1b}', '\u{202e}']), "{told}");
    }
}

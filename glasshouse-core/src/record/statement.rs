//! The in-toto Statement v1 around a record, and its subjects.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde::{Deserialize, Serialize};

use super::dsse::Envelope;
use super::error::RecordError;
use super::model::{EvidenceRecord, RecordedEvent, VERSION};
use crate::channel::EventBody;
use crate::fixed::{Digest32, Nonce32};
use crate::protocol::{SigningSecret, decode, encode};

/// `_type` of a statement (<https://in-toto.io/Statement/v1>).
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What the predicate is.
pub const PREDICATE_TYPE: &str = "https://glasshouse.dev/evidence/v1";
/// The largest record that is written or read.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// One artifact that the statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The session's first eight digits, a slash, and the artifact's file name, or `weights`.
    pub name: String,
    /// What it hashes to.
    pub digest: SubjectDigest,
}

/// in-toto's `DigestSet`, with the one algorithm that is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectDigest {
    /// SHA-256.
    pub sha256: Digest32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    pub(super) subject: Vec<Subject>,
    predicate_type: String,
    pub(super) predicate: EvidenceRecord,
}

impl EvidenceRecord {
    /// The record's file, signed by the gate. `signer` must be the key's public half.
    ///
    /// A run whose end was not seen is signed all the same: [`verify`](super::verify) then says what is missing.
    ///
    /// # Errors
    /// [`RecordError::KeyId`] when `signer` is another key; [`RecordError::Statement`] when the record is too large or
    /// would not read back.
    pub fn sign(self, key: &SigningSecret) -> Result<Vec<u8>, RecordError> {
        if self.signer != key.public() {
            return Err(RecordError::KeyId);
        }
        let statement = Statement {
            kind: STATEMENT_TYPE.to_owned(),
            subject: subjects(&self),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: self,
        };
        let bytes = Envelope::sign(encode(&statement), key).to_bytes();
        Statement::parse(&Envelope::from_bytes(&bytes)?.payload.0)?;
        Ok(bytes)
    }
}

impl Statement {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, RecordError> {
        let statement: Self = decode("statement", payload, MAX_RECORD_BYTES).map_err(|r| RecordError::statement(&r))?;
        let named = (statement.kind.as_str(), statement.predicate_type.as_str(), statement.predicate.version.as_str());
        if named != (STATEMENT_TYPE, PREDICATE_TYPE, VERSION) {
            return Err(RecordError::Statement { why: format!("it is not a {PREDICATE_TYPE} statement of {VERSION}") });
        }
        if encode(&statement) != payload {
            return Err(RecordError::NotCanonical { what: "statement" });
        }
        Ok(statement)
    }
}

/// The artifacts that the sessions' signed events name: exported files, and the trained weights.
pub(super) fn subjects(record: &EvidenceRecord) -> Vec<Subject> {
    let of = |session: Nonce32, event: &RecordedEvent| {
        let body: EventBody = decode("event", &event.body.as_ref()?.0, EventBody::LIMIT).ok()?;
        let (name, sha256) = match body {
            EventBody::Artifact { name, sha256, .. } => (name, sha256),
            EventBody::Measured { weights, .. } => ("weights".to_owned(), weights),
            _ => return None,
        };
        Some(Subject { name: format!("{}/{name}", session.short()), digest: SubjectDigest { sha256 } })
    };
    record
        .sessions
        .iter()
        .filter_map(|s| Some((s.challenge.peek().ok()?.session, &s.events)))
        .flat_map(|(session, events)| events.iter().filter_map(move |e| of(session, e)))
        .collect()
}

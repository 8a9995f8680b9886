//! The evidence record: what a run leaves behind for someone who was not there.
//!
//! [`EvidenceRecord`] is the predicate of an in-toto Statement v1 whose subjects are the trained artifacts, signed by
//! the gate in a DSSE envelope. [`verify`] recomputes offline everything that can be recomputed, and
//! [`VerifiedRecord`] then says what that proves ([`explain`]) and what of it may be published ([`PublicRecord`]).

mod dsse;
mod error;
mod explain;
mod model;
mod public;
mod rows;
mod session;
mod statement;
mod verify;

pub use dsse::{Envelope, EnvelopeSignature, PAYLOAD_TYPE, key_id, pae};
pub use error::RecordError;
pub use explain::explain;
pub use model::{
    BilledSpend, CleanupProof, EvidenceRecord, Moment, RawSegmentRecord, RecordedEvent, RefusedSession, SessionRecord,
    VERSION,
};
pub use public::{
    PublicArtifact, PublicAttestation, PublicPhase, PublicRecord, PublicRow, PublicSession, PublicSigner,
};
pub use session::{SessionEvents, VerifiedSession};
pub use statement::{MAX_RECORD_BYTES, PREDICATE_TYPE, STATEMENT_TYPE, Subject};
pub use verify::{Signer, TimeSource, VerifiedRecord, verify, verify_with};

//! The software attestor's token: an EAT (RFC 9711) as a JWT, with Glasshouse's claims under private names.
//!
//! | claim | meaning |
//! | --- | --- |
//! | `eat_nonce` | hex SHA-256(`"gh/eat/1"` \|\| report_data), RFC 9711 section 4.1 |
//! | `iat` | when it was made, whole seconds (RFC 7519 section 4.1.6) |
//! | `eat_profile` | [`PROFILE`], RFC 9711 section 4.3.2 |
//! | `dbgstat` | `disabled` when at least `basic` holds, else `enabled`, RFC 9711 section 4.2.9 |
//! | `swname`, `swversion` | this crate and its version, RFC 9711 sections 4.2.6 and 4.2.7 |
//! | `measurements` | one entry, CoAP content format 50 (JSON): the executable's SHA-256, RFC 9711 section 4.2.16 |
//! | `gh_…` | each field of [`Claims`], in the spelling of its own type |
//!
//! There is no `ueid`: RFC 9711 asks of it that no two devices ever share it, which software cannot promise.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glasshouse_core::claims::{AntiDebug, AntiDebugLevel, Claims, ContainerId, EvidenceKind, RuntimeState};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::eat_nonce;
use glasshouse_core::fixed::{Digest32, Digest64};
use serde::{Deserialize, Serialize};

/// The `eat_profile` of these tokens, a tag URI (RFC 4151).
pub const PROFILE: &str = "tag:glasshouse.rs,2026:eat/software/1";

/// CoAP content format of `application/json` (RFC 7252 section 12.3).
const JSON_CONTENT_FORMAT: u16 = 50;

/// The payload. Its members are all required but the two that [`Claims`] itself leaves out, and no others are allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub(crate) eat_nonce: String,
    pub(crate) iat: u64,
    pub(crate) eat_profile: String,
    pub(crate) dbgstat: String,
    pub(crate) swname: String,
    pub(crate) swversion: Vec<String>,
    pub(crate) measurements: Vec<(u16, String)>,
    pub(crate) gh_kind: EvidenceKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gh_image_digest: Option<Digest32>,
    pub(crate) gh_container_source: String,
    pub(crate) gh_container_id: String,
    pub(crate) gh_runtime_measurement: Digest32,
    pub(crate) gh_anti_debug_profile: String,
    pub(crate) gh_anti_debug_level: AntiDebugLevel,
    pub(crate) gh_not_dumpable: bool,
    pub(crate) gh_no_core_files: bool,
    pub(crate) gh_no_tracer: bool,
    pub(crate) gh_no_preload: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gh_ptrace_scope: Option<u8>,
    pub(crate) gh_state: RuntimeState,
}

impl Token {
    /// The token of these claims over `report_data`, made at `at`.
    pub(crate) fn new(claims: &Claims, report_data: &Digest64, at: UnixMillis) -> Self {
        let Claims { kind, image_digest, container, runtime_measurement, anti_debug, state } = claims.clone();
        let ContainerId { source, value } = container;
        let AntiDebug { profile, level, not_dumpable, no_core_files, no_tracer, no_preload, ptrace_scope } = anti_debug;
        Self {
            eat_nonce: eat_nonce(report_data),
            iat: at.0 / 1000,
            eat_profile: PROFILE.to_owned(),
            dbgstat: debug_status(level).to_owned(),
            swname: env!("CARGO_PKG_NAME").to_owned(),
            swversion: vec![env!("CARGO_PKG_VERSION").to_owned()],
            measurements: vec![measurement(&runtime_measurement)],
            gh_kind: kind,
            gh_image_digest: image_digest,
            gh_container_source: source,
            gh_container_id: value,
            gh_runtime_measurement: runtime_measurement,
            gh_anti_debug_profile: profile,
            gh_anti_debug_level: level,
            gh_not_dumpable: not_dumpable,
            gh_no_core_files: no_core_files,
            gh_no_tracer: no_tracer,
            gh_no_preload: no_preload,
            gh_ptrace_scope: ptrace_scope,
            gh_state: state,
        }
    }

    /// The first claim in which two tokens differ, `eat_nonce`, `iat` and the software's version aside.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<&'static str> {
        macro_rules! differ {
            ($($field:ident),*) => { [$((stringify!($field), self.$field != other.$field)),*] };
        }
        differ!(
            eat_profile,
            dbgstat,
            swname,
            measurements,
            gh_kind,
            gh_image_digest,
            gh_container_source,
            gh_container_id,
            gh_runtime_measurement,
            gh_anti_debug_profile,
            gh_anti_debug_level,
            gh_not_dumpable,
            gh_no_core_files,
            gh_no_tracer,
            gh_no_preload,
            gh_ptrace_scope,
            gh_state
        )
        .into_iter()
        .find_map(|(name, differs)| differs.then_some(name))
    }
}

fn debug_status(level: AntiDebugLevel) -> &'static str {
    if level >= AntiDebugLevel::Basic { "disabled" } else { "enabled" }
}

fn measurement(executable: &Digest32) -> (u16, String) {
    (JSON_CONTENT_FORMAT, URL_SAFE_NO_PAD.encode(format!(r#"{{"executable":{{"sha-256":"{executable}"}}}}"#)))
}

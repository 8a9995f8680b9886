//! What an owner asks of self-reported evidence.

use std::time::Duration;

use glasshouse_core::claims::AntiDebugLevel;
use glasshouse_core::fixed::Digest48;
use glasshouse_core::transcript::Transcript;
use serde::{Deserialize, Serialize};

/// The least anti-debug level. `off` is not one of them: it takes [`SoftwarePolicy::dangerous_allow_anti_debug_off`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinimumAntiDebug {
    /// [`AntiDebugLevel::Basic`].
    #[default]
    Basic,
    /// [`AntiDebugLevel::Strict`].
    Strict,
}

impl MinimumAntiDebug {
    /// The level as it is claimed.
    pub const fn level(self) -> AntiDebugLevel {
        match self {
            Self::Basic => AntiDebugLevel::Basic,
            Self::Strict => AntiDebugLevel::Strict,
        }
    }
}

/// A policy for [`SoftwareVerifier`](super::SoftwareVerifier). Its digest is part of every challenge.
///
/// In JSON every field that is left out has its default, and no other field is allowed. Each field that begins with
/// `allow_` or `dangerous_` relaxes the policy and is listed with every verdict while it is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SoftwarePolicy {
    // In alphabetical order, so that what serde writes is RFC 8785's canonical form.
    /// Accept a runtime that a debugger may read. For work on Glasshouse itself.
    pub dangerous_allow_anti_debug_off: bool,
    /// How far `iat` may lie ahead of the owner's clock.
    pub max_clock_ahead_seconds: u32,
    /// How old a token may be by its `iat`.
    pub max_token_age_seconds: u32,
    /// The least anti-debug level.
    pub minimum_anti_debug: MinimumAntiDebug,
}

impl Default for SoftwarePolicy {
    /// Basic anti-debug, tokens of at most two minutes, clocks at most one minute ahead, nothing relaxed.
    fn default() -> Self {
        Self {
            dangerous_allow_anti_debug_off: false,
            max_clock_ahead_seconds: 60,
            max_token_age_seconds: 120,
            minimum_anti_debug: MinimumAntiDebug::Basic,
        }
    }
}

impl SoftwarePolicy {
    /// The canonical JSON (RFC 8785) of the policy.
    pub fn canonical_json(&self) -> String {
        // Booleans, integers and two words: written out, so that nothing can fail here; a test compares it with serde.
        let Self { dangerous_allow_anti_debug_off, max_clock_ahead_seconds, max_token_age_seconds, minimum_anti_debug } =
            self;
        let minimum = minimum_anti_debug.level();
        format!(
            "{{\"dangerous_allow_anti_debug_off\":{dangerous_allow_anti_debug_off},\
             \"max_clock_ahead_seconds\":{max_clock_ahead_seconds},\
             \"max_token_age_seconds\":{max_token_age_seconds},\
             \"minimum_anti_debug\":\"{minimum}\"}}"
        )
    }

    /// SHA-384 over `"gh/policy/software/1"` and LP of the canonical JSON.
    pub fn digest(&self) -> Digest48 {
        Transcript::new("gh/policy/software/1").lp(self.canonical_json()).sha384()
    }

    /// The names of the relaxations that are set.
    pub fn relaxations(&self) -> Vec<String> {
        [("dangerous_allow_anti_debug_off", self.dangerous_allow_anti_debug_off)]
            .into_iter()
            .filter(|(_, set)| *set)
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    pub(crate) fn max_token_age(&self) -> Duration {
        Duration::from_secs(self.max_token_age_seconds.into())
    }

    pub(crate) fn max_clock_ahead(&self) -> Duration {
        Duration::from_secs(self.max_clock_ahead_seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn strict_json() {
        let default: SoftwarePolicy = serde_json::from_str("{}").unwrap();
        assert_eq!(default, SoftwarePolicy::default());
        assert!(default.relaxations().is_empty());
        for bad in [
            r#"{"allow_everything":true}"#,
            r#"{"minimum_anti_debug":"off"}"#,
            r#"{"max_token_age_seconds":-1}"#,
            r#"{"max_token_age_seconds":1,"max_token_age_seconds":2}"#,
        ] {
            assert!(serde_json::from_str::<SoftwarePolicy>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_policys_digest_is_stable() {
        let json = "{\"dangerous_allow_anti_debug_off\":false,\
                    \"max_clock_ahead_seconds\":60,\"max_token_age_seconds\":120,\"minimum_anti_debug\":\"basic\"}";
        assert_eq!(SoftwarePolicy::default().canonical_json(), json);
        let digest = SoftwarePolicy::default().digest().to_string();
        assert_eq!(digest, DEFAULT_DIGEST);
    }

    // Python: hashlib.sha384(b'gh/policy/software/1' + struct.pack('>I', len(json)) + json).hexdigest()
    const DEFAULT_DIGEST: &str =
        "7ea531db351cc13ada84f7829895fe0ab7ff77ad3a66626d480e3212c08743284fec06fc4d0cc0991a72a840fc6978ec";

    proptest! {
        #[test]
        fn canonical_and_covered(off: bool, ahead: u32, age: u32, strict: bool) {
            let minimum = if strict { MinimumAntiDebug::Strict } else { MinimumAntiDebug::Basic };
            let policy = SoftwarePolicy {
                dangerous_allow_anti_debug_off: off,
                max_clock_ahead_seconds: ahead,
                max_token_age_seconds: age,
                minimum_anti_debug: minimum,
            };
            let text = policy.canonical_json();
            let sorted: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&serde_json::to_string(&sorted).unwrap(), &text);
            prop_assert_eq!(&serde_json::to_string(&policy).unwrap(), &text);
            prop_assert_eq!(policy == SoftwarePolicy::default(), policy.digest() == SoftwarePolicy::default().digest());
            prop_assert_eq!(policy.relaxations().len(), usize::from(off));
        }
    }
}

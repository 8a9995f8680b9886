//! The gate's own checks of what a runtime says, each against the owner's value, each with a code of its own.

use std::time::Duration;

use subtle::ConstantTimeEq as _;

use super::config::OwnerConfig;
use crate::claims::{AntiDebug, AntiDebugLevel, Claims, ReferenceValues, RuntimeState};
use crate::clock::UnixMillis;
use crate::evidence::{gpu_nonce, report_data};
use crate::fixed::Digest48;
use crate::protocol::{EvidenceMessage, LaunchKeys, SUITES, TranscriptFields, transcript_hash};
use crate::refusal::{Code, Refusal};
use crate::traits::{Appraisal, Binding, Verifier};

/// Appraises a message whose nonce is burned and whose own signature holds. Gives T as the gate computes it.
pub(super) fn appraise(
    config: &OwnerConfig,
    verifier: &dyn Verifier,
    message: &EvidenceMessage,
    challenge: &Digest48,
    now: UnixMillis,
) -> Result<(Digest48, Appraisal), Refusal> {
    let reference = &config.reference;
    let launch = LaunchKeys::new(&config.launch_secret, config.session);
    check_mac(&launch.mac_transcript(&message.t), &message.mac, Code::LAUNCH_SECRET_WRONG)?;
    let keys = launch.mac_keys(&message.nonce, &message.hpke_key, &message.event_key);
    check_mac(&keys, &message.keys_mac, Code::KEYS_SWAPPED)?;
    let policy_digest = verifier.policy_digest();
    if message.policy_digest != reference.policy_digest || policy_digest != reference.policy_digest {
        let (expected, seen) = (reference.policy_digest.short(), message.policy_digest.short());
        return Err(Refusal::new(Code::POLICY_DIGEST_MISMATCH, expected, seen));
    }
    let package = &config.package;
    expect(Code::PACKAGE_DIGEST_MISMATCH, &package.package_digest, &message.package_digest)?;
    expect(Code::MANIFEST_HASH_MISMATCH, &package.manifest_digest, &message.manifest_digest)?;
    check_claims(&message.claims, reference)?;
    let t = transcript_hash(&TranscriptFields {
        challenge,
        suites: SUITES,
        hpke_key: &message.hpke_key,
        event_key: &message.event_key,
        package_digest: &package.package_digest,
        manifest_digest: &package.manifest_digest,
        // Equal to the reference values field by field, as checked just before.
        claims: &message.claims,
        timestamp: message.timestamp,
        minimum_assurance: reference.minimum_assurance,
    });
    if message.challenge != *challenge {
        let (expected, seen) = (challenge.short(), message.challenge.short());
        return Err(Refusal::new(Code::COMPOSITE_HASH_MISMATCH, expected, seen));
    }
    expect(Code::COMPOSITE_HASH_MISMATCH, &t, &message.t)?;
    let max_age = config.challenge_ttl.saturating_add(config.max_skew);
    check_timestamp(message, now, max_age, config.max_skew)?;
    if verifier.kind() != reference.kind {
        return Err(Refusal::new(Code::EVIDENCE_KIND_UNSUPPORTED, reference.kind, verifier.kind()));
    }
    let binding = Binding {
        gpu_nonce: &gpu_nonce(&t),
        report_data: &report_data(&t, &message.gpus.digest()),
        reference,
        claims: &message.claims,
    };
    let appraisal = verifier.appraise(&message.cpu, &message.gpus, &binding, now)?;
    if appraisal.assurance < reference.minimum_assurance {
        let (expected, seen) = (reference.minimum_assurance, appraisal.assurance);
        return Err(Refusal::new(Code::ASSURANCE_TOO_LOW, format!("{expected} or more"), seen));
    }
    Ok((t, appraisal))
}

/// Compares claims with reference values.
pub(crate) fn check_claims(claims: &Claims, reference: &ReferenceValues) -> Result<(), Refusal> {
    if claims.kind != reference.kind {
        return Err(Refusal::new(Code::EVIDENCE_KIND_UNSUPPORTED, reference.kind, claims.kind));
    }
    if claims.image_digest != reference.image_digest {
        let text = |d: Option<crate::fixed::Digest32>| d.map_or("no image digest".to_owned(), |d| d.to_string());
        let (expected, seen) = (text(reference.image_digest), text(claims.image_digest));
        return Err(Refusal::new(Code::IMAGE_DIGEST_MISMATCH, expected, seen));
    }
    if claims.container != reference.container {
        return Err(Refusal::new(Code::CONTAINER_ID_MISMATCH, &reference.container, &claims.container));
    }
    if claims.runtime_measurement != reference.runtime_measurement {
        let (expected, seen) = (reference.runtime_measurement, claims.runtime_measurement);
        return Err(Refusal::new(Code::RUNTIME_MEASUREMENT_MISMATCH, expected, seen));
    }
    check_anti_debug(&claims.anti_debug, reference)?;
    if claims.state != RuntimeState::Ready {
        return Err(Refusal::new(Code::RUNTIME_STATE_INVALID, RuntimeState::Ready, claims.state));
    }
    Ok(())
}

fn check_anti_debug(seen: &AntiDebug, reference: &ReferenceValues) -> Result<(), Refusal> {
    let expected = reference.anti_debug_level;
    if expected > AntiDebugLevel::Off && seen.level == AntiDebugLevel::Off {
        return Err(Refusal::new(Code::ANTI_DEBUG_DISABLED, expected, seen.level));
    }
    // A level whose own checks did not hold when they were read back is not that level.
    if let Some(failed) = seen.failed_check() {
        return Err(Refusal::new(
            Code::ANTI_DEBUG_DISABLED,
            format!("{} with every check holding", seen.level),
            failed,
        ));
    }
    if seen.profile != reference.anti_debug_profile || seen.level < expected {
        let (expected, seen) =
            (format!("{} {expected}", reference.anti_debug_profile), format!("{} {}", seen.profile, seen.level));
        return Err(Refusal::new(Code::ANTI_DEBUG_DOWNGRADE, expected, seen));
    }
    if seen.level > expected {
        return Err(Refusal::new(Code::ANTI_DEBUG_MISMATCH, expected, seen.level));
    }
    Ok(())
}

/// Checks the runtime's clock against the gate's. Freshness itself is the gate's own monotonic time.
fn check_timestamp(
    message: &EvidenceMessage,
    now: UnixMillis,
    max_age: Duration,
    max_skew: Duration,
) -> Result<(), Refusal> {
    let seen = message.timestamp;
    if seen > now.after(max_skew) {
        let expected = format!("a time at most {} s ahead of {now}", max_skew.as_secs());
        return Err(Refusal::new(Code::TIMESTAMP_FUTURE, expected, seen));
    }
    if seen.after(max_age) < now {
        let expected = format!("a time at most {} s before {now}", max_age.as_secs());
        return Err(Refusal::new(Code::TIMESTAMP_STALE, expected, seen));
    }
    Ok(())
}

fn check_mac(expected: &Digest48, seen: &Digest48, code: Code) -> Result<(), Refusal> {
    if expected.as_bytes().ct_eq(seen.as_bytes()).into() {
        return Ok(());
    }
    Err(Refusal::new(code, "a MAC made with this allocation's launch secret", "another MAC"))
}

fn expect(code: Code, expected: &Digest48, seen: &Digest48) -> Result<(), Refusal> {
    if expected == seen {
        return Ok(());
    }
    Err(Refusal::new(code, expected, seen))
}

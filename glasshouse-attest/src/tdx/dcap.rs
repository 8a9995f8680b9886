//! `dcap-qvl`, and its errors as refusals.
//!
//! Its errors are sentences. They are told apart here, for the version that the workspace pins; one that is not known is
//! refused as [`codes::COLLATERAL`], and tests hold each of these to what it is raised by.

use dcap_qvl::configs::RustCryptoConfig;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{Policy as _, QuoteClaims, QuotePolicy};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::transcript::sha256;

use super::codes::{self, refuse};
use super::collateral::Collateral;
use super::policy::{DcapPolicy, TcbStatus};

/// The root that quotes and collateral must lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntelRoot(Option<Vec<u8>>);

impl IntelRoot {
    /// Intel SGX Root CA (2018-05-21 to 2049-12-31).
    pub const fn intel() -> Self {
        Self(None)
    }

    /// Another root's certificate in DER, for test evidence.
    pub const fn other(der: Vec<u8>) -> Self {
        Self(Some(der))
    }

    /// SHA-256 of its DER.
    pub(crate) fn sha256(&self) -> Digest32 {
        self.0.as_ref().map_or(INTEL_SGX_ROOT_CA, sha256)
    }

    fn verifier(&self) -> QuoteVerifier<RustCryptoConfig> {
        match &self.0 {
            None => QuoteVerifier::new_prod().with_config(),
            Some(der) => QuoteVerifier::new_with_config(der.clone()),
        }
    }
}

/// The platform (FMSPC) that a quote names in the certificate that it carries. Nothing is verified: for finding collateral.
pub fn quote_fmspc(quote: &[u8]) -> Option<Fixed<6>> {
    let quote = dcap_qvl::quote::Quote::parse(quote).ok()?;
    dcap_qvl::intel::quote_fmspc_with::<RustCryptoConfig>(&quote).ok().map(Fixed)
}

/// The same, and which authority certified it, as Intel's service spells it: `platform` or `processor`.
pub fn quote_platform(quote: &[u8]) -> Option<(Fixed<6>, &'static str)> {
    let parsed = dcap_qvl::quote::Quote::parse(quote).ok()?;
    let authority = dcap_qvl::intel::quote_ca_with::<RustCryptoConfig>(&parsed).ok()?;
    Some((quote_fmspc(quote)?, authority.as_id_str()))
}

const INTEL_SGX_ROOT_CA: Digest32 = Fixed([
    0x44, 0xa0, 0x19, 0x6b, 0x2b, 0x99, 0xf8, 0x89, 0xb8, 0xe1, 0x49, 0xe9, 0x5b, 0x80, 0x7a, 0x35, 0x0e, 0x74, 0x24,
    0x96, 0x43, 0x99, 0xe8, 0x85, 0xa7, 0xcb, 0xb8, 0xcc, 0xfa, 0xb6, 0x74, 0xd3,
]);

/// Chains, revocation, signatures of the collateral, identity of the quoting enclave, TCB level, attributes. Debugging is
/// left to the caller, and so is what TCB status to accept.
pub(super) fn verify(
    quote: &[u8],
    collateral: &Collateral,
    (policy, root): (&DcapPolicy, &IntelRoot),
    at: UnixMillis,
) -> Result<QuoteClaims, Refusal> {
    let seconds = at.0 / 1000;
    let verifier = root.verifier().allow_debug(true).allow_service_td(policy.allow_service_td);
    let result = verifier.verify_with_policy(quote, collateral.inner(), seconds, &QuotePolicy::claims_only(seconds));
    result.map_err(|error| {
        let text = format!("{error:#}");
        let code =
            ERRORS.iter().find(|(part, _)| text.contains(part)).map_or(codes::COLLATERAL, |(_, code)| code.clone());
        refuse(code, "a quote and collateral that verify to Intel's root", text)
    })
}

/// What a TCB status comes to under a policy: `dcap-qvl`'s own call, then the advisories by name.
pub(super) fn check_tcb(claims: &QuoteClaims, policy: &DcapPolicy, at: UnixMillis) -> Result<TcbStatus, Refusal> {
    let status = status_of(claims.tcb.status);
    let refused = |expected: &str, seen: String| refuse(codes::TCB, expected, seen);
    let grace = std::time::Duration::from_secs(if policy.dangerous_allow_out_of_date { u64::MAX } else { 0 });
    // Threads, cached keys and several packages are what servers have; none is a matter of security versions.
    let strict = QuotePolicy::strict(at.0 / 1000)
        .allow_smt(true)
        .allow_cached_keys(true)
        .allow_dynamic_platform(true)
        .platform_grace_period(grace)
        .qe_grace_period(grace)
        .min_tcb_eval_data_number(policy.minimum_tcb.evaluation_data_number);
    let allowed = policy.allow_tcb_statuses.iter().filter_map(|status| status_to(*status));
    let call = allowed.fold(strict, QuotePolicy::allow_status);
    call.validate(claims).map_err(|error| refused("a TCB that the policy accepts", format!("{error:#}")))?;
    if status.is_out_of_date() && !policy.dangerous_allow_out_of_date {
        return Err(refused("a TCB with all published fixes", format!("{status:?}")));
    }
    let advisories = || claims.tcb.advisory_ids.iter().filter(|id| !policy.allow_advisories.contains(*id));
    if status != TcbStatus::UpToDate
        && let Some(id) = advisories().next()
    {
        return Err(refused("advisories that the policy allows by name", format!("{status:?}, {id}")));
    }
    if let Some(current) = &claims.platform.current_tcb_level {
        check_current(status_of(current.tcb_status), &current.advisory_ids, policy)?;
    }
    Ok(status)
}

/// The TCB that the platform of a TD 1.5 has now, beside the one that it was launched on.
fn check_current(status: TcbStatus, advisories: &[String], policy: &DcapPolicy) -> Result<(), Refusal> {
    let refused = |expected: &str, seen: String| refuse(codes::TCB, expected, format!("{seen} now"));
    let out_of_date = status.is_out_of_date() && !policy.dangerous_allow_out_of_date;
    let allowed = status == TcbStatus::UpToDate || policy.allow_tcb_statuses.contains(&status);
    if !allowed || out_of_date || status == TcbStatus::Revoked {
        return Err(refused("a TCB that the policy accepts", format!("{status:?}")));
    }
    let mut advisories = advisories.iter().filter(|id| !policy.allow_advisories.contains(*id));
    match advisories.next() {
        Some(id) if status != TcbStatus::UpToDate => {
            Err(refused("advisories that the policy allows by name", format!("{status:?}, {id}")))
        }
        _ => Ok(()),
    }
}

const ERRORS: [(&str, Code); 23] = [
    ("CertRevoked", codes::REVOKED),
    ("CertExpired", codes::COLLATERAL_EXPIRED),
    ("CertNotValidYet", codes::COLLATERAL_NOT_YET_VALID),
    ("CrlExpired", codes::COLLATERAL_EXPIRED),
    ("Failed to verify certificate chain", codes::CHAIN),
    ("Certificate chain is too short", codes::CHAIN),
    ("Failed to parse PCK certificate", codes::CHAIN),
    ("TCBInfo expired", codes::COLLATERAL_EXPIRED),
    ("QE Identity expired", codes::COLLATERAL_EXPIRED),
    ("issue date is in the future", codes::COLLATERAL_NOT_YET_VALID),
    ("Signature is invalid for qe_report", codes::SIGNATURE),
    ("QE report hash mismatch", codes::SIGNATURE),
    ("ISV enclave report signature", codes::SIGNATURE),
    ("No matching TCB level found", codes::TCB),
    ("TCB status is invalid: Revoked", codes::TCB),
    ("TDX module ISVSVN", codes::TCB),
    ("QE ISVSVN", codes::TCB),
    ("Reserved bits in TD attributes", codes::ATTRIBUTES),
    ("TD migration is enabled", codes::ATTRIBUTES),
    ("SERVTD_EXT is enabled", codes::ATTRIBUTES),
    ("SEPT_VE_DISABLE is not enabled", codes::ATTRIBUTES),
    ("Invalid MR service TD", codes::ATTRIBUTES),
    ("Unsupported DCAP", codes::QUOTE_MALFORMED),
];

fn status_of(status: dcap_qvl::TcbStatus) -> TcbStatus {
    use dcap_qvl::TcbStatus as Theirs;
    match status {
        Theirs::UpToDate => TcbStatus::UpToDate,
        Theirs::SWHardeningNeeded => TcbStatus::SwHardeningNeeded,
        Theirs::ConfigurationNeeded => TcbStatus::ConfigurationNeeded,
        Theirs::ConfigurationAndSWHardeningNeeded => TcbStatus::ConfigurationAndSwHardeningNeeded,
        Theirs::OutOfDate => TcbStatus::OutOfDate,
        Theirs::OutOfDateConfigurationNeeded => TcbStatus::OutOfDateConfigurationNeeded,
        Theirs::TDRelaunchAdvised => TcbStatus::TdRelaunchAdvised,
        Theirs::TDRelaunchAdvisedConfigurationNeeded => TcbStatus::TdRelaunchAdvisedConfigurationNeeded,
        Theirs::Revoked => TcbStatus::Revoked,
    }
}

/// `Revoked` cannot be allowed.
fn status_to(status: TcbStatus) -> Option<dcap_qvl::TcbStatus> {
    use dcap_qvl::TcbStatus as Theirs;
    Some(match status {
        TcbStatus::UpToDate => Theirs::UpToDate,
        TcbStatus::SwHardeningNeeded => Theirs::SWHardeningNeeded,
        TcbStatus::ConfigurationNeeded => Theirs::ConfigurationNeeded,
        TcbStatus::ConfigurationAndSwHardeningNeeded => Theirs::ConfigurationAndSWHardeningNeeded,
        TcbStatus::OutOfDate => Theirs::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded => Theirs::OutOfDateConfigurationNeeded,
        TcbStatus::TdRelaunchAdvised => Theirs::TDRelaunchAdvised,
        TcbStatus::TdRelaunchAdvisedConfigurationNeeded => Theirs::TDRelaunchAdvisedConfigurationNeeded,
        TcbStatus::Revoked => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_tcb_is_held_to_the_same_policy() {
        let advisories = ["INTEL-SA-00615".to_owned()];
        let check = |status, policy: &DcapPolicy| check_current(status, &advisories, policy).map_err(|r| r.code);
        let strict = DcapPolicy::default();
        assert_eq!(check(TcbStatus::UpToDate, &strict), Ok(()));
        assert_eq!(check(TcbStatus::SwHardeningNeeded, &strict), Err(codes::TCB));
        let status = DcapPolicy {
            allow_tcb_statuses: [TcbStatus::SwHardeningNeeded, TcbStatus::OutOfDate, TcbStatus::Revoked].into(),
            ..strict
        };
        assert_eq!(check(TcbStatus::SwHardeningNeeded, &status), Err(codes::TCB));
        let all = DcapPolicy { allow_advisories: advisories.clone().into(), ..status };
        assert_eq!(check(TcbStatus::SwHardeningNeeded, &all), Ok(()));
        assert_eq!(check(TcbStatus::OutOfDate, &all), Err(codes::TCB));
        let lax = DcapPolicy { dangerous_allow_out_of_date: true, ..all };
        assert_eq!(check(TcbStatus::OutOfDate, &lax), Ok(()));
        assert_eq!(check(TcbStatus::Revoked, &lax), Err(codes::TCB));
    }
}

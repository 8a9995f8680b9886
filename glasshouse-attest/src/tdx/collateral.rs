use dcap_qvl::QuoteCollateralV3;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::transcript::sha256;
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::{DateTime, Decode as _};
use x509_cert::time::Time;

use super::codes::{self, refuse};
use crate::json::{self, Limits};
use crate::x509::der_from_pem;

const LIMITS: Limits = Limits { bytes: 1024 * 1024, depth: 16 };

/// What Intel publishes about a platform: TCB information, identity of the quoting enclave, revocation lists, and their
/// signers' chains. In the JSON form of `dcap-qvl`, byte strings in hex.
#[derive(Clone, Debug)]
pub struct Collateral(QuoteCollateralV3);

impl Collateral {
    /// Reads the JSON; nothing is verified.
    ///
    /// # Errors
    /// [`codes::COLLATERAL_MALFORMED`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        json::check(bytes, LIMITS).map_err(|e| malformed(&e.to_string()))?;
        let parsed: QuoteCollateralV3 = serde_json::from_slice(bytes).map_err(|_| malformed("other members"))?;
        for document in [&parsed.tcb_info, &parsed.qe_identity] {
            json::check(document.as_bytes(), LIMITS).map_err(|e| malformed(&e.to_string()))?;
        }
        Ok(Self(parsed))
    }

    /// The platform (FMSPC) that the TCB information is for. Nothing is verified.
    pub fn fmspc(&self) -> Option<Fixed<6>> {
        #[derive(Deserialize)]
        struct Platform {
            fmspc: String,
        }
        let platform: Platform = serde_json::from_str(&self.0.tcb_info).ok()?;
        Fixed::from_hex(&platform.fmspc.to_ascii_lowercase())
    }

    pub(super) fn inner(&self) -> &QuoteCollateralV3 {
        &self.0
    }

    /// The chain of the platform's certificate, for quotes that do not carry it.
    pub(super) fn pck_chain(&self) -> Option<&[u8]> {
        self.0.pck_certificate_chain.as_deref().map(str::as_bytes)
    }

    /// Refuses where a signer's chain brings another root than the pinned one, and where a part is not valid at a time:
    /// both documents, both revocation lists, all signers.
    pub(super) fn check_windows(&self, root: &Digest32, at: UnixMillis) -> Result<(), Refusal> {
        for (what, json) in [("TCB information", &self.0.tcb_info), ("QE identity", &self.0.qe_identity)] {
            let window: Window = serde_json::from_str(json).map_err(|_| malformed(what))?;
            let time = |text: &str| text.parse::<DateTime>().map(seconds).map_err(|_| malformed(what));
            check_window(what, (time(&window.issue_date)?, Some(time(&window.next_update)?)), at, EXPIRED)?;
        }
        for (what, der) in [("root CRL", &self.0.root_ca_crl), ("PCK CRL", &self.0.pck_crl)] {
            let list = <CertificateList>::from_der(der).map_err(|_| malformed(what))?.tbs_cert_list;
            let window = (of_time(list.this_update), list.next_update.map(of_time));
            check_window(what, window, at, EXPIRED)?;
        }
        for (what, chain) in [
            ("signer of TCB information", &self.0.tcb_info_issuer_chain),
            ("signer of QE identity", &self.0.qe_identity_issuer_chain),
            ("signer of the PCK CRL", &self.0.pck_crl_issuer_chain),
        ] {
            let chain = der_from_pem(chain.as_bytes()).map_err(|_| malformed(what))?;
            // The pinned root stands in the place of one that comes along, which nobody else looks at.
            if let Some(seen) = chain.get(1).map(sha256).filter(|seen| seen != root) {
                return Err(refuse(codes::CHAIN, format_args!("{what} under the root {root}"), seen));
            }
            check_certificates(what, &chain, at, EXPIRED)?;
        }
        Ok(())
    }
}

const EXPIRED: [Code; 2] = [codes::COLLATERAL_NOT_YET_VALID, codes::COLLATERAL_EXPIRED];

/// Refuses where a certificate is not valid at a time, with the first code before its time and the second after.
pub(super) fn check_certificates(
    what: &str,
    chain: &[Vec<u8>],
    at: UnixMillis,
    refused: [Code; 2],
) -> Result<(), Refusal> {
    for der in chain {
        let certificate = Certificate::from_der(der)
            .map_err(|_| refuse(codes::CHAIN, "certificates", format_args!("{what} that is none")))?;
        let validity = certificate.tbs_certificate().validity();
        let window = (of_time(validity.not_before), Some(of_time(validity.not_after)));
        check_window(what, window, at, refused.clone())?;
    }
    Ok(())
}

fn check_window(
    what: &str,
    (from, to): (UnixMillis, Option<UnixMillis>),
    at: UnixMillis,
    [before, after]: [Code; 2],
) -> Result<(), Refusal> {
    let expected = format!("{what} that is valid at {at}");
    match to {
        _ if at < from => Err(refuse(before, expected, format_args!("valid from {from}"))),
        // A revocation list that never ends would hide every later revocation.
        None => Err(refuse(after, expected, "no end of validity")),
        Some(to) if at > to => Err(refuse(after, expected, format_args!("valid until {to}"))),
        Some(_) => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Window {
    issue_date: String,
    next_update: String,
}

fn of_time(time: Time) -> UnixMillis {
    seconds(time.to_date_time())
}

fn seconds(time: DateTime) -> UnixMillis {
    UnixMillis::since_epoch(time.unix_duration())
}

fn malformed(seen: &str) -> Refusal {
    refuse(codes::COLLATERAL_MALFORMED, "a quote's collateral in JSON", seen)
}

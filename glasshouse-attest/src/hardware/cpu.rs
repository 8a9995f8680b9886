//! The CPU's half of an appraisal.

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, eat_nonce};
use glasshouse_core::fixed::Digest64;
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::LabelledClaim;

use super::codes::{self, refuse};
use super::collateral::{AmdCollateral, HardwareCollateral, vek_key};
use super::policy::{ConfidentialSpaceSession, CpuPolicy};
use super::roots::HardwareRoots;
use crate::report_data::ReportData;
use crate::snp::{CertificateTable, SnpEvidence, SnpPolicy, SnpVerifier};
use crate::tdx::{DcapPolicy, DcapVerifier, quote_fmspc};
use crate::tokens::{ConfidentialSpacePolicy, codes as token_codes, verify_confidential_space};

/// What an appraisal of the CPU's evidence is given.
pub(super) struct Cpu<'a> {
    pub(super) roots: &'a HardwareRoots,
    pub(super) collateral: &'a HardwareCollateral,
    pub(super) report_data: &'a Digest64,
    pub(super) at: UnixMillis,
}

impl Cpu<'_> {
    /// The claims of evidence that is genuine, carries the report data and was measured as the policy says.
    pub(super) fn appraise(&self, policy: &CpuPolicy, evidence: &CpuEvidence) -> Result<Vec<LabelledClaim>, Refusal> {
        match (policy, evidence) {
            (CpuPolicy::Tdx(policy), CpuEvidence::Tdx { quote }) => self.tdx(policy, &quote.0),
            (CpuPolicy::SevSnp(policy), CpuEvidence::SevSnp { report, certificates }) => {
                let table = certificates.as_ref().map(|table| table.0.as_slice());
                self.snp(policy, &report.0, table)
            }
            (CpuPolicy::ConfidentialSpace(policy), CpuEvidence::ConfidentialSpace { jwt }) => self.google(policy, jwt),
            _ => Err(Refusal::new(
                Code::EVIDENCE_KIND_UNSUPPORTED,
                "the kind of CPU evidence that the policy is about",
                "another kind",
            )),
        }
    }

    fn tdx(&self, policy: &DcapPolicy, quote: &[u8]) -> Result<Vec<LabelledClaim>, Refusal> {
        let fmspc = quote_fmspc(quote);
        let known = &self.collateral.intel;
        let of_platform = known.iter().find(|c| fmspc.is_some() && c.fmspc() == fmspc);
        // Without a platform to be read there is nothing to choose by; the verifier says what is wrong with the quote.
        let unreadable = || known.first().filter(|_| fmspc.is_none());
        let Some(collateral) = of_platform.or_else(unreadable) else {
            let seen = fmspc.map_or_else(
                || "none".to_owned(),
                |f| format!("none of the {} held", known.len()) + &format!(" for {f}"),
            );
            return Err(refuse(codes::COLLATERAL_MISSING, "Intel's collateral of the quote's platform", seen));
        };
        let verifier = DcapVerifier::new(policy.clone(), self.roots.intel.clone());
        let claims = verifier.verify_tdx(quote, collateral, ReportData::Full(self.report_data), self.at)?;
        measured(claims.measured && !claims.body.debug(), claims.labelled())
    }

    fn snp(&self, policy: &SnpPolicy, report: &[u8], table: Option<&[u8]>) -> Result<Vec<LabelledClaim>, Refusal> {
        let AmdCollateral { veks, chains, crls } = &self.collateral.amd;
        let table = match table {
            None => CertificateTable::default(),
            Some(bytes) => CertificateTable::parse(bytes)
                .map_err(|seen| refuse(codes::CERTIFICATE_TABLE, "a table of certificates", seen))?,
        };
        let held = || vek_key(report).and_then(|key| veks.get(&key));
        let Some(vek) = table.vek.as_ref().or_else(held) else {
            let seen = "neither beside the report nor held";
            return Err(refuse(codes::COLLATERAL_MISSING, "the VCEK or VLEK that signed the report", seen));
        };
        // The report's own first; the bundle's are of every product.
        let chain: Vec<&[u8]> = table.issuers.iter().chain(chains).map(Vec::as_slice).collect();
        let crls: Vec<&[u8]> = crls.iter().map(Vec::as_slice).collect();
        let evidence = SnpEvidence { report, vek, chain: &chain };
        let verifier = SnpVerifier::new(policy.clone(), self.roots.amd.clone());
        let claims = verifier.verify_unrevoked(evidence, &crls, ReportData::Full(self.report_data), self.at)?;
        measured(claims.measured && !claims.report.policy.debug(), claims.labelled())
    }

    fn google(&self, policy: &ConfidentialSpaceSession, jwt: &str) -> Result<Vec<LabelledClaim>, Refusal> {
        let nonce = eat_nonce(self.report_data);
        let mut refused = None;
        for issuer in &policy.token.issuers {
            let Some(keys) = self.collateral.jwks.get(issuer) else { continue };
            let binding = (policy.audience.as_str(), nonce.as_str());
            // Keys vouch for their own issuer only.
            let token = ConfidentialSpacePolicy { issuers: vec![issuer.clone()], ..policy.token.clone() };
            match verify_confidential_space(jwt, keys, binding, &token, self.at) {
                Ok(claims) => return measured(claims.is_cpu_tee(), claims.labelled()),
                Err(refusal) => refused = Some(further(refused, refusal)),
            }
        }
        let missing = || refuse(codes::COLLATERAL_MISSING, "the key set of an issuer of the policy", "none");
        Err(refused.unwrap_or_else(missing))
    }
}

/// Of two refusals of one token under the keys of two issuers, the one that came further: under the keys of its own.
pub(super) fn further(first: Option<Refusal>, second: Refusal) -> Refusal {
    let place = |refusal: &Refusal| token_codes::ALL.iter().position(|code| *code == refusal.code);
    match first {
        Some(first) if place(&first) >= place(&second) => first,
        _ => second,
    }
}

fn measured(holds: bool, claims: Vec<LabelledClaim>) -> Result<Vec<LabelledClaim>, Refusal> {
    if holds {
        return Ok(claims);
    }
    let seen = "a genuine TEE that is not measured so, or that can be debugged";
    Err(refuse(codes::NOT_MEASURED, "a TEE whose launch measurements are reference values of the policy", seen))
}

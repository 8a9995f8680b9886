use dcap_qvl::QuoteClaims;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::refusal::Refusal;
use glasshouse_core::transcript::sha256;

use super::claims::{Body, DcapClaims};
use super::codes::{self, refuse};
use super::collateral::{Collateral, check_certificates};
use super::dcap::{self, IntelRoot};
use super::policy::DcapPolicy;
use super::quote::{StrictQuote, Tee, check_links};
use crate::report_data::ReportData;

/// Verifies quotes by one policy under one root.
#[derive(Clone, Debug)]
pub struct DcapVerifier {
    policy: DcapPolicy,
    root: IntelRoot,
}

impl DcapVerifier {
    /// A verifier. [`IntelRoot::intel`] is the root of real processors.
    pub fn new(policy: DcapPolicy, root: IntelRoot) -> Self {
        Self { policy, root }
    }

    /// The policy.
    pub fn policy(&self) -> &DcapPolicy {
        &self.policy
    }

    /// Verifies a TDX quote with the collateral of its platform.
    ///
    /// # Errors
    /// A refusal with a code of [`codes`]: the first check that does not hold.
    pub fn verify_tdx(
        &self,
        quote: &[u8],
        collateral: &Collateral,
        report_data: ReportData<'_>,
        at: UnixMillis,
    ) -> Result<DcapClaims, Refusal> {
        self.verify(quote, Tee::Tdx, collateral, report_data, at)
    }

    /// Verifies an SGX quote with the collateral of its platform.
    ///
    /// # Errors
    /// As [`Self::verify_tdx`].
    pub fn verify_sgx(
        &self,
        quote: &[u8],
        collateral: &Collateral,
        report_data: ReportData<'_>,
        at: UnixMillis,
    ) -> Result<DcapClaims, Refusal> {
        self.verify(quote, Tee::Sgx, collateral, report_data, at)
    }

    fn verify(
        &self,
        bytes: &[u8],
        tee: Tee,
        collateral: &Collateral,
        report_data: ReportData<'_>,
        at: UnixMillis,
    ) -> Result<DcapClaims, Refusal> {
        let strict = StrictQuote::parse(bytes, collateral)?;
        strict.check_signatures(bytes)?;
        strict.check_tee(tee)?;
        // A root that the chain brings is looked at by nobody else: the pinned one stands in its place.
        if let Some(root) = strict.pck_chain.get(2).map(sha256).filter(|root| *root != self.root.sha256()) {
            return Err(refuse(codes::CHAIN, format_args!("the root {}", self.root.sha256()), root));
        }
        // The links before the windows; the one to a root that the quote does not bring follows with the collateral.
        check_links(&strict.pck_chain)?;
        let validity = [codes::CERTIFICATE_VALIDITY, codes::CERTIFICATE_VALIDITY];
        check_certificates("a certificate of the platform", &strict.pck_chain, at, validity)?;
        collateral.check_windows(&self.root.sha256(), at)?;
        let verified = dcap::verify(bytes, collateral, (&self.policy, &self.root), at);
        // A TCB without level is found only after all signatures hold; it is told after what comes before it.
        let verified = match verified {
            Err(refusal) if refusal.code != codes::TCB => return Err(refusal),
            other => other,
        };
        let body = Body::of(&strict.quote.report);
        let unknown = self.policy.dangerous_no_report_data;
        report_data.check(body.report_data().as_bytes(), unknown, codes::REPORT_DATA)?;
        let measured = self.check_measurements(&body)?;
        let verified = verified?;
        let tcb_status = dcap::check_tcb(&verified, &self.policy, at)?;
        self.check_floor(&body)?;
        if body.debug() && !self.policy.dangerous_allow_debug {
            return Err(refuse(codes::DEBUG, "a TD or enclave that cannot be debugged", "one that can"));
        }
        let QuoteClaims { tcb, platform, .. } = verified;
        Ok(DcapClaims {
            body,
            tcb_status,
            advisories: tcb.advisory_ids,
            evaluation_data_number: tcb.eval_data_number,
            fmspc: Fixed(platform.pck.fmspc),
            measured,
        })
    }

    /// Whether the measurements are reference values that cover the launch.
    fn check_measurements(&self, body: &Body) -> Result<bool, Refusal> {
        let (fits, covers, count, seen) = match body {
            Body::Td(td) => {
                let mut fitting = self.policy.measurements.iter().filter(|reference| reference.fit(td)).peekable();
                let fits = fitting.peek().is_some();
                let [rtmr0, rtmr1, rtmr2, rtmr3] = td.rtmr.map(|register| register.short());
                let seen = format!("MRTD {}, RTMRs {rtmr0} {rtmr1} {rtmr2} {rtmr3}", td.mrtd);
                (fits, fitting.any(|reference| self.policy.covers(reference)), self.policy.measurements.len(), seen)
            }
            Body::Enclave(enclave) => {
                let mut fitting = self.policy.enclaves.iter().filter(|reference| reference.fit(enclave)).peekable();
                let fits = fitting.peek().is_some();
                let seen = format!("MRENCLAVE {}, MRSIGNER {}", enclave.mr_enclave, enclave.mr_signer);
                (fits, fitting.any(|r| r.mr_enclave.is_some()), self.policy.enclaves.len(), seen)
            }
        };
        if fits || self.policy.dangerous_no_measurements {
            return Ok(fits && covers);
        }
        Err(refuse(codes::MEASUREMENT, format_args!("one of {count} sets of reference values"), seen))
    }

    fn check_floor(&self, body: &Body) -> Result<(), Refusal> {
        let (Some(floor), Body::Td(td)) = (self.policy.minimum_tcb.tee_tcb_svn, body) else { return Ok(()) };
        if floor.0.iter().zip(&td.tee_tcb_svn.0).all(|(least, seen)| seen >= least) {
            return Ok(());
        }
        Err(refuse(codes::TCB, format_args!("TEE_TCB_SVN {floor} or newer in each byte"), td.tee_tcb_svn))
    }
}

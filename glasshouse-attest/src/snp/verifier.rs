use std::iter;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::refusal::Refusal;

use super::certificate::Certificate;
use super::claims::SnpClaims;
use super::codes::{self, refuse};
use super::crl;
use super::policy::SnpPolicy;
use super::report::{Report, SignedReport, SigningKey};
use super::roots::{Issuer, SnpRoots, upwards};
use super::tcb::{Product, Tcb};
use crate::report_data::ReportData;

/// A report and the certificates that came with it, in DER.
#[derive(Clone, Copy, Debug)]
pub struct SnpEvidence<'a> {
    /// The report, [`REPORT_LENGTH`](super::REPORT_LENGTH) bytes.
    pub report: &'a [u8],
    /// The VCEK or VLEK that signed it.
    pub vek: &'a [u8],
    /// ASK or ASVK, and ARK, in any order; empty where the roots know the issuer's key.
    pub chain: &'a [&'a [u8]],
}

/// Verifies reports by one policy under one set of roots.
#[derive(Clone, Debug)]
pub struct SnpVerifier {
    policy: SnpPolicy,
    roots: SnpRoots,
}

impl SnpVerifier {
    /// A verifier. [`SnpRoots::amd`] are the roots of real processors.
    pub fn new(policy: SnpPolicy, roots: SnpRoots) -> Self {
        Self { policy, roots }
    }

    /// The policy.
    pub fn policy(&self) -> &SnpPolicy {
        &self.policy
    }

    /// Verifies one report, without revocation lists.
    ///
    /// # Errors
    /// A refusal with a code of [`codes`]: the first check that does not hold.
    pub fn verify(
        &self,
        evidence: SnpEvidence<'_>,
        report_data: ReportData<'_>,
        at: UnixMillis,
    ) -> Result<SnpClaims, Refusal> {
        self.verify_unrevoked(evidence, &[], report_data, at)
    }

    /// Verifies one report, and that no certificate of its chain is in a revocation list (DER) of its root. Lists of
    /// other roots are passed over; where there is one of its root or the policy asks for one, the chain must be passed.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_unrevoked(
        &self,
        evidence: SnpEvidence<'_>,
        crls: &[&[u8]],
        report_data: ReportData<'_>,
        at: UnixMillis,
    ) -> Result<SnpClaims, Refusal> {
        let read = |(position, der): (usize, &[u8])| {
            Certificate::from_der(der, position)
                .map_err(|e| refuse(codes::CERTIFICATE_MALFORMED, "certificates as AMD issues them", e))
        };
        let vek = read((0, evidence.vek))?;
        // One of no use beside those that lead to the root refuses nothing; where they do not, it is told.
        let (chain, unreadable): (Vec<_>, Vec<_>) =
            (1..).zip(evidence.chain.iter().copied()).map(read).partition(Result::is_ok);
        let chain: Vec<_> = chain.into_iter().flatten().collect();
        let parts = authentic(evidence.report, &vek)?;
        let issuer = match (self.roots.issuer_of(&vek, &chain), unreadable.into_iter().next()) {
            (Err(_), Some(Err(unreadable))) => return Err(unreadable),
            (issuer, _) => issuer?,
        };
        check_validity(&vek, &issuer, at)?;
        self.check_revocation(&vek, &chain, issuer.product, crls, at)?;

        let malformed = |seen| refuse(codes::REPORT_MALFORMED, "a report of version 2 to 5", seen);
        let report = Report::parse(parts.signed).map_err(malformed)?;
        check_product(&report, &vek, &issuer)?;
        let dangerous = self.policy.dangerous_no_report_data;
        report_data.check(report.report_data.as_bytes(), dangerous, codes::REPORT_DATA)?;
        self.check_chip(&report, &vek, issuer.product)?;
        if report.vmpl != self.policy.vmpl {
            let seen = format_args!("level {}", report.vmpl);
            return Err(refuse(codes::VMPL, format_args!("privilege level {}", self.policy.vmpl), seen));
        }
        let measured = self.check_measurement(&report)?;
        let tcb = self.check_tcb(&report, &vek, issuer.product)?;
        self.check_guest_policy(&report)?;
        Ok(SnpClaims { product: issuer.product, tcb, measured, report })
    }

    fn check_revocation(
        &self,
        vek: &Certificate,
        chain: &[Certificate],
        product: Product,
        crls: &[&[u8]],
        at: UnixMillis,
    ) -> Result<(), Refusal> {
        let needed = self.policy.require_crl;
        if !needed && !crls.iter().any(|list| crl::may_be_of(list, product)) {
            return Ok(());
        }
        let absent = |seen| refuse(codes::CRL, "the chain whose root signed the revocation list", seen);
        let [issuer, root] = upwards(vek, chain).map_err(absent)?;
        crl::check([vek, issuer, root], crls, needed, at)
    }

    fn check_chip(&self, report: &Report, vek: &Certificate, product: Product) -> Result<(), Refusal> {
        // A VLEK is the provider's, not a chip's.
        if report.signing_key == SigningKey::Vlek {
            return Ok(());
        }
        let Some(certified) = vek.chip_id(product) else {
            return Err(refuse(codes::CHIP_ID, "a VCEK that names its chip", "one that does not"));
        };
        let masked = report.chip_id == Fixed([0; 64]) && self.policy.allow_masked_chip_id;
        if report.chip_id == certified || masked {
            return Ok(());
        }
        Err(refuse(codes::CHIP_ID, certified, report.chip_id))
    }

    /// Whether the measurement is a reference value.
    fn check_measurement(&self, report: &Report) -> Result<bool, Refusal> {
        let policy = &self.policy;
        let measured = policy.measurements.contains(&report.measurement);
        if !measured && !policy.dangerous_no_measurements {
            let expected = format_args!("one of {} reference measurements", policy.measurements.len()).to_string();
            return Err(refuse(codes::MEASUREMENT, expected, report.measurement));
        }
        if !policy.id_keys.is_empty() && !policy.id_keys.contains(&report.id_key_digest) {
            return Err(refuse(codes::MEASUREMENT, "an identity key of the policy", report.id_key_digest));
        }
        match policy.host_data {
            Some(expected) if expected != report.host_data => {
                Err(refuse(codes::MEASUREMENT, format_args!("host data {expected}"), report.host_data))
            }
            _ => Ok(measured),
        }
    }

    fn check_tcb(&self, report: &Report, vek: &Certificate, product: Product) -> Result<Tcb, Refusal> {
        let read = |bytes: super::TcbBytes| {
            let seen = hex::encode(bytes.0);
            bytes.of(product).ok_or_else(|| refuse(codes::TCB, format_args!("a TCB version of {product}"), seen))
        };
        let reported = read(report.reported_tcb)?;
        let (current, _committed, at_launch) =
            (read(report.current_tcb)?, read(report.committed_tcb)?, read(report.launch_tcb)?);
        match vek.tcb(product) {
            // AMD makes one VLEK for a range of platforms; it, too, names the TCB that it was derived for.
            Some(certified) if certified == reported => {}
            Some(certified) => return Err(refuse(codes::TCB, format_args!("{certified} as certified"), reported)),
            None => return Err(refuse(codes::TCB, "a certificate that names its TCB", "one that does not")),
        }
        if !current.reaches(&reported) {
            return Err(refuse(codes::TCB, format_args!("firmware not below the reported {reported}"), current));
        }
        let floor = match self.policy.minimum_tcb.get(&product) {
            Some(floor) => *floor,
            None if self.policy.minimum_tcb.is_empty() => Tcb::default(),
            None => {
                let seen = format_args!("{product}, for which it has none").to_string();
                return Err(refuse(
                    codes::TCB,
                    "a processor for which the policy has an oldest TCB, as for others",
                    seen,
                ));
            }
        };
        for (tcb, when) in [(reported, "now"), (at_launch, "at launch")] {
            if !tcb.reaches(&floor) {
                return Err(refuse(codes::TCB, format_args!("{floor} or newer"), format_args!("{tcb} {when}")));
            }
        }
        Ok(reported)
    }

    fn check_guest_policy(&self, report: &Report) -> Result<(), Refusal> {
        let (asked, guest) = (&self.policy, report.policy);
        let seen = format!("guest policy {:#x}", guest.0);
        if guest.debug() && !asked.dangerous_allow_debug {
            return Err(refuse(codes::DEBUG, "a guest that cannot be debugged", seen));
        }
        if guest.migration() && !asked.allow_migration {
            return Err(refuse(codes::MIGRATION, "a guest without migration agent", seen));
        }
        let lacks = [
            (asked.require_no_smt && guest.smt(), "a guest that forbids SMT"),
            (asked.require_single_socket && !guest.single_socket(), "a guest on a single socket"),
            (asked.require_ciphertext_hiding && !guest.ciphertext_hiding(), "a guest with ciphertext hiding"),
        ];
        if let Some((_, expected)) = lacks.into_iter().find(|(lacks, _)| *lacks) {
            return Err(refuse(codes::GUEST_POLICY, expected, seen));
        }
        if report.guest_svn < asked.minimum_guest_svn {
            let expected =
                format_args!("security version {} of the guest or newer", asked.minimum_guest_svn).to_string();
            return Err(refuse(codes::GUEST_POLICY, expected, report.guest_svn));
        }
        Ok(())
    }
}

/// Nothing of a report is read before its signature holds.
fn authentic<'a>(report: &'a [u8], vek: &Certificate) -> Result<SignedReport<'a>, Refusal> {
    let unsigned = |seen| refuse(codes::SIGNATURE, "a report signed by the VCEK's or VLEK's key", seen);
    let parts = SignedReport::split(report).ok_or_else(|| unsigned("something of another length or form"))?;
    let key = vek.report_key().ok_or_else(|| unsigned("a certificate without a P-384 key"))?;
    if key.signed(parts.signed, &parts.signature) {
        Ok(parts)
    } else {
        Err(unsigned("a signature that does not verify"))
    }
}

fn check_validity(vek: &Certificate, issuer: &Issuer, at: UnixMillis) -> Result<(), Refusal> {
    let windows = iter::once((vek.subject(), vek.validity()))
        .chain(issuer.validity.iter().map(|window| (format!("an issuer of {}", vek.subject()), *window)));
    for (whose, [from, to]) in windows {
        if at < from || at > to {
            let expected = format_args!("{whose} to be valid at {at}").to_string();
            return Err(refuse(codes::CERTIFICATE_VALIDITY, expected, format_args!("{from} to {to}")));
        }
    }
    Ok(())
}

/// The issuer decides; the certificate's product name, the report's processor and its choice of key must agree.
fn check_product(report: &Report, vek: &Certificate, issuer: &Issuer) -> Result<(), Refusal> {
    let product = issuer.product;
    if !vek.is_of(product) {
        return Err(refuse(codes::PRODUCT, format_args!("a certificate for {product}"), "one for another product"));
    }
    if let Some((family, model)) = report.cpuid
        && Product::of_cpuid(family, model) != Some(product)
    {
        let seen = format_args!("family {family:#x}, model {model:#x}").to_string();
        return Err(refuse(codes::PRODUCT, format_args!("a processor of {product}"), seen));
    }
    if report.signing_key == issuer.signs {
        return Ok(());
    }
    let (expected, seen) = (format!("{:?}", report.signing_key), format!("{:?}", issuer.signs));
    Err(refuse(codes::CHAIN, format_args!("a certificate of a {expected}, as the report says"), seen))
}

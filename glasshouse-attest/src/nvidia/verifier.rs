use std::collections::BTreeSet;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{DeviceKind, GpuEvidence};
use glasshouse_core::fixed::Nonce32;
use glasshouse_core::refusal::Refusal;

use super::claims::DeviceClaims;
use super::codes::{self, refuse};
use super::device::{Authentic, Device};
use super::measure;
use super::opaque::Feature;
use super::policy::{NvidiaCollateral, NvidiaPolicy, NvidiaRoots};
use super::rim::verify_rims;
use crate::x509::{Revocation, VerifiedLinks, X509Error};

/// Verifies devices by one policy under one set of roots.
#[derive(Clone, Debug)]
pub struct NvidiaVerifier {
    policy: NvidiaPolicy,
    roots: NvidiaRoots,
}

impl NvidiaVerifier {
    /// A verifier. [`NvidiaRoots::nvidia`] are the roots of real devices.
    pub fn new(policy: NvidiaPolicy, roots: NvidiaRoots) -> Self {
        Self { policy, roots }
    }

    /// The policy.
    pub fn policy(&self) -> &NvidiaPolicy {
        &self.policy
    }

    /// Verifies one device that answered `nonce`.
    ///
    /// # Errors
    /// A refusal with a code of [`codes`]: the first check that does not hold.
    pub fn verify_device(
        &self,
        device: Device<'_>,
        collateral: NvidiaCollateral<'_>,
        nonce: &Nonce32,
        at: UnixMillis,
    ) -> Result<DeviceClaims, Refusal> {
        let mut appraisal = Appraisal::new(self, collateral, at);
        let devices = appraisal.authenticate(&[device], nonce)?;
        let mut claims = appraisal.compare(&devices)?;
        claims.pop().ok_or_else(|| refuse(codes::REPORT_MALFORMED, "one device", "none"))
    }

    /// Verifies all devices of one machine, which answered the same `nonce`: each as [`Self::verify_device`] does, and
    /// together: no device twice, all GPUs in the same mode, and switches present where the GPUs' mode needs them.
    /// Tokens among the evidence are passed over.
    ///
    /// # Errors
    /// A refusal with a code of [`codes`]. Evidence without any device gives an empty list.
    pub fn verify_all(
        &self,
        evidence: &GpuEvidence,
        collateral: NvidiaCollateral<'_>,
        nonce: &Nonce32,
        at: UnixMillis,
    ) -> Result<Vec<DeviceClaims>, Refusal> {
        let mut appraisal = Appraisal::new(self, collateral, at);
        let entries: Vec<_> = evidence.0.iter().filter(|entry| entry.kind != DeviceKind::NrasToken).collect();
        let given: Vec<_> = entries
            .iter()
            .map(|entry| Device { kind: entry.kind, report: &entry.report.0, chain: &entry.chain.0 })
            .collect();
        let devices = appraisal.authenticate(&given, nonce)?;
        // Both: one chip may hold leaves of two firmwares, and a leaf's serial is only its key's fingerprint.
        let (mut leaves, mut identities) = (BTreeSet::new(), BTreeSet::new());
        for device in &devices {
            if !leaves.insert(&device.serial) || !identities.insert(&device.device_serial) {
                let serial = hex::encode(&device.device_serial);
                return Err(refuse(codes::DUPLICATE_DEVICE, "distinct devices", format_args!("{serial} twice")));
            }
        }
        for (entry, device) in entries.iter().zip(&devices) {
            if entry.serial.0 != device.serial {
                let (expected, seen) = (hex::encode(&device.serial), hex::encode(&entry.serial.0));
                return Err(refuse(codes::DEVICE_SERIAL, expected, seen));
            }
        }
        let claims = appraisal.compare(&devices)?;
        self.check_modes(&claims)?;
        Ok(claims)
    }

    /// One mode on all GPUs; protected PCIe leaves NVLink in the clear, so that the switches must be attested too.
    fn check_modes(&self, claims: &[DeviceClaims]) -> Result<(), Refusal> {
        let mut modes = claims.iter().filter(|c| c.kind == DeviceKind::NvidiaGpu).map(|c| c.feature);
        let Some(first) = modes.next() else {
            return Ok(());
        };
        if let Some(other) = modes.find(|mode| *mode != first) {
            return Err(refuse(codes::FEATURE, "one mode on all GPUs", format_args!("{first:?} and {other:?}")));
        }
        let switches = claims.iter().any(|c| c.kind == DeviceKind::NvidiaSwitch);
        if first == Some(Feature::Ppcie) && !switches && !self.policy.allow_ppcie_without_switches {
            return Err(refuse(codes::SWITCH_MISSING, "the switches of GPUs in protected-PCIe mode", "none"));
        }
        Ok(())
    }
}

/// One call: what it was given, and which signatures it has verified.
struct Appraisal<'a> {
    policy: &'a NvidiaPolicy,
    roots: &'a NvidiaRoots,
    rims: &'a [&'a [u8]],
    revocation: Result<Revocation, X509Error>,
    at: UnixMillis,
    links: VerifiedLinks,
}

impl<'a> Appraisal<'a> {
    fn new(verifier: &'a NvidiaVerifier, collateral: NvidiaCollateral<'a>, at: UnixMillis) -> Self {
        Self {
            policy: &verifier.policy,
            roots: &verifier.roots,
            rims: collateral.rims,
            revocation: Revocation::from_der(collateral.crls, collateral.ocsp),
            at,
            links: VerifiedLinks::default(),
        }
    }

    fn authenticate(&mut self, devices: &[Device<'_>], nonce: &Nonce32) -> Result<Vec<Authentic>, Refusal> {
        let trusted = (self.policy, self.roots.device.as_slice(), &self.revocation);
        Authentic::verify_all(devices, nonce, trusted, self.at, &mut self.links)
    }

    /// Check by check over all devices.
    fn compare(mut self, devices: &[Authentic]) -> Result<Vec<DeviceClaims>, Refusal> {
        let refuse_revoked = |error: &X509Error| codes::refuse_revoked(codes::REVOKED, error.clone());
        let revocation = (self.revocation.as_ref().map_err(refuse_revoked)?, self.policy.require_crls);
        let rims = verify_rims(self.rims, &self.roots.rim, revocation, self.at, &mut self.links)?;
        measure::refuse_stray(&rims, devices)?;
        let mut claims: Vec<_> = devices.iter().map(Authentic::claims).collect();
        if !self.policy.dangerous_no_measurements {
            let chosen =
                devices.iter().zip(&claims).map(|(device, claims)| measure::choose(device, &rims, self.policy, claims));
            let chosen = chosen.collect::<Result<Vec<_>, _>>()?;
            for ((device, manifests), claims) in devices.iter().zip(&chosen).zip(&mut claims) {
                measure::compare(device, manifests, claims)?;
            }
        }
        devices.iter().try_for_each(|device| device.check_floors(self.policy))?;
        for (device, claims) in devices.iter().zip(&mut claims) {
            claims.feature = device.check_mode(self.policy)?;
        }
        Ok(claims)
    }
}

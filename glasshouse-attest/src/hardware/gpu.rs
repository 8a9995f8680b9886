//! The devices' half of an appraisal.

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{DeviceKind, GpuEvidence};
use glasshouse_core::fixed::Digest32;
use glasshouse_core::refusal::Refusal;
use glasshouse_core::traits::LabelledClaim;

use super::codes::{self, refuse};
use super::collateral::HardwareCollateral;
use super::cpu::further;
use super::policy::GpuPolicy;
use super::roots::HardwareRoots;
use crate::nvidia::{DeviceClaims, NvidiaCollateral, NvidiaVerifier};
use crate::tokens::{NrasClaims, NrasPolicy, verify_nras};

/// What an appraisal of devices is given.
pub(super) struct Gpus<'a> {
    pub(super) roots: &'a HardwareRoots,
    pub(super) collateral: &'a HardwareCollateral,
    pub(super) nonce: &'a Digest32,
    pub(super) at: UnixMillis,
}

/// What was established about the devices.
pub(super) struct Established {
    /// Whether there are GPUs, and driver and VBIOS of each were compared with a manifest.
    pub(super) measured_gpu: bool,
    pub(super) claims: Vec<LabelledClaim>,
}

impl Gpus<'_> {
    /// Every report, all of them together, tokens, number and names.
    pub(super) fn appraise(&self, policy: &GpuPolicy, evidence: &GpuEvidence) -> Result<Established, Refusal> {
        let files = &self.collateral.nvidia;
        let (rims, crls, ocsp) = (files.of(evidence), plain(&files.crls), plain(&files.ocsp));
        let verifier = NvidiaVerifier::new(policy.devices.clone(), self.roots.nvidia.clone());
        let collateral = NvidiaCollateral { rims: &rims, crls: &crls, ocsp: &ocsp };
        let devices = verifier.verify_all(evidence, collateral, self.nonce, self.at)?;
        check_listed(policy, &devices)?;
        let gpus = check_counts(policy, &devices)?;
        let mut claims: Vec<_> = devices.iter().flat_map(DeviceClaims::labelled).collect();
        claims.extend(self.tokens(policy, evidence, gpus)?);
        let mut attested = devices.iter().filter(|device| device.kind == DeviceKind::NvidiaGpu);
        Ok(Established { measured_gpu: gpus > 0 && attested.all(DeviceClaims::is_measured), claims })
    }

    fn tokens(&self, policy: &GpuPolicy, evidence: &GpuEvidence, gpus: usize) -> Result<Vec<LabelledClaim>, Refusal> {
        let tokens: Vec<_> = evidence.0.iter().filter(|entry| entry.kind == DeviceKind::NrasToken).collect();
        let (Some(asked), [_, ..]) = (&policy.tokens, tokens.as_slice()) else {
            return match (tokens.len(), policy.require_token) {
                (0, true) => Err(refuse(codes::TOKEN_MISSING, "a token of NVIDIA's service", "none")),
                (0, false) => Ok(Vec::new()),
                (seen, _) => Err(refuse(
                    codes::TOKEN_KIND,
                    "no tokens, of which the policy says nothing",
                    format_args!("{seen}"),
                )),
            };
        };
        let [token] = tokens.as_slice() else {
            return Err(refuse(codes::TOKEN_KIND, "one token of NVIDIA's service", tokens.len()));
        };
        if !token.chain.0.is_empty() || !token.serial.0.is_empty() {
            return Err(refuse(codes::TOKEN_KIND, "a token without chain and serial number", "one with either"));
        }
        let claims = self.token(asked, &token.report.0)?;
        if claims.devices.len() != gpus {
            let expected = format!("a token for the {gpus} GPUs that attested");
            return Err(refuse(codes::DEVICE_COUNT, expected, format_args!("one for {}", claims.devices.len())));
        }
        Ok(claims.labelled())
    }

    fn token(&self, policy: &NrasPolicy, bundle: &[u8]) -> Result<NrasClaims, Refusal> {
        let mut refused = None;
        for issuer in &policy.issuers {
            let Some(keys) = self.collateral.jwks.get(issuer) else { continue };
            // Keys vouch for their own issuer only.
            let own = NrasPolicy { issuers: vec![issuer.clone()], ..policy.clone() };
            match verify_nras(bundle, keys, self.nonce, &own, self.at) {
                Ok(claims) => return Ok(claims),
                Err(refusal) => refused = Some(further(refused, refusal)),
            }
        }
        let missing = || refuse(codes::COLLATERAL_MISSING, "the key set of an issuer of the policy", "none");
        Err(refused.unwrap_or_else(missing))
    }
}

fn plain(files: &[Vec<u8>]) -> Vec<&[u8]> {
    files.iter().map(Vec::as_slice).collect()
}

fn check_listed(policy: &GpuPolicy, devices: &[DeviceClaims]) -> Result<(), Refusal> {
    let stranger = devices.iter().find(|device| !policy.serials.contains(&device.device_serial));
    match stranger.filter(|_| !policy.serials.is_empty()) {
        None => Ok(()),
        Some(device) => {
            let expected = format!("one of the {} devices of the policy", policy.serials.len());
            Err(refuse(codes::DEVICE_NOT_LISTED, expected, &device.device_serial))
        }
    }
}

/// How many GPUs there are.
fn check_counts(policy: &GpuPolicy, devices: &[DeviceClaims]) -> Result<usize, Refusal> {
    let count = |kind| devices.iter().filter(|device| device.kind == kind).count();
    let gpus = count(DeviceKind::NvidiaGpu);
    for (what, expected, seen) in
        [("GPUs", policy.gpus, gpus), ("switches", policy.switches, count(DeviceKind::NvidiaSwitch))]
    {
        if let Some(expected) = expected
            && usize::try_from(expected) != Ok(seen)
        {
            return Err(refuse(codes::DEVICE_COUNT, format_args!("{expected} {what}"), seen));
        }
    }
    Ok(gpus)
}

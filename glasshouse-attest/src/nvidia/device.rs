use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::fixed::{Digest32, Digest48, Nonce32};
use glasshouse_core::refusal::Refusal;

use super::claims::{Board, DeviceClaims};
use super::codes::{self, refuse};
use super::fwid::fwid_of;
use super::opaque::{Feature, OpaqueData};
use super::policy::NvidiaPolicy;
use super::report::{Report, SignedReport};
use super::version::{DriverVersion, VbiosVersion};
use crate::x509::{self, Certificate, Revocation, VerifiedLinks};

/// Leaf (firmware), device (boot ROM), provisioner, chip family, root.
const CHAIN_LENGTH: usize = 5;
/// Place of the chip family's authority, the first that publishes a revocation list.
const FAMILY: usize = 3;

/// One device's evidence as it came.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// What it is said to be.
    pub kind: DeviceKind,
    /// The SPDM request and response with their signature.
    pub report: &'a [u8],
    /// The certificate chain in PEM, leaf first, root included.
    pub chain: &'a [u8],
}

/// A report that is the device's own answer to the nonce; its measurements are not yet compared.
#[derive(Debug)]
pub(super) struct Authentic {
    pub(super) kind: DeviceKind,
    pub(super) report: Report,
    pub(super) named: Named,
    pub(super) serial: Vec<u8>,
    pub(super) device_serial: Vec<u8>,
    fwid: Option<Digest48>,
}

impl Authentic {
    /// Signature, chain, validity, revocation, nonce, firmware id, kind; nothing of the report is read before its signature holds.
    pub(super) fn verify(
        device: Device<'_>,
        nonce: &Nonce32,
        (policy, roots, revocation): (&NvidiaPolicy, &[Digest32], &Revocation),
        at: UnixMillis,
        links: &mut VerifiedLinks,
    ) -> Result<Self, Refusal> {
        let bad_chain = |error| refuse(codes::CHAIN, "a chain under the pinned device root", error);
        let chain = x509::certificates_from_pem(device.chain).map_err(bad_chain)?;
        let [leaf, own, _, _, _] = chain.as_slice() else {
            return Err(refuse(codes::CHAIN, format_args!("{CHAIN_LENGTH} certificates"), chain.len()));
        };
        let unsigned = |seen| refuse(codes::SIGNATURE, "a report signed by the key of the leaf certificate", seen);
        let parts = SignedReport::split(device.report).ok_or_else(|| unsigned("something of another length"))?;
        if !leaf.signed(parts.signed, parts.signature) {
            return Err(unsigned("a signature that does not verify"));
        }
        x509::verify_chain(&chain, roots, links).map_err(bad_chain)?;
        x509::check_validity(&chain, at)
            .map_err(|e| refuse(codes::CERTIFICATE_VALIDITY, "certificates that are valid at this time", e))?;
        let needed = if policy.require_crls { FAMILY } else { usize::MAX };
        x509::check_revocation(&chain, revocation, needed, at, links)
            .map_err(|error| codes::refuse_revoked(codes::REVOKED, error))?;

        let malformed = |seen| refuse(codes::REPORT_MALFORMED, "all measurements in SPDM 1.1", seen);
        let report = Report::parse(parts.signed).map_err(malformed)?;
        if report.nonce != *nonce {
            return Err(refuse(codes::NONCE, nonce, report.nonce));
        }
        let fwid = check_fwid(&report, leaf, policy)?;
        let named = Named::read(device.kind, &report, leaf)?;
        let (serial, device_serial) = (leaf.serial().to_vec(), own.serial().to_vec());
        Ok(Self { kind: device.kind, report, named, serial, device_serial, fwid })
    }

    /// What is known before measurements are compared.
    pub(super) fn claims(&self) -> DeviceClaims {
        let text = |field| self.report.opaque.text(field).map(str::to_owned);
        let board = || {
            Some(Board {
                project: text(OpaqueData::PROJECT)?,
                project_sku: text(OpaqueData::PROJECT_SKU)?,
                chip_sku: text(OpaqueData::CHIP_SKU)?,
            })
        };
        DeviceClaims {
            kind: self.kind,
            chip: self.named.chip.clone(),
            serial: hex::encode(&self.serial),
            device_serial: hex::encode(&self.device_serial),
            driver_version: self.named.driver.clone(),
            vbios_version: self.named.vbios.clone(),
            board: board(),
            feature: None,
            fwid: self.fwid,
            matched: Vec::new(),
            skipped: Vec::new(),
            rims: Vec::new(),
        }
    }

    /// Floors of driver and VBIOS, then the mode.
    pub(super) fn check_policy(&self, policy: &NvidiaPolicy) -> Result<Option<Feature>, Refusal> {
        if let (Some(floor), Some(seen)) = (&policy.minimum_driver, &self.named.driver)
            && DriverVersion::parse(seen).is_none_or(|seen| seen < *floor)
        {
            return Err(refuse(codes::TCB, format_args!("driver {floor} or newer"), seen));
        }
        if let Some(floor) = policy.minimum_vbios.get(&self.named.chip)
            && VbiosVersion::parse(&self.named.vbios).is_none_or(|seen| seen < *floor)
        {
            return Err(refuse(codes::TCB, format_args!("VBIOS {floor} or newer"), &self.named.vbios));
        }
        let expected = format!("one of {:?}", policy.features);
        let feature = self.report.opaque.feature();
        let feature = feature.map_err(|v| refuse(codes::FEATURE, &expected, hex::encode(v)))?;
        if self.kind == DeviceKind::NvidiaGpu && !policy.accepts(feature) {
            let seen = feature.map_or_else(|| "firmware that states no mode".to_owned(), |f| format!("{f:?}"));
            return Err(refuse(codes::FEATURE, expected, seen));
        }
        Ok(feature)
    }
}

/// What a device calls itself.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) chip: String,
    pub(super) driver: Option<String>,
    pub(super) vbios: String,
}

impl Named {
    /// Reads the names and refuses a chip of another kind.
    pub(super) fn read(kind: DeviceKind, report: &Report, leaf: &Certificate) -> Result<Self, Refusal> {
        let malformed = |seen| refuse(codes::REPORT_MALFORMED, "chip, driver and VBIOS by name", seen);
        let chip = chip(report, leaf).ok_or_else(|| malformed("no name of a chip"))?;
        check_kind(kind, &chip)?;
        let driver = report.opaque.text(OpaqueData::DRIVER_VERSION).map(str::to_owned);
        let vbios = match kind {
            DeviceKind::NvidiaGpu if driver.is_none() => return Err(malformed("no driver version")),
            DeviceKind::NvidiaGpu => report.opaque.packed_vbios(),
            _ => report.opaque.text(OpaqueData::VBIOS_VERSION).map(str::to_owned),
        };
        Ok(Self { chip, driver, vbios: vbios.ok_or_else(|| malformed("no VBIOS version"))? })
    }
}

fn check_fwid(report: &Report, leaf: &Certificate, policy: &NvidiaPolicy) -> Result<Option<Digest48>, Refusal> {
    let Some(certified) = fwid_of(leaf) else {
        return Err(refuse(codes::FWID, "a firmware id in the leaf certificate", "none that can be read"));
    };
    match report.opaque.fwid() {
        Some(Ok(reported)) if reported == certified => Ok(Some(certified)),
        Some(Ok(reported)) => Err(refuse(codes::FWID, certified, reported)),
        Some(Err(())) => Err(refuse(codes::FWID, certified, "a field that is not 48 bytes")),
        None if policy.allow_missing_fwid => Ok(None),
        None => Err(refuse(codes::FWID, certified, "a report without firmware id")),
    }
}

/// The chip: field 35 where the firmware has it, otherwise the first word of the leaf's common name
/// (`GH100 A01 GSP FMC LF`), without the underscore that `LS_10` has there and nowhere else.
fn chip(report: &Report, leaf: &Certificate) -> Option<String> {
    if report.opaque.field(OpaqueData::CHIP).is_some() {
        return report.opaque.text(OpaqueData::CHIP).map(str::to_owned);
    }
    let name = leaf.subject().split(' ').next()?.replace('_', "");
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(name)
}

fn check_kind(kind: DeviceKind, chip: &str) -> Result<(), Refusal> {
    let fits = match kind {
        DeviceKind::NvidiaGpu => chip.starts_with('G'),
        DeviceKind::NvidiaSwitch => chip.starts_with("LS"),
        _ => false,
    };
    if fits { Ok(()) } else { Err(refuse(codes::DEVICE_KIND, kind.as_str(), format_args!("the chip {chip}"))) }
}

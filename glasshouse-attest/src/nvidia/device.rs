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
use crate::x509::{self, Certificate, Revocation, VerifiedLinks, X509Error};

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

/// A report that the key of its chain's leaf signed; nothing of it is read yet, and nothing of the other certificates.
struct Signed<'a> {
    device: Device<'a>,
    leaf: Certificate,
    others: Vec<Vec<u8>>,
    signed: &'a [u8],
}

impl<'a> Signed<'a> {
    fn new(device: Device<'a>) -> Result<Self, Refusal> {
        let mut others = x509::der_from_pem(device.chain).map_err(bad_chain)?;
        if others.is_empty() {
            return Err(wrong_length(0));
        }
        let leaf = Certificate::from_der(&others.remove(0), 0).map_err(bad_chain)?;
        let unsigned = |seen| refuse(codes::SIGNATURE, "a report signed by the key of the leaf certificate", seen);
        let parts = SignedReport::split(device.report).ok_or_else(|| unsigned("something of another length"))?;
        if leaf.signed(parts.signed, parts.signature) {
            return Ok(Self { device, leaf, others, signed: parts.signed });
        }
        Err(unsigned("a signature that does not verify"))
    }

    /// The whole chain, leaf first.
    fn chained(self) -> Result<Chained<'a>, Refusal> {
        let others = (1..).zip(&self.others).map(|(position, der)| Certificate::from_der(der, position));
        let mut chain = others.collect::<Result<Vec<_>, _>>().map_err(bad_chain)?;
        chain.insert(0, self.leaf);
        match chain.len() {
            CHAIN_LENGTH => Ok(Chained { kind: self.device.kind, chain, signed: self.signed }),
            other => Err(wrong_length(other)),
        }
    }
}

/// The same with its chain, of [`CHAIN_LENGTH`] certificates.
struct Chained<'a> {
    kind: DeviceKind,
    chain: Vec<Certificate>,
    signed: &'a [u8],
}

impl Chained<'_> {
    fn leaf(&self) -> Result<&Certificate, Refusal> {
        self.chain.first().ok_or_else(|| wrong_length(0))
    }
}

impl Authentic {
    /// Signature, chain, validity, revocation, nonce, firmware id, kind: check by check over all devices, so that which
    /// stands first decides nothing; nothing of a report is read before all signatures hold.
    pub(super) fn verify_all(
        devices: &[Device<'_>],
        nonce: &Nonce32,
        (policy, roots, revocation): (&NvidiaPolicy, &[Digest32], &Result<Revocation, X509Error>),
        at: UnixMillis,
        links: &mut VerifiedLinks,
    ) -> Result<Vec<Self>, Refusal> {
        let signed = devices.iter().map(|device| Signed::new(*device)).collect::<Result<Vec<_>, _>>()?;
        let all = signed.into_iter().map(Signed::chained).collect::<Result<Vec<_>, _>>()?;
        for Chained { chain, .. } in &all {
            x509::verify_chain(chain, roots, links).map_err(bad_chain)?;
        }
        for Chained { chain, .. } in &all {
            x509::check_validity(chain, at)
                .map_err(|e| refuse(codes::CERTIFICATE_VALIDITY, "certificates that are valid at this time", e))?;
        }
        let refuse_revoked = |error| codes::refuse_revoked(codes::REVOKED, error);
        let revocation = revocation.as_ref().map_err(|error| refuse_revoked(error.clone()))?;
        let needed = if policy.require_crls { FAMILY } else { usize::MAX };
        for Chained { chain, .. } in &all {
            x509::check_revocation(chain, revocation, needed, at, links).map_err(refuse_revoked)?;
        }
        let malformed = |seen| refuse(codes::REPORT_MALFORMED, "all measurements in SPDM 1.1", seen);
        let read = |one: &Chained<'_>| Report::parse(one.signed).map_err(malformed);
        let reports = all.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if let Some(other) = reports.iter().find(|report| report.nonce != *nonce) {
            return Err(refuse(codes::NONCE, nonce, other.nonce));
        }
        let both = || all.iter().zip(&reports);
        let fwid = |(one, report): (&Chained<'_>, &Report)| check_fwid(report, one.leaf()?, policy);
        let fwids = both().map(fwid).collect::<Result<Vec<_>, _>>()?;
        let name = |(one, report): (&Chained<'_>, &Report)| Named::read(one.kind, report, one.leaf()?);
        let named = both().map(name).collect::<Result<Vec<_>, _>>()?;
        let serial = |certificate: Option<&Certificate>| certificate.map(|c| c.serial().to_vec()).unwrap_or_default();
        let established = all.into_iter().zip(reports).zip(fwids).zip(named);
        Ok(established
            .map(|(((one, report), fwid), named)| Self {
                kind: one.kind,
                report,
                named,
                serial: serial(one.chain.first()),
                device_serial: serial(one.chain.get(1)),
                fwid,
            })
            .collect())
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

    /// Floors of driver and VBIOS.
    pub(super) fn check_floors(&self, policy: &NvidiaPolicy) -> Result<(), Refusal> {
        if let (Some(floor), Some(seen)) = (&policy.minimum_driver, &self.named.driver)
            && DriverVersion::parse(seen).is_none_or(|seen| seen < *floor)
        {
            return Err(refuse(codes::TCB, format_args!("driver {floor} or newer"), seen));
        }
        let floor = policy.minimum_vbios.get(&self.named.chip);
        if floor.is_none() && !policy.minimum_vbios.is_empty() {
            let seen = format_args!("{}, for which it has none", self.named.chip);
            return Err(refuse(codes::TCB, "a chip for which the policy has an oldest VBIOS, as for others", seen));
        }
        if let Some(floor) = floor
            && VbiosVersion::parse(&self.named.vbios).is_none_or(|seen| seen < *floor)
        {
            return Err(refuse(codes::TCB, format_args!("VBIOS {floor} or newer"), &self.named.vbios));
        }
        Ok(())
    }

    /// The mode.
    pub(super) fn check_mode(&self, policy: &NvidiaPolicy) -> Result<Option<Feature>, Refusal> {
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
        // A switch has no driver of its own, whatever its field 3 says.
        let driver = report.opaque.text(OpaqueData::DRIVER_VERSION).filter(|_| kind == DeviceKind::NvidiaGpu);
        let driver = driver.map(str::to_owned);
        let vbios = match kind {
            DeviceKind::NvidiaGpu if driver.is_none() => return Err(malformed("no driver version")),
            DeviceKind::NvidiaGpu => report.opaque.packed_vbios(),
            _ => report.opaque.text(OpaqueData::VBIOS_VERSION).map(str::to_owned),
        };
        Ok(Self { chip, driver, vbios: vbios.ok_or_else(|| malformed("no VBIOS version"))? })
    }
}

fn wrong_length(seen: usize) -> Refusal {
    refuse(codes::CHAIN, format_args!("{CHAIN_LENGTH} certificates"), seen)
}

fn bad_chain(error: X509Error) -> Refusal {
    refuse(codes::CHAIN, "a chain under the pinned device root", error)
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

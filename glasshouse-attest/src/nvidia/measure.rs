use std::collections::BTreeSet;

use glasshouse_core::refusal::Refusal;

use super::claims::{DeviceClaims, RimClaims};
use super::codes::{self, refuse};
use super::device::{Authentic, Named};
use super::policy::NvidiaPolicy;
use super::rim::VerifiedRim;

/// The RIM index that measures NVDEC0; with NVDEC0 disabled its value has no reference.
const NVDEC0_INDEX: u8 = 35;

/// Which part of a device's software a manifest is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Driver,
    Vbios,
}

/// Whether a manifest is for this device at all: kind, chip, and the version of its driver or its VBIOS.
pub(super) fn applies(rim: &VerifiedRim, device: &Authentic) -> bool {
    role(rim, device).is_some()
}

/// Refuses with `rim-version` for a manifest that is for none of the devices, whatever else was passed beside it: what is
/// passed as a device's reference must be its own, and a set that is not is no set to conclude from.
pub(super) fn refuse_stray(rims: &[VerifiedRim], devices: &[Authentic]) -> Result<(), Refusal> {
    let Some(stray) = rims.iter().find(|rim| !devices.iter().any(|device| applies(rim, device))) else {
        return Ok(());
    };
    let versions = |d: &Authentic| match &d.named {
        Named { chip, driver: Some(driver), vbios } => format!("{chip} driver {driver} VBIOS {vbios}"),
        Named { chip, driver: None, vbios } => format!("{chip} VBIOS {vbios}"),
    };
    let expected: BTreeSet<_> = devices.iter().map(versions).collect();
    let expected = expected.into_iter().collect::<Vec<_>>().join(", or ");
    let seen = format!("a manifest for {} {} {}", stray.kind().as_str(), stray.product(), stray.version());
    Err(refuse(codes::RIM_VERSION, format_args!("manifests for {expected}"), seen))
}

/// The manifests of a device's driver, and those of its VBIOS.
///
/// # Errors
/// A refusal with [`codes::RIM_MISSING`] or [`codes::RIM_VERSION`] (another board).
pub(super) fn choose<'a>(
    device: &Authentic,
    rims: &'a [VerifiedRim],
    policy: &NvidiaPolicy,
    claims: &DeviceClaims,
) -> Result<[Vec<&'a VerifiedRim>; 2], Refusal> {
    let of = |wanted| rims.iter().filter(|rim| role(rim, device) == Some(wanted)).collect::<Vec<_>>();
    let (driver, mut vbios) = (of(Role::Driver), of(Role::Vbios));
    if policy.require_rim_for_board && !vbios.is_empty() {
        vbios.retain(|rim| names_board(rim, claims));
        if vbios.is_empty() {
            return Err(refuse(codes::RIM_VERSION, format_args!("a manifest for {:?}", claims.board), "other boards"));
        }
    }
    if let (Some(version), true, false) = (&device.named.driver, driver.is_empty(), policy.allow_missing_driver_rim) {
        return Err(missing("driver", version));
    }
    if vbios.is_empty() && !policy.allow_missing_vbios_rim {
        return Err(missing("VBIOS", &device.named.vbios));
    }
    Ok([driver, vbios])
}

/// Compares a device's measurements with its manifests and adds to its claims what matched.
///
/// # Errors
/// A refusal with [`codes::MEASUREMENT`].
pub(super) fn compare(
    device: &Authentic,
    manifests: &[Vec<&VerifiedRim>; 2],
    claims: &mut DeviceClaims,
) -> Result<(), Refusal> {
    for candidates in manifests {
        compare_one(device, candidates, claims)?;
    }
    claims.matched.sort_unstable();
    claims.matched.dedup();
    Ok(())
}

/// One version can have manifests for several boards: one of them must match as a whole.
fn compare_one(device: &Authentic, candidates: &[&VerifiedRim], claims: &mut DeviceClaims) -> Result<(), Refusal> {
    let mut first = None;
    for rim in candidates {
        match matches(device, rim) {
            Ok((matched, skipped)) => {
                claims.matched.extend(matched);
                claims.skipped.extend(skipped);
                let names_board = names_board(rim, claims);
                let version = rim.version().to_owned();
                claims.rims.push(RimClaims { content: rim.content(), version, names_board });
                return Ok(());
            }
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    first.map_or(Ok(()), Err)
}

fn matches(device: &Authentic, rim: &VerifiedRim) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let (mut matched, mut skipped) = (Vec::new(), Vec::new());
    for (index, accepted) in rim.measurements() {
        if *index == NVDEC0_INDEX && device.report.opaque.nvdec0_disabled() {
            skipped.push(*index);
            continue;
        }
        let measured = index.checked_add(1).and_then(|spdm| device.report.measurements.get(&spdm));
        if !measured.is_some_and(|m| accepted.iter().any(|value| value.as_bytes() == m.value.as_slice())) {
            let accepted: Vec<_> = accepted.iter().map(ToString::to_string).collect();
            let expected = format!("RIM index {index} of {} to be {}", rim.version(), accepted.join(" or "));
            let seen = measured.map_or_else(|| "no measurement".to_owned(), |m| hex::encode(&m.value));
            return Err(refuse(codes::MEASUREMENT, expected, seen));
        }
        matched.push(*index);
    }
    Ok((matched, skipped))
}

fn role(rim: &VerifiedRim, device: &Authentic) -> Option<Role> {
    if rim.kind() != device.kind || rim.product() != device.named.chip {
        None
    } else if device.named.driver.as_deref() == Some(rim.version()) {
        Some(Role::Driver)
    } else if device.named.vbios.eq_ignore_ascii_case(rim.version()) {
        Some(Role::Vbios)
    } else {
        None
    }
}

fn names_board(rim: &VerifiedRim, claims: &DeviceClaims) -> bool {
    claims.board.as_ref().is_some_and(|board| rim.names_board(&board.project, &board.project_sku))
}

fn missing(what: &str, version: &str) -> Refusal {
    refuse(codes::RIM_MISSING, format_args!("the manifest of {what} {version}"), "none")
}

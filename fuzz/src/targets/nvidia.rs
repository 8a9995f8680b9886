//! Reports of NVIDIA's devices: signature, chain, SPDM, opaque data, firmware id, manifests.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use glasshouse_attest::nvidia::{
    Device, DeviceClaims, Feature, ListedEvidence, NvidiaCollateral, NvidiaPolicy, NvidiaVerifier, Report, codes,
};
use glasshouse_attest_gen::nvidia::{Machine, Manifest, roots, sign};
use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::fixed::{Fixed, Nonce32};
use glasshouse_core::transcript::sha384;

use super::mode;
use crate::check;
use crate::keys::{AT, certified, pem};

/// The nonce that good reports answer.
pub const NONCE: Nonce32 = Fixed([5; 32]);

/// A device whose evidence is good, and what is established from it.
pub struct Good {
    /// The device.
    pub machine: Machine,
    /// Its report.
    pub report: Vec<u8>,
    /// Its chain.
    pub chain: Vec<u8>,
    rims: Vec<String>,
    /// What is established.
    pub claims: DeviceClaims,
}

/// A GPU.
pub static GPU: LazyLock<Good> =
    LazyLock::new(|| Good::new(Machine::gpu(1), vec![Manifest::driver().document(), Manifest::vbios().document()]));
/// A switch.
pub static SWITCH: LazyLock<Good> =
    LazyLock::new(|| Good::new(Machine::switch(9), vec![Manifest::switch().document()]));

static VERIFIER: LazyLock<NvidiaVerifier> = LazyLock::new(|| NvidiaVerifier::new(NvidiaPolicy::default(), roots()));

impl Good {
    fn new(machine: Machine, rims: Vec<String>) -> Self {
        let (report, chain) = (machine.report(&NONCE), machine.pem());
        let claims = verify(machine.kind, &rims, &report, &chain).expect("good evidence");
        Self { machine, report, chain, rims, claims }
    }

    /// What is signed of the report.
    pub fn signed(&self) -> &[u8] {
        &self.report[..self.report.len() - 96]
    }

    fn verify(&self, report: &[u8], chain: &[u8]) -> Option<DeviceClaims> {
        verify(self.machine.kind, &self.rims, report, chain)
    }
}

fn verify(kind: DeviceKind, rims: &[String], report: &[u8], chain: &[u8]) -> Option<DeviceClaims> {
    let rims: Vec<_> = rims.iter().map(String::as_bytes).collect();
    let collateral = NvidiaCollateral { rims: &rims, crls: &[], ocsp: &[] };
    match VERIFIER.verify_device(Device { kind, report, chain }, collateral, &NONCE, AT) {
        Ok(claims) => {
            check::labelled(&claims.labelled());
            Some(claims)
        }
        Err(refusal) => {
            check::refusal_of(&refusal, codes::ALL);
            None
        }
    }
}

/// `a`: a GPU's report with its signature. `b`: what a GPU signs, signed here; `c`: what a switch signs. `d`: a GPU's
/// opaque data, signed here. `e`: a chain, PEM, before a good report. `f`: a digit, then a certificate of that place in
/// the chain to be signed here. `g`: the list that NVIDIA's tools write.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', report)) => whole(report),
        Some((b'b', signed)) => signed_here(&GPU, signed),
        Some((b'c', signed)) => signed_here(&SWITCH, signed),
        Some((b'd', opaque)) => {
            let good = GPU.signed();
            let start = &good[..good.len() - opaque_length(good) - 2];
            let length = u16::try_from(opaque.len()).unwrap_or(u16::MAX).to_le_bytes();
            signed_here(&GPU, &[start, &length, opaque].concat());
        }
        Some((b'e', chain)) => {
            if let Some(claims) = GPU.verify(&GPU.report, chain) {
                assert_eq!(claims, GPU.claims);
            }
        }
        Some((b'f', bytes)) => certificate(bytes),
        Some((b'g', json)) => listed(json),
        _ => {}
    }
}

/// Bytes of a good report's opaque data.
pub fn opaque_length(signed: &[u8]) -> usize {
    read(signed).unwrap().opaque.values().map(|value| value.len() + 4).sum()
}

/// Accepted is what the device signed, and nothing else but the other signature that ECDSA has for it.
fn whole(report: &[u8]) {
    if let Some(claims) = GPU.verify(report, &GPU.chain) {
        assert_eq!(&report[..report.len() - 96], GPU.signed());
        assert_eq!(claims, GPU.claims);
    }
}

/// Behind a good signature: what is parsed is what an independent reader reads, and what is accepted is the good device
/// but for its board and mode, which no manifest fixes.
fn signed_here(good: &Good, signed: &[u8]) {
    let (parsed, read) = (Report::parse(signed), read(signed));
    assert_eq!(parsed.is_ok(), read.is_some(), "{parsed:?}");
    let (Ok(parsed), Some(read)) = (parsed, read) else { return };
    assert_eq!(parsed.nonce.as_bytes(), read.nonce);
    assert!(parsed.measurements.iter().map(|(i, m)| (*i, m.value.as_slice())).eq(read.blocks.clone()));
    assert!(parsed.opaque.fields().iter().map(|(i, v)| (*i, v.as_slice())).eq(read.opaque.clone()));

    let report = [signed, &sign(&good.machine.chain[0].key, signed).to_bytes()].concat();
    let Some(claims) = good.verify(&report, &good.chain) else { return };
    assert_eq!(read.nonce, NONCE.as_bytes());
    for index in &claims.matched {
        assert_eq!(read.blocks[&(index + 1)], sha384([*index]).as_bytes());
    }
    let text = |field: u16| read.opaque.get(&field).map(|v| std::str::from_utf8(v).unwrap().trim_end_matches('\0'));
    assert_eq!(read.opaque[&20], good.claims.fwid.unwrap().as_bytes());
    assert_eq!(claims.feature, mode_of(&read.opaque));
    let mut expected = good.claims.clone();
    (expected.feature, expected.board) = (claims.feature, claims.board.clone());
    if let Some(board) = &claims.board {
        let seen = [&board.chip_sku, &board.project, &board.project_sku].map(String::as_str);
        assert_eq!(seen, [15, 17, 18].map(|field| text(field).unwrap()));
    }
    for (rim, seen) in expected.rims.iter_mut().zip(&claims.rims) {
        rim.names_board = seen.names_board;
    }
    if good.machine.kind == DeviceKind::NvidiaSwitch {
        // A switch's VBIOS is named in text, in either case; a driver has no manifest there, whatever the report says.
        assert_eq!(claims.vbios_version.to_uppercase(), expected.vbios_version);
        expected.vbios_version.clone_from(&claims.vbios_version);
        expected.driver_version.clone_from(&claims.driver_version);
    }
    assert_eq!(claims, expected);
}

fn mode_of(opaque: &BTreeMap<u16, &[u8]>) -> Option<Feature> {
    match (opaque.get(&36), opaque.get(&21)) {
        (Some(flag), _) => Some([Feature::Spt, Feature::Mpt, Feature::Ppcie][usize::from(flag[0])]),
        (None, Some([0xaa])) => Some(Feature::Ppcie),
        _ => None,
    }
}

/// A certificate that its issuer signed stands for no other device: accepted is what differs in serial number at most.
fn certificate(bytes: &[u8]) {
    let Some((place @ b'0'..=b'3', tbs)) = mode(bytes) else { return };
    let place = usize::from(place - b'0');
    let drafts = &GPU.machine.chain;
    let mut chain: Vec<_> = drafts.iter().map(|draft| draft.der()).collect();
    chain[place] = certified(tbs, &drafts[place].signer);
    let Some(claims) = GPU.verify(&GPU.report, &pem(&chain)) else { return };
    let mut expected = GPU.claims.clone();
    match place {
        0 => expected.serial.clone_from(&claims.serial),
        1 => expected.device_serial.clone_from(&claims.device_serial),
        _ => {}
    }
    assert_eq!(claims, expected);
}

/// A list is read as what stands in it, and its entries pass only as the good devices.
fn listed(json: &[u8]) {
    let list = match ListedEvidence::parse(json) {
        Ok(list) => list,
        Err(error) => return check::one_line(&error.to_string(), 300),
    };
    assert!(list.len() <= 64);
    for entry in list {
        let good: &Good = if entry.kind == DeviceKind::NvidiaGpu { &GPU } else { &SWITCH };
        if let Some(claims) = good.verify(&entry.report, &entry.chain) {
            assert_eq!(claims, good.claims);
        }
        if let Err(refusal) = entry.device().rim_ids() {
            check::refusal_of(&refusal, codes::ALL);
        }
    }
}

/// What an independent reader of SPDM reads.
struct Read<'a> {
    nonce: &'a [u8],
    blocks: BTreeMap<u8, &'a [u8]>,
    opaque: BTreeMap<u16, &'a [u8]>,
}

/// Offsets as in DSP0274 1.1, figures in tables 43 to 45; nothing is taken for granted but the bytes' number.
fn read(b: &[u8]) -> Option<Read<'_>> {
    let u16_at = |at: usize| Some(usize::from(u16::from_le_bytes([*b.get(at)?, *b.get(at + 1)?])));
    if b.get(..4)? != [0x11, 0xe0, 1, 0xff] || b.get(37..39)? != [0x11, 0x60] {
        return None;
    }
    let end = 45 + u16_at(42)? + (usize::from(*b.get(44)?) << 16);
    let (mut at, mut blocks) = (45, BTreeMap::new());
    while at < end {
        let (size, value) = (u16_at(at + 2)?, u16_at(at + 5)?);
        let fits = b.get(at + 1) == Some(&1) && size == value + 3 && at + 4 + size <= end;
        let new = fits && blocks.insert(b[at], b.get(at + 7..at + 7 + value)?).is_none();
        if !new || b[at] == 0 {
            return None;
        }
        at += 4 + size;
    }
    let length = u16_at(end + 32)?;
    let (mut at, mut opaque) = (end + 34, BTreeMap::new());
    while at < end + 34 + length {
        let size = u16_at(at + 2)?;
        if at + 4 + size > b.len()
            || opaque.insert(u16::from_le_bytes([b[at], b[at + 1]]), &b[at + 4..at + 4 + size]).is_some()
        {
            return None;
        }
        at += 4 + size;
    }
    (at == b.len() && at == end + 34 + length && blocks.len() == usize::from(b[41])).then_some(Read {
        nonce: &b[4..36],
        blocks,
        opaque,
    })
}

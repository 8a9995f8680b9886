//! The evidence of a whole machine: its devices together.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use glasshouse_attest::nvidia::{DeviceClaims, NvidiaCollateral, NvidiaPolicy, NvidiaVerifier, codes};
use glasshouse_attest_gen::nvidia::{Machine, Manifest, roots};
use glasshouse_core::evidence::{DeviceEvidence, DeviceKind, GpuEvidence};
use glasshouse_core::fixed::{Blob, Fixed};
use glasshouse_core::refusal::{Code, Refusal};

use super::mode;
use super::nvidia::NONCE;
use crate::check;
use crate::keys::AT;

static VERIFIER: LazyLock<NvidiaVerifier> = LazyLock::new(|| NvidiaVerifier::new(NvidiaPolicy::default(), roots()));
static RIMS: LazyLock<[String; 3]> =
    LazyLock::new(|| [Manifest::driver(), Manifest::vbios(), Manifest::switch()].map(|manifest| manifest.document()));

/// `a`: device evidence as it crosses the wire. `b`: a machine put together, one letter for each entry, beginning with
/// a digit whose bits choose the manifests.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', json)) => {
            if let Ok(evidence) = serde_json::from_slice(json) {
                wire(&evidence);
            }
        }
        Some((b'b', recipe)) => put_together(recipe),
        _ => {}
    }
}

fn verify(evidence: &GpuEvidence, manifests: u8) -> Result<Vec<DeviceClaims>, Refusal> {
    let rims = (0..).zip(RIMS.iter()).filter(|(bit, _)| manifests >> bit & 1 == 1);
    let rims: Vec<_> = rims.map(|(_, rim)| rim.as_bytes()).collect();
    let result = VERIFIER.verify_all(evidence, NvidiaCollateral { rims: &rims, crls: &[], ocsp: &[] }, &NONCE, AT);
    match &result {
        Ok(claims) => claims.iter().for_each(|claims| check::labelled(&claims.labelled())),
        Err(refusal) => check::refusal_of(refusal, codes::ALL),
    }
    result
}

/// What passes is devices that exist, each once and in its entry's place, with nothing left out but tokens.
fn wire(evidence: &GpuEvidence) {
    let devices: Vec<_> = evidence.0.iter().filter(|entry| entry.kind != DeviceKind::NrasToken).collect();
    if devices.len() > 4 {
        return;
    }
    for manifests in [0b011, 0b111, 0b100] {
        let Ok(claims) = verify(evidence, manifests) else { continue };
        assert_eq!(claims.len(), devices.len());
        for (claims, entry) in claims.iter().zip(&devices) {
            assert_eq!((claims.kind, &claims.serial), (entry.kind, &hex::encode(&entry.serial.0)));
            let made =
                ENTRIES.iter().find(|e| e.good && e.evidence.serial == entry.serial && e.evidence.kind == entry.kind);
            let end = entry.report.0.len() - 96;
            assert_eq!(entry.report.0[..end], made.unwrap().evidence.report.0[..end], "nobody signed this");
        }
        let distinct: BTreeSet<_> = claims.iter().map(|claims| &claims.device_serial).collect();
        assert_eq!(distinct.len(), claims.len());
    }
}

/// One entry of a machine, and why it must be refused.
struct Entry {
    letter: u8,
    evidence: DeviceEvidence,
    good: bool,
    refused: Option<Code>,
    /// Which device it is.
    device: u8,
    /// 0 SPT, 1 MPT, 2 PPCIE; of a GPU.
    mode: u8,
}

/// GPUs by number and mode, a switch, entries that are put together wrongly, a token.
static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let gpu = |number: u8, mode: u8| {
        let mut machine = Machine::gpu(number);
        machine.set(36, &[mode, 0]);
        machine
    };
    let good = |letter: u8, machine: &Machine, device: u8, mode: u8| {
        let evidence = machine.evidence(&NONCE);
        Entry { letter, evidence, good: true, refused: None, device, mode }
    };
    let bad = |letter: u8, evidence: DeviceEvidence, code: Code| Entry {
        letter,
        evidence,
        good: false,
        refused: Some(code),
        device: 0,
        mode: 0,
    };
    let (one, two) = (gpu(1, 0).evidence(&NONCE), gpu(2, 0).evidence(&NONCE));
    let mut newer = gpu(1, 0);
    newer.chain[0].serial = 70; // another firmware's leaf of the same device
    let token = DeviceEvidence {
        kind: DeviceKind::NrasToken,
        serial: Blob(vec![]),
        report: Blob(vec![1]),
        chain: Blob(vec![]),
    };
    vec![
        good(b'1', &gpu(1, 0), 1, 0),
        good(b'2', &gpu(2, 0), 2, 0),
        good(b'n', &newer, 1, 0),
        good(b'm', &gpu(3, 1), 3, 1),
        good(b'M', &gpu(4, 1), 4, 1),
        good(b'p', &gpu(5, 2), 5, 2),
        good(b's', &Machine::switch(9), 9, 0),
        good(b'S', &Machine::switch(8), 8, 0),
        bad(b'x', gpu(6, 0).evidence(&Fixed([6; 32])), codes::NONCE),
        bad(b'c', DeviceEvidence { chain: two.chain.clone(), ..one.clone() }, codes::SIGNATURE),
        // The first device's report under the second one's serial.
        Entry { device: 1, ..bad(b'i', DeviceEvidence { serial: two.serial, ..one.clone() }, codes::DEVICE_SERIAL) },
        bad(b'k', DeviceEvidence { kind: DeviceKind::NvidiaSwitch, ..one }, codes::DEVICE_KIND),
        Entry { letter: b't', evidence: token, good: false, refused: None, device: 0, mode: 0 },
    ]
});

/// The evidence of a recipe's letters.
pub fn evidence_of(letters: &[u8]) -> GpuEvidence {
    let entry = |letter: &u8| ENTRIES.iter().find(|entry| entry.letter == *letter);
    GpuEvidence(letters.iter().filter_map(entry).map(|entry| entry.evidence.clone()).collect())
}

/// The verifier agrees with a model of what a machine must be, on accepting and on the code.
fn put_together(recipe: &[u8]) {
    let Some((digit @ b'0'..=b'7', letters)) = mode(recipe) else { return };
    let (manifests, letters) = (digit - b'0', &letters[..letters.len().min(6)]);
    let result = verify(&evidence_of(letters), manifests).map(|claims| claims.len()).map_err(|refusal| refusal.code);
    assert_eq!(result, model(letters, manifests), "{}", letters.escape_ascii());
}

fn model(letters: &[u8], manifests: u8) -> Result<usize, Code> {
    let manifests_fit = |gpus: bool, switches: bool| {
        let stray = (manifests & 0b011 != 0 && !gpus) || (manifests & 0b100 != 0 && !switches);
        let incomplete = (gpus && manifests & 0b011 != 0b011) || (switches && manifests & 0b100 == 0);
        match (stray, incomplete) {
            (true, _) => Err(codes::RIM_VERSION),
            (false, true) => Err(codes::RIM_MISSING),
            (false, false) => Ok(()),
        }
    };
    let (gpus, switches) = machine(letters, manifests_fit)?;
    Ok(gpus + switches)
}

/// How many GPUs and switches a recipe's letters make, with the manifests that they need, or why they make no machine.
pub fn devices(letters: &[u8]) -> Result<(usize, usize), Code> {
    machine(letters, |_, _| Ok(()))
}

fn machine(letters: &[u8], manifests: impl Fn(bool, bool) -> Result<(), Code>) -> Result<(usize, usize), Code> {
    let known = |letter: &u8| ENTRIES.iter().find(|entry| entry.letter == *letter);
    let given: Vec<&Entry> =
        letters.iter().filter_map(known).filter(|entry| entry.good || entry.refused.is_some()).collect();
    let refused = |code: Code| match given.iter().any(|entry| entry.refused.as_ref() == Some(&code)) {
        true => Err(code),
        false => Ok(()),
    };
    // Each check over all devices before the next one over any.
    for code in [codes::SIGNATURE, codes::NONCE, codes::DEVICE_KIND] {
        refused(code)?;
    }
    let mut devices: Vec<&Entry> = Vec::new();
    for entry in given.iter().copied() {
        if devices.iter().any(|earlier| earlier.device == entry.device) {
            return Err(codes::DUPLICATE_DEVICE);
        }
        devices.push(entry);
    }
    refused(codes::DEVICE_SERIAL)?;
    let gpus: Vec<_> = devices.iter().filter(|entry| entry.evidence.kind == DeviceKind::NvidiaGpu).collect();
    let switches = devices.len() - gpus.len();
    manifests(!gpus.is_empty(), switches > 0)?;
    let modes: BTreeSet<_> = gpus.iter().map(|entry| entry.mode).collect();
    if modes.len() > 1 {
        return Err(codes::FEATURE);
    }
    if modes.contains(&2) && switches == 0 {
        return Err(codes::SWITCH_MISSING);
    }
    Ok((gpus.len(), switches))
}

//! GPUs and switches: chain, report and opaque data.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use glasshouse_core::evidence::{DeviceEvidence, DeviceKind};
use glasshouse_core::fixed::{Blob, Digest48, Nonce32};
use glasshouse_core::transcript::sha384;

use super::certificate::{Draft, composite_device_id, sign};

/// A device: its chain, the fields of its report and its measurements.
#[derive(Clone)]
pub struct Machine {
    /// GPU or switch.
    pub kind: DeviceKind,
    /// Leaf first.
    pub chain: Vec<Draft>,
    /// Fields of the report's opaque data.
    pub opaque: Vec<(u16, Vec<u8>)>,
    /// By SPDM index, from 1.
    pub measurements: Vec<Digest48>,
    /// First bytes of the SPDM request.
    pub request: [u8; 4],
}

/// What the firmware id of every device here is the SHA-384 of.
pub const FWID: &str = "firmware";

impl Machine {
    /// A Hopper GPU by its number.
    pub fn gpu(number: u8) -> Self {
        let opaque = vec![
            (3, b"580.95.05\0".to_vec()),
            (6, vec![0, 0x9f, 0, 0x96, 1, 0, 0, 0]),
            (11, vec![0x55]),
            (15, b"885\0\0".to_vec()),
            (17, b"G520\0".to_vec()),
            (18, b"0200\0".to_vec()),
            (20, sha384(FWID).as_bytes().to_vec()),
            (36, vec![0, 0]),
        ];
        Self::new(DeviceKind::NvidiaGpu, "GH100", number, opaque)
    }

    /// An LS10 switch by its number.
    pub fn switch(number: u8) -> Self {
        let opaque = vec![(6, b"96.10.5C.00.01".to_vec()), (20, sha384(FWID).as_bytes().to_vec())];
        Self::new(DeviceKind::NvidiaSwitch, "LS_10", number, opaque)
    }

    fn new(kind: DeviceKind, chip: &str, number: u8, opaque: Vec<(u16, Vec<u8>)>) -> Self {
        let (leaf, own) = (format!("{chip} A01 GSP FMC LF {number}"), format!("{chip} A01 GSP BROM {number}"));
        let mut chain = vec![
            Draft::new(&leaf, &own, number, false),
            Draft::new(&own, "provisioner", number, true),
            Draft::new("provisioner", "family", 3, true),
            Draft::new("family", "device root", 2, true),
            Draft::new("device root", "device root", 1, true),
        ];
        chain[0].extensions.push(composite_device_id(sha384(FWID)));
        let measurements = (0u8..40).map(|i| sha384([i])).collect();
        Self { kind, chain, opaque, measurements, request: [0x11, 0xe0, 1, 0xff] }
    }

    /// Sets a field of the opaque data.
    pub fn set(&mut self, field: u16, value: &[u8]) {
        self.opaque.retain(|(f, _)| *f != field);
        self.opaque.push((field, value.to_vec()));
    }

    /// The report over a nonce, signed.
    pub fn report(&self, nonce: &Nonce32) -> Vec<u8> {
        let mut record = Vec::new();
        for (i, value) in (1u8..).zip(&self.measurements) {
            record.extend([i, 1, 51, 0, 1, 48, 0]);
            record.extend(value.as_bytes());
        }
        let field = |(field, value): &(u16, Vec<u8>)| {
            let length = u16::try_from(value.len()).unwrap();
            [&field.to_le_bytes()[..], &length.to_le_bytes(), value].concat()
        };
        let opaque: Vec<u8> = self.opaque.iter().flat_map(field).collect();
        let mut report = self.request.to_vec();
        report.extend(nonce.as_bytes());
        report.extend([0, 0x11, 0x60, 0, 0, u8::try_from(self.measurements.len()).unwrap()]);
        report.extend(&u32::try_from(record.len()).unwrap().to_le_bytes()[..3]);
        report.extend(record);
        report.extend([9; 32]);
        report.extend(u16::try_from(opaque.len()).unwrap().to_le_bytes());
        report.extend(opaque);
        let signature = sign(&self.chain[0].key, &report);
        report.extend(signature.to_bytes());
        report
    }

    /// The chain.
    pub fn pem(&self) -> Vec<u8> {
        let block = |draft: &Draft| {
            let base64 = STANDARD.encode(draft.der());
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
        };
        self.chain.iter().map(block).collect::<String>().into_bytes()
    }

    /// Report and chain as they cross the wire.
    pub fn evidence(&self, nonce: &Nonce32) -> DeviceEvidence {
        DeviceEvidence {
            kind: self.kind,
            serial: Blob(vec![0x50, self.chain[0].serial]),
            report: Blob(self.report(nonce)),
            chain: Blob(self.pem()),
        }
    }
}

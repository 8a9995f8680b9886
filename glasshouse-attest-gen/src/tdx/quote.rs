//! A quote of version 4 or 5 (Intel 329081): header, TD report, and the chain of signatures up to the platform's certificate.

use glasshouse_core::fixed::Digest64;
use glasshouse_core::transcript::sha256;
use p256::ecdsa::VerifyingKey;

use super::certificates::{PckDraft, key, signature};

const INTEL_QE: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
const ATTESTATION_KEY: &str = "Generated TDX attestation key";

/// A quote to be: tests change fields before it is signed.
#[derive(Clone, Debug)]
pub struct QuoteDraft {
    /// 4, or 5: with type and size before the TD report.
    pub version: u8,
    /// TEE_TCB_SVN.
    pub tee_tcb_svn: [u8; 16],
    /// ATTRIBUTES; bit 0 is DEBUG, bit 28 SEPT_VE_DISABLE.
    pub attributes: [u8; 8],
    /// Measurement of the initial memory.
    pub mrtd: [u8; 48],
    /// Measurements of the launch and after.
    pub rtmr: [[u8; 48]; 4],
    /// MRCONFIGID.
    pub mr_config_id: [u8; 48],
    /// The platform's certificate.
    pub pck: PckDraft,
}

impl Default for QuoteDraft {
    fn default() -> Self {
        let mut tee_tcb_svn = [0; 16];
        tee_tcb_svn[..3].copy_from_slice(&[5, 0, 2]);
        Self {
            version: 4,
            tee_tcb_svn,
            attributes: [0, 0, 0, 0x10, 0, 0, 0, 0],
            mrtd: [0x61; 48],
            rtmr: [[0x70; 48], [0x71; 48], [0x72; 48], [0; 48]],
            mr_config_id: [0; 48],
            pck: PckDraft::default(),
        }
    }
}

impl QuoteDraft {
    /// The quote over `report_data`.
    pub fn make(&self, report_data: &Digest64) -> Vec<u8> {
        let mut quote = self.signed_part(report_data);
        let authentication = self.authentication(&quote);
        quote.extend(u32::try_from(authentication.len()).unwrap().to_le_bytes());
        quote.extend(authentication);
        quote
    }

    /// Header and TD report.
    fn signed_part(&self, report_data: &Digest64) -> Vec<u8> {
        let header: [&[u8]; 6] = [&[self.version, 0], &[2, 0], &[0x81, 0, 0, 0], &[0; 4], &INTEL_QE, &[0; 20]];
        let report: [&[u8]; 11] = [
            &self.tee_tcb_svn,
            &[0x5e; 48], // MRSEAM
            &[0; 48],    // MRSIGNERSEAM: Intel's own module
            &[0; 8],     // SEAMATTRIBUTES
            &self.attributes,
            &[0xe7, 0, 6, 0, 0, 0, 0, 0], // XFAM
            &self.mrtd,
            &self.mr_config_id,
            &[0; 96], // MROWNER, MROWNERCONFIG
            self.rtmr.as_flattened(),
            report_data.as_bytes(),
        ];
        let report = report.concat();
        let size = u32::try_from(report.len()).unwrap().to_le_bytes();
        // 2: a TD report of TDX 1.0.
        let body = if self.version == 5 { [&[2, 0][..], &size].concat() } else { Vec::new() };
        [header.concat(), body, report].concat()
    }

    fn authentication(&self, signed: &[u8]) -> Vec<u8> {
        let point = VerifyingKey::from(&key(ATTESTATION_KEY)).to_sec1_bytes();
        let (public, qe_data) = (&point[1..], [3u8; 32]);
        let report = enclave_report(&sha256([public, &qe_data].concat()).0);
        let chain = self.pck.chain().into_bytes();
        let certification: [&[u8]; 7] = [
            &report,
            &self.pck.sign(&report),
            &[32, 0],
            &qe_data,
            &[5, 0],
            &u32::try_from(chain.len()).unwrap().to_le_bytes(),
            &chain,
        ];
        let certification = certification.concat();
        let parts: [&[u8]; 5] = [
            &signature(ATTESTATION_KEY, signed).to_bytes(),
            public,
            &[6, 0],
            &u32::try_from(certification.len()).unwrap().to_le_bytes(),
            &certification,
        ];
        parts.concat()
    }
}

/// The quoting enclave's report over the attestation key.
fn enclave_report(key_digest: &[u8; 32]) -> Vec<u8> {
    let mut attributes = [0; 16];
    attributes[0] = 0x11;
    let parts: [&[u8]; 12] = [
        &[5; 16], // CPUSVN
        &[0; 4],  // MISCSELECT
        &[0; 28],
        &attributes,
        &[0x22; 32], // MRENCLAVE
        &[0; 32],
        &[0x11; 32], // MRSIGNER
        &[0; 96],
        &[2, 0, 4, 0], // ISVPRODID, ISVSVN
        &[0; 60],
        key_digest,
        &[0; 32],
    ];
    parts.concat()
}

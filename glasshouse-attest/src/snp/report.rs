use glasshouse_core::fixed::{Digest32, Digest48, Digest64, Fixed};

use super::tcb::TcbBytes;
use crate::bytes::Cursor;

/// Bytes of a report, its signature included (AMD 56860 section 7.3, ATTESTATION_REPORT).
pub const REPORT_LENGTH: usize = 0x4a0;
/// Bytes that are signed.
const SIGNED_LENGTH: usize = 0x2a0;

/// A report taken apart, nothing of it read: what was signed, and the signature as r || s, big-endian.
#[derive(Clone, Debug)]
pub struct SignedReport<'a> {
    /// The bytes under the signature.
    pub signed: &'a [u8],
    /// ECDSA P-384 with SHA-384.
    pub signature: [u8; 96],
}

impl<'a> SignedReport<'a> {
    /// Splits exactly [`REPORT_LENGTH`] bytes. The signature's numbers are little-endian in 72 bytes each, of which the
    /// upper 24 and everything behind them are zero; nothing else is accepted, so that a report has one spelling.
    pub fn split(report: &'a [u8]) -> Option<Self> {
        let (signed, rest) = report.split_at_checked(SIGNED_LENGTH)?;
        let mut rest = Cursor::new(rest);
        let mut r: [u8; 48] = rest.array()?;
        let r_ends = rest.zeros(24)?;
        let mut s: [u8; 48] = rest.array()?;
        let clean = r_ends && rest.zeros(24)? && rest.zeros(368)? && rest.is_empty();
        r.reverse();
        s.reverse();
        let signature = [r, s].concat().try_into().ok()?;
        clean.then_some(Self { signed, signature })
    }
}

/// The key that signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// The chip's own, versioned by its TCB.
    Vcek,
    /// One that AMD made for a cloud provider.
    Vlek,
}

/// Bits of a guest's policy (AMD 56860 section 4.3, GUEST_POLICY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    const RESERVED_ONE: u32 = 17;

    /// Hyper-threading is allowed.
    pub const fn smt(self) -> bool {
        self.bit(16)
    }
    /// A migration agent may be associated.
    pub const fn migration(self) -> bool {
        self.bit(18)
    }
    /// The hypervisor may decrypt the guest's memory.
    pub const fn debug(self) -> bool {
        self.bit(19)
    }
    /// Only one socket.
    pub const fn single_socket(self) -> bool {
        self.bit(20)
    }
    /// Ciphertext hiding for DRAM is required.
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(24)
    }

    const fn bit(self, bit: u32) -> bool {
        (self.0 >> bit) & 1 == 1
    }

    /// Bit 17 is one, the bits from 26 are zero.
    const fn is_well_formed(self) -> bool {
        self.bit(Self::RESERVED_ONE) && self.0 >> 26 == 0
    }
}

/// A report's fields (AMD 56860 section 7.3), of versions 2 to 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// 2 to 5.
    pub version: u32,
    /// The guest's own security version.
    pub guest_svn: u32,
    /// The policy that the guest was launched with.
    pub policy: GuestPolicy,
    /// Given with the launch.
    pub family_id: Fixed<16>,
    /// Given with the launch.
    pub image_id: Fixed<16>,
    /// The privilege level that asked: 0 is the most privileged.
    pub vmpl: u32,
    /// TCB of the firmware that runs.
    pub current_tcb: TcbBytes,
    /// PLATFORM_INFO.
    pub platform_info: u64,
    /// Which key signed.
    pub signing_key: SigningKey,
    /// Whether an author's key is part of the identity.
    pub author_key: bool,
    /// What the guest put in.
    pub report_data: Digest64,
    /// Launch measurement.
    pub measurement: Digest48,
    /// Given by the hypervisor at launch.
    pub host_data: Digest32,
    /// SHA-384 of the key that signed the guest's identity block.
    pub id_key_digest: Digest48,
    /// SHA-384 of the author's key.
    pub author_key_digest: Digest48,
    /// Of this guest, as long as it lives.
    pub report_id: Digest32,
    /// Of its migration agent; all ones where there is none.
    pub report_id_ma: Digest32,
    /// TCB that the signing key was derived for.
    pub reported_tcb: TcbBytes,
    /// Family and model of the processor, from version 3.
    pub cpuid: Option<(u8, u8)>,
    /// The chip; zero where the platform masks it.
    pub chip_id: Digest64,
    /// TCB below which the firmware cannot go.
    pub committed_tcb: TcbBytes,
    /// Current firmware: major, minor, build.
    pub current_version: (u8, u8, u8),
    /// TCB at launch.
    pub launch_tcb: TcbBytes,
}

/// PLATFORM_INFO's bits that have a meaning (AMD 56860): SMT, TSME, ECC, RAPL, ciphertext hiding, alias check; trusted I/O.
const PLATFORM_INFO: u64 = 0b1011_1111;

impl Report {
    /// Reads the signed bytes. Every reserved byte must be zero.
    ///
    /// # Errors
    /// The part that is not as the specification says.
    pub fn parse(signed: &[u8]) -> Result<Self, &'static str> {
        if signed.len() != SIGNED_LENGTH {
            return Err("another length");
        }
        let mut c = Cursor::new(signed);
        let report = Self::fields(&mut c)?;
        if c.is_empty() { Ok(report) } else { Err("another length") }
    }

    fn fields(c: &mut Cursor<'_>) -> Result<Self, &'static str> {
        const SHORT: &str = "another length";
        let version = c.u32().ok_or(SHORT)?;
        if !(2..=5).contains(&version) {
            return Err("another version than 2 to 5");
        }
        let guest_svn = c.u32().ok_or(SHORT)?;
        let policy = GuestPolicy(c.u64().ok_or(SHORT)?);
        if !policy.is_well_formed() {
            return Err("reserved bits of the guest policy");
        }
        let family_id = c.fixed().ok_or(SHORT)?;
        let image_id = c.fixed().ok_or(SHORT)?;
        let vmpl = c.u32().ok_or(SHORT)?;
        if c.u32() != Some(1) {
            return Err("another signature algorithm than ECDSA P-384 with SHA-384");
        }
        let current_tcb = TcbBytes(c.array().ok_or(SHORT)?);
        let platform_info = c.u64().ok_or(SHORT)?;
        if platform_info & !PLATFORM_INFO != 0 {
            return Err("reserved bits of the platform information");
        }
        let (author_key, signing_key) = key_info(c.u32().ok_or(SHORT)?)?;
        reserved(c, 4)?;
        let report_data = c.fixed().ok_or(SHORT)?;
        let measurement = c.fixed().ok_or(SHORT)?;
        let host_data = c.fixed().ok_or(SHORT)?;
        let id_key_digest = c.fixed().ok_or(SHORT)?;
        let author_key_digest = c.fixed().ok_or(SHORT)?;
        let report_id = c.fixed().ok_or(SHORT)?;
        let report_id_ma = c.fixed().ok_or(SHORT)?;
        let reported_tcb = TcbBytes(c.array().ok_or(SHORT)?);
        let cpuid = if version >= 3 {
            let [family, model, _stepping] = c.array().ok_or(SHORT)?;
            reserved(c, 21)?;
            Some((family, model))
        } else {
            reserved(c, 24)?;
            None
        };
        let chip_id = c.fixed().ok_or(SHORT)?;
        let committed_tcb = TcbBytes(c.array().ok_or(SHORT)?);
        let [build, minor, major] = c.array().ok_or(SHORT)?;
        reserved(c, 1)?;
        c.take(3).ok_or(SHORT)?;
        reserved(c, 1)?;
        let launch_tcb = TcbBytes(c.array().ok_or(SHORT)?);
        if version >= 5 {
            c.take(16).ok_or(SHORT)?; // LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR: which bits must be set is nowhere published
            reserved(c, 152)?;
        } else {
            reserved(c, 168)?;
        }
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform_info,
            signing_key,
            author_key,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            cpuid,
            chip_id,
            committed_tcb,
            current_version: (major, minor, build),
            launch_tcb,
        })
    }
}

/// AUTHOR_KEY_EN, MASK_CHIP_KEY and SIGNING_KEY, then reserved bits.
fn key_info(info: u32) -> Result<(bool, SigningKey), &'static str> {
    let signing_key = match (info >> 1) & 0b1111 {
        0b0000 => SigningKey::Vcek,
        0b0010 => SigningKey::Vlek,
        _ => return Err("a masked or unknown signing key"),
    };
    if info >> 5 == 0 { Ok((info & 1 == 1, signing_key)) } else { Err("reserved bits of the key information") }
}

fn reserved(c: &mut Cursor<'_>, length: usize) -> Result<(), &'static str> {
    match c.zeros(length) {
        Some(true) => Ok(()),
        Some(false) => Err("reserved bytes that are not zero"),
        None => Err("another length"),
    }
}

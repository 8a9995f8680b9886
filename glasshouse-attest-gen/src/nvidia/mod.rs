//! Evidence of NVIDIA devices: certificates, reports and manifests that are right in every respect but the one that a
//! caller changes.

mod certificate;
mod device;
mod manifest;
mod ocsp;

pub use certificate::{CrlDraft, Draft, composite_device_id, extension, sign, tcb_info};
pub use device::{FWID, Machine};
pub use manifest::{Manifest, resource, signed_info};
pub use ocsp::{OcspDraft, names_list, names_responder, ocsp_answer, purpose};

use glasshouse_attest::nvidia::NvidiaRoots;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::transcript::sha256;

/// The roots of everything that is made here.
pub fn roots() -> NvidiaRoots {
    let of = |draft: &Draft| -> Vec<Digest32> { vec![sha256(draft.der())] };
    NvidiaRoots { device: of(&Machine::gpu(0).chain[4]), rim: of(&Manifest::driver().chain[3]) }
}

//! Intel TDX: quotes of version 4 and the collateral that they verify with, under a root that is not Intel's.

mod certificates;
mod collateral;
mod quote;

pub use certificates::{Authority, PckDraft, Serial};
pub use collateral::CollateralDraft;
pub use quote::QuoteDraft;

use glasshouse_attest::tdx::{DcapPolicy, IntelRoot, TdMeasurements};
use glasshouse_core::fixed::Fixed;

/// FMSPC of the platforms that are made here.
pub const FMSPC: [u8; 6] = [0x6e, 0, 0, 0, 0, 1];

/// The root of everything that is made here.
pub fn root() -> IntelRoot {
    IntelRoot::other(Authority::Root.certificate())
}

/// Asks for the TD that [`QuoteDraft::default`] is of.
pub fn policy() -> DcapPolicy {
    let draft = QuoteDraft::default();
    let [rtmr0, rtmr1, rtmr2, rtmr3] = draft.rtmr.map(|register| Some(Fixed(register)));
    let reference =
        TdMeasurements { mrtd: Fixed(draft.mrtd), rtmr0, rtmr1, rtmr2, rtmr3, mr_config_id: None, mr_owner: None };
    DcapPolicy { measurements: vec![reference], ..DcapPolicy::default() }
}

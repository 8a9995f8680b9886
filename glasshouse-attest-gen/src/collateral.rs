//! A bundle of the collateral of everything that is made here.

use std::time::Duration;

use glasshouse_attest::collateral::Bundle;
use glasshouse_attest::snp::Product;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Blob;

use crate::nvidia::{CrlDraft, OcspDraft};
use crate::platform::{AUDIT_TIME, Platform};
use crate::tdx::CollateralDraft;
use crate::{snp, token};

/// A bundle of this version, of ten days around [`AUDIT_TIME`]. What is in it counts until 2030 at least: programs that are
/// tested with it appraise at the time of day.
pub fn bundle(version: u64) -> Bundle {
    let five_days = Duration::from_secs(5 * 86_400);
    let from = UnixMillis(AUDIT_TIME.0 - five_days.as_millis() as u64);
    let mut bundle = Bundle::new(version, from, AUDIT_TIME.after(five_days));
    bundle.intel = vec![Blob(CollateralDraft::default().json())];
    let (_, _, chain) = snp::Draft::new(Product::Genoa).make();
    bundle.amd.chains = chain.map(Blob).into();
    bundle.amd.crls = vec![Blob(snp::crl(Product::Genoa, false))];
    let rims = Platform::collateral().nvidia.rims;
    bundle.nvidia.rims = rims.into_iter().map(|(name, rim)| (name, Blob(rim))).collect();
    bundle.nvidia.crls = vec![Blob(CrlDraft { until: "361231235959Z", ..CrlDraft::new("device root") }.der())];
    let good = OcspDraft { until: Some("20361231235959Z"), ..OcspDraft::good("family", 3) };
    bundle.nvidia.ocsp = vec![Blob(good.der())];
    bundle.jwks.insert(token::NRAS.to_owned(), Blob(token::jwks_json().into_bytes()));
    bundle
}

//! Revocation lists of AMD's roots (RFC 5280 section 5), as its key service gives them for each product: they name
//! ASKs and ASVKs that may certify nothing any more.

use std::collections::BTreeSet;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::refusal::Refusal;
use x509_cert::crl::TbsCertList;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::time::Time;

use super::certificate::{Certificate, is_pss_sha384};
use super::codes::{self, refuse};
use super::tcb::Product;
use crate::x509::split;

const MAX_DER: usize = 256 * 1024;

/// A list that was parsed and not yet verified.
struct Crl {
    issuer: Vec<u8>,
    tbs_der: Vec<u8>,
    signature: Vec<u8>,
    window: [UnixMillis; 2],
    serials: BTreeSet<Vec<u8>>,
}

/// Whether this is a list that can be read, before anybody keeps it.
#[cfg(feature = "fetch")]
pub(crate) fn is_list(der: &[u8]) -> bool {
    parse(der).is_ok()
}

/// Looks up an intermediate, and the certificate under it, in the lists of the root. Lists of other roots are passed
/// over; with `needed` the root must have one.
///
/// # Errors
/// [`codes::REVOKED`], and [`codes::CRL`] for a list that is none, is not signed by the root or is not of this time.
pub(super) fn check(
    [vek, issuer, root]: [&Certificate; 3],
    lists: &[&[u8]],
    needed: bool,
    at: UnixMillis,
) -> Result<(), Refusal> {
    let refused = |seen: String| refuse(codes::CRL, "revocation lists of this time, signed by their root", seen);
    let unusable = || refused(format!("{:?}, which is no root with a name and a key", root.subject()));
    let key = root.authority_key().ok_or_else(unusable)?;
    let name = root.subject_der().ok_or_else(unusable)?;
    let mut seen = false;
    for der in lists {
        let list = parse(der).map_err(|part| refused(format!("a list whose {part} is not as in RFC 5280")))?;
        if list.issuer != name {
            continue;
        }
        if !key.verify_pss_sha384(&list.tbs_der, &list.signature) {
            return Err(refused(format!("a list of {:?} that it did not sign", root.subject())));
        }
        let [from, to] = list.window;
        if at < from || at > to {
            return Err(refused(format!("a list for {from} to {to}")));
        }
        for certificate in [issuer, vek] {
            if certificate.names_issuer(root) && list.serials.contains(certificate.serial()) {
                let name = certificate.subject();
                return Err(refuse(codes::REVOKED, "certificates that are not revoked", format_args!("{name:?}")));
            }
        }
        seen = true;
    }
    if needed && !seen {
        return Err(refused(format!("none of {:?}", root.subject())));
    }
    Ok(())
}

/// Whether a list may be of a product's root, by name; one that cannot be read may be of any.
pub(super) fn may_be_of(list: &[u8], product: Product) -> bool {
    let others = [Product::Milan, Product::Genoa, Product::Turin].into_iter().filter(|other| *other != product);
    let Ok(list) = parse(list) else { return true };
    let name = |product: Product| format!("ARK-{product}").into_bytes();
    !others.map(name).any(|other| list.issuer.windows(other.len()).any(|part| part == other))
}

fn parse(der: &[u8]) -> Result<Crl, &'static str> {
    if der.len() > MAX_DER {
        return Err("length");
    }
    let (tbs_der, algorithm, bits) = split(der).map_err(|_| "CertificateList")?;
    let tbs = <TbsCertList>::from_der(tbs_der).map_err(|_| "TBSCertList")?;
    if !is_pss_sha384(&algorithm) || tbs.signature != algorithm {
        return Err("algorithm");
    }
    if tbs.crl_extensions.iter().flatten().any(|extension| extension.critical) {
        return Err("critical extension");
    }
    let entries = tbs.revoked_certificates.unwrap_or_default();
    if entries.iter().any(|entry| entry.crl_entry_extensions.iter().flatten().any(|e| e.critical)) {
        return Err("entry's critical extension");
    }
    Ok(Crl {
        issuer: tbs.issuer.to_der().map_err(|_| "issuer")?,
        tbs_der: tbs_der.to_vec(),
        signature: bits.as_bytes().ok_or("signature")?.to_vec(),
        window: [millis(tbs.this_update), millis(tbs.next_update.ok_or("nextUpdate")?)],
        serials: entries.iter().map(|entry| entry.serial_number.as_bytes().to_vec()).collect(),
    })
}

fn millis(time: Time) -> UnixMillis {
    UnixMillis::since_epoch(time.to_unix_duration())
}

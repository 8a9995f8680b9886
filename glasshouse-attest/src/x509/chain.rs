use std::collections::BTreeSet;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Digest32;

use super::{Certificate, X509Error};

/// Pairs of (certificate, issuer) by SHA-256 whose signature was verified before in the same appraisal: devices of one
/// machine and the RIMs of one vendor share their upper certificates, and a P-384 verification costs half a
/// millisecond.
#[derive(Debug, Default)]
pub struct VerifiedLinks(BTreeSet<[Digest32; 2]>);

/// Verifies that a chain, leaf first and its root included, leads to one of the pinned roots: names, signatures,
/// basic constraints, key usage. Validity in time is [`check_validity`]'s, so that callers can order the two.
///
/// # Errors
/// The first [`X509Error`] from the leaf up.
pub fn verify_chain(chain: &[Certificate], roots: &[Digest32], links: &mut VerifiedLinks) -> Result<(), X509Error> {
    let (Some(leaf), Some(root)) = (chain.first(), chain.last()) else {
        return Err(X509Error::Length { expected: "at least two", seen: 0 });
    };
    if chain.len() < 2 {
        return Err(X509Error::Length { expected: "at least two", seen: chain.len() });
    }
    // The root before its children's signatures: nothing is computed for a stranger's chain.
    if !roots.contains(&root.sha256()) {
        return Err(X509Error::Root { sha256: root.sha256() });
    }
    let is_ca = leaf.basic.as_ref().is_some_and(|basic| basic.ca);
    if is_ca || leaf.usage.as_ref().is_some_and(|usage| !usage.digital_signature()) {
        return Err(X509Error::Usage { subject: leaf.subject(), role: "a leaf" });
    }
    // `below` counts the intermediates under an issuer, the leaf not included (RFC 5280 section 4.2.1.9).
    for (below, (certificate, issuer)) in chain.iter().zip(chain.iter().skip(1)).enumerate() {
        if !certificate.names_issuer(issuer) {
            return Err(X509Error::Issuer { subject: certificate.subject() });
        }
        check_issuer(issuer, below)?;
        let link = [certificate.sha256(), issuer.sha256()];
        if !links.0.contains(&link) {
            if !certificate.issued_by(issuer) {
                return Err(X509Error::Signature { subject: certificate.subject() });
            }
            links.0.insert(link);
        }
    }
    Ok(())
}

/// Whether every certificate of a chain is valid at a time.
///
/// # Errors
/// [`X509Error::Validity`] of the first that is not.
pub fn check_validity(chain: &[Certificate], at: UnixMillis) -> Result<(), X509Error> {
    for certificate in chain {
        let (from, to) = certificate.validity();
        if at < from || at > to {
            return Err(X509Error::Validity { subject: certificate.subject(), from, to, at });
        }
    }
    Ok(())
}

fn check_issuer(issuer: &Certificate, below: usize) -> Result<(), X509Error> {
    let usage = |role| X509Error::Usage { subject: issuer.subject(), role };
    let basic = issuer.basic.as_ref().filter(|basic| basic.ca).ok_or_else(|| usage("an issuer"))?;
    if !issuer.usage.as_ref().is_some_and(|usage| usage.key_cert_sign()) {
        return Err(usage("an issuer"));
    }
    match basic.path_len_constraint {
        Some(limit) if below > usize::from(limit) => Err(usage("an issuer this far from the leaf")),
        _ => Ok(()),
    }
}

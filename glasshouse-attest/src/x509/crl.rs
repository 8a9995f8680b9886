use std::collections::BTreeSet;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::transcript::sha256;
use p384::ecdsa::Signature;
use p384::ecdsa::signature::Verifier as _;
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extension;

use super::{
    Certificate, OcspAnswer, VerifiedLinks, X509Error, is_ecdsa_sha384, millis, ocsp, significant, split,
    tells_revocation,
};

/// Lists of a few thousand entries.
const MAX_DER: usize = 1024 * 1024;

const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// A complete list of revoked certificates of one issuer (RFC 5280 section 5), parsed and not yet verified.
#[derive(Clone, Debug)]
pub struct Crl {
    sha256: Digest32,
    issuer: Vec<u8>,
    tbs_der: Vec<u8>,
    signature: Signature,
    from: UnixMillis,
    to: UnixMillis,
    pub(super) serials: BTreeSet<Vec<u8>>,
}

impl Crl {
    /// Parses a list in DER.
    ///
    /// # Errors
    /// [`X509Error::CrlMalformed`], also for a list that is not complete (delta, or partitioned) or has no end.
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let bad = |part| X509Error::CrlMalformed { part };
        if der.len() > MAX_DER {
            return Err(bad("longer than 1 MiB"));
        }
        let (tbs_der, outer, bits) = split(der).map_err(|_| bad("CertificateList"))?;
        let tbs = <TbsCertList>::from_der(tbs_der).map_err(|_| bad("TBSCertList"))?;
        if !is_ecdsa_sha384(&outer) || !is_ecdsa_sha384(&tbs.signature) {
            return Err(bad("an algorithm other than ECDSA P-384 with SHA-384"));
        }
        let signature = bits.as_bytes().and_then(|der| Signature::from_der(der).ok()).ok_or(bad("signatureValue"))?;
        let known = |e: &Extension| !e.critical || [CRL_NUMBER, AUTHORITY_KEY_IDENTIFIER].contains(&e.extn_id);
        let revoked = tbs.revoked_certificates.unwrap_or_default();
        let entry_known = |entry: &RevokedCert| entry.crl_entry_extensions.iter().flatten().all(|e| !e.critical);
        if !tbs.crl_extensions.iter().flatten().all(known) || !revoked.iter().all(entry_known) {
            return Err(bad("a critical extension that is not understood"));
        }
        Ok(Self {
            sha256: sha256(der),
            issuer: tbs.issuer.to_der().map_err(|_| bad("issuer"))?,
            tbs_der: tbs_der.to_vec(),
            signature,
            from: millis(tbs.this_update),
            to: millis(tbs.next_update.ok_or(bad("no nextUpdate"))?),
            serials: revoked.iter().map(|entry| significant(entry.serial_number.as_bytes()).to_vec()).collect(),
        })
    }

    /// Until when it counts (`nextUpdate`).
    pub fn until(&self) -> UnixMillis {
        self.to
    }
}

/// What is known of revoked certificates, parsed and not yet verified.
#[derive(Clone, Debug, Default)]
pub struct Revocation {
    /// Lists, of any issuers.
    pub lists: Vec<Crl>,
    /// Answers of OCSP responders, about any certificates.
    pub answers: Vec<OcspAnswer>,
}

impl Revocation {
    /// Parses lists and answers in DER.
    ///
    /// # Errors
    /// [`X509Error::CrlMalformed`] or [`X509Error::OcspMalformed`].
    pub fn from_der(lists: &[&[u8]], answers: &[&[u8]]) -> Result<Self, X509Error> {
        Ok(Self {
            lists: lists.iter().map(|der| Crl::from_der(der)).collect::<Result<_, _>>()?,
            answers: answers.iter().map(|der| OcspAnswer::from_der(der)).collect::<Result<_, _>>()?,
        })
    }
}

/// Looks up every certificate of a verified chain in the lists of its issuer and in the OCSP answers about it. What is
/// about others is passed over. Each issuer from `needed` on, counted from the leaf, must have a list, or an answer about
/// what it issued; and so must the issuer of every certificate that says where it is told whether it is revoked, a list
/// or a responder. `usize::MAX` asks for neither.
///
/// # Errors
/// [`X509Error::CrlSignature`], [`X509Error::CrlValidity`], [`X509Error::CrlMissing`], [`X509Error::OcspSignature`],
/// [`X509Error::OcspValidity`], [`X509Error::OcspUnknown`] or [`X509Error::Revoked`].
pub fn check_revocation(
    chain: &[Certificate],
    known: &Revocation,
    needed: usize,
    at: UnixMillis,
    links: &mut VerifiedLinks,
) -> Result<(), X509Error> {
    for (i, (certificate, issuer)) in chain.iter().zip(chain.iter().skip(1)).enumerate() {
        let name = issuer.tbs.subject().to_der().map_err(|_| X509Error::CrlMissing { issuer: issuer.subject() })?;
        let lists: Vec<_> = known.lists.iter().filter(|crl| crl.issuer == name).collect();
        for crl in &lists {
            check_list(crl, issuer, at, links)?;
            if crl.serials.contains(certificate.serial()) {
                return Err(X509Error::Revoked { subject: certificate.subject() });
            }
        }
        let answered = ocsp::check((certificate, issuer), &known.answers, &lists, at, links)?;
        let asked = i.saturating_add(1) >= needed || needed != usize::MAX && tells_revocation(certificate);
        if lists.is_empty() && !answered && asked {
            return Err(X509Error::CrlMissing { issuer: issuer.subject() });
        }
    }
    Ok(())
}

fn check_list(crl: &Crl, issuer: &Certificate, at: UnixMillis, links: &mut VerifiedLinks) -> Result<(), X509Error> {
    let link = [crl.sha256, issuer.sha256()];
    let may_sign = issuer.usage.as_ref().is_some_and(|usage| usage.crl_sign());
    if !links.0.contains(&link) {
        if !may_sign || issuer.key.verify(&crl.tbs_der, &crl.signature).is_err() {
            return Err(X509Error::CrlSignature { issuer: issuer.subject() });
        }
        links.0.insert(link);
    }
    if at < crl.from || at > crl.to {
        let Crl { from, to, .. } = *crl;
        return Err(X509Error::CrlValidity { issuer: issuer.subject(), from, to, at });
    }
    Ok(())
}

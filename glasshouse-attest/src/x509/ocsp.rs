//! Answers of OCSP responders (RFC 6960), as they were stapled to a bundle: without a nonce, with an end.
//!
//! `x509-ocsp` is of the `der` generation before this workspace's (its release 0.2 reads `x509-cert` 0.2); the few
//! structures are read here with the same strict DER reader as certificates.

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::transcript::{sha256, sha384};
use p384::ecdsa::Signature;
use p384::ecdsa::signature::Verifier as _;
use x509_cert::der::Encode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::ocsp_der::{Parts, Single, Status, basic_response, response_data};
use super::{Certificate, Crl, VerifiedLinks, X509Error, is_ecdsa_sha384};

/// An answer with its responder's certificate has some 2 KiB.
const MAX_DER: usize = 64 * 1024;

const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

/// A responder's answer about one or more certificates, parsed and not yet verified.
#[derive(Clone, Debug)]
pub struct OcspAnswer {
    sha256: Digest32,
    tbs_der: Vec<u8>,
    signature: Signature,
    /// Of the responder, where it calls itself by name.
    name: Option<Vec<u8>>,
    certificates: Vec<Vec<u8>>,
    about: Vec<Single>,
}

impl OcspAnswer {
    /// Parses an `OCSPResponse` in DER.
    ///
    /// # Errors
    /// [`X509Error::OcspMalformed`], also for an answer that is an error, or that does not say until when it counts.
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let bad = |part| X509Error::OcspMalformed { part };
        if der.len() > MAX_DER {
            return Err(bad("longer than 64 KiB"));
        }
        let basic =
            basic_response(der).map_err(|_| bad("OCSPResponse"))?.ok_or(bad("an error instead of an answer"))?;
        let parts = Parts::read(basic).map_err(|_| bad("BasicOCSPResponse"))?;
        if !is_ecdsa_sha384(&parts.algorithm) {
            return Err(bad("an algorithm other than ECDSA P-384 with SHA-384"));
        }
        let signature = parts.signature.as_bytes().and_then(|der| Signature::from_der(der).ok());
        let signature = signature.ok_or(bad("signature"))?;
        let (name, about) = response_data(parts.tbs_der).map_err(|_| bad("ResponseData"))?;
        let about = about.into_iter().collect::<Option<Vec<_>>>().ok_or(bad("no nextUpdate"))?;
        if about.iter().any(|single| ![SHA256, SHA384].contains(&single.algorithm)) {
            return Err(bad("certificates named by another digest than SHA-256 or SHA-384"));
        }
        let (tbs_der, certificates) = (parts.tbs_der.to_vec(), parts.certificates);
        Ok(Self { sha256: sha256(der), tbs_der, signature, name, certificates, about })
    }

    /// Until when all that it says counts (the earliest `nextUpdate`).
    pub fn until(&self) -> Option<UnixMillis> {
        self.about.iter().map(|single| single.to).min()
    }

    /// Whether the issuer of the certificates that it is about vouches for whoever signed it: the issuer itself, or the
    /// holder of a certificate that the issuer gave out for signing answers (RFC 6960 section 4.2.2.2), which is valid and
    /// in none of the issuer's lists.
    fn check_signer(&self, issuer: &Certificate, lists: &[&Crl], at: UnixMillis) -> Result<(), X509Error> {
        let signed = |by: &Certificate| {
            let named = self.name.is_none() || self.name == by.tbs.subject().to_der().ok();
            named && by.key.verify(&self.tbs_der, &self.signature).is_ok()
        };
        if issuer.usage.as_ref().is_some_and(|usage| usage.digital_signature()) && signed(issuer) {
            return Ok(());
        }
        let responders = self.certificates.iter().filter_map(|der| Certificate::responder(der).ok());
        let found =
            responders.filter(may_answer).find(|one| one.names_issuer(issuer) && one.issued_by(issuer) && signed(one));
        let responder = found.ok_or_else(|| X509Error::OcspSignature { issuer: issuer.subject() })?;
        let (subject, (from, to)) = (responder.subject(), responder.validity());
        if at < from || at > to {
            return Err(X509Error::OcspValidity { subject, from, to, at });
        }
        if lists.iter().any(|list| list.serials.contains(responder.serial())) {
            return Err(X509Error::Revoked { subject });
        }
        Ok(())
    }
}

/// Looks a certificate up in the answers that are about it; those about others are passed over. `lists` are the issuer's,
/// verified. Returns whether there was an answer: then it says that the certificate is good.
pub(super) fn check(
    (certificate, issuer): (&Certificate, &Certificate),
    answers: &[OcspAnswer],
    lists: &[&Crl],
    at: UnixMillis,
    links: &mut VerifiedLinks,
) -> Result<bool, X509Error> {
    let about = |answer: &OcspAnswer| {
        answer.about.iter().filter(|single| single.is_about(certificate, issuer)).cloned().collect::<Vec<_>>()
    };
    let mut answered = false;
    for (answer, singles) in answers.iter().map(|answer| (answer, about(answer))).filter(|(_, all)| !all.is_empty()) {
        answered = true;
        let link = [answer.sha256, certificate.sha256()];
        if links.0.contains(&link) {
            continue;
        }
        answer.check_signer(issuer, lists, at)?;
        for Single { status, from, to, .. } in singles {
            let subject = certificate.subject();
            if at < from || at > to {
                return Err(X509Error::OcspValidity { subject, from, to, at });
            }
            match status {
                Status::Good => {}
                Status::Revoked => return Err(X509Error::Revoked { subject }),
                Status::Unknown => return Err(X509Error::OcspUnknown { subject }),
            }
        }
        links.0.insert(link);
    }
    Ok(answered)
}

/// A request for an answer about one certificate, DER, without a nonce so that the answer can be kept.
#[cfg(feature = "fetch")]
pub(crate) fn request(certificate: &Certificate, issuer: &Certificate) -> Option<Vec<u8>> {
    use x509_cert::der::asn1::{Any, Null, OctetString};
    use x509_cert::spki::AlgorithmIdentifierOwned;
    let [name, key] = identity(issuer)?;
    let algorithm = AlgorithmIdentifierOwned { oid: SHA384, parameters: Some(Null.into()) };
    let parts = [
        algorithm.to_der().ok()?,
        OctetString::new(sha384(name).as_bytes().to_vec()).ok()?.to_der().ok()?,
        OctetString::new(sha384(key).as_bytes().to_vec()).ok()?.to_der().ok()?,
        certificate.tbs.serial_number().to_der().ok()?,
    ];
    // CertID, Request, requestList, TBSRequest, OCSPRequest.
    (0..5).try_fold(parts.concat(), |content, _| Any::new(x509_cert::der::Tag::Sequence, content).ok()?.to_der().ok())
}

/// Where a certificate says that its issuer answers (RFC 5280 section 4.2.2.1).
pub(crate) fn names_responder(certificate: &Certificate) -> bool {
    use x509_cert::ext::pkix::AuthorityInfoAccessSyntax;
    const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
    let access = certificate.tbs.get_extension::<AuthorityInfoAccessSyntax>().ok().flatten();
    access.is_some_and(|(_, access)| access.0.iter().any(|one| one.access_method == OCSP))
}

impl Single {
    fn is_about(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        let Some([name, key]) = identity(issuer) else { return false };
        let digest = |bytes: &[u8]| match self.algorithm {
            SHA256 => sha256(bytes).as_bytes().to_vec(),
            // The other one that is parsed.
            _ => sha384(bytes).as_bytes().to_vec(),
        };
        self.serial == certificate.serial() && self.issuer_name == digest(&name) && self.issuer_key == digest(&key)
    }
}

/// What an answer names an issuer by: the DER of its name, and its key's bits.
fn identity(issuer: &Certificate) -> Option<[Vec<u8>; 2]> {
    let key = issuer.tbs.subject_public_key_info().subject_public_key.as_bytes()?.to_vec();
    Some([issuer.tbs.subject().to_der().ok()?, key])
}

/// Whether a certificate was given out for signing answers, and for nothing that an authority does.
fn may_answer(certificate: &Certificate) -> bool {
    let purposes = certificate.tbs.get_extension::<ExtendedKeyUsage>().ok().flatten();
    let signs = certificate.usage.as_ref().is_none_or(|usage| usage.digital_signature());
    let is_ca = certificate.basic.as_ref().is_some_and(|basic| basic.ca);
    signs && !is_ca && purposes.is_some_and(|(_, purposes)| purposes.0.contains(&OCSP_SIGNING))
}

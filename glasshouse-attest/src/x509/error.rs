use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Digest32;

/// Why a certificate, a chain or a revocation list was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum X509Error {
    /// The PEM text is not a plain list of certificates.
    #[error("the PEM chain is malformed near line {line}; pass CERTIFICATE blocks, leaf first, and nothing else")]
    Pem {
        /// One-based.
        line: usize,
    },
    /// A certificate is not the DER of RFC 5280.
    #[error("certificate {position} of the chain is not DER as in RFC 5280: {part}")]
    Malformed {
        /// Zero-based, leaf first.
        position: usize,
        /// The part that does not decode.
        part: &'static str,
    },
    /// A certificate uses an algorithm other than ECDSA P-384 with SHA-384.
    #[error("certificate {position} of the chain uses another algorithm than ECDSA P-384 with SHA-384")]
    Algorithm {
        /// Zero-based, leaf first.
        position: usize,
    },
    /// The chain has another number of certificates.
    #[error("the chain has {seen} certificates instead of {expected}")]
    Length {
        /// What is accepted.
        expected: &'static str,
        /// What is there.
        seen: usize,
    },
    /// A certificate does not name the next one as its issuer.
    #[error("\"{subject}\" was not issued by the certificate that follows it")]
    Issuer {
        /// Common name of the subject.
        subject: String,
    },
    /// A certificate's signature does not verify with the next one's key.
    #[error("the signature of \"{subject}\" does not verify with its issuer's key")]
    Signature {
        /// Common name of the subject.
        subject: String,
    },
    /// A certificate is used for what it was not issued for.
    #[error("\"{subject}\" may not be used as {role}")]
    Usage {
        /// Common name of the subject.
        subject: String,
        /// `a leaf`, `an issuer` or `an issuer this far from the leaf`.
        role: &'static str,
    },
    /// A certificate carries a critical extension that is not understood, or one extension twice.
    #[error("\"{subject}\" has the extension {oid}, which is critical and unknown, or there twice")]
    Extension {
        /// Common name of the subject.
        subject: String,
        /// The extension.
        oid: String,
    },
    /// The chain does not end at a pinned root.
    #[error("the chain ends at a certificate with SHA-256 {sha256}, which is not a pinned root")]
    Root {
        /// SHA-256 of its DER.
        sha256: Digest32,
    },
    /// A certificate is not valid at the given time.
    #[error("\"{subject}\" is valid from {from} to {to}, not at {at}")]
    Validity {
        /// Common name of the subject.
        subject: String,
        /// `notBefore`.
        from: UnixMillis,
        /// `notAfter`.
        to: UnixMillis,
        /// The time asked for.
        at: UnixMillis,
    },
    /// A revocation list is not the DER of RFC 5280, or not a complete list.
    #[error("a revocation list is not a complete one as in RFC 5280: {part}")]
    CrlMalformed {
        /// The part that does not decode or is not understood.
        part: &'static str,
    },
    /// A revocation list's signature does not verify with its issuer's key, or the issuer may sign none.
    #[error("the revocation list of \"{issuer}\" is not signed by it")]
    CrlSignature {
        /// Common name of the issuer.
        issuer: String,
    },
    /// A revocation list is too old or from the future.
    #[error("the revocation list of \"{issuer}\" is for {from} to {to}, not for {at}")]
    CrlValidity {
        /// Common name of the issuer.
        issuer: String,
        /// `thisUpdate`.
        from: UnixMillis,
        /// `nextUpdate`.
        to: UnixMillis,
        /// The time asked for.
        at: UnixMillis,
    },
    /// A revocation list that is needed was not passed.
    #[error("there is neither a revocation list of \"{issuer}\" nor an OCSP answer about what it issued")]
    CrlMissing {
        /// Common name of the issuer.
        issuer: String,
    },
    /// An OCSP answer is not the DER of RFC 6960, or not one that can be kept.
    #[error("an OCSP answer is not one as in RFC 6960 that can be kept: {part}")]
    OcspMalformed {
        /// The part that does not decode or is not understood.
        part: &'static str,
    },
    /// An OCSP answer is not signed by the issuer of the certificate that it is about, nor by whom it named for that.
    #[error("the OCSP answer about a certificate of \"{issuer}\" is signed by nobody whom that named for it")]
    OcspSignature {
        /// Common name of the issuer.
        issuer: String,
    },
    /// An OCSP answer, or its responder's certificate, is too old or from the future.
    #[error("the OCSP answer about \"{subject}\", or of it, is for {from} to {to}, not for {at}")]
    OcspValidity {
        /// Common name of the certificate that it is about, or of the responder.
        subject: String,
        /// `thisUpdate` or `notBefore`.
        from: UnixMillis,
        /// `nextUpdate` or `notAfter`.
        to: UnixMillis,
        /// The time asked for.
        at: UnixMillis,
    },
    /// The responder does not know a certificate.
    #[error("the issuer's OCSP responder does not know \"{subject}\"")]
    OcspUnknown {
        /// Common name of the subject.
        subject: String,
    },
    /// A certificate is revoked.
    #[error("\"{subject}\" is revoked by its issuer")]
    Revoked {
        /// Common name of the subject.
        subject: String,
    },
}

//! Codes of NVIDIA's verifier: the names of its checks, in the order in which they run.

use glasshouse_core::refusal::{Code, Refusal};

use crate::codes::codes;
use crate::x509::X509Error;

codes! {
    /// The report is not signed by the leaf certificate's key.
    SIGNATURE = "signature", "the report was changed or cut, or it belongs to another chain";
    /// The chain does not lead to the pinned root, or cannot be read.
    CHAIN = "chain", "pass the device's own chain, leaf first, root included, as the driver gives it";
    /// A certificate of the device's chain is not valid at the time of appraisal.
    CERTIFICATE_VALIDITY = "certificate-validity", "check the clock that was passed in";
    /// A certificate of the device's chain is revoked.
    REVOKED = "revoked", "do not use this device until NVIDIA says why";
    /// A revocation list cannot be used, or neither a list nor an OCSP answer was passed where the policy needs one.
    CRL = "crl", "fetch the revocation lists again from NVIDIA's service; about signers of manifests most is in OCSP answers only";
    /// An OCSP answer cannot be used, or its responder does not know the certificate.
    OCSP = "ocsp", "fetch the OCSP answers again from NVIDIA's service, or leave them out and rely on its lists";
    /// The signed report is not one that this verifier understands.
    REPORT_MALFORMED = "report-malformed", "ask for all measurements in SPDM 1.1, or update this verifier";
    /// The report answers another nonce.
    NONCE = "nonce", "the report was made for another session, machine or request; ask for a fresh one";
    /// The firmware id in the report and in the leaf certificate differ, or one is missing.
    FWID = "fwid", "update the device's firmware; a report without it needs allow_missing_fwid";
    /// The report is of another kind of device than it was passed as.
    DEVICE_KIND = "device-kind", "pass GPUs as GPUs and switches as switches";
    /// A reference manifest's signature does not verify, or the document is not one that can be verified.
    RIM_SIGNATURE = "rim-signature", "fetch the manifest again from NVIDIA's service";
    /// A reference manifest's content is not what was signed.
    RIM_DIGEST = "rim-digest", "fetch the manifest again from NVIDIA's service";
    /// A reference manifest's signer does not lead to the pinned root.
    RIM_CHAIN = "rim-chain", "only manifests under NVIDIA's CoRIM root count";
    /// A certificate of a reference manifest is not valid at the time of appraisal.
    RIM_VALIDITY = "rim-validity", "fetch the manifest again: NVIDIA signs it anew before its certificate ends";
    /// A certificate of a reference manifest's signer is revoked.
    RIM_REVOKED = "rim-revoked", "fetch the manifest again from NVIDIA's service";
    /// A signed reference manifest is not one that this verifier understands.
    RIM_FORMAT = "rim-format", "update this verifier";
    /// A reference manifest is for another driver, VBIOS, chip or kind of device.
    RIM_VERSION = "rim-version", "pass the manifests of the versions that the report names";
    /// A reference manifest that is needed was not passed.
    RIM_MISSING = "rim-missing", "pass the manifests of the versions that the report names";
    /// A measurement is not the reference value.
    MEASUREMENT = "measurement", "the device runs firmware or a driver that NVIDIA did not sign for this version";
    /// The driver or the VBIOS is older than the policy's floor.
    TCB = "tcb", "update the driver or the VBIOS";
    /// The device is in a mode that the policy does not allow, or devices of one machine are in different modes.
    FEATURE = "feature-flag", "set the confidential-computing mode that the policy names, the same on every GPU";
    /// One device was passed twice.
    DUPLICATE_DEVICE = "duplicate-device", "each device attests once for one nonce";
    /// The serial number beside the evidence is not the leaf certificate's.
    DEVICE_SERIAL = "device-serial", "the evidence was put together from several devices";
    /// GPUs in protected-PCIe mode came without the switches that carry their traffic in the clear.
    SWITCH_MISSING = "switch-missing", "attest the switches too: this attestor cannot, one of your own can; or boot the GPUs in another mode";
}

/// A refusal over a revocation list or an OCSP answer, or over what one says.
pub(super) fn refuse_revoked(revoked: Code, error: X509Error) -> Refusal {
    match error {
        X509Error::Revoked { .. } => refuse(revoked, "certificates that are not revoked", error),
        X509Error::OcspMalformed { .. }
        | X509Error::OcspSignature { .. }
        | X509Error::OcspValidity { .. }
        | X509Error::OcspUnknown { .. } => refuse(OCSP, "OCSP answers of this time, signed for their issuers", error),
        _ => refuse(CRL, "revocation lists of this time, signed by their issuers", error),
    }
}

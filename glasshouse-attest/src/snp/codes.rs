//! Codes of the SEV-SNP verifier: the names of its checks, in the order in which they run.

use crate::codes::codes;

codes! {
    /// The bytes are not a report of a version that this verifier understands.
    REPORT_MALFORMED = "report-malformed", "pass the 1184 bytes that the guest device returned, or update this verifier";
    /// A certificate cannot be read.
    CERTIFICATE_MALFORMED = "certificate-malformed", "pass the VCEK or VLEK as AMD's key service returns it, in DER or PEM";
    /// The report is not signed by the VCEK's or VLEK's key.
    SIGNATURE = "signature", "the report was changed or cut, or it belongs to another certificate";
    /// The VCEK or VLEK does not lead to a pinned root.
    CHAIN = "chain", "only certificates under AMD's ARK-Milan, ARK-Genoa and ARK-Turin count";
    /// A certificate of the chain is not valid at the time of appraisal.
    CERTIFICATE_VALIDITY = "certificate-validity", "check the clock that was passed in, and fetch the VCEK again";
    /// A certificate of the chain is revoked.
    REVOKED = "revoked", "AMD no longer vouches for this issuer; use another platform";
    /// A revocation list cannot be used, or one that the policy needs was not passed.
    CRL = "crl", "fetch AMD's revocation list and chain of this product again";
    /// The chain is of another product than the report's processor.
    PRODUCT = "product", "pass the VCEK of the processor that made the report";
    /// The report does not carry the expected report data.
    REPORT_DATA = "report-data", "the report was made for another session, key or GPU; ask for a fresh one";
    /// The certificate is not of the chip that the report names.
    CHIP_ID = "chip-id", "pass the VCEK of the processor that made the report";
    /// The report was asked for at another privilege level than the policy's.
    VMPL = "vmpl", "ask for the report at the privilege level that the policy names";
    /// The launch measurement is not a reference value.
    MEASUREMENT = "measurement", "launch the guest that was measured, or add its measurement to the policy";
    /// The TCB of report and certificate differ, or it is below the policy's floor.
    TCB = "tcb", "update the platform's firmware, and fetch the VCEK of its reported TCB";
    /// The guest's policy allows debugging.
    DEBUG = "debug", "launch the guest with a policy that forbids debugging";
    /// The guest's policy allows what the verifier's policy does not: a migration agent.
    MIGRATION = "migration", "launch the guest with a policy that forbids a migration agent";
    /// The guest's policy or the platform's state lacks what the verifier's policy asks for.
    GUEST_POLICY = "guest-policy", "launch the guest with the policy bits that the verifier's policy asks for";
}

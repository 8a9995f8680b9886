//! Codes of what lies between the parts of an appraisal; the parts have codes of their own.

use crate::codes::codes;

codes! {
    /// There is no collateral for this platform, processor or issuer.
    COLLATERAL_MISSING = "collateral-missing", "fetch the collateral of this platform into the bundle";
    /// The table of certificates beside an SEV-SNP report cannot be read.
    CERTIFICATE_TABLE = "certificate-table", "pass the table as the guest device gives it, or none and the VCEK as collateral";
    /// A genuine quote whose measurements are not the policy's.
    NOT_MEASURED = "not-measured", "give reference values that cover kernel, initrd and root file system";
    /// The evidence holds a token that the policy does not take.
    TOKEN_KIND = "token-kind", "say what is asked of tokens in the policy, or attest without them";
    /// The policy asks for a token, and there is none.
    TOKEN_MISSING = "token-missing", "let the runtime ask NVIDIA's service for a token, or do not require one";
    /// The policy asks for confidential GPUs, and none attested.
    GPU_MISSING = "gpu-missing", "run on a machine whose GPUs are in confidential-computing mode; the allocation's log names those that are not";
    /// Another number of GPUs or switches attested than the policy says.
    DEVICE_COUNT = "device-count", "attest every GPU and switch of the machine, or correct the number in the policy";
    /// A genuine device that is not one of the policy's.
    DEVICE_NOT_LISTED = "device-not-listed", "another machine's device answered, or the policy does not list this one";
}

//! Codes of the verifier of Intel's quotes: the names of its checks, in the order in which they run.

use crate::codes::codes;

codes! {
    /// The bytes are longer than any quote.
    QUOTE_MALFORMED = "quote-malformed", "pass the quote's bytes whole, with nothing but zeros behind them";
    /// The quote is of the other kind of TEE.
    TEE_TYPE = "tee-type", "pass TDX quotes as TDX and SGX quotes as SGX";
    /// The collateral cannot be read.
    COLLATERAL_MALFORMED = "collateral-malformed", "fetch the quote's collateral again";
    /// The bytes are no whole quote, or a signature in it does not verify: the attestation key's over the report, or the platform's over that key.
    SIGNATURE = "signature", "the quote was changed or cut, or it was put together from several";
    /// A certificate chain does not lead to Intel's root.
    CHAIN = "chain", "only quotes and collateral under Intel's SGX root count";
    /// A certificate was revoked.
    REVOKED = "revoked", "the platform's or the signer's key is no longer trusted";
    /// A certificate of the quote is not valid at the time of appraisal.
    CERTIFICATE_VALIDITY = "certificate-validity", "check the clock that was passed in";
    /// A part of the collateral is over at the time of appraisal.
    COLLATERAL_EXPIRED = "collateral-expired", "fetch the quote's collateral again";
    /// A part of the collateral is of the future at the time of appraisal.
    COLLATERAL_NOT_YET_VALID = "collateral-not-yet-valid", "check the clock that was passed in";
    /// The collateral is not signed by Intel, or not for this platform.
    COLLATERAL = "collateral", "fetch the collateral of this quote's platform";
    /// The quote does not carry the expected report data.
    REPORT_DATA = "report-data", "the quote was made for another session, key or GPU; ask for a fresh one";
    /// The launch measurements are not reference values.
    MEASUREMENT = "measurement", "launch what was measured, or add its measurements to the policy";
    /// The platform's TCB is not one that the policy accepts.
    TCB = "tcb", "update the platform's firmware, or allow its status and advisories by name";
    /// The TD's attributes let others into it: migration, service TDs, reserved bits.
    ATTRIBUTES = "attributes", "launch the TD without migration and service TDs, with SEPT_VE_DISABLE";
    /// The TD or enclave can be debugged.
    DEBUG = "debug", "launch it with debugging and profiling off";
}

//! Codes of the token verifiers: the names of their checks, in the order in which they run. A token that is no strict JWS
//! is refused with the codes of [`jws`](crate::jws).

use crate::codes::codes;

codes! {
    /// The document is not the one that the service returns.
    MALFORMED = "token-malformed", "pass the service's answer whole and unchanged";
    /// The key set cannot be read.
    KEYS_MALFORMED = "jwks-malformed", "pass the issuer's JWKS as it is published";
    /// A signature does not verify.
    SIGNATURE = "signature", "the token was changed, or signed with another key";
    /// Another service issued the token.
    ISSUER = "issuer", "name the service's issuer in the policy, and use its keys";
    /// The token is over.
    EXPIRED = "expired", "ask the service for a fresh token";
    /// The token's time has not come.
    NOT_YET_VALID = "not-yet-valid", "check the clock that was passed in";
    /// The token is for someone else.
    AUDIENCE = "audience", "ask for a token with this session's audience";
    /// The token answers another nonce, or none.
    NONCE = "nonce", "the token was made for another session; ask for a fresh one";
    /// A submodule's token is not the one whose digest was signed, or one is missing.
    SUBMODULE_DIGEST = "submodule-digest", "the bundle was put together from several; ask for a fresh one";
    /// The service does not vouch for the device.
    RESULT = "overall-result", "the service refused the device's evidence; ask it why";
    /// One device is in the bundle twice.
    DUPLICATE_DEVICE = "duplicate-device", "each device attests once for one nonce";
    /// The device or guest can be debugged.
    DEBUG = "debug", "run a production image, with debugging off";
    /// The guest booted without secure boot.
    SECURE_BOOT = "secure-boot", "boot the guest with secure boot";
    /// The token is of other software than Confidential Space.
    SOFTWARE = "software", "run a Confidential Space image";
    /// What was measured is not a reference value.
    MEASUREMENT = "measurement", "run the image that was measured, or add its digest to the policy";
    /// The Confidential Space image is older than the policy's floor, or out of support.
    TCB = "tcb", "run a newer Confidential Space image";
    /// The hardware is not of a kind that the policy names.
    HARDWARE = "hardware", "run on a confidential VM of a kind that the policy names";
}

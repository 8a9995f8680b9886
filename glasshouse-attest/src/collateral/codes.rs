//! Codes of bundles of collateral, in the order of the checks.

use crate::codes::codes;

codes! {
    /// The bytes are not a bundle.
    MALFORMED = "bundle-malformed", "pass the file that making the bundle wrote, whole and unchanged";
    /// The bundle is not signed by the key that the owner trusts.
    SIGNATURE = "bundle-signature", "use the public key of whoever makes your bundles, from themselves";
    /// The bundle is over at the time of appraisal, or of the future.
    EXPIRED = "bundle-expired", "fetch a new bundle, or check the clock that was passed in";
    /// A newer bundle was seen before.
    ROLLBACK = "collateral-rollback", "use the newest bundle; somebody may want an old revocation list believed";
    /// Another bundle of this version was seen before.
    FORK = "collateral-fork", "two bundles claim one version: find out who signs with this key";
}

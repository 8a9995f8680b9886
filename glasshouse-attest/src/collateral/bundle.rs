use std::collections::BTreeMap;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Blob, Digest48, PublicKey32, Signature64};
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::refusal::Refusal;
use glasshouse_core::transcript::{Transcript, sha384};
use serde::{Deserialize, Serialize};

use super::codes::{self, refuse};
use crate::hardware::{AmdCollateral, HardwareCollateral, NvidiaFiles};
use crate::json::{self, Limits};
use crate::tdx::Collateral;
use crate::tokens::Jwks;

/// The only schema so far.
pub const BUNDLE_SCHEMA: &str = "glasshouse-collateral/1";

/// A few dozen manifests of 30 KiB each, in base64 twice.
const LIMITS: Limits = Limits { bytes: 32 * 1024 * 1024, depth: 8 };

/// What the vendors published at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// [`BUNDLE_SCHEMA`].
    pub schema: String,
    /// One more than the last: stores refuse less than they have seen.
    pub version: u64,
    /// When it was made.
    pub issued_at: UnixMillis,
    /// It counts until then; the documents in it have times of their own.
    pub not_after: UnixMillis,
    /// Intel's collateral, of one platform each, in the JSON form of [`Collateral`].
    #[serde(default)]
    pub intel: Vec<Blob>,
    /// AMD's certificates and lists.
    #[serde(default)]
    pub amd: AmdFiles,
    /// NVIDIA's manifests and lists.
    #[serde(default)]
    pub nvidia: NvidiaDocuments,
    /// Key sets (JSON) by issuer.
    #[serde(default)]
    pub jwks: BTreeMap<String, Blob>,
}

/// AMD's, in DER.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmdFiles {
    /// VCEKs and VLEKs by [`vek_key`](crate::hardware::vek_key).
    pub veks: BTreeMap<String, Blob>,
    /// ASKs, ASVKs and ARKs.
    pub chains: Vec<Blob>,
    /// Revocation lists.
    pub crls: Vec<Blob>,
}

/// NVIDIA's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvidiaDocuments {
    /// Manifests (XML) by their names at NVIDIA's service.
    pub rims: BTreeMap<String, Blob>,
    /// Revocation lists, DER.
    pub crls: Vec<Blob>,
    /// OCSP answers about certificates of devices and of manifests' signers, DER.
    pub ocsp: Vec<Blob>,
}

/// A bundle's bytes and the signature over them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: Blob,
    signature: Signature64,
}

impl Bundle {
    /// An empty one.
    pub fn new(version: u64, issued_at: UnixMillis, not_after: UnixMillis) -> Self {
        Self {
            schema: BUNDLE_SCHEMA.to_owned(),
            version,
            issued_at,
            not_after,
            intel: Vec::new(),
            amd: AmdFiles::default(),
            nvidia: NvidiaDocuments::default(),
            jwks: BTreeMap::new(),
        }
    }

    /// The file: payload and signature, Ed25519 over `"gh/collateral/1"` and LP of the payload.
    pub fn sign(&self, key: &SigningSecret) -> Vec<u8> {
        // Strings, numbers and maps with text keys: they always have a JSON form.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let signature = key.sign(&signed_bytes(&payload));
        serde_json::to_vec(&Envelope { payload: Blob(payload), signature }).unwrap_or_default()
    }

    /// Verifies a file under a key at a time. Whether a newer one was seen is the store's to say.
    ///
    /// # Errors
    /// [`codes::MALFORMED`], [`codes::SIGNATURE`] or [`codes::EXPIRED`].
    pub fn open(file: &[u8], key: &PublicKey32, at: UnixMillis) -> Result<Self, Refusal> {
        Self::open_signed(file, key, at).map(|(bundle, _)| bundle)
    }

    /// The same, and SHA-384 of what was signed: whoever has the file can write the envelope around it in other ways.
    pub(super) fn open_signed(file: &[u8], key: &PublicKey32, at: UnixMillis) -> Result<(Self, Digest48), Refusal> {
        let malformed = |seen: String| refuse(codes::MALFORMED, "a signed bundle of collateral", seen);
        json::check(file, LIMITS).map_err(|e| malformed(e.to_string()))?;
        let Envelope { payload, signature } =
            serde_json::from_slice(file).map_err(|_| malformed("other members".to_owned()))?;
        if !verifies(key, &signed_bytes(&payload.0), &signature) {
            return Err(refuse(codes::SIGNATURE, format_args!("a bundle signed by {key}"), "another signature"));
        }
        json::check(&payload.0, LIMITS).map_err(|e| malformed(e.to_string()))?;
        let bundle: Self = serde_json::from_slice(&payload.0).map_err(|_| malformed("other contents".to_owned()))?;
        if bundle.schema != BUNDLE_SCHEMA {
            return Err(malformed(format!("the schema {:?}", bundle.schema)));
        }
        if at < bundle.issued_at || at > bundle.not_after {
            let seen = format!("one for {} to {}", bundle.issued_at, bundle.not_after);
            return Err(refuse(codes::EXPIRED, format_args!("a bundle for {at}"), seen));
        }
        Ok((bundle, sha384(&payload.0)))
    }

    /// The collateral as the verifier takes it.
    ///
    /// # Errors
    /// The refusal of a part that cannot be read.
    pub fn collateral(&self) -> Result<HardwareCollateral, Refusal> {
        let plain = |blobs: &[Blob]| blobs.iter().map(|blob| blob.0.clone()).collect();
        let named = |blobs: &BTreeMap<String, Blob>| blobs.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect();
        Ok(HardwareCollateral {
            intel: self.intel.iter().map(|json| Collateral::parse(&json.0)).collect::<Result<_, _>>()?,
            amd: AmdCollateral {
                veks: named(&self.amd.veks),
                chains: plain(&self.amd.chains),
                crls: plain(&self.amd.crls),
            },
            nvidia: NvidiaFiles {
                rims: named(&self.nvidia.rims),
                crls: plain(&self.nvidia.crls),
                ocsp: plain(&self.nvidia.ocsp),
            },
            jwks: self
                .jwks
                .iter()
                .map(|(issuer, json)| Ok((issuer.clone(), Jwks::parse(&json.0)?)))
                .collect::<Result<_, Refusal>>()?,
        })
    }
}

fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    Transcript::new("gh/collateral/1").lp(payload).into_bytes()
}

fn verifies(key: &PublicKey32, bytes: &[u8], signature: &Signature64) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes())
        .is_ok_and(|key| key.verify_strict(bytes, &signature).is_ok())
}

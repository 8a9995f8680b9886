use std::collections::{BTreeMap, BTreeSet};

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Digest32, Nonce32};
use glasshouse_core::refusal::{Refusal, one_line};
use glasshouse_core::traits::{ClaimSource, LabelledClaim};
use glasshouse_core::transcript::sha256;
use serde::{Deserialize, Serialize};

use super::codes::{self, refuse};
use super::jwks::Jwks;
use super::times::Times;
use crate::json::{self, Limits};

const LIMITS: Limits = Limits { bytes: 1024 * 1024, depth: 8 };

/// How the service says that all measurements are reference values: in its claims of version 3, and of version 2.
const MEASURED: [&str; 2] = ["success", "comparison-successful"];

/// What is asked of a bundle beyond a genuine one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NrasPolicy {
    /// The services whose tokens are accepted.
    pub issuers: Vec<String>,
    /// How far `nbf` and `iat` may lie ahead of the clock; in a session at most [`MAX_CLOCK_AHEAD_SECONDS`](super::MAX_CLOCK_AHEAD_SECONDS).
    pub max_clock_ahead_seconds: u32,
    /// Accepts devices that can be debugged.
    pub dangerous_allow_debug: bool,
}

impl Default for NrasPolicy {
    fn default() -> Self {
        let issuers = vec!["https://nras.attestation.nvidia.com".to_owned()];
        Self { issuers, max_clock_ahead_seconds: 60, dangerous_allow_debug: false }
    }
}

impl NrasPolicy {
    /// Every relaxation that is in force, by name, for the verdict.
    pub fn relaxations(&self) -> Vec<String> {
        let debug = self.dangerous_allow_debug.then(|| "dangerous_allow_debug".to_owned());
        let usual = Self::default().issuers;
        let others = self.issuers.iter().filter(|issuer| !usual.contains(issuer));
        let ahead = self.max_clock_ahead_seconds;
        let ahead =
            (ahead > Self::default().max_clock_ahead_seconds).then(|| format!("max_clock_ahead_seconds {ahead}"));
        others.map(|issuer| format!("issuers {}", one_line(issuer))).chain(debug).chain(ahead).collect()
    }
}

/// What NVIDIA's service says of one machine's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NrasClaims {
    /// Who says so.
    pub issuer: String,
    /// When.
    pub issued: UnixMillis,
    /// Device by device, under the bundle's names (`GPU-0`).
    pub devices: BTreeMap<String, NrasDevice>,
}

/// One device of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NrasDevice {
    /// The device's unique id, decimal.
    pub ueid: String,
    /// `GH100 A01 GSP BROM`.
    pub model: String,
    /// GPUs have one.
    pub driver_version: Option<String>,
    /// GPUs have one.
    pub vbios_version: Option<String>,
    /// SHA-256 of the device's token.
    pub token: Digest32,
}

impl NrasClaims {
    /// The claims in the form of an appraisal. The service compared the measurements, not this verifier: they are its
    /// word, and their text is the service's too, so that what does not belong in a line is replaced.
    pub fn labelled(&self) -> Vec<LabelledClaim> {
        let mut claims = Vec::new();
        let mut push = |name: String, value: &str| {
            let (name, value) = (one_line(&name), one_line(value));
            claims.push(LabelledClaim { name, value, source: ClaimSource::ProviderAsserted });
        };
        push("nras-issuer".to_owned(), &self.issuer);
        for (name, device) in &self.devices {
            let name = name.to_ascii_lowercase();
            push(format!("nras-{name}-model"), &device.model);
            push(format!("nras-{name}-ueid"), &device.ueid);
            for (what, version) in [("driver", &device.driver_version), ("vbios", &device.vbios_version)] {
                if let Some(version) = version {
                    push(format!("nras-{name}-{what}-version"), version);
                }
            }
        }
        claims
    }
}

/// Verifies a detached EAT bundle (RFC 9711 section 5) of NVIDIA's remote attestation service, as it was returned:
/// `[["JWT", token], {"GPU-0": token, …}]`.
///
/// Checked in this order: the bundle token's signature and key id, its issuer, times and nonce; that the digests it signs
/// are those of exactly the devices' tokens; the same of each device's token; the service's result; debugging.
///
/// # Errors
/// A refusal with a code of [`codes`] or [`jws`](crate::jws).
pub fn verify_nras(
    bundle: &[u8],
    keys: &Jwks,
    nonce: &Nonce32,
    policy: &NrasPolicy,
    at: UnixMillis,
) -> Result<NrasClaims, Refusal> {
    let malformed = |seen: String| refuse(codes::MALFORMED, "a detached EAT bundle", seen);
    json::check(bundle, LIMITS).map_err(|e| malformed(e.to_string()))?;
    let ((kind, token), devices): ((String, String), BTreeMap<String, String>) =
        serde_json::from_slice(bundle).map_err(|_| malformed("another form".to_owned()))?;
    if kind != "JWT" {
        return Err(malformed(format!("the type {kind:?}")));
    }
    let context = Context { keys, nonce, policy, at };
    let overall: Overall = context.verify(&token)?;
    check_digests(&overall.submods, &devices)?;
    let mut claims =
        NrasClaims { issuer: overall.common.iss, issued: overall.common.times.issued(), devices: BTreeMap::new() };
    let mut seen = BTreeSet::new();
    for (name, token) in devices {
        let device: Device = context.verify(&token)?;
        if device.common.iss != claims.issuer {
            return Err(refuse(codes::ISSUER, &claims.issuer, device.common.iss));
        }
        if !MEASURED.contains(&device.measres.as_str()) || !device.secboot {
            let result = format!("{name}: measres {:?}, secboot {}", device.measres, device.secboot);
            return Err(refuse(codes::RESULT, "measurements that match, secure boot", result));
        }
        if device.dbgstat != "disabled" && !policy.dangerous_allow_debug {
            return Err(refuse(codes::DEBUG, "dbgstat disabled", format_args!("{name}: {:?}", device.dbgstat)));
        }
        if !seen.insert(device.ueid.clone()) {
            return Err(refuse(codes::DUPLICATE_DEVICE, "distinct devices", format_args!("{name} again")));
        }
        claims.devices.insert(name, device.into_claims(&token));
    }
    if !overall.result || claims.devices.is_empty() {
        return Err(refuse(codes::RESULT, "an overall result of true, of at least one device", overall.result));
    }
    Ok(claims)
}

/// Exactly the devices whose digests were signed, each token by its digest.
fn check_digests(signed: &BTreeMap<String, Digest>, devices: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let refused = |seen: String| refuse(codes::SUBMODULE_DIGEST, "the devices' tokens whose digests were signed", seen);
    if let Some(name) = devices.keys().find(|name| !signed.contains_key(*name)) {
        return Err(refused(format!("{name:?}, which was not signed for")));
    }
    for (name, (form, (algorithm, digest))) in signed {
        if form != "DIGEST" || algorithm != "SHA-256" {
            return Err(refused(format!("{form:?} of {algorithm:?} for {name:?}")));
        }
        let token = devices.get(name).ok_or_else(|| refused(format!("no {name:?}")))?;
        if sha256(token).to_string() != *digest {
            return Err(refused(format!("another token for {name:?}")));
        }
    }
    Ok(())
}

struct Context<'a> {
    keys: &'a Jwks,
    nonce: &'a Nonce32,
    policy: &'a NrasPolicy,
    at: UnixMillis,
}

impl Context<'_> {
    fn verify<T: serde::de::DeserializeOwned + AsRef<Common>>(&self, token: &str) -> Result<T, Refusal> {
        let payload = self.keys.verify(token, "ES384", LIMITS)?;
        let claims: T = serde_json::from_slice(&payload)
            .map_err(|_| refuse(codes::MALFORMED, "the claims of NVIDIA's service", "others, or of other types"))?;
        let common = claims.as_ref();
        if !self.policy.issuers.contains(&common.iss) {
            return Err(refuse(codes::ISSUER, self.policy.issuers.join(" or "), &common.iss));
        }
        common.times.check(self.at, self.policy.max_clock_ahead_seconds)?;
        if !common.eat_nonce.eq_ignore_ascii_case(&self.nonce.to_string()) {
            return Err(refuse(codes::NONCE, self.nonce, &common.eat_nonce));
        }
        Ok(claims)
    }
}

#[derive(Deserialize)]
struct Common {
    iss: String,
    eat_nonce: String,
    #[serde(flatten)]
    times: Times,
}

/// `["DIGEST", ["SHA-256", hex]]`, RFC 9711 section 4.2.18.2.
type Digest = (String, (String, String));

#[derive(Deserialize)]
struct Overall {
    #[serde(flatten)]
    common: Common,
    #[serde(rename = "x-nvidia-overall-att-result")]
    result: bool,
    submods: BTreeMap<String, Digest>,
}

#[derive(Deserialize)]
struct Device {
    #[serde(flatten)]
    common: Common,
    measres: String,
    secboot: bool,
    dbgstat: String,
    ueid: String,
    hwmodel: String,
    #[serde(rename = "x-nvidia-gpu-driver-version")]
    driver_version: Option<String>,
    #[serde(rename = "x-nvidia-gpu-vbios-version")]
    vbios_version: Option<String>,
}

impl Device {
    fn into_claims(self, token: &str) -> NrasDevice {
        let Self { ueid, hwmodel: model, driver_version, vbios_version, .. } = self;
        NrasDevice { ueid, model, driver_version, vbios_version, token: sha256(token) }
    }
}

impl AsRef<Common> for Overall {
    fn as_ref(&self) -> &Common {
        &self.common
    }
}

impl AsRef<Common> for Device {
    fn as_ref(&self) -> &Common {
        &self.common
    }
}

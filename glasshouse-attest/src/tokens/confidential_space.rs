use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::refusal::{Refusal, one_line};
use glasshouse_core::traits::{ClaimSource, LabelledClaim};
use serde::{Deserialize, Serialize};

use super::codes::{self, refuse};
use super::jwks::Jwks;
use super::times::Times;
use crate::json::Limits;

const LIMITS: Limits = Limits { bytes: 64 * 1024, depth: 10 };

/// The hardware under a Confidential Space VM, by `hwmodel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Hardware {
    /// `GCP_AMD_SEV`: memory encryption whose measurement is Google's virtual TPM's, not the processor's. Never a
    /// `CpuTee`.
    AmdSev,
    /// `GCP_AMD_SEV_SNP`.
    AmdSevSnp,
    /// `GCP_INTEL_TDX`.
    IntelTdx,
}

impl Hardware {
    fn of(model: &str) -> Option<Self> {
        match model {
            "GCP_AMD_SEV" => Some(Self::AmdSev),
            "GCP_AMD_SEV_SNP" => Some(Self::AmdSevSnp),
            "GCP_INTEL_TDX" => Some(Self::IntelTdx),
            _ => None,
        }
    }
}

/// How far Google supports a Confidential Space image (`submods.confidential_space.support_attributes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Support {
    /// Not out of support.
    Usable,
    /// Supported and watched for vulnerabilities.
    Stable,
    /// The latest.
    Latest,
}

impl Support {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "USABLE",
            Self::Stable => "STABLE",
            Self::Latest => "LATEST",
        }
    }
}

/// What is asked of a token beyond a genuine one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfidentialSpacePolicy {
    /// The services whose tokens are accepted.
    pub issuers: Vec<String>,
    /// SHA-256 of the container images' manifests that are accepted.
    pub measurements: Vec<Digest32>,
    /// The kinds of hardware that are accepted; empty accepts all that are known.
    pub hardware: Vec<Hardware>,
    /// The least support of the Confidential Space image.
    pub minimum_support: Option<Support>,
    /// The oldest Confidential Space image, as `swversion` numbers it: 251001.
    pub minimum_version: Option<u64>,
    /// How far `nbf` and `iat` may lie ahead of the clock; in a session at most [`MAX_CLOCK_AHEAD_SECONDS`](super::MAX_CLOCK_AHEAD_SECONDS).
    pub max_clock_ahead_seconds: u32,
    /// Accepts debug images: their operator can read everything.
    pub dangerous_allow_debug: bool,
    /// Accepts any container image: it can then reach no assurance of a CPU TEE.
    pub dangerous_no_measurements: bool,
}

impl Default for ConfidentialSpacePolicy {
    fn default() -> Self {
        Self {
            issuers: vec!["https://confidentialcomputing.googleapis.com".to_owned()],
            measurements: Vec::new(),
            hardware: Vec::new(),
            minimum_support: None,
            minimum_version: None,
            max_clock_ahead_seconds: 60,
            dangerous_allow_debug: false,
            dangerous_no_measurements: false,
        }
    }
}

impl ConfidentialSpacePolicy {
    /// Every relaxation that is in force, by name, for the verdict.
    pub fn relaxations(&self) -> Vec<String> {
        let usual = Self::default().issuers;
        let others = self.issuers.iter().filter(|issuer| !usual.contains(issuer));
        let switches = [
            (self.dangerous_allow_debug, "dangerous_allow_debug"),
            (self.dangerous_no_measurements, "dangerous_no_measurements"),
        ];
        let switches = switches.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned());
        let ahead = self.max_clock_ahead_seconds;
        let ahead =
            (ahead > Self::default().max_clock_ahead_seconds).then(|| format!("max_clock_ahead_seconds {ahead}"));
        others.map(|issuer| format!("issuers {}", one_line(issuer))).chain(switches).chain(ahead).collect()
    }
}

/// What Google says of a Confidential Space VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfidentialSpaceClaims {
    /// When.
    pub issued: UnixMillis,
    /// The hardware.
    pub hardware: Hardware,
    /// Whether the image lets its operator debug it.
    pub debug: bool,
    /// SHA-256 of the container image's manifest.
    pub image_digest: Digest32,
    /// Whether that is a reference value of the policy.
    pub measured: bool,
    /// The Confidential Space image.
    pub version: Vec<String>,
}

impl ConfidentialSpaceClaims {
    /// Whether this is evidence of a `CpuTee`: hardware that measures the launch, a production image, and a container
    /// of the policy's.
    pub fn is_cpu_tee(&self) -> bool {
        self.measured && !self.debug && self.hardware != Hardware::AmdSev
    }

    /// The claims in the form of an appraisal. Google verified the hardware, not this verifier: they are its word.
    pub fn labelled(&self) -> Vec<LabelledClaim> {
        [
            ("hardware", format!("{:?}", self.hardware)),
            ("debug", self.debug.to_string()),
            ("image-digest", self.image_digest.to_string()),
            ("image-is-reference", self.measured.to_string()),
            ("version", one_line(&self.version.join(" "))),
        ]
        .into_iter()
        .map(|(name, value)| LabelledClaim {
            name: format!("confidential-space-{name}"),
            value,
            source: ClaimSource::ProviderAsserted,
        })
        .collect()
    }
}

/// Verifies a Google Confidential Space token. `nonce` is what the session asked for:
/// [`eat_nonce`](glasshouse_core::evidence::eat_nonce).
///
/// Checked in this order: signature and key id, issuer, times, audience, nonce, software, debugging, secure boot,
/// hardware, container image, version and support.
///
/// # Errors
/// A refusal with a code of [`codes`] or [`jws`](crate::jws).
pub fn verify_confidential_space(
    token: &str,
    keys: &Jwks,
    (audience, nonce): (&str, &str),
    policy: &ConfidentialSpacePolicy,
    at: UnixMillis,
) -> Result<ConfidentialSpaceClaims, Refusal> {
    let payload = keys.verify(token, "RS256", LIMITS)?;
    let malformed = |seen| refuse(codes::MALFORMED, "the claims of a Confidential Space token", seen);
    let token: Token = serde_json::from_slice(&payload).map_err(|_| malformed("others, or of other types"))?;
    if !policy.issuers.contains(&token.iss) {
        return Err(refuse(codes::ISSUER, policy.issuers.join(" or "), &token.iss));
    }
    token.times.check(at, policy.max_clock_ahead_seconds)?;
    if !token.aud.is(audience) {
        return Err(refuse(codes::AUDIENCE, format_args!("{audience:?}"), token.aud));
    }
    match token.eat_nonce {
        Some(seen) if seen.is(nonce) => {}
        Some(seen) => return Err(refuse(codes::NONCE, format_args!("{nonce:?}"), seen)),
        None => return Err(refuse(codes::NONCE, format_args!("{nonce:?}"), "none")),
    }
    if token.swname != "CONFIDENTIAL_SPACE" {
        return Err(refuse(codes::SOFTWARE, "swname CONFIDENTIAL_SPACE", format_args!("{:?}", token.swname)));
    }
    let debug = token.dbgstat != "disabled-since-boot";
    if debug && !policy.dangerous_allow_debug {
        return Err(refuse(codes::DEBUG, "dbgstat disabled-since-boot", format_args!("{:?}", token.dbgstat)));
    }
    if !token.secboot {
        return Err(refuse(codes::SECURE_BOOT, "secboot true", "false"));
    }
    let hardware = Hardware::of(&token.hwmodel).filter(|h| policy.hardware.is_empty() || policy.hardware.contains(h));
    let Some(hardware) = hardware else {
        let expected = format!("a known hwmodel, one of {:?} where not empty", policy.hardware);
        return Err(refuse(codes::HARDWARE, expected, format_args!("{:?}", token.hwmodel)));
    };
    let image = token.submods.container.image_digest;
    let image_digest = image.strip_prefix("sha256:").and_then(Digest32::from_hex);
    let image_digest = image_digest.ok_or_else(|| malformed("an image digest that is no sha256"))?;
    let measured = policy.measurements.contains(&image_digest);
    if !measured && !policy.dangerous_no_measurements {
        let expected = format!("one of {} reference images", policy.measurements.len());
        return Err(refuse(codes::MEASUREMENT, expected, image_digest));
    }
    check_version(policy, &token.swversion, &token.submods.confidential_space.support_attributes)?;
    Ok(ConfidentialSpaceClaims {
        issued: token.times.issued(),
        hardware,
        debug,
        image_digest,
        measured,
        version: token.swversion,
    })
}

fn check_version(policy: &ConfidentialSpacePolicy, version: &[String], support: &[String]) -> Result<(), Refusal> {
    if let Some(least) = policy.minimum_support
        && !support.iter().any(|attribute| attribute == least.as_str())
    {
        return Err(refuse(codes::TCB, format_args!("a {} image", least.as_str()), format_args!("{support:?}")));
    }
    let Some(floor) = policy.minimum_version else { return Ok(()) };
    let seen = match version {
        [only] => only.parse::<u64>().ok(),
        _ => None,
    };
    if seen.is_some_and(|seen| seen >= floor) {
        return Ok(());
    }
    Err(refuse(codes::TCB, format_args!("version {floor} or newer"), format_args!("{version:?}")))
}

/// Google adds claims over time; those that are not listed here are not looked at.
#[derive(Deserialize)]
struct Token {
    iss: String,
    aud: OneOrMore,
    #[serde(flatten)]
    times: Times,
    eat_nonce: Option<OneOrMore>,
    secboot: bool,
    hwmodel: String,
    swname: String,
    swversion: Vec<String>,
    dbgstat: String,
    submods: Submodules,
}

#[derive(Deserialize)]
struct Submodules {
    container: Container,
    #[serde(default)]
    confidential_space: Image,
}

#[derive(Deserialize)]
struct Container {
    image_digest: String,
}

#[derive(Default, Deserialize)]
struct Image {
    #[serde(default)]
    support_attributes: Vec<String>,
}

/// `aud` (RFC 7519 section 4.1.3) and `eat_nonce` (RFC 9711 section 4.1) are a string or a list of them. Only one value
/// is accepted: a token for two serves someone else as well.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn is(&self, expected: &str) -> bool {
        match self {
            Self::One(value) => value == expected,
            Self::More(values) => matches!(values.as_slice(), [value] if value == expected),
        }
    }
}

impl std::fmt::Display for OneOrMore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(value) => write!(f, "{value:?}"),
            Self::More(values) => write!(f, "{values:?}"),
        }
    }
}
